//! Metrics for Prometheus, made from Envoy's statistics and from what the Initializer leaves in a file.
//!
//! Whoever reaches the port may ask, so that answers are made at most once in [`FRESH`], connections are few, and each is short.

mod families;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use contrast_clock::{SystemWallClock, WallClock as _};
use contrast_telemetry::{
    enrolment::Enrolment,
    metrics::{Format, Process},
};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::envoy::admin::AdminInterface;
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
    /// The directory that the Initializer fills.
    base_dir: PathBuf,
    started: SystemTime,
    latest: Mutex<Option<(Instant, Families)>>,
}

impl Metrics {
    /// Listens on `port` of all addresses, IPv6 if there is any. The Initializer fills `base_dir`.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub(crate) async fn listen(
        port: u16,
        envoy: AdminInterface,
        base_dir: PathBuf,
    ) -> io::Result<Self> {
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = match TcpListener::bind(everywhere).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?
            }
            bound => bound?,
        };
        let scraper = Scraper {
            envoy,
            base_dir,
            started: SystemWallClock.now(),
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
            (&Method::GET, "/metrics") => {
                let accept = request.headers().get(header::ACCEPT);
                let format = Format::for_accept(accept.and_then(|accept| accept.to_str().ok()));
                let text = self.render(format, self.latest().await);
                (StatusCode::OK, format.content_type(), Bytes::from(text))
            }
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

    async fn latest(&self) -> Families {
        let mut latest = self.latest.lock().await;
        if let Some((made, families)) = &*latest
            && made.elapsed() < FRESH
        {
            return families.clone();
        }
        // A pod whose Envoy is silent still has something to tell: that.
        let statistics = self.envoy.statistics().await.inspect_err(|error| {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "cannot read Envoy's statistics"
            );
        });
        let enrolment = Enrolment::read(&self.base_dir).unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot read how the enrolment goes"
            );
            None
        });
        let families = Families::of(statistics.ok().as_deref(), enrolment.as_ref());
        *latest = Some((Instant::now(), families.clone()));
        families
    }

    fn render(&self, format: Format, families: Families) -> String {
        let mut registry = Registry::default();
        let version = env!("CARGO_PKG_VERSION");
        let process = Process::register(&mut registry, "service-mesh", version, self.started);
        process.set_clock(SystemWallClock.now());
        registry.register_collector(Box::new(families));
        format.render(&registry)
    }
}

#[cfg(test)]
mod tests {
    use contrast_testbed::MetricsReference;

    use super::{families::tests::everything, *};

    fn scraper(base_dir: PathBuf) -> Scraper {
        Scraper {
            envoy: AdminInterface::Socket(base_dir.join("admin.sock")),
            base_dir,
            started: SystemTime::UNIX_EPOCH,
            latest: Mutex::new(None),
        }
    }

    /// The table is the reference. With `UPDATE_REFERENCE=1` the test writes it there.
    #[test]
    fn reference_lists_every_metric() {
        let text = scraper(PathBuf::new()).render(Format::OpenMetrics, everything());
        let reference = MetricsReference {
            section: "service-mesh",
            exposition: &text,
        };
        reference.check();
    }

    #[tokio::test]
    async fn silent_envoy_is_told_and_hides_nothing_else() {
        let directory = tempfile::tempdir().expect("directory");
        let mut enrolment = Enrolment::default();
        enrolment.failed(true);
        let file = directory.path().join(contrast_telemetry::enrolment::FILE);
        std::fs::write(file, enrolment.to_string()).expect("writes");
        let scraper = scraper(directory.path().to_owned());
        let text = scraper.render(Format::Prometheus, scraper.latest().await);
        for line in [
            "contrast_mesh_envoy_up{} 0",
            "contrast_initializer_not_admitted{} 1",
            "process_start_time_seconds 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("certificate_issued"), "{text}");
    }
}
