use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Length of the header of a message.
pub const HEADER_BYTES: usize = 10;
/// Length of the largest body that the protocol allows.
pub const MESSAGE_MAX: u32 = 4 * 1024 * 1024;

/// A stream begins with this message.
const REMOTE_OPEN: u8 = 2;

/// What a message is; other numbers are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// From the client.
    Request = 1,
    /// From the server.
    Response = 2,
    /// From either.
    Data = 3,
}

/// Header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of the body, bytes.
    pub length: u32,
    /// Number of the call.
    pub stream: u32,
    /// [`Kind`], or something else.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
}

impl Header {
    /// Reads a header.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut bytes = bytes.as_slice();
        Self {
            length: bytes.get_u32(),
            stream: bytes.get_u32(),
            kind: bytes.get_u8(),
            flags: bytes.get_u8(),
        }
    }
}

/// A message with header and body.
pub fn frame(kind: Kind, stream: u32, body: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(HEADER_BYTES.saturating_add(body.len()));
    whole.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    whole.put_u32(stream);
    whole.put_u8(kind as u8);
    whole.put_u8(0);
    whole.put_slice(body);
    whole.freeze()
}

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Body of a request.
    Request {
        /// Number of the call.
        stream: u32,
        /// Not decoded.
        body: Bytes,
    },
    /// Beginning or part of a stream.
    Stream {
        /// Its number.
        stream: u32,
    },
    /// A request with an even number, which are for servers.
    Even {
        /// The number.
        stream: u32,
    },
    /// A request that is larger than requests may be here.
    TooLarge {
        /// Number of the call.
        stream: u32,
        /// Length of its body, bytes.
        length: u32,
    },
}

/// What was sent is not ttrpc. Nothing that follows can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a ttrpc message with a body of at most {MESSAGE_MAX} bytes, found one that announces {length}; the peer speaks another protocol"
)]
pub struct FrameError {
    /// Number of the call, if it is one.
    pub stream: u32,
    /// What is announced.
    pub length: u32,
}

/// Finds messages in what a client sends. Keeps no more than one request of the largest size, and what was read with it.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Bytes of a body that nobody wants.
    skip: u32,
    request_max: u32,
    over: u64,
}

impl Decoder {
    /// Will refuse requests whose bodies are larger than `request_max` bytes.
    pub fn new(request_max: u32) -> Self {
        Self {
            buffer: BytesMut::new(),
            skip: 0,
            request_max: request_max.min(MESSAGE_MAX),
            over: 0,
        }
    }

    /// Where more is put.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether a message began that is not complete.
    pub fn is_midway(&self) -> bool {
        self.skip > 0 || !self.buffer.is_empty()
    }

    /// How many messages came to their last byte, also those that were not wanted. [`Decoder::decode`] counts them.
    pub fn over(&self) -> u64 {
        self.over
    }

    /// The next message, if it is complete. Bodies of messages that are not wanted are thrown away as they come.
    ///
    /// # Errors
    /// When it is no ttrpc.
    pub fn decode(&mut self) -> Result<Option<Incoming>, FrameError> {
        loop {
            if self.skip > 0 {
                let there = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
                let skipped = self.skip.min(there);
                self.buffer.advance(skipped as usize);
                self.skip -= skipped;
                if self.skip > 0 {
                    return Ok(None);
                }
                self.end();
            }
            let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            let Header {
                length,
                stream,
                kind,
                flags,
            } = Header::parse(header);
            if length > MESSAGE_MAX {
                return Err(FrameError { stream, length });
            }
            let is_request = kind == Kind::Request as u8;
            let is_call = is_request && flags & REMOTE_OPEN == 0;
            let is_odd = stream % 2 == 1;
            if is_call && is_odd && length <= self.request_max {
                let whole = HEADER_BYTES.saturating_add(length as usize);
                if self.buffer.len() < whole {
                    return Ok(None);
                }
                let mut body = self.buffer.split_to(whole).freeze();
                body.advance(HEADER_BYTES);
                self.end();
                return Ok(Some(Incoming::Request { stream, body }));
            }
            self.buffer.advance(HEADER_BYTES);
            self.skip = length;
            if length == 0 {
                self.end();
            }
            if is_request && !is_odd {
                return Ok(Some(Incoming::Even { stream }));
            }
            if is_call {
                return Ok(Some(Incoming::TooLarge { stream, length }));
            }
            if is_request || kind == Kind::Data as u8 {
                return Ok(Some(Incoming::Stream { stream }));
            }
            // A client has nothing else to send; what future versions may add is ignored, as the protocol says.
        }
    }

    fn end(&mut self) {
        self.over = self.over.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MAX: u32 = 100;

    fn decoded(decoder: &mut Decoder) -> Vec<Incoming> {
        std::iter::from_fn(|| decoder.decode().expect("ttrpc")).collect()
    }

    fn header(length: u32, stream: u32, kind: u8, flags: u8) -> Vec<u8> {
        let mut bytes = [length.to_be_bytes(), stream.to_be_bytes()].concat();
        bytes.extend([kind, flags]);
        bytes
    }

    #[test]
    fn request_is_found_in_pieces() {
        let body = b"a body".as_slice();
        let mut decoder = Decoder::new(MAX);
        for byte in frame(Kind::Request, 7, body) {
            assert_eq!(decoder.decode(), Ok(None));
            decoder.buffer().put_u8(byte);
            assert!(decoder.is_midway());
        }
        let stream = 7;
        let body = Bytes::from_static(body);
        assert_eq!(decoded(&mut decoder), [Incoming::Request { stream, body }]);
        assert!(!decoder.is_midway());
    }

    #[test]
    fn what_is_not_a_call_is_named_and_its_body_thrown_away() {
        let mut decoder = Decoder::new(MAX);
        let mut bytes = Vec::new();
        for (length, stream, kind, flags) in [
            (MAX + 1, 1, 1, 1),
            (3, 2, 1, 1),
            (3, 3, 1, 2),
            (3, 5, 3, 1),
            (3, 7, 2, 0),
            (3, 9, 77, 255),
        ] {
            bytes.extend(header(length, stream, kind, flags));
            bytes.extend(vec![0xff; length as usize]);
        }
        bytes.extend(frame(Kind::Request, 11, b""));
        decoder.buffer().extend_from_slice(&bytes);
        assert_eq!(
            decoded(&mut decoder),
            [
                Incoming::TooLarge {
                    stream: 1,
                    length: MAX + 1
                },
                Incoming::Even { stream: 2 },
                Incoming::Stream { stream: 3 },
                Incoming::Stream { stream: 5 },
                Incoming::Request {
                    stream: 11,
                    body: Bytes::new()
                },
            ]
        );
        assert!(!decoder.is_midway());
    }

    #[test]
    fn length_beyond_the_protocol_is_not_ttrpc() {
        let mut decoder = Decoder::new(u32::MAX);
        let largest = header(MESSAGE_MAX, 1, 1, 0);
        decoder.buffer().extend_from_slice(&largest);
        assert_eq!(decoder.decode(), Ok(None));
        let mut decoder = Decoder::new(u32::MAX);
        let length = MESSAGE_MAX + 1;
        decoder
            .buffer()
            .extend_from_slice(&header(length, 9, 77, 0));
        let error = FrameError { stream: 9, length };
        assert_eq!(decoder.decode(), Err(error));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in vec(any::<u8>(), 0..400), lengths in vec(0_u32..120, 0..4), cut in 1_usize..50) {
            let mut all = Vec::new();
            for (position, length) in lengths.iter().enumerate() {
                all.extend(header(*length, position as u32, (position % 4) as u8, (length % 4) as u8));
                all.extend(vec![0; *length as usize]);
            }
            all.extend(bytes);
            let mut whole = Decoder::new(MAX);
            whole.buffer().extend_from_slice(&all);
            let mut in_pieces = Decoder::new(MAX);
            let mut expected = Vec::new();
            let mut found = Vec::new();
            let mut failed = None;
            loop {
                match whole.decode() {
                    Ok(Some(message)) => expected.push(message),
                    Ok(None) => break,
                    Err(error) => { failed = Some(error); break; }
                }
            }
            'pieces: for piece in all.chunks(cut) {
                in_pieces.buffer().extend_from_slice(piece);
                loop {
                    match in_pieces.decode() {
                        Ok(Some(message)) => found.push(message),
                        Ok(None) => break,
                        Err(error) => { prop_assert_eq!(Some(error), failed); failed = None; break 'pieces; }
                    }
                }
            }
            prop_assert_eq!(failed, None);
            prop_assert_eq!(found, expected);
        }
    }
}
