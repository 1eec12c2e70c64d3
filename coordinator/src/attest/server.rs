use std::{convert::Infallible, pin::pin, time::Duration};

use axum::Router;
use contrast_telemetry::drain::Watcher;
use futures::{StreamExt, stream::FuturesUnordered};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::AttestService;

/// Connections at the same time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Longest time for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection, whatever it does: one that reads or writes slowly must not keep others out.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of the head of a request.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Pause after the system gave no connection, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `drain`; then lets requests that have begun finish.
pub(crate) async fn serve(
    listener: TcpListener,
    service: AttestService,
    drain: Watcher,
) -> Result<(), Infallible> {
    let router = service.router();
    let mut connections = FuturesUnordered::new();
    while !drain.is_draining() {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.push(connection(stream, router.clone(), drain.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the attest API cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(()) = connections.next(), if !connections.is_empty() => {}
            () = drain.draining() => {}
        }
    }
    drop(listener);
    while connections.next().await.is_some() {}
    Ok(())
}

async fn connection(stream: TcpStream, router: Router, drain: Watcher) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let whole = async {
        let mut served = pin!(served);
        tokio::select! {
            ended = &mut served => ended,
            () = drain.draining() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        }
    };
    match timeout(CONNECTION_TIMEOUT, whole).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection of the attest API ended"),
        Err(_) => tracing::debug!("connection of the attest API was closed: it took too long"),
    }
}
