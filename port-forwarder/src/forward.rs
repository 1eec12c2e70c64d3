//! Listening, connecting and copying.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use contrast_telemetry::drain;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::Route;

/// A Service without a ready endpoint drops packets on some networks.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Who does not answer for two minutes is gone.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);
/// When the process has no file descriptor left, others close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port could not be forwarded.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; choose a port that is free and allowed")]
pub struct ForwardError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Listens on one address.
#[derive(Debug)]
pub struct Forwarder {
    listener: TcpListener,
    address: SocketAddr,
    target: Arc<str>,
    open: Arc<Semaphore>,
}

impl Forwarder {
    /// Begins to listen. At most `connections` are open at once; others wait in the kernel's queue.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(route: &Route, connections: u16) -> Result<Self, ForwardError> {
        let cannot = |source| ForwardError {
            address: route.listen,
            source,
        };
        let listener = TcpListener::bind(route.listen).await.map_err(cannot)?;
        Ok(Self {
            address: listener.local_addr().map_err(cannot)?,
            listener,
            target: Arc::from(route.target.as_str()),
            open: Arc::new(Semaphore::new(usize::from(connections))),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards until `drain` says to stop, then until the last connection has ended.
    ///
    /// # Errors
    /// Never; a connection that fails ends alone.
    pub async fn serve(self, drain: drain::Watcher) -> io::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = drain.draining() => break,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((permit, client, from)) => {
                    let target = Arc::clone(&self.target);
                    connections.spawn(async move {
                        forward(client, from, &target).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

impl Forwarder {
    /// The next connection, once there is room for it.
    async fn accept(&self) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
        let permit = Arc::clone(&self.open).acquire_owned().await;
        let permit = permit.map_err(io::Error::other)?;
        let (client, from) = self.listener.accept().await?;
        Ok((permit, client, from))
    }
}

async fn forward(mut client: TcpStream, from: SocketAddr, target: &str) {
    let connected = timeout(CONNECT_DEADLINE, TcpStream::connect(target)).await;
    let mut server = match connected {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => {
            tracing::warn!(%from, target, %error, "cannot connect; the client's connection is closed");
            return;
        }
        Err(_) => {
            tracing::warn!(%from, target, "no connection within {CONNECT_DEADLINE:?}; the client's connection is closed");
            return;
        }
    };
    for stream in [&client, &server] {
        // Handshakes are small messages that wait for each other.
        let _ = stream.set_nodelay(true);
        // A VM that was killed closes nothing, and would take the place of a connection for ever.
        let _ = SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE);
    }
    match copy_bidirectional(&mut client, &mut server).await {
        Ok((sent, received)) => tracing::info!(%from, target, sent, received, "connection ended"),
        Err(error) => tracing::info!(%from, target, %error, "connection broke"),
    }
}
