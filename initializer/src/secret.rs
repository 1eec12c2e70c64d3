//! The pod's workload secret for programs that ask for it instead of reading the file.
//!
//! HTTP/1.1 on a Unix socket of its own, for the user whom the file belongs to: the Workload API's socket is for every user of the pod.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Response, StatusCode, header},
    routing::get,
    serve::Listener,
};
use bytes::Bytes;
use tokio::{
    net::{UnixListener, UnixStream, unix::SocketAddr},
    sync::watch,
    task::JoinSet,
};
use zeroize::Zeroizing;

use crate::{SocketError, socket};

/// Path of the one resource.
pub const WORKLOAD_SECRET: &str = "/v1/workload-secret";

/// For the owner alone.
const MODE: u32 = 0o600;
pub(crate) const SOCKET_OPTION: &str = "--workload-secret-socket, which also takes `off`";
/// Pause after a failed accept, which is for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The pod's workload secret.
#[derive(Clone, Default)]
pub enum WorkloadSecret {
    /// The pod is not enrolled yet.
    #[default]
    Unknown,
    /// The manifest gives the pod none.
    Absent,
    /// 64 bytes.
    Known(Arc<Zeroizing<Vec<u8>>>),
}

impl fmt::Debug for WorkloadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::Absent => "Absent",
            Self::Known(_) => "Known(hidden)",
        })
    }
}

/// The secret as it is now.
pub type Secrets = watch::Receiver<WorkloadSecret>;

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Serving {
    _tasks: JoinSet<()>,
}

/// Listens at `path` for the user `owner`, or else the own one. A socket that an earlier run left there is replaced, nothing else is.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(path: &Path, owner: Option<u32>, secrets: Secrets) -> Result<Serving, SocketError> {
    let listener = socket::listen(path, SOCKET_OPTION, (MODE, owner))?;
    let router = Router::new()
        .route(WORKLOAD_SECRET, get(answer))
        .fallback(async || {
            let what = format!("there is nothing here; ask GET {WORKLOAD_SECRET}");
            refusal(StatusCode::NOT_FOUND, &what)
        })
        .method_not_allowed_fallback(async || {
            let what =
                format!("expected GET {WORKLOAD_SECRET}; a workload cannot change its secret");
            refusal(StatusCode::METHOD_NOT_ALLOWED, &what)
        })
        .with_state(secrets);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // It never ends by itself.
        let _ = axum::serve(Incoming(listener), router).await;
    });
    Ok(Serving { _tasks: tasks })
}

/// What axum does for the listener of tokio, but a failed accept is told and waited out.
struct Incoming(UnixListener);

impl Listener for Incoming {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!("workload secret: cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn answer(State(secrets): State<Secrets>) -> Response<Body> {
    let secret = secrets.borrow().clone();
    match secret {
        WorkloadSecret::Unknown => {
            let what = "the pod is not enrolled yet; ask again";
            let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, what);
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
        WorkloadSecret::Absent => refusal(
            StatusCode::NOT_FOUND,
            "the manifest gives this pod no workload secret (WorkloadSecretID); run `contrast generate` and set the manifest",
        ),
        WorkloadSecret::Known(secret) => json(
            StatusCode::OK,
            "secret",
            &Zeroizing::new(hex::encode(&**secret)),
        ),
    }
}

fn refusal(status: StatusCode, what: &str) -> Response<Body> {
    json(status, "error", what)
}

/// A document of one member. Its bytes are wiped when they were sent; what the transport buffers of them is not.
fn json(status: StatusCode, name: &str, value: &str) -> Response<Body> {
    let document = Zeroizing::new(format!("{{\"{name}\":\"{value}\"}}\n").into_bytes());
    let mut response = Response::new(Body::from(Bytes::from_owner(document)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
