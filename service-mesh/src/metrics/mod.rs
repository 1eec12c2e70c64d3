//! Metrics for Prometheus, made from Envoy's statistics.
//!
//! Whoever reaches the port may ask, so that answers are made at most once in [`FRESH`], connections are few, and each is short.

mod families;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use contrast_telemetry::metrics::CONTENT_TYPE;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::envoy::admin::{AdminError, AdminInterface};
use families::Families;

/// How long one answer serves everybody.
const FRESH: Duration = Duration::from_secs(1);
/// Connections at a time; others wait.
const CONNECTIONS_MAX: usize = 16;
/// How long a client has to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one connection may last in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted, which happens when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics {
    listener: TcpListener,
    scraper: Arc<Scraper>,
}

#[derive(Debug)]
struct Scraper {
    envoy: AdminInterface,
    latest: Mutex<Option<(Instant, Bytes)>>,
}

impl Metrics {
    /// Listens on `port` of all addresses, IPv6 if there is any.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub(crate) async fn listen(port: u16, envoy: AdminInterface) -> io::Result<Self> {
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = match TcpListener::bind(everywhere).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?
            }
            bound => bound?,
        };
        let scraper = Scraper {
            envoy,
            latest: Mutex::new(None),
        };
        Ok(Self {
            listener,
            scraper: Arc::new(scraper),
        })
    }

    /// Serves for ever; whoever drops this future ends it and its connections.
    pub(crate) async fn serve(self) -> Infallible {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await;
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot accept a connection for metrics"
                    );
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let scraper = Arc::clone(&self.scraper);
            connections.spawn(async move {
                let _place = place;
                // A client that breaks off is its own business.
                let _ = timeout(CONNECTION_TIMEOUT, serve_one(stream, scraper)).await;
            });
        }
    }
}

async fn serve_one(stream: TcpStream, scraper: Arc<Scraper>) -> Result<(), hyper::Error> {
    let answer = service_fn(move |request| {
        let scraper = Arc::clone(&scraper);
        async move { Ok::<_, Infallible>(scraper.answer(&request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

impl Scraper {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, kind, text) = match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => match self.latest().await {
                Ok(text) => (StatusCode::OK, CONTENT_TYPE, text),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot read Envoy's statistics"
                    );
                    let text = Bytes::from_static(b"Envoy does not tell its statistics\n");
                    (StatusCode::SERVICE_UNAVAILABLE, "text/plain", text)
                }
            },
            _ => {
                let text = Bytes::from_static(b"only GET /metrics\n");
                (StatusCode::NOT_FOUND, "text/plain", text)
            }
        };
        let mut response = Response::new(Full::new(text));
        *response.status_mut() = status;
        let kind = header::HeaderValue::from_static(kind);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    async fn latest(&self) -> Result<Bytes, AdminError> {
        let mut latest = self.latest.lock().await;
        if let Some((made, text)) = &*latest
            && made.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let statistics = self.envoy.statistics().await?;
        let text = Bytes::from(Families::of(&statistics).render());
        *latest = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}
