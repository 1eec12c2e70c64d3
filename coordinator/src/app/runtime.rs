use std::{future::Future, io, sync::Arc, time::Duration};

use contrast_telemetry::drain::Watcher;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    task::spawn_blocking,
};

use super::AppError;
use crate::{
    cluster::ClusterTypes,
    peer::{self, Answer, Handler, Local},
    replica::{
        Ended, Hosted, Replica,
        message::Request,
        peers::{Caller, Trusted},
    },
};

/// Threads of replication: one may be at the disk while the other answers.
const THREADS: usize = 2;

/// Threads for replication alone, so that busy APIs do not delay heartbeats. They end when this is dropped.
#[derive(Debug)]
pub(super) struct ReplicaRuntime(Option<Runtime>);

impl ReplicaRuntime {
    pub(super) fn start() -> Result<Self, AppError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("replica")
            .enable_all()
            .build();
        Ok(Self(Some(runtime.map_err(AppError::Runtime)?)))
    }

    /// Where to start what belongs to replication.
    ///
    /// # Errors
    /// Never while this exists.
    pub(super) fn handle(&self) -> Result<Handle, AppError> {
        let gone = || AppError::Runtime(io::Error::other("the runtime of replication is gone"));
        self.0
            .as_ref()
            .map(|runtime| runtime.handle().clone())
            .ok_or_else(gone)
    }
}

impl ReplicaRuntime {
    /// Ends the threads, and waits for them: afterwards nothing uses the data directory any more.
    pub(super) async fn stop(mut self, within: Duration) {
        if let Some(runtime) = self.0.take() {
            let stopped = spawn_blocking(move || runtime.shutdown_timeout(within)).await;
            if let Err(error) = stopped {
                tracing::warn!(%error, "the threads of replication did not end cleanly");
            }
        }
    }
}

impl Drop for ReplicaRuntime {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which is forbidden where tasks run.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The peer API, bound but not served yet.
#[derive(Debug)]
pub(super) struct PeerApi {
    pub(super) listener: TcpListener,
    pub(super) local: Local,
}

/// The peer API could not be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerApiError {
    #[error("the listener cannot be used by the threads of replication")]
    Listener(#[from] io::Error),
    #[error(transparent)]
    Serve(#[from] tonic::transport::Error),
    #[error("the threads of replication are gone")]
    Gone(#[from] tokio::task::JoinError),
}

impl PeerApi {
    /// Serves on `runtime` until `drain`.
    pub(super) async fn serve(
        self,
        replica: Hosted,
        runtime: Handle,
        drain: Watcher,
    ) -> Result<(), PeerApiError> {
        let listener = self.listener.into_std()?;
        let serve = async move {
            let listener = TcpListener::from_std(listener)?;
            let handler = Arc::clone(replica.replica());
            peer::serve(listener, handler, self.local, None, drain).await?;
            Ok(())
        };
        runtime.spawn(serve).await?
    }
}

impl<C: ClusterTypes> Handler for Replica<C> {
    fn trust(&self) -> Option<Arc<Trusted>> {
        Self::trust(self)
    }

    fn handle<'a>(&'a self, caller: &'a dyn Caller, request: Request) -> Answer<'a> {
        Box::pin(Self::handle(self, caller, request))
    }
}

/// Takes part in a cluster on `runtime` until `drain` is ready; an identity that is over is an error, so that the process ends.
pub(super) async fn take_part(
    replica: Hosted,
    runtime: Handle,
    drain: impl Future<Output = ()>,
) -> Result<(), Ended> {
    let running = runtime.spawn(Arc::clone(replica.replica()).run());
    tokio::select! {
        ended = running => match ended {
            Ok(ended) => Err(ended),
            Err(error) => Err(Ended::Stopped(error.to_string())),
        },
        () = drain => Ok(()),
    }
}
