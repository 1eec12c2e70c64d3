//! Somebody who connects, from wherever the thread is.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::ClientConfig};

use crate::harness::Network;

/// Longer than the header of a TLS record, or a TLS server would wait for more before it refuses.
const PING: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
/// What is dropped shows only in that nobody answers.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a client speaks.
#[derive(Debug, Clone)]
pub enum Wire {
    /// As the application would, without TLS.
    Plain,
    /// TLS, expecting a server certificate with this name.
    Tls(Arc<ClientConfig>, &'static str),
}

/// A stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Opens a connection.
///
/// # Errors
/// When it or the handshake fails. With TLS 1.3, a server that refuses the client says so only later.
pub async fn open(address: SocketAddr, wire: &Wire) -> Result<Box<dyn Duplex>> {
    let opening = async {
        let stream = TcpStream::connect(address)
            .await
            .context("cannot connect")?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Duplex> = match wire {
            Wire::Plain => Box::new(stream),
            Wire::Tls(config, name) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let connected = connector.connect(ServerName::try_from(*name)?, stream);
                Box::new(connected.await.context("TLS handshake failed")?)
            }
        };
        Ok(stream)
    };
    timeout(PATIENCE, opening)
        .await
        .context("no connection in time")?
}

/// Sends a few bytes and reads them back.
///
/// # Errors
/// When other bytes come back, or none.
pub async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<()> {
    let exchange = async {
        stream
            .write_all(PING.as_bytes())
            .await
            .context("cannot send")?;
        let mut answer = vec![0; PING.len()];
        stream.read_exact(&mut answer).await.context("no answer")?;
        ensure!(answer == PING.as_bytes(), "another answer");
        Ok(())
    };
    timeout(PATIENCE, exchange)
        .await
        .context("no answer in time")?
}

/// The certificate, DER, that the server at `address` presents to `client`, which connects from `node`.
///
/// # Errors
/// When there is no handshake.
pub fn presented(
    network: &Network,
    node: usize,
    address: SocketAddr,
    client: Arc<ClientConfig>,
    name: &'static str,
) -> Result<Vec<u8>> {
    within(network, node, async move || {
        let stream = TcpStream::connect(address).await?;
        let connector = TlsConnector::from(client);
        let stream = connector
            .connect(ServerName::try_from(name)?, stream)
            .await?;
        let presented = stream.get_ref().1.peer_certificates();
        let first = presented.and_then(|chain| chain.first());
        Ok(first.context("no certificate")?.to_vec())
    })
}

/// Connects from `node` to an echoing application and tries it.
///
/// # Errors
/// When it is not reached.
pub fn reach(network: &Network, node: usize, address: SocketAddr, wire: &Wire) -> Result<()> {
    let wire = wire.clone();
    within(network, node, async move || {
        let mut stream = open(address, &wire).await?;
        echo(&mut stream).await
    })
}

/// Runs `work` in the namespace of `node`, bounded in time.
fn within<T: Send + 'static>(
    network: &Network,
    node: usize,
    work: impl AsyncFnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    network.within(node, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async { timeout(3 * PATIENCE, work()).await.context("not in time")? })
    })?
}
