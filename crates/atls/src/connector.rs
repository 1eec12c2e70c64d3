use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::transport::Uri;
use tower::Service;

use crate::{
    AtlsError, AtlsStream, ClientConfig, Peer, Phase,
    driver::{Deadline, connect_before},
};

/// Opens the transport below attested TLS. Implement it to go through a proxy or a port-forwarder.
pub trait Dialer: Clone + Send + Sync + 'static {
    /// The transport.
    type Io: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static;

    /// Opens a transport to the authority (host and port) of `uri`. The caller applies the deadline.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn dial(&self, uri: Uri) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// Dials TCP; the URI needs a host (name or address) and a port.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
    type Io = TcpStream;

    async fn dial(&self, uri: Uri) -> io::Result<TcpStream> {
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("expected an address with host and port, found `{uri}`"),
            ));
        };
        // An IPv6 address has brackets in a URI and none elsewhere.
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }
}

/// Dials attested TLS for tonic: `Endpoint::from_shared("http://host:port")?.connect_with_connector(connector)`.
///
/// The scheme must be `http`, because encryption happens here and not in tonic. tonic hides why a connection failed behind
/// a generic transport error; keep a clone of the connector and ask [`last_failure`](Self::last_failure).
#[derive(Clone)]
pub struct Connector<D = TcpDialer> {
    config: Arc<ClientConfig>,
    dialer: D,
    unattested: bool,
    last: Arc<Mutex<Option<Attempt>>>,
}

type Attempt = Result<Peer, Arc<AtlsError>>;

impl Connector {
    /// A connector over TCP.
    pub fn new(config: ClientConfig) -> Self {
        Self::with_dialer(config, TcpDialer)
    }
}

impl<D: Dialer> Connector<D> {
    /// A connector over another transport.
    pub fn with_dialer(config: ClientConfig, dialer: D) -> Self {
        Self {
            config: Arc::new(config),
            dialer,
            unattested: false,
            last: Arc::default(),
        }
    }

    /// Also connects when neither side requires evidence. Such a connection is encrypted to nobody in particular
    /// ([`Peer::attested`] is `None` on both sides): for questions that contain no secret and whose answers are claims.
    /// The server has to permit it, too.
    #[must_use]
    pub fn permit_unattested(mut self) -> Self {
        self.unattested = true;
        self
    }

    /// Why the latest attempt of this connector or one of its clones failed; `None` when it succeeded or there was none.
    pub fn last_failure(&self) -> Option<Arc<AtlsError>> {
        self.last_attempt().and_then(Result::err)
    }

    /// The peer of the latest connection; `None` when the latest attempt failed or there was none.
    pub fn last_peer(&self) -> Option<Peer> {
        self.last_attempt().and_then(Result::ok)
    }

    fn last_attempt(&self) -> Option<Attempt> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn record(&self, attempt: Attempt) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(attempt);
    }

    /// Dials `uri` and runs the handshake, all within one deadline.
    ///
    /// # Errors
    /// As for [`connect`](crate::connect), and when the transport cannot be opened.
    pub async fn connect(&self, uri: Uri) -> Result<AtlsStream<D::Io>, Arc<AtlsError>> {
        let result = self.try_connect(uri).await.map_err(Arc::new);
        self.record(match &result {
            Ok(stream) => Ok(stream.peer().clone()),
            Err(error) => Err(Arc::clone(error)),
        });
        result
    }

    async fn try_connect(&self, uri: Uri) -> Result<AtlsStream<D::Io>, AtlsError> {
        let deadline = Deadline::after(self.config.limits.handshake);
        let io = deadline
            .bound(Phase::Dial, self.dialer.dial(uri))
            .await?
            .map_err(|source| AtlsError::Io {
                phase: Phase::Dial,
                source,
            })?;
        connect_before(io, &self.config, deadline, self.unattested).await
    }
}

impl<D> fmt::Debug for Connector<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<D: Dialer> Service<Uri> for Connector<D> {
    type Response = TokioIo<AtlsStream<D::Io>>;
    type Error = Arc<AtlsError>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}
