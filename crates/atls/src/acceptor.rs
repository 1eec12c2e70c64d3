use std::{
    convert::Infallible,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Sleep, sleep},
};
use tokio_stream::Stream;
use tokio_util::sync::PollSemaphore;

use crate::{AcceptLimits, AtlsError, AtlsStream, ServerConfig, driver::accept_with};

/// Wait after the system refused to accept, for example because the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Hears of every connection that did not become an [`AtlsStream`], with the peer's address. For metrics; it is called on
/// the listener's path and must not block.
pub type FailureObserver = Arc<dyn Fn(SocketAddr, &AtlsError) + Send + Sync>;

/// Chooses how the next connection is accepted. It is called on the listener's path and must not block.
pub type ConfigSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

type Handshake = (SocketAddr, Result<AtlsStream<TcpStream>, AtlsError>);

/// Accepts TCP connections and yields those whose handshake is complete, for tonic's `serve_with_incoming`.
///
/// Handshakes run concurrently as tasks of this value, up to [`AcceptLimits::handshakes`]; a slow peer delays nobody else.
/// One that fails is logged as a warning with the peer's address and the whole cause chain, and never ends the stream.
/// Dropping this value aborts the handshakes that are under way.
pub struct Incoming {
    listener: TcpListener,
    configs: ConfigSource,
    unattested: bool,
    limits: AcceptLimits,
    observer: Option<FailureObserver>,
    handshakes: JoinSet<Handshake>,
    connections: PollSemaphore,
    /// Taken before a connection is accepted, then handed on to it.
    slot: Option<OwnedSemaphorePermit>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    /// Serves `listener`, which is bound already.
    pub fn new(listener: TcpListener, config: ServerConfig, limits: AcceptLimits) -> Self {
        let config = Arc::new(config);
        Self::with_configs(listener, Arc::new(move || Arc::clone(&config)), limits)
    }

    /// Serves `listener`, which is bound already. Each connection is accepted as `configs` says when it arrives, so that
    /// what is required of clients may change; connections that are open stay.
    pub fn with_configs(
        listener: TcpListener,
        configs: ConfigSource,
        limits: AcceptLimits,
    ) -> Self {
        let connections = limits.connections.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            listener,
            configs,
            unattested: false,
            limits: AcceptLimits {
                handshakes: limits.handshakes.max(1),
                connections,
            },
            observer: None,
            handshakes: JoinSet::new(),
            connections: PollSemaphore::new(Arc::new(Semaphore::new(connections))),
            slot: None,
            pause: None,
        }
    }

    /// Reports failed handshakes to `observer`, in addition to the log.
    #[must_use]
    pub fn on_failure(mut self, observer: FailureObserver) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Also accepts connections on which neither side requires evidence; [`Peer::attested`](crate::Peer::attested) is
    /// `None` then, and the application decides what such a peer may ask. The client has to permit it, too.
    #[must_use]
    pub fn permit_unattested(mut self) -> Self {
        self.unattested = true;
        self
    }

    /// The address that the listener is bound to.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn report(&self, peer: SocketAddr, error: &AtlsError) {
        tracing::warn!(%peer, kind = error.kind(), "attested TLS handshake failed: {}", error.causes());
        if let Some(observer) = &self.observer {
            observer(peer, error);
        }
    }

    /// The next connection that completed its handshake, if there is one now. Failures on the way are reported.
    fn poll_completed(&mut self, cx: &mut Context<'_>) -> Poll<AtlsStream<TcpStream>> {
        loop {
            match self.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok((_, Ok(stream))))) => return Poll::Ready(stream),
                Poll::Ready(Some(Ok((peer, Err(error))))) => self.report(peer, &error),
                Poll::Ready(Some(Err(error))) => {
                    tracing::error!(%error, "an attested TLS handshake ended abnormally");
                }
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Accepts one connection and starts its handshake, as soon as the limits allow.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.handshakes.len() >= self.limits.handshakes {
            // The next completed handshake wakes the task.
            return Poll::Pending;
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let slot = match self.slot.take() {
            Some(slot) => slot,
            None => match ready!(self.connections.poll_acquire(cx)) {
                Some(slot) => slot,
                // Nobody closes the semaphore.
                None => return Poll::Pending,
            },
        };
        match self.listener.poll_accept(cx) {
            Poll::Pending => {
                self.slot = Some(slot);
                Poll::Pending
            }
            Poll::Ready(Ok((tcp, peer))) => {
                self.start(tcp, peer, slot);
                Poll::Ready(())
            }
            Poll::Ready(Err(error)) => {
                tracing::warn!(%error, "cannot accept a connection; trying again in {ACCEPT_PAUSE:?}");
                self.slot = Some(slot);
                self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                Poll::Ready(())
            }
        }
    }

    fn start(&mut self, tcp: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        let config = (self.configs)();
        let unattested = self.unattested;
        self.handshakes.spawn(async move {
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
            }
            let accepted = accept_with(tcp, Some(peer), &config, unattested).await;
            (peer, accepted.map(|stream| stream.with_slot(slot)))
        });
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("listener", &self.listener)
            .field("limits", &self.limits)
            .field("handshakes", &self.handshakes.len())
            .finish_non_exhaustive()
    }
}

impl Stream for Incoming {
    type Item = Result<AtlsStream<TcpStream>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Poll::Ready(stream) = self.poll_completed(cx) {
                return Poll::Ready(Some(Ok(stream)));
            }
            // After each start the set of handshakes is polled again, so that the new one can wake this task.
            ready!(self.poll_accept(cx));
        }
    }
}
