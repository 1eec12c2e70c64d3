//! Frames: one byte of kind, four bytes of body length (big-endian), the body (a protobuf message).
//!
//! [`FrameReader`] does no I/O. It says how many bytes it wants next and never wants a byte beyond its frame, so whatever
//! follows the last frame stays in the TLS stream for the application.

use std::fmt;

use prost::Message;

use crate::{Limits, Misbehaviour};

pub(crate) const HEADER_BYTES: usize = 5;

/// Room that a body gets before its first byte arrived; it grows only with bytes that did arrive.
const FIRST_ALLOCATION_BYTES: usize = 4 * 1024;

/// What a frame carries. The order of frames is fixed, so each side always knows the only kind that may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Evidence = 2,
    Verdict = 3,
}

impl Kind {
    fn body_bytes_max(self, limits: &Limits) -> u32 {
        match self {
            Self::Hello => Limits::HELLO_FRAME_BYTES_MAX,
            Self::Evidence => limits
                .evidence_frame_bytes
                .min(Limits::EVIDENCE_FRAME_BYTES_MAX),
            Self::Verdict => Limits::VERDICT_FRAME_BYTES_MAX,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hello => "Hello",
            Self::Evidence => "EvidenceFrame",
            Self::Verdict => "Verdict",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Encodes `message` as a frame; `None` when it is larger than its kind may be.
pub(crate) fn encode(kind: Kind, message: &impl Message, limits: &Limits) -> Option<Vec<u8>> {
    let body_bytes = u32::try_from(message.encoded_len()).ok()?;
    if body_bytes > kind.body_bytes_max(limits) {
        return None;
    }
    let mut frame = Vec::with_capacity(message.encoded_len().saturating_add(HEADER_BYTES));
    frame.push(kind as u8);
    frame.extend_from_slice(&body_bytes.to_be_bytes());
    frame.extend_from_slice(&message.encode_to_vec());
    Some(frame)
}

/// Reads one frame of a kind that is known in advance.
#[derive(Debug)]
pub(crate) struct FrameReader {
    expected: Kind,
    body_bytes_max: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Header(Vec<u8>),
    Body { bytes: Vec<u8>, length: usize },
}

/// What [`FrameReader::push`] made of the bytes.
#[derive(Debug)]
pub(crate) enum Progress {
    /// The frame is not complete yet.
    More(FrameReader),
    /// The frame's body.
    Complete(Vec<u8>),
}

impl FrameReader {
    pub(crate) fn new(expected: Kind, limits: &Limits) -> Self {
        Self {
            expected,
            body_bytes_max: expected.body_bytes_max(limits),
            state: State::Header(Vec::with_capacity(HEADER_BYTES)),
        }
    }

    /// How many bytes to read next; never 0 and never more than this frame has left.
    pub(crate) fn wanted(&self) -> usize {
        match &self.state {
            State::Header(bytes) => HEADER_BYTES.saturating_sub(bytes.len()),
            State::Body { bytes, length } => length.saturating_sub(bytes.len()),
        }
    }

    /// Whether no byte of the frame has arrived yet.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(&self.state, State::Header(bytes) if bytes.is_empty())
    }

    /// Takes the next bytes, at most [`wanted`](Self::wanted) of them.
    ///
    /// # Errors
    /// The header names another kind than the expected one, or a body larger than the limit. Both are found before a body
    /// byte is read or memory is reserved for it.
    pub(crate) fn push(mut self, input: &[u8]) -> Result<Progress, Misbehaviour> {
        debug_assert!(
            input.len() <= self.wanted(),
            "the driver reads no more than wanted"
        );
        match &mut self.state {
            State::Header(bytes) => {
                bytes.extend_from_slice(input);
                let Ok([kind, length @ ..]) = <[u8; HEADER_BYTES]>::try_from(bytes.as_slice())
                else {
                    return Ok(Progress::More(self));
                };
                let length = self.check_header(kind, u32::from_be_bytes(length))?;
                if length == 0 {
                    return Ok(Progress::Complete(Vec::new()));
                }
                let bytes = Vec::with_capacity(length.min(FIRST_ALLOCATION_BYTES));
                self.state = State::Body { bytes, length };
                Ok(Progress::More(self))
            }
            State::Body { bytes, length } => {
                bytes.extend_from_slice(input);
                match bytes.len() < *length {
                    true => Ok(Progress::More(self)),
                    false => Ok(Progress::Complete(std::mem::take(bytes))),
                }
            }
        }
    }

    fn check_header(&self, kind: u8, length: u32) -> Result<usize, Misbehaviour> {
        let expected = self.expected;
        if kind != expected as u8 {
            return Err(Misbehaviour::UnexpectedFrame {
                expected: expected.name(),
                expected_kind: expected as u8,
                found_kind: kind,
            });
        }
        let limit = self.body_bytes_max;
        match usize::try_from(length) {
            Ok(bytes) if length <= limit => Ok(bytes),
            _ => Err(Misbehaviour::FrameTooLarge {
                frame: expected.name(),
                limit,
                found: length,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use contrast_proto::evidence::{Hello, Verdict};
    use proptest::prelude::*;

    use super::*;

    const KINDS: [Kind; 3] = [Kind::Hello, Kind::Evidence, Kind::Verdict];

    /// Feeds `input` in pieces of `step` bytes, as far as the reader wants them. Returns the body, if complete, and what
    /// was left over.
    fn read(
        kind: Kind,
        mut input: &[u8],
        step: usize,
    ) -> Result<(Option<Vec<u8>>, &[u8]), Misbehaviour> {
        let mut reader = FrameReader::new(kind, &Limits::server());
        while !input.is_empty() {
            assert_ne!(reader.wanted(), 0);
            let (now, later) = input.split_at(reader.wanted().min(step).min(input.len()));
            input = later;
            match reader.push(now)? {
                Progress::More(more) => reader = more,
                Progress::Complete(body) => return Ok((Some(body), input)),
            }
        }
        Ok((None, input))
    }

    fn frame(kind: u8, length: u32, body: &[u8]) -> Vec<u8> {
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn hello_frame_has_the_documented_bytes() {
        let hello = Hello {
            version: 1,
            requires_evidence: true,
        };
        let frame = encode(Kind::Hello, &hello, &Limits::client()).expect("small");
        assert_eq!(frame, [1, 0, 0, 0, 4, 0x08, 1, 0x10, 1]);
    }

    #[test]
    fn refuses_oversized_length_from_the_header_alone() {
        for kind in KINDS {
            let limit = kind.body_bytes_max(&Limits::server());
            for length in [limit + 1, u32::MAX] {
                // Only the five header bytes are given: no body byte is needed for the refusal.
                let error = read(kind, &frame(kind as u8, length, &[]), 5).expect_err("too large");
                assert!(
                    matches!(error, Misbehaviour::FrameTooLarge { limit: l, found, .. } if l == limit && found == length)
                );
            }
            assert!(read(kind, &frame(kind as u8, limit, &[]), 5).is_ok());
        }
    }

    #[test]
    fn announced_length_reserves_little_until_bytes_arrive() {
        let reader = FrameReader::new(Kind::Evidence, &Limits::server());
        let announced = Limits::EVIDENCE_FRAME_BYTES_MAX;
        let Ok(Progress::More(reader)) = reader.push(&frame(2, announced, &[])) else {
            panic!("a frame of the maximum size is allowed")
        };
        let State::Body { bytes, .. } = &reader.state else {
            panic!("header is complete")
        };
        assert!(bytes.capacity() <= FIRST_ALLOCATION_BYTES);
        assert_eq!(reader.wanted(), announced as usize);
    }

    #[test]
    fn http2_preface_is_named_as_an_unexpected_frame() {
        let error =
            read(Kind::Verdict, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24).expect_err("no frame");
        assert!(matches!(
            error,
            Misbehaviour::UnexpectedFrame {
                expected: "Verdict",
                found_kind: b'P',
                ..
            }
        ));
    }

    #[test]
    fn configured_limit_cannot_exceed_the_hard_cap() {
        let limits = Limits {
            evidence_frame_bytes: u32::MAX,
            ..Limits::server()
        };
        let reader = FrameReader::new(Kind::Evidence, &limits);
        assert_eq!(reader.body_bytes_max, Limits::EVIDENCE_FRAME_BYTES_MAX);
    }

    #[test]
    fn encode_refuses_a_message_that_the_peer_would_refuse() {
        let reason = "x".repeat(Limits::VERDICT_FRAME_BYTES_MAX as usize);
        let verdict = Verdict {
            accepted: false,
            reason,
        };
        assert!(encode(Kind::Verdict, &verdict, &Limits::server()).is_none());
    }

    proptest! {
        #[test]
        fn any_frame_survives_any_chunking_and_leaves_what_follows(
            kind in 0..3_usize,
            reason in ".{0,500}",
            step in 1..64_usize,
            rest in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let kind = KINDS[kind];
            let message = Verdict { accepted: false, reason };
            if let Some(mut bytes) = encode(kind, &message, &Limits::server()) {
                bytes.extend_from_slice(&rest);
                let (body, left) = read(kind, &bytes, step).expect("valid frame");
                prop_assert_eq!(body, Some(message.encode_to_vec()));
                prop_assert_eq!(left, &rest[..]);
            }
        }

        #[test]
        fn any_bytes_are_a_frame_an_unfinished_frame_or_a_named_error(
            kind in 0..3_usize,
            input in proptest::collection::vec(any::<u8>(), 0..300),
            step in 1..64_usize,
        ) {
            let expected = KINDS[kind];
            match read(expected, &input, step) {
                Ok((Some(body), left)) => {
                    prop_assert_eq!(HEADER_BYTES + body.len() + left.len(), input.len());
                    prop_assert_eq!(input[0], expected as u8);
                }
                Ok((None, left)) => prop_assert!(left.is_empty()),
                Err(Misbehaviour::UnexpectedFrame { found_kind, .. }) => {
                    prop_assert_ne!(found_kind, expected as u8);
                }
                Err(Misbehaviour::FrameTooLarge { limit, found, .. }) => prop_assert!(found > limit),
                Err(other) => prop_assert!(false, "unexpected {other:?}"),
            }
        }
    }
}
