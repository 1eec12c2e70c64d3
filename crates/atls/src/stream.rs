use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use contrast_attestation::{Evidence, ReportData, VerifiedEvidence};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

use crate::handshake::Established;

/// Who is on the other side of a connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Peer {
    /// Network address, for logs; `None` when the transport has none, and for a server that was dialled.
    pub address: Option<SocketAddr>,
    /// TLS key, SubjectPublicKeyInfo DER (ECDSA P-256). The peer has proven to own it. Empty for a client that presented no
    /// certificate.
    pub spki: Arc<[u8]>,
    /// What the peer has proven; `None` when this side required no evidence. `Some` vouches for `spki`.
    pub attested: Option<Arc<AttestedPeer>>,
}

/// Evidence that was accepted on this very connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttestedPeer {
    /// The evidence as it came.
    pub evidence: Evidence,
    /// The report data that it carries: binds this connection, the peer's role and its TLS key.
    pub report_data: ReportData,
    /// What the verifier made of it.
    pub verified: VerifiedEvidence,
}

/// An encrypted connection whose handshake is complete: all required evidence was given and accepted, in both directions.
///
/// Reading reports an error of kind `UnexpectedEof` when the peer vanished without closing the TLS session, so a cut
/// connection is never mistaken for a finished one.
pub struct AtlsStream<IO> {
    tls: TlsStream<IO>,
    peer: Peer,
    /// A listener's slot, given back when the connection is dropped.
    _slot: Option<OwnedSemaphorePermit>,
}

impl<IO> AtlsStream<IO> {
    /// Takes [`Established`] as the proof that the handshake is complete.
    pub(crate) fn new(
        tls: TlsStream<IO>,
        address: Option<SocketAddr>,
        spki: Option<Vec<u8>>,
        established: Established,
    ) -> Self {
        let peer = Peer {
            address,
            spki: spki.unwrap_or_default().into(),
            attested: established.into_attested(),
        };
        Self {
            tls,
            peer,
            _slot: None,
        }
    }

    pub(crate) fn with_slot(self, slot: OwnedSemaphorePermit) -> Self {
        Self {
            _slot: Some(slot),
            ..self
        }
    }

    /// Who is on the other side.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl<IO> fmt::Debug for AtlsStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtlsStream")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for AtlsStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for AtlsStream<IO> {
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

impl<IO> Connected for AtlsStream<IO> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}
