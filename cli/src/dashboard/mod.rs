//! A read-only page about a deployment, for people: the cluster, the history with what changed, what was issued and what was refused.
//!
//! Everything on it was said over attested TLS by Coordinators of the manifest, some seconds before it is shown. It is served on
//! loopback alone and has no login: nothing of it is secret, and nothing can be changed through it. A web site in the same browser cannot
//! read it: requests must name this server as their host, so that a name that was rebound to loopback finds nothing.

mod state;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State as Shared},
    http::{
        HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::Mutex, time::Instant};

pub(crate) use state::Source;

use crate::{diagnostic::Diagnose, exit::Exit};

const INDEX: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/dashboard.js");
const STYLE: &str = include_str!("page/dashboard.css");
/// The page loads nothing from elsewhere, and no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; \
                      base-uri 'none'; form-action 'none'";
/// However many pages are open, Coordinators are asked this often at most.
const FRESH: Duration = Duration::from_secs(2);

/// The page cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DashboardError {
    /// Others could read it.
    #[error(
        "cannot listen on {address}: the dashboard has no login, so it listens on loopback only"
    )]
    NotLoopback {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The port is taken, for example.
    #[error("cannot listen on {address}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server ended.
    #[error("the dashboard stopped")]
    Serve(#[source] io::Error),
}

impl Diagnose for DashboardError {
    fn exit(&self) -> Exit {
        match self {
            Self::NotLoopback { .. } | Self::Listen { .. } => Exit::Usage,
            Self::Serve(_) => Exit::Internal,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NotLoopback { .. } => vec![
                "use 127.0.0.1, and `ssh -L 8314:127.0.0.1:8314 HOST` to look at it from elsewhere"
                    .into(),
            ],
            Self::Listen { .. } => {
                vec!["choose another port with `--listen 127.0.0.1:PORT`".into()]
            }
            Self::Serve(_) => Vec::new(),
        }
    }
}

/// A bound dashboard.
#[derive(Debug)]
pub(crate) struct Dashboard {
    listener: TcpListener,
    address: SocketAddr,
}

struct Served {
    source: Source,
    address: SocketAddr,
    latest: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Dashboard {
    /// Begins to listen.
    ///
    /// # Errors
    /// When `address` is not loopback, or cannot be listened on.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, DashboardError> {
        if !address.ip().is_loopback() {
            return Err(DashboardError::NotLoopback { address });
        }
        let cannot = |source| DashboardError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        Ok(Self { listener, address })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// When the server fails.
    pub(crate) async fn serve(self, source: Source) -> Result<(), DashboardError> {
        let served = Arc::new(Served {
            source,
            address: self.address,
            latest: Mutex::new(None),
        });
        let file = |kind: &'static str, text: &'static str| get(async move || answer(kind, text));
        let router = Router::new()
            .route("/", file("text/html; charset=utf-8", INDEX))
            .route(
                "/dashboard.js",
                file("text/javascript; charset=utf-8", SCRIPT),
            )
            .route("/dashboard.css", file("text/css; charset=utf-8", STYLE))
            .route("/api/state", get(state))
            .layer(middleware::from_fn_with_state(Arc::clone(&served), guard))
            .with_state(served);
        axum::serve(self.listener, router)
            .await
            .map_err(DashboardError::Serve)
    }
}

async fn state(Shared(served): Shared<Arc<Served>>) -> Response {
    // Held while Coordinators are asked, so that everybody else waits for that answer.
    let mut latest = served.latest.lock().await;
    let known = latest
        .as_ref()
        .filter(|(taken, _)| taken.elapsed() < FRESH)
        .map(|(_, text)| Arc::clone(text));
    let text = match known {
        Some(text) => text,
        None => {
            let state = served.source.ask().await;
            let text: Arc<str> = match serde_json::to_string(&state) {
                Ok(text) => text.into(),
                Err(error) => {
                    tracing::error!(%error, "the state has no JSON form");
                    return StatusCode::INTERNAL_SERVER_ERROR.into_response();
                }
            };
            *latest = Some((Instant::now(), Arc::clone(&text)));
            text
        }
    };
    answer("application/json", text.to_string())
}

fn answer(kind: &'static str, body: impl Into<axum::body::Body>) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body.into()).into_response()
}

/// Lets requests through that name this server.
async fn guard(Shared(served): Shared<Arc<Served>>, request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let port = served.address.port();
    let mut own = vec![served.address.to_string(), format!("localhost:{port}")];
    if port == 80 {
        // Browsers leave it out.
        own.extend([served.address.ip().to_string(), "localhost".to_owned()]);
    }
    match host {
        Some(host) if own.iter().any(|own| own == host) => next.run(request).await,
        _ => (
            StatusCode::MISDIRECTED_REQUEST,
            format!("this is the dashboard at http://{}/\n", served.address),
        )
            .into_response(),
    }
}
