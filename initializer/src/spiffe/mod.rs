//! The pod's identity for programs that ask for it instead of reading files: the SPIFFE Workload API, and secret discovery
//! for Envoy, both on one Unix socket.
//!
//! Whoever opens the socket gets the key. It lies in a volume of the pod, and all processes of a pod are one workload, so nobody is
//! asked who it is.

mod authority;
mod connection;
mod sds;
mod svid;
mod workload;

use std::{io, path::Path, sync::Arc, time::Duration};

use contrast_proto::{
    secret::secret_discovery_service_server::SecretDiscoveryServiceServer,
    workload::spiffe_workload_api_server::SpiffeWorkloadApiServer,
};
use tokio::{
    net::UnixListener,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, transport::Server};

use connection::Connection;
pub use svid::{Svid, SvidError};

use crate::{SocketError, socket};

/// For every user of the pod.
const MODE: u32 = 0o666;
pub(crate) const SOCKET_OPTION: &str = "--workload-api-socket, which also takes `off`";
/// Connections at the same time; those beyond wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// Streams at the same time, over all connections.
const STREAMS_MAX: usize = 512;
const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// The longest request is Envoy's first one, which lists its extensions in about 60 KiB.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Pause after a failed accept, which is for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Identity of the pod: nothing before the first enrolment.
pub type Updates = watch::Receiver<Option<Arc<Svid>>>;

/// Serves both APIs until it is dropped.
#[derive(Debug)]
pub struct Serving {
    _tasks: JoinSet<()>,
}

/// Listens at `path` for every user of the pod. A socket that an earlier run left there is replaced, nothing else is.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(path: &Path, updates: Updates) -> Result<Serving, SocketError> {
    let listener = socket::listen(path, SOCKET_OPTION, (MODE, None))?;
    let (accepted, incoming) = mpsc::channel(1);
    let streams = Arc::new(Semaphore::new(STREAMS_MAX));
    let workload = workload::Service {
        updates: updates.clone(),
        streams: Arc::clone(&streams),
    };
    let secrets = sds::Service { updates, streams };
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(
            SpiffeWorkloadApiServer::new(workload).max_decoding_message_size(REQUEST_BYTES_MAX),
        )
        .add_service(
            SecretDiscoveryServiceServer::new(secrets).max_decoding_message_size(REQUEST_BYTES_MAX),
        )
        .serve_with_incoming(ReceiverStream::new(incoming).map(Ok::<_, io::Error>));
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, accepted));
    tasks.spawn(async move {
        if let Err(error) = server.await {
            let error = anyhow::Error::new(error);
            tracing::error!("the Workload API ended: {error:#}");
        }
    });
    Ok(Serving { _tasks: tasks })
}

async fn accept(listener: UnixListener, accepted: mpsc::Sender<Connection>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Nobody closes the semaphore.
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = Connection::new(stream, permit);
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!("Workload API: cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn stream_permit(streams: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(streams).try_acquire_owned().map_err(|_| {
        let what = format!("there are {STREAMS_MAX} streams already; close some");
        Status::resource_exhausted(what)
    })
}
