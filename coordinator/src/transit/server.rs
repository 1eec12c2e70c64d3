use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::body::Body;
use contrast_telemetry::drain::Watcher;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    TransitService,
    context::Client,
    life::{IDLE_TIMEOUT, over},
};

/// Connections at the same time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// Handshakes at the same time.
const HANDSHAKES_MAX: usize = 64;
/// Longest time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for what has begun on a connection that has to end: a request, and the sending of its answer.
const GRACE: Duration = Duration::from_secs(60);
/// A peer of HTTP/2 that answers no ping for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Requests of HTTP/2 at the same time on one connection.
const STREAMS_PER_CONNECTION: u32 = 16;
/// Most bytes of the head of a request.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Pause after the system gave no connection, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `drain`; then lets requests that have begun finish.
pub(crate) async fn serve(
    listener: TcpListener,
    service: TransitService,
    drain: Watcher,
) -> Result<(), Infallible> {
    let service = Arc::new(service);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut connections = JoinSet::new();
    while !drain.is_draining() {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((tcp, peer)) => {
                    let service = Arc::clone(&service);
                    connections.spawn(connection(tcp, peer, service, Arc::clone(&handshakes), drain.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the transit API cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            () = drain.draining() => {}
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
    Ok(())
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection of the transit API ended abnormally");
    }
}

async fn connection(
    tcp: TcpStream,
    peer: SocketAddr,
    service: Arc<TransitService>,
    handshakes: Arc<Semaphore>,
    drain: Watcher,
) {
    let accepting = async {
        // Nobody closes the semaphore.
        let _permit = handshakes.acquire().await;
        let context = match service.contexts.current().await {
            Ok(context) => context,
            // Clients understand 503, but not a closed door; each request asks for the current context again.
            Err(failure) => service.contexts.last().ok_or_else(|| failure.to_string())?,
        };
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let accepted = context.tls.accept(tcp).await;
        let (stream, member) = accepted.map_err(|error| {
            let cause = std::error::Error::source(&error);
            cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
        })?;
        Ok::<_, String>((stream, Client::new(member, &context, &service.shares)))
    };
    let accepted = tokio::select! {
        accepted = timeout(HANDSHAKE_TIMEOUT, accepting) => accepted,
        () = drain.draining() => return,
    };
    let (stream, client) = match accepted {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(reason)) => {
            tracing::warn!(%peer, reason, "refused a connection to the transit API");
            return;
        }
        Err(_) => {
            tracing::warn!(%peer, "a handshake of the transit API took too long");
            return;
        }
    };
    let client = Arc::new(client);
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let (looking, looked_at) = (Arc::clone(&service), Arc::clone(&client));
    // Without a current context nobody can tell; every request is told so.
    let refused = || {
        let (service, client) = (Arc::clone(&looking), Arc::clone(&looked_at));
        async move {
            let context = service.contexts.current().await;
            context.is_ok_and(|context| client.admit(&context, service.contexts.now()).is_err())
        }
    };
    let answer = service_fn(move |request: Request<Incoming>| {
        let (service, client) = (Arc::clone(&service), Arc::clone(&client));
        async move {
            let answer = service.answer(&client, request.map(Body::new)).await;
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX));
    // What ALPN said: so nobody can hold a connection by not saying which it is.
    let builder = match http2 {
        true => builder.http2_only(),
        false => builder.http1_only(),
    };
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), answer));
    let reason = tokio::select! {
        ended = &mut served => {
            if let Err(error) = ended {
                tracing::debug!(%peer, error, "connection of the transit API ended");
            }
            return;
        }
        reason = over(looked_at.activity(), refused) => reason,
        () = drain.draining() => "the Coordinator ends",
    };
    tracing::debug!(%peer, reason, "a connection of the transit API has to end");
    served.as_mut().graceful_shutdown();
    match timeout(GRACE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, error, "connection of the transit API ended"),
        Err(_) => {
            tracing::debug!(%peer, "a connection of the transit API was closed: it took too long to end")
        }
    }
}
