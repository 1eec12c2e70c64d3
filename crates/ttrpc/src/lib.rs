//! The serving half of ttrpc, for calls with one request and one response.
//!
//! kata-agent speaks ttrpc with the other programs of its guest: gRPC's calls without HTTP/2, over a Unix socket. A message is a header
//! of ten bytes and a body of Protocol Buffers (`proto/ttrpc/message.proto`):
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | length of the body, big-endian, at most [`MESSAGE_MAX`] |
//! | 4 | 4 | number of the call, big-endian, odd; the response has the same |
//! | 8 | 1 | 1 request, 2 response, 3 data of a stream |
//! | 9 | 1 | flags: 1 the sender sends no more, 2 a stream begins, 4 no body |
//!
//! Source: <https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md>.
//!
//! [`serve`] takes any number of calls of a connection at a time, up to [`Limits::calls`], and answers each when it is done. A connection may
//! be silent between messages for as long as it wants: agents connect once, when the guest boots, and never again. Within a message it may
//! not. Streams are answered with [`Code::Unimplemented`].

mod frame;
mod server;
mod status;

pub use frame::{Decoder, FrameError, HEADER_BYTES, Header, Incoming, Kind, MESSAGE_MAX, frame};
pub use server::{Call, Handler, Limits, serve};
pub use status::{Code, Status};
