//! An application that echoes and remembers who reached it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime,
    sync::oneshot,
    task::JoinSet,
};

use crate::harness::Network;

/// An unmodified application: it listens on all addresses of its pod, on TCP and on UDP, and sends back what it gets, whoever asks.
#[derive(Debug)]
pub struct Application {
    seen: Arc<Mutex<Seen>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

/// Who reached an application.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Source addresses of TCP connections, in order.
    pub connections: Vec<SocketAddr>,
    /// Source addresses of datagrams, in order.
    pub datagrams: Vec<SocketAddr>,
}

impl Seen {
    /// How many connections and datagrams came from `address`.
    pub fn from(&self, address: IpAddr) -> usize {
        let all = self.connections.iter().chain(&self.datagrams);
        all.filter(|peer| peer.ip() == address).count()
    }
}

impl Application {
    /// Serves `port` in the namespace of `node` until it is dropped.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(network: &Network, node: usize, port: u16) -> Result<Self> {
        let seen = Arc::new(Mutex::default());
        let (stop, stopped) = oneshot::channel();
        let (listening, listens) = std::sync::mpsc::channel();
        let thread = network.spawn(node, {
            let seen = Arc::clone(&seen);
            move || {
                let runtime = runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    // Dual-stack, as most applications are.
                    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
                    let listener = TcpListener::bind(address).await?;
                    let datagrams = UdpSocket::bind(address).await?;
                    let _ = listening.send(());
                    tokio::select! {
                        served = serve(&listener, &datagrams, &seen) => served,
                        _ = stopped => Ok(()),
                    }
                })
            }
        })?;
        listens
            .recv()
            .with_context(|| format!("the application cannot listen on port {port}"))?;
        Ok(Self {
            seen,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Who reached it so far.
    pub fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: &TcpListener, datagrams: &UdpSocket, seen: &Mutex<Seen>) -> Result<()> {
    let note = |change: &dyn Fn(&mut Seen)| {
        change(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let canonical = |peer: SocketAddr| SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let mut connections = JoinSet::new();
    let mut datagram = [0; 2048];
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, peer) = accepted?;
                note(&|seen| seen.connections.push(canonical(peer)));
                connections.spawn(echo(stream));
            }
            received = datagrams.recv_from(&mut datagram) => {
                let (length, peer) = received?;
                note(&|seen| seen.datagrams.push(canonical(peer)));
                datagrams.send_to(datagram.get(..length).unwrap_or_default(), peer).await?;
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Sends back what comes; the end of one direction is the end of the other only when everything was sent back.
async fn echo(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.split();
    copy(&mut reader, &mut writer).await?;
    Ok(writer.shutdown().await?)
}
