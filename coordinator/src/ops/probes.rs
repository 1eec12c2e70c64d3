use std::{io, net::TcpListener, sync::Arc, thread};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use contrast_collateral::Collateral;
use contrast_telemetry::{drain::Watcher, metrics::Format, readiness::Readiness};
use tokio::{runtime, sync::oneshot};

use super::Metrics;
use crate::{replica::Hosted, state::Phase};

/// Probes and metrics could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OpsError {
    #[error("the thread for probes and metrics could not be started")]
    Start(#[source] io::Error),
    #[error("serving probes and metrics failed")]
    Serve(#[source] io::Error),
    #[error("the thread for probes and metrics ended abnormally")]
    Panicked,
}

/// What the probes look at.
#[derive(Debug, Clone)]
pub(crate) struct Probes {
    pub(crate) replica: Hosted,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) collateral: Arc<Collateral>,
    /// What start-up still waits for.
    pub(crate) startup: Readiness,
    /// Draining makes a Coordinator not ready.
    pub(crate) drain: Watcher,
}

/// Serves until `stop` drains; on a thread and runtime of its own.
pub(crate) async fn serve(
    listener: TcpListener,
    probes: Probes,
    stop: Watcher,
) -> Result<(), OpsError> {
    let (ended, end) = oneshot::channel();
    let run = move || {
        // The receiver is gone when the service was stopped by force; then nobody wants to know.
        let _ = ended.send(run(listener, probes, stop));
    };
    thread::Builder::new()
        .name("ops".to_owned())
        .spawn(run)
        .map_err(OpsError::Start)?;
    end.await.map_err(|_| OpsError::Panicked)?
}

fn run(listener: TcpListener, probes: Probes, stop: Watcher) -> Result<(), OpsError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(OpsError::Start)?;
    let outcome = runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, router(probes))
            .with_graceful_shutdown(async move { stop.draining().await })
            .await
    });
    outcome.map_err(OpsError::Serve)
}

fn router(probes: Probes) -> Router {
    Router::new()
        .route("/probe/startup", get(startup))
        .route("/probe/liveness", get(liveness))
        .route("/probe/readiness", get(readiness))
        .route("/metrics", get(metrics))
        .with_state(probes)
}

async fn startup(State(probes): State<Probes>) -> Response {
    match probes.startup.awaited().as_slice() {
        [] => ok(),
        awaited => unavailable(format!("waiting for: {}\n", awaited.join(", "))),
    }
}

/// A Coordinator whose store cannot be read never gets this far, so being able to answer is being alive.
async fn liveness() -> Response {
    ok()
}

async fn readiness(State(probes): State<Probes>) -> Response {
    if probes.drain.is_draining() {
        return unavailable("draining\n".to_owned());
    }
    match (
        &*probes.replica.guard().snapshot(),
        probes.replica.serving(),
    ) {
        (_, Ok(())) => ok(),
        (Phase::Empty, Err(_)) if probes.replica.is_alone() => {
            unavailable("no manifest set yet\n".to_owned())
        }
        (Phase::Sealed(_), Err(_)) if probes.replica.is_alone() => {
            unavailable("recovery needed\n".to_owned())
        }
        (_, Err(why)) => unavailable(format!("{why}\n")),
    }
}

async fn metrics(State(probes): State<Probes>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT);
    let format = Format::for_accept(accept.and_then(|accept| accept.to_str().ok()));
    let guard = probes.replica.guard();
    let now = guard.clock().now();
    let statistics = probes.collateral.statistics(now);
    let status = probes.replica.status();
    let text = probes
        .metrics
        .render(format, now, &guard.snapshot(), &status, statistics);
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}

fn ok() -> Response {
    "ok\n".into_response()
}

fn unavailable(reason: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}
