//! A connection with what is known of its other side.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use contrast_atls::AtlsStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::proof::Proof;

/// An attested TLS connection. gRPC handlers find its [`Proof`] among a request's extensions, as `Arc<Proof>`.
pub(super) struct Link<IO> {
    tls: AtlsStream<IO>,
    proof: Arc<Proof>,
    end: Option<Pin<Box<Sleep>>>,
    alive: Arc<()>,
}

impl<IO> Link<IO> {
    pub(super) fn new(tls: AtlsStream<IO>, proof: Proof) -> Self {
        Self {
            tls,
            proof: Arc::new(proof),
            end: None,
            alive: Arc::default(),
        }
    }

    /// The connection fails after `life`.
    pub(super) fn ending_after(mut self, life: Duration) -> Self {
        self.end = Some(Box::pin(sleep(life)));
        self
    }

    pub(super) fn proof(&self) -> &Arc<Proof> {
        &self.proof
    }

    /// Upgrades for as long as the connection is in use by the HTTP/2 layer, which drops it at its end.
    pub(super) fn life(&self) -> Weak<()> {
        Arc::downgrade(&self.alive)
    }
}

impl<IO> Connected for Link<IO> {
    type ConnectInfo = Arc<Proof>;

    fn connect_info(&self) -> Arc<Proof> {
        Arc::clone(&self.proof)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Link<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Link<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
