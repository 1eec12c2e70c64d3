//! Bodies of answers whose memory is accounted for until they are sent.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// Bytes that the server takes at once. It copies them, so this is also what is not accounted for at the end of an answer.
const SLICE_BYTES: usize = 16 * 1024;

/// A body that keeps `permit` until the last of `bytes` has left this process, or the connection has ended.
///
/// The permit belongs to the memory and not to the body, which the server drops when it has queued the end.
pub(crate) fn held<P: Send + 'static>(bytes: Bytes, permit: P) -> Body {
    let left = Bytes::from_owner(Owner {
        bytes,
        _permit: permit,
    });
    Body::new(Sliced { left })
}

struct Owner<P> {
    bytes: Bytes,
    _permit: P,
}

impl<P> AsRef<[u8]> for Owner<P> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes in slices: whole they would be copied at once for a connection that takes none of them.
struct Sliced {
    left: Bytes,
}

impl HttpBody for Sliced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.left.len().min(SLICE_BYTES);
        let slice = self.left.split_to(size);
        let frame = (size > 0).then(|| Ok(Frame::data(slice)));
        if self.left.is_empty() {
            // What is split off is all that holds the memory then.
            self.left = Bytes::new();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.left.len()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::{Request, Response};
    use http_body_util::BodyExt as _;
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        runtime::Handle,
    };

    use super::*;

    #[tokio::test]
    async fn permit_is_kept_until_the_last_slice_is_gone() {
        let bytes = Bytes::from(vec![7; 3 * SLICE_BYTES + 1]);
        let permit = Arc::new(());
        let mut body = held(bytes.clone(), Arc::clone(&permit));
        let length = u64::try_from(bytes.len()).expect("small");
        assert_eq!(body.size_hint().exact(), Some(length));
        let mut received = Vec::new();
        let mut last = Bytes::new();
        while let Some(frame) = body.frame().await {
            last = frame.expect("a frame").into_data().expect("data");
            assert!(last.len() <= SLICE_BYTES);
            received.extend_from_slice(&last);
        }
        assert_eq!(received, bytes);
        drop(body);
        assert_eq!(Arc::strong_count(&permit), 2, "the last slice is not sent");
        drop(last);
        assert_eq!(Arc::strong_count(&permit), 1);
    }

    #[test]
    fn permit_ends_with_a_body_that_nobody_reads() {
        let permit = Arc::new(());
        drop(held(Bytes::from_static(b"answer"), Arc::clone(&permit)));
        assert_eq!(Arc::strong_count(&permit), 1);
    }

    /// The server itself queues and copies; what it does not take must be accounted for.
    #[tokio::test]
    async fn permit_is_kept_while_a_client_reads_nothing() {
        let size = 1024 * 1024;
        let permit = Arc::new(());
        let given = Arc::downgrade(&permit);
        let bytes = Bytes::from(vec![7; size]);
        let body = std::sync::Mutex::new(Some(held(bytes, permit)));
        let answer = service_fn(move |_: Request<Incoming>| {
            let body = body.lock().expect("a body").take().expect("one request");
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
        let (mut client, server) = duplex(1024);
        let server = http1::Builder::new()
            .max_buf_size(SLICE_BYTES)
            .serve_connection(TokioIo::new(server), answer);
        let server = Handle::current().spawn(async { server.await.map_err(drop) });
        let request = b"GET / HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n";
        client.write_all(request).await.expect("sends");
        // All but what the server may have copied.
        let mut part = vec![0; size - 4 * SLICE_BYTES];
        client.read_exact(&mut part).await.expect("receives");
        assert!(given.upgrade().is_some(), "nobody has read the rest");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("receives");
        server.await.expect("ends").expect("ends well");
        assert!(given.upgrade().is_none());
        let head = String::from_utf8_lossy(&part[..200]).to_lowercase();
        assert!(head.contains("content-length: 1048576"), "{head}");
    }
}
