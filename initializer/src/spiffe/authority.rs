//! Makes the `:authority` of a gRPC client that is built on C-core (Python, C++, Ruby, PHP) acceptable.
//!
//! Such a client names a Unix socket by its path, percent-encoded: `contrast%2Fworkload.sock`. By RFC 3986 that is no
//! authority's host for the `http` crate, and h2 resets the stream before anybody here sees the request. Nobody here reads the
//! authority, so each `%` becomes a `-`: the length stays, and with it everything that HPACK (RFC 7541) counts.

/// Length of the connection preface, RFC 9113, section 3.4.
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
/// A literal name as C-core writes it: no Huffman code, length 10. No header value can contain its line feed.
const NAME: &[u8] = b"\x0a:authority";
/// A longer value, or one in Huffman code, starts with a greater byte; such a value stays as it is.
const VALUE_BYTES_MAX: u8 = 126;

/// Position in what one client sends.
#[derive(Debug)]
pub(super) struct AuthorityFilter {
    at: At,
}

#[derive(Debug)]
enum At {
    Preface {
        left: usize,
    },
    FrameHeader {
        header: [u8; FRAME_HEADER_BYTES],
        filled: usize,
    },
    /// A frame without headers.
    Other {
        left: usize,
    },
    /// `matched` bytes of [`NAME`] were there just now, or `value` bytes of the value follow.
    Headers {
        left: usize,
        matched: usize,
        value: u8,
    },
}

impl At {
    const FRAME: Self = Self::FrameHeader {
        header: [0; FRAME_HEADER_BYTES],
        filled: 0,
    };
}

impl AuthorityFilter {
    pub(super) fn new() -> Self {
        Self {
            at: At::Preface {
                left: PREFACE_BYTES,
            },
        }
    }

    /// Takes the next bytes of the client.
    pub(super) fn pass(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.pass_one(byte);
        }
    }

    fn pass_one(&mut self, byte: &mut u8) {
        match &mut self.at {
            At::FrameHeader { header, filled } => {
                if let Some(place) = header.get_mut(*filled) {
                    *place = *byte;
                }
                *filled += 1;
                if *filled == FRAME_HEADER_BYTES {
                    self.at = frame(*header);
                }
                return;
            }
            At::Preface { left } | At::Other { left } => *left -= 1,
            At::Headers {
                left,
                matched,
                value,
            } => {
                *left -= 1;
                if *value > 0 {
                    *value -= 1;
                    if *byte == b'%' {
                        *byte = b'-';
                    }
                } else if *matched == NAME.len() {
                    *matched = 0;
                    if *byte <= VALUE_BYTES_MAX {
                        *value = *byte;
                    }
                } else if NAME.get(*matched) == Some(byte) {
                    *matched += 1;
                } else {
                    *matched = usize::from(NAME.first() == Some(byte));
                }
            }
        }
        if let At::Preface { left: 0 } | At::Other { left: 0 } | At::Headers { left: 0, .. } =
            self.at
        {
            self.at = At::FRAME;
        }
    }
}

fn frame(header: [u8; FRAME_HEADER_BYTES]) -> At {
    let [a, b, c, kind, ..] = header;
    let left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    match (left, kind) {
        (0, _) => At::FRAME,
        (_, HEADERS) => At::Headers {
            left,
            matched: 0,
            value: 0,
        },
        _ => At::Other { left },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn sent(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let header = [0, 0, length, kind, 4, 0, 0, 0, 1];
        [PREFACE, &settings, &header, payload].concat()
    }

    fn passed(bytes: &[u8], chunk: usize) -> Vec<u8> {
        let mut filter = AuthorityFilter::new();
        let mut bytes = bytes.to_vec();
        for chunk in bytes.chunks_mut(chunk) {
            filter.pass(chunk);
        }
        bytes
    }

    #[test]
    fn only_the_authority_changes_however_the_bytes_are_cut() {
        let before = sent(
            HEADERS,
            b"@\x05:path\x04/%2F@\x0a:authority\x07a%2Fb%1@\x01x\x01%",
        );
        let after = sent(
            HEADERS,
            b"@\x05:path\x04/%2F@\x0a:authority\x07a-2Fb-1@\x01x\x01%",
        );
        for chunk in 1..=before.len() {
            assert_eq!(passed(&before, chunk), after, "{chunk}");
        }
    }

    #[test]
    fn data_and_huffman_codes_stay() {
        for (kind, payload) in [
            (0, b"\x0a:authority\x03a%b".as_slice()),
            (HEADERS, b"\x0a:authority\x83a%b"),
        ] {
            let bytes = sent(kind, payload);
            assert_eq!(passed(&bytes, 7), bytes);
        }
    }
}
