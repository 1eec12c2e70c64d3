//! Moves the bytes of the handshake. All decisions are in [`crate::handshake`]; this file reads, writes, keeps the deadline
//! and calls TEE and verifier off the async threads.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use contrast_clock::WallClock;
use rustls::CommonState;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use zeroize::Zeroizing;

use crate::{
    ALPN, AtlsError, AtlsStream, ClientConfig, Incompatibility, Limits, Misbehaviour, Phase,
    ServerConfig,
    binding::{Channel, EXPORTER_BYTES, EXPORTER_LABEL},
    frame::{FrameReader, Kind, Progress},
    handshake::{AfterAcceptance, AwaitEvidence, Judged, Prove, Terms, client, server},
    tls,
};

/// Read at once, in bytes; a body grows by this much while its bytes arrive.
const CHUNK_BYTES: usize = 8 * 1024;

/// Connects as a client over `io`, an open transport.
///
/// # Errors
/// When TLS fails, the peer breaks the protocol, either side refuses the other, or the deadline passes. The connection is
/// closed then.
pub async fn connect<IO>(io: IO, config: &ClientConfig) -> Result<AtlsStream<IO>, AtlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = Deadline::after(config.limits.handshake);
    connect_before(io, config, deadline, false).await
}

pub(crate) async fn connect_before<IO>(
    io: IO,
    config: &ClientConfig,
    deadline: Deadline,
    unattested: bool,
) -> Result<AtlsStream<IO>, AtlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let connector = TlsConnector::from(Arc::clone(&config.identity.tls.client));
    let tls = deadline
        .bound(Phase::Tls, connector.connect(tls::server_name(), io))
        .await?;
    let tls = tls.map_err(|error| AtlsError::from_stream(Phase::Tls, error))?;
    let mut wire = Wire {
        tls: tls.into(),
        deadline,
        limits: config.limits,
    };
    let spki = wire.peer_spki()?;

    let terms = Terms {
        issuer: config.issuer.clone(),
        verifier: config.verifier.clone(),
        unattested,
        limits: config.limits,
    };
    let channel = wire.channel(config.identity.spki(), spki.clone())?;
    let (await_hello, hello) = client::start(terms, channel);
    wire.send(Phase::Hello, &hello).await?;
    let established = match await_hello.receive(&wire.receive(Phase::Hello, Kind::Hello).await?)? {
        client::AfterHello::Challenge(challenge) => {
            match wire.challenge(challenge, config.clock.as_ref()).await? {
                client::AfterChallenge::Prove(prove) => wire.prove(prove).await?,
                client::AfterChallenge::Done(established) => established,
            }
        }
        client::AfterHello::Prove(prove) => wire.prove(prove).await?,
        client::AfterHello::Done(established) => established,
    };
    Ok(AtlsStream::new(wire.tls, None, spki, established))
}

/// Accepts a client on `io`, an open transport. `address` is only recorded, for logs.
///
/// # Errors
/// As for [`connect`].
pub async fn accept<IO>(
    io: IO,
    address: Option<SocketAddr>,
    config: &ServerConfig,
) -> Result<AtlsStream<IO>, AtlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    accept_with(io, address, config, false).await
}

pub(crate) async fn accept_with<IO>(
    io: IO,
    address: Option<SocketAddr>,
    config: &ServerConfig,
    unattested: bool,
) -> Result<AtlsStream<IO>, AtlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = Deadline::after(config.limits.handshake);
    let acceptor = TlsAcceptor::from(Arc::clone(match config.verifier {
        Some(_) => &config.identity.tls.server_for_known,
        None => &config.identity.tls.server_for_anyone,
    }));
    let tls = deadline.bound(Phase::Tls, acceptor.accept(io)).await?;
    let tls = tls.map_err(|error| AtlsError::from_stream(Phase::Tls, error))?;
    let mut wire = Wire {
        tls: tls.into(),
        deadline,
        limits: config.limits,
    };
    let spki = wire.peer_spki()?;

    let terms = Terms {
        issuer: config.issuer.clone(),
        verifier: config.verifier.clone(),
        unattested,
        limits: config.limits,
    };
    let channel = wire.channel(config.identity.spki(), spki.clone())?;
    let (await_hello, hello) = server::start(terms, channel);
    wire.send(Phase::Hello, &hello).await?;
    let established = match await_hello.receive(&wire.receive(Phase::Hello, Kind::Hello).await?)? {
        server::AfterHello::Prove(prove) => match wire.prove(prove).await? {
            server::AfterProof::Challenge(challenge) => {
                wire.challenge(challenge, config.clock.as_ref()).await?
            }
            server::AfterProof::Done(established) => established,
        },
        server::AfterHello::Challenge(challenge) => {
            wire.challenge(challenge, config.clock.as_ref()).await?
        }
        server::AfterHello::Done(established) => established,
    };
    Ok(AtlsStream::new(wire.tls, address, spki, established))
}

/// The moment by which the handshake must be complete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    limit: Duration,
    /// `None`: so far away that the clock cannot express it.
    at: Option<Instant>,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self {
            limit,
            at: Instant::now().checked_add(limit),
        }
    }

    /// Waits for `work`, but not past the deadline.
    pub(crate) async fn bound<F: Future>(
        &self,
        phase: Phase,
        work: F,
    ) -> Result<F::Output, AtlsError> {
        let Some(at) = self.at else {
            return Ok(work.await);
        };
        timeout_at(at, work).await.map_err(|_| AtlsError::Deadline {
            limit: self.limit,
            phase,
        })
    }

    /// Runs `work` on tokio's blocking pool.
    ///
    /// A TEE answers in milliseconds and may hang; a cold certificate chain takes milliseconds to verify, a warm one some
    /// 0.3 ms. The hand-over costs some 10 µs, and unlike `block_in_place` it works on every runtime flavour and lets the
    /// deadline fire. Work that hangs keeps its pool thread; the number of those is bounded by the pool.
    async fn off_thread<T: Send + 'static>(
        &self,
        phase: Phase,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AtlsError> {
        let handle = tokio::task::spawn_blocking(work);
        self.bound(phase, handle)
            .await?
            .map_err(|_| AtlsError::Panicked { phase })
    }
}

struct Wire<IO> {
    tls: TlsStream<IO>,
    deadline: Deadline,
    limits: Limits,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    fn session(&self) -> &CommonState {
        self.tls.get_ref().1
    }

    /// The peer's key, after a check that TLS agreed on this protocol: without an offer by the other side, rustls goes on.
    fn peer_spki(&self) -> Result<Option<Vec<u8>>, AtlsError> {
        if self.session().alpn_protocol() != Some(ALPN) {
            return Err(AtlsError::PeerIncompatible(
                Incompatibility::ApplicationProtocol,
            ));
        }
        let certificate = self.session().peer_certificates().and_then(<[_]>::first);
        certificate
            .map(tls::spki_of)
            .transpose()
            .map_err(|error| Misbehaviour::Tls(error).into())
    }

    fn channel(&self, own_spki: &[u8], peer_spki: Option<Vec<u8>>) -> Result<Channel, AtlsError> {
        let mut exporter = Zeroizing::new([0; EXPORTER_BYTES]);
        let output: &mut [u8] = exporter.as_mut();
        match &self.tls {
            TlsStream::Client(tls) => {
                tls.get_ref()
                    .1
                    .export_keying_material(output, EXPORTER_LABEL, None)
            }
            TlsStream::Server(tls) => {
                tls.get_ref()
                    .1
                    .export_keying_material(output, EXPORTER_LABEL, None)
            }
        }
        .map_err(AtlsError::LocalTls)?;
        Ok(Channel::new(exporter, own_spki.to_vec(), peer_spki))
    }

    /// Requires the peer's evidence, judges it and tells the peer.
    async fn challenge<N>(
        &mut self,
        state: AwaitEvidence<N>,
        clock: &dyn WallClock,
    ) -> Result<N::Next, AtlsError>
    where
        N: AfterAcceptance + Send + 'static,
        N::Next: Send + 'static,
    {
        let appraise = state.receive(&self.receive(Phase::Evidence, Kind::Evidence).await?)?;
        let now = clock.now();
        match self
            .deadline
            .off_thread(Phase::Appraise, move || appraise.appraise(now))
            .await?
        {
            Judged::Accepted { verdict, next } => {
                self.send(Phase::Verdict, &verdict).await?;
                Ok(next)
            }
            Judged::Refused { verdict, error } => {
                self.dismiss(&verdict).await;
                Err(error)
            }
        }
    }

    /// Shows this side's evidence and waits for the peer's verdict.
    async fn prove<N: Send + 'static>(&mut self, state: Prove<N>) -> Result<N, AtlsError> {
        let (frame, await_verdict) = self
            .deadline
            .off_thread(Phase::Issue, || state.issue())
            .await??;
        self.send(Phase::Evidence, &frame).await?;
        await_verdict.receive(&self.receive(Phase::Verdict, Kind::Verdict).await?)
    }

    async fn send(&mut self, phase: Phase, frame: &[u8]) -> Result<(), AtlsError> {
        let tls = &mut self.tls;
        let sent = async {
            tls.write_all(frame).await?;
            tls.flush().await
        };
        self.deadline
            .bound(phase, sent)
            .await?
            .map_err(|error| AtlsError::from_stream(phase, error))
    }

    /// Tells the peer that it is refused and closes the connection. A failure to tell changes nothing about the refusal.
    async fn dismiss(&mut self, verdict: &[u8]) {
        let tls = &mut self.tls;
        let told = async {
            tls.write_all(verdict).await?;
            tls.shutdown().await
        };
        match self.deadline.bound(Phase::Verdict, told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the refused peer could not be told why"),
            Err(error) => tracing::debug!(%error, "the refused peer could not be told why"),
        }
    }

    /// Reads one frame and not a byte more. Returns its body.
    async fn receive(&mut self, phase: Phase, kind: Kind) -> Result<Vec<u8>, AtlsError> {
        let mut reader = FrameReader::new(kind, &self.limits);
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        loop {
            chunk.clear();
            let wanted = reader.wanted().min(CHUNK_BYTES);
            let mut tls = (&mut self.tls).take(wanted as u64);
            let read = self.deadline.bound(phase, tls.read_buf(&mut chunk)).await?;
            match read {
                Ok(0) => return Err(ended(phase, kind, &reader)),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(ended(phase, kind, &reader));
                }
                Err(error) => return Err(AtlsError::from_stream(phase, error)),
                Ok(_) => {}
            }
            match reader.push(&chunk)? {
                Progress::More(more) => reader = more,
                Progress::Complete(body) => return Ok(body),
            }
        }
    }
}

/// The connection ended: between frames the peer closed it, inside a frame it broke off.
fn ended(phase: Phase, kind: Kind, reader: &FrameReader) -> AtlsError {
    match reader.is_untouched() {
        true => AtlsError::PeerClosed { phase },
        false => Misbehaviour::TruncatedFrame {
            frame: kind.name(),
            missing: reader.wanted(),
        }
        .into(),
    }
}
