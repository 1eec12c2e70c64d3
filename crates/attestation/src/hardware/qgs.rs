//! Messages of Intel's quote generation service (QGS), which runs on the host.
//!
//! Formats are those of `qgs_msg_lib.h` in Intel's DCAP (github.com/intel/confidential-computing.tee.dcap). A frame on the stream is a
//! message after its size, 4 bytes *big-endian*. All integers inside the message are little-endian:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 2 | major version, 1 |
//! | 2 | 2 | minor version; what differs in it alone is compatible |
//! | 4 | 4 | type: 0 GET_QUOTE_REQ, 1 GET_QUOTE_RESP |
//! | 8 | 4 | size of the whole message |
//! | 12 | 4 | error code, 0 in a request |
//! | 16 | 4 | request: size of the TDREPORT; response: size of the id of the attestation key that was selected |
//! | 20 | 4 | request: size of the list of acceptable ids; response: size of the quote |
//! | 24 | | request: TDREPORT, ids; response: id, quote |
//!
//! The host answers, so every field of the answer is checked, its size is limited before memory is taken for it, and the whole
//! exchange has one deadline. That the quote is one, and for the right report data, is checked by who asked.

use std::{
    fmt::Debug,
    io::{self, Read as _, Write as _},
    time::{Duration, Instant},
};

use contrast_guest_device::{TD_REPORT_BYTES, VSOCK_HOST, connect_vsock};
use socket2::Socket;

use super::tdx_guest::QuoteService;
use crate::evidence::QUOTE_BYTES_MAX;

const MAJOR_VERSION: u16 = 1;
/// A quote request is the same in every minor version, so the first one serves every service.
const MINOR_VERSION: u16 = 0;
const GET_QUOTE_REQUEST: u32 = 0;
const GET_QUOTE_RESPONSE: u32 = 1;
const FRAME_HEADER_BYTES: usize = 4;
/// Message header and the two sizes after it.
const HEADER_BYTES: usize = 24;
/// An attestation key's id is a UUID.
const KEY_ID_BYTES: usize = 16;
const MESSAGE_BYTES_MAX: usize = HEADER_BYTES + KEY_ID_BYTES + QUOTE_BYTES_MAX;

/// Less than the deadline of an attested handshake (25 seconds), which waits for the quote.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The quote generation service gave no quote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteServiceError {
    /// Nobody is there.
    #[error(
        "cannot connect to {peer}; expected Intel's quote generation service (QGS) to listen there on the host (the guest's port is set in /etc/tdx-attest.conf, the host's in /etc/qgs.conf)"
    )]
    Connect {
        /// Where it was looked for.
        peer: String,
        /// Why it is not there.
        source: io::Error,
    },
    /// The stream broke.
    #[error("cannot {action}; see the log of the quote generation service on the host")]
    Stream {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The answer did not come, or not whole, in time.
    #[error(
        "cannot {action} within {timeout:?}; see the log of the quote generation service on the host"
    )]
    Deadline {
        /// What was being done.
        action: &'static str,
        /// Time for the whole exchange.
        timeout: Duration,
    },
    /// The stream ended early.
    #[error(
        "the service closed the stream after {found} of {expected} bytes of its {part}; see its log on the host"
    )]
    Truncated {
        /// What was being read.
        part: &'static str,
        /// Its size in bytes.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// The frame has a size that no answer has.
    #[error(
        "expected an answer of {HEADER_BYTES} to {MESSAGE_BYTES_MAX} bytes, found one that says {found} bytes"
    )]
    FrameSize {
        /// Size in the frame's header.
        found: u32,
    },
    /// Another protocol.
    #[error(
        "expected an answer of version {MAJOR_VERSION}, found {major}.{minor}; run a QGS on the host that speaks it"
    )]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// The answer to another question.
    #[error("expected an answer of type {GET_QUOTE_RESPONSE} (GET_QUOTE_RESP), found type {found}")]
    Type {
        /// Type.
        found: u32,
    },
    /// Frame and message disagree.
    #[error(
        "expected a message of {frame} bytes as its frame says, found one that says {message} bytes"
    )]
    MessageSize {
        /// Size in the frame's header.
        frame: usize,
        /// Size in the message's header.
        message: u32,
    },
    /// The service refused.
    #[error("the service refused with error code {code:#x} ({}); see its log on the host", code_name(*code))]
    Refused {
        /// Error code.
        code: u32,
    },
    /// Parts do not add up to the message.
    #[error(
        "expected an id of 0 or {KEY_ID_BYTES} bytes and a quote that fill a message of {message} bytes, found an id of {id} and a quote of {quote} bytes"
    )]
    Parts {
        /// Size of the whole message.
        message: usize,
        /// Size of the attestation key's id.
        id: u32,
        /// Size of the quote.
        quote: u32,
    },
}

/// Codes of the message library; others come from the quoting library below it.
fn code_name(code: u32) -> &'static str {
    match code {
        0x0001_2001 => "UNEXPECTED",
        0x0001_2002 => "OUT_OF_MEMORY",
        0x0001_2003 => "INVALID_PARAMETER",
        0x0001_2004 => "INVALID_VERSION",
        0x0001_2005 => "INVALID_TYPE",
        0x0001_2006 => "INVALID_SIZE",
        0x0001_2007 => "INVALID_CODE",
        _ => "of the quoting library",
    }
}

/// How the service is reached.
pub trait QuoteChannel: Debug + Send + Sync {
    /// Where it is, for people.
    fn peer(&self) -> String;

    /// A new stream to it, within `timeout`.
    ///
    /// # Errors
    /// When nobody answers in time.
    fn connect(&self, timeout: Duration) -> io::Result<Socket>;
}

/// The host, over vsock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostVsock {
    /// Port that the service listens on.
    pub port: u32,
}

impl QuoteChannel for HostVsock {
    fn peer(&self) -> String {
        format!("vsock port {} of the host", self.port)
    }

    fn connect(&self, timeout: Duration) -> io::Result<Socket> {
        connect_vsock(VSOCK_HOST, self.port, timeout)
    }
}

/// Asks a QGS for quotes, one connection for each.
#[derive(Debug)]
pub struct QuoteGenerationService<C> {
    channel: C,
    timeout: Duration,
}

impl<C: QuoteChannel> QuoteGenerationService<C> {
    /// The service behind `channel`, with 20 seconds for each quote.
    pub fn new(channel: C) -> Self {
        Self {
            channel,
            timeout: TIMEOUT,
        }
    }

    /// Gives each quote `timeout`, from connecting to the last byte.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}

impl<C: QuoteChannel> QuoteService for QuoteGenerationService<C> {
    fn quote(&self, td_report: &[u8; TD_REPORT_BYTES]) -> Result<Vec<u8>, QuoteServiceError> {
        let deadline = Instant::now() + self.timeout;
        let socket =
            self.channel
                .connect(self.timeout)
                .map_err(|source| QuoteServiceError::Connect {
                    peer: self.channel.peer(),
                    source,
                })?;
        let mut stream = TimedStream {
            socket,
            deadline,
            timeout: self.timeout,
        };
        stream.send(&request(td_report))?;
        let mut size = [0; FRAME_HEADER_BYTES];
        stream.receive("size", &mut size)?;
        let mut message = vec![0; message_size(size)?];
        stream.receive("answer", &mut message)?;
        quote_in(&message)
    }
}

/// A stream of which every step shares one deadline, so that a byte now and then does not prolong it.
struct TimedStream {
    socket: Socket,
    deadline: Instant,
    timeout: Duration,
}

impl TimedStream {
    fn send(&mut self, mut bytes: &[u8]) -> Result<(), QuoteServiceError> {
        const ACTION: &str = "send the request";
        while !bytes.is_empty() {
            let remaining = self.remaining(ACTION)?;
            let sent = self.socket.set_write_timeout(Some(remaining));
            let sent = sent.and_then(|()| self.socket.write(bytes));
            match self.progress(ACTION, sent)? {
                Some(0) => {
                    let source = io::ErrorKind::WriteZero.into();
                    return Err(QuoteServiceError::Stream {
                        action: ACTION,
                        source,
                    });
                }
                Some(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                None => {}
            }
        }
        Ok(())
    }

    fn receive(&mut self, part: &'static str, buffer: &mut [u8]) -> Result<(), QuoteServiceError> {
        const ACTION: &str = "receive the answer";
        let mut found = 0;
        while let Some(rest) = buffer.get_mut(found..).filter(|rest| !rest.is_empty()) {
            let remaining = self.remaining(ACTION)?;
            let received = self.socket.set_read_timeout(Some(remaining));
            let received = received.and_then(|()| self.socket.read(rest));
            match self.progress(ACTION, received)? {
                Some(0) => {
                    return Err(QuoteServiceError::Truncated {
                        part,
                        expected: buffer.len(),
                        found,
                    });
                }
                Some(received) => found += received,
                None => {}
            }
        }
        Ok(())
    }

    fn remaining(&self, action: &'static str) -> Result<Duration, QuoteServiceError> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        match remaining.is_zero() {
            true => Err(QuoteServiceError::Deadline {
                action,
                timeout: self.timeout,
            }),
            // The kernel counts in microseconds and takes zero for "no deadline".
            false => Ok(remaining.max(Duration::from_millis(1))),
        }
    }

    /// Bytes that went over; none when it should be tried again, which the deadline bounds.
    fn progress(
        &self,
        action: &'static str,
        outcome: io::Result<usize>,
    ) -> Result<Option<usize>, QuoteServiceError> {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        match outcome {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), Interrupted | TimedOut | WouldBlock) => Ok(None),
            Err(source) => Err(QuoteServiceError::Stream { action, source }),
        }
    }
}

/// The framed request for a quote of `td_report`, without a list of ids: any attestation key will do.
fn request(td_report: &[u8; TD_REPORT_BYTES]) -> Vec<u8> {
    const REPORT_BYTES: u32 = TD_REPORT_BYTES as u32;
    const BYTES: u32 = HEADER_BYTES as u32 + REPORT_BYTES;
    let mut frame = BYTES.to_be_bytes().to_vec();
    frame.extend(MAJOR_VERSION.to_le_bytes());
    frame.extend(MINOR_VERSION.to_le_bytes());
    for field in [GET_QUOTE_REQUEST, BYTES, 0, REPORT_BYTES, 0] {
        frame.extend(field.to_le_bytes());
    }
    frame.extend(td_report);
    frame
}

fn message_size(frame_header: [u8; FRAME_HEADER_BYTES]) -> Result<usize, QuoteServiceError> {
    let found = u32::from_be_bytes(frame_header);
    match usize::try_from(found) {
        Ok(size) if (HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&size) => Ok(size),
        _ => Err(QuoteServiceError::FrameSize { found }),
    }
}

/// The quote in a GET_QUOTE_RESP.
fn quote_in(message: &[u8]) -> Result<Vec<u8>, QuoteServiceError> {
    let Some((header, content)) = message.split_first_chunk::<HEADER_BYTES>() else {
        return Err(QuoteServiceError::Truncated {
            part: "answer",
            expected: HEADER_BYTES,
            found: message.len(),
        });
    };
    let [m0, m1, n0, n1, fields @ ..] = header;
    let (major, minor) = (
        u16::from_le_bytes([*m0, *m1]),
        u16::from_le_bytes([*n0, *n1]),
    );
    let mut fields = fields.as_chunks::<4>().0.iter();
    let mut next = || fields.next().copied().map_or(0, u32::from_le_bytes);
    let (kind, size, code, id, quote) = (next(), next(), next(), next(), next());

    if major != MAJOR_VERSION {
        return Err(QuoteServiceError::Version { major, minor });
    }
    if kind != GET_QUOTE_RESPONSE {
        return Err(QuoteServiceError::Type { found: kind });
    }
    if usize::try_from(size) != Ok(message.len()) {
        return Err(QuoteServiceError::MessageSize {
            frame: message.len(),
            message: size,
        });
    }
    if code != 0 {
        return Err(QuoteServiceError::Refused { code });
    }
    let parts = QuoteServiceError::Parts {
        message: message.len(),
        id,
        quote,
    };
    let id_bytes = match usize::try_from(id) {
        Ok(bytes) if bytes == 0 || bytes == KEY_ID_BYTES => bytes,
        _ => return Err(parts),
    };
    match content.get(id_bytes..) {
        Some(rest) if !rest.is_empty() && usize::try_from(quote) == Ok(rest.len()) => {
            Ok(rest.to_vec())
        }
        _ => Err(parts),
    }
}
