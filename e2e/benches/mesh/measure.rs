//! One round of each measurement.

use std::{
    fs,
    io::Read as _,
    net::{Shutdown, SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use contrast_e2e::harness::{
    Network,
    mesh::{Generation, Wire, open},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime,
    task::JoinSet,
};
use tokio_rustls::rustls::client::Resumption;

use crate::SERVER;

const MESSAGE: usize = 1024;
const WARM_UP: usize = 200;
const EXCHANGES: usize = 2000;
const CONNECTIONS: usize = 16;
const CONNECTING: usize = 8;
const WINDOW: Duration = Duration::from_secs(1);
const BULK: usize = 256 << 20;
const BLOCK: usize = 256 * 1024;

/// One way from a client to applications.
pub(crate) struct Route {
    pub(crate) name: &'static str,
    /// Where the client is.
    pub(crate) node: usize,
    pub(crate) echo: SocketAddr,
    pub(crate) sink: SocketAddr,
}

fn on<T: Send + 'static>(
    network: &Network,
    node: usize,
    work: impl AsyncFnOnce() -> T + Send + 'static,
) -> T {
    let run = move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("runtime").block_on(work())
    };
    network.within(node, run).expect("namespace")
}

async fn exchange(stream: &mut TcpStream, message: &mut [u8]) -> std::io::Result<()> {
    stream.write_all(message).await?;
    stream.read_exact(message).await?;
    Ok(())
}

/// Median of one exchange, in microseconds.
pub(crate) fn latencies(network: &Network, route: &Route) -> f64 {
    let address = route.echo;
    let samples = on(network, route.node, async move || {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("option");
        let mut message = [7; MESSAGE];
        let mut samples = Vec::with_capacity(EXCHANGES);
        for number in 0..WARM_UP + EXCHANGES {
            let begun = Instant::now();
            exchange(&mut stream, &mut message).await.expect("answers");
            if number >= WARM_UP {
                samples.push(begun.elapsed().as_secs_f64() * 1e6);
            }
        }
        samples
    });
    median(samples)
}

/// Exchanges per second on many connections.
pub(crate) fn exchanges(network: &Network, route: &Route) -> f64 {
    let address = route.echo;
    on(network, route.node, async move || {
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("connects");
                stream.set_nodelay(true).expect("option");
                let mut message = [7; MESSAGE];
                exchange(&mut stream, &mut message).await.expect("answers");
                let (begun, mut done) = (Instant::now(), 0_u32);
                while begun.elapsed() < WINDOW {
                    exchange(&mut stream, &mut message).await.expect("answers");
                    done += 1;
                }
                f64::from(done) / begun.elapsed().as_secs_f64()
            });
        }
        clients.join_all().await.into_iter().sum()
    })
}

/// Megabytes per second on one connection.
pub(crate) fn bulk(network: &Network, route: &Route) -> f64 {
    let address = route.sink;
    on(network, route.node, async move || {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let block = vec![7; BLOCK];
        let begun = Instant::now();
        for _ in 0..BULK / BLOCK {
            stream.write_all(&block).await.expect("sends");
        }
        stream.shutdown().await.expect("ends");
        // The other side ends when it has everything.
        let mut end = Vec::new();
        stream.read_to_end(&mut end).await.expect("ends");
        (BULK as f64) / 1e6 / begun.elapsed().as_secs_f64()
    })
}

/// Connections per second, each with one exchange.
pub(crate) fn connections(network: &Network, route: &Route) -> f64 {
    let address = route.echo;
    on(network, route.node, async move || {
        connect_all_the_time(address, &Wire::Plain).await
    })
}

async fn connect_all_the_time(address: SocketAddr, wire: &Wire) -> f64 {
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTING {
        let wire = wire.clone();
        clients.spawn(async move {
            let (begun, mut done) = (Instant::now(), 0_u32);
            while begun.elapsed() < WINDOW {
                let mut stream = open(address, &wire).await.expect("connects");
                let mut message = [7; 64];
                stream.write_all(&message).await.expect("sends");
                stream.read_exact(&mut message).await.expect("answers");
                done += 1;
            }
            f64::from(done) / begun.elapsed().as_secs_f64()
        });
    }
    clients.join_all().await.into_iter().sum()
}

/// Connections per second of a client that speaks TLS itself, with and without resumption.
pub(crate) fn handshakes(
    network: &Network,
    node: usize,
    generation: &Generation,
    ours: SocketAddr,
    by_hand: SocketAddr,
) {
    let identity = generation.issue("test/deployment/client", &["client".to_owned()]);
    let identity = identity.expect("certificate");
    println!(
        "\n| connections to the server's Envoy from a client that speaks TLS | by hand | sidecar |"
    );
    println!("| --- | --- | --- |");
    for (what, resumption) in [
        ("full handshakes", Resumption::disabled()),
        ("sessions offered", Resumption::in_memory_sessions(256)),
    ] {
        let mut config = (*identity.client().expect("client")).clone();
        config.resumption = resumption;
        let wire = Wire::Tls(Arc::new(config), SERVER);
        let mut rates = [(); 2].map(|()| Vec::new());
        for _ in 0..crate::ROUNDS {
            for (rates, address) in rates.iter_mut().zip([by_hand, ours]) {
                let wire = wire.clone();
                rates.push(on(network, node, async move || {
                    connect_all_the_time(address, &wire).await
                }));
            }
        }
        let [by_hand, ours] = rates.map(median);
        println!("| {what} | {by_hand:.0} /s | {ours:.0} /s |");
    }
}

/// An application that reads everything and then ends.
pub(crate) fn sink(
    network: &Network,
    node: usize,
    port: u16,
) -> std::thread::JoinHandle<anyhow::Result<()>> {
    let listener = network.within(node, move || TcpListener::bind(("::", port)));
    let listener = listener.expect("namespace").expect("port");
    let serving = network.spawn(node, move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("connection");
            let mut buffer = vec![0; BLOCK];
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    serving.expect("thread")
}

pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    *samples.get(samples.len() / 2).expect("has samples")
}

/// Processor, number of cores and load.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown processor")
        .trim_start_matches(['\t', ' ', ':'])
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!("{model}, {cores} cores, load {load} at the begin")
}
