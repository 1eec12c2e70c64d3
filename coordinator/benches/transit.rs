//! What the transit engine costs beside an empty handler over the same TLS.
//!
//! `cargo bench -p contrast-coordinator --bench transit`. Both servers run in this process, in turns, and are asked by the same client on one
//! thread over connections that stay open: 1 KiB is encrypted, and what came of it is decrypted. The empty handler gets the same requests, and
//! reads nothing. The processor time of the servers is that of the process without the client's thread.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench that meets the unexpected has to stop there, and its output is its purpose"
)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use contrast_clock::{SystemWallClock, WallClock};
use contrast_mesh_tls::MeshServer;
use futures::future::join_all;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use support::{
    Deployment, WEB_INITDATA,
    transit::{Connection, Credentials, Mesh},
    user_client,
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
};
use tower::ServiceExt as _;

#[path = "../tests/support/mod.rs"]
mod support;

const NAME: &str = "apps/v1/Deployment/default/web";
const PLAINTEXT_BYTES: usize = 1024;
/// Connections of the second part.
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_secs(1);

/// An empty handler behind the TLS of the mesh; served until the process ends.
fn start_empty(mesh: &Mesh) -> SocketAddr {
    let (chain, key) = mesh.leaf("coordinator", None);
    let mesh_ca = mesh.0.self_signed_pem();
    let tls = MeshServer::new(&chain, &key.into(), &[&mesh_ca], Arc::new(SystemWallClock));
    let tls = Arc::new(tls.expect("a server"));
    let (ready, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Runtime::new().expect("runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
            let address = listener.local_addr().expect("an address");
            ready.send(address).expect("the bench waits");
            let router = Router::new().fallback(|| async { StatusCode::OK });
            loop {
                let (tcp, _) = listener.accept().await.expect("accepts");
                tcp.set_nodelay(true).expect("sets");
                let (tls, router) = (Arc::clone(&tls), router.clone());
                Handle::current().spawn(async move {
                    let (stream, _) = tls.accept(tcp).await.expect("a member");
                    let answer = service_fn(move |request: Request<Incoming>| {
                        let answer = router.clone().oneshot(request);
                        async { Ok::<_, Infallible>(answer.await.expect("cannot fail")) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new()).http1_only();
                    let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
    });
    address.recv().expect("it starts")
}

/// A server, and open connections to it.
struct Asked {
    connections: Vec<Connection>,
    /// Encrypt and decrypt.
    requests: [(String, Bytes); 2],
}

impl Asked {
    async fn connect(address: SocketAddr, credentials: &Credentials) -> Vec<Connection> {
        let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
        let open = (0..CONNECTIONS).map(|_| Connection::open(address, credentials, &clock));
        let open = join_all(open).await.into_iter();
        open.map(|connection| connection.expect("connects"))
            .collect()
    }

    /// Asks over `count` connections for [`ROUND`].
    async fn round(&mut self, count: usize) -> Sample {
        let (begun, used) = (Instant::now(), server_time());
        let requests = &self.requests;
        let asking = self.connections.iter_mut().take(count);
        let asking = asking.map(|connection| async move {
            let mut done = 0_u32;
            while begun.elapsed() < ROUND {
                for (path, body) in requests {
                    let asked = connection.ask(("POST", path, body.clone()));
                    let answer = asked.await.expect("answers");
                    assert_eq!(answer.status, 200);
                    done += 1;
                }
            }
            done
        });
        let done: u32 = join_all(asking).await.into_iter().sum();
        Sample {
            wall: begun.elapsed() / done,
            server: (server_time() - used) / done,
        }
    }
}

/// Processor time of this process without the thread that calls, which is the client.
fn server_time() -> Duration {
    let of = |clock| Duration::try_from(clock_gettime(clock)).expect("a time");
    of(ClockId::ProcessCPUTime) - of(ClockId::ThreadCPUTime)
}

/// For one operation.
#[derive(Clone, Copy)]
struct Sample {
    wall: Duration,
    server: Duration,
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> Duration) -> f64 {
    let mut sorted: Vec<_> = samples.iter().map(of).collect();
    sorted.sort_unstable();
    let middle = sorted.get(sorted.len() / 2).expect("has samples");
    middle.as_secs_f64() * 1e6
}

/// Connections to the engine, and requests that it answers.
async fn engine(address: SocketAddr, credentials: &Credentials) -> Asked {
    let mut connections = Asked::connect(address, credentials).await;
    let encrypt = format!("/v1/transit/encrypt/{NAME}");
    let plaintext = STANDARD.encode([0x5a; PLAINTEXT_BYTES]);
    let body = Bytes::from(json!({ "plaintext": plaintext }).to_string());
    let first = connections.first_mut().expect("a connection");
    let made = first.ask(("POST", &encrypt, body.clone())).await;
    let made = made.expect("answers").json();
    let decrypt = json!({ "ciphertext": made["data"]["ciphertext"] }).to_string();
    let decrypt = (format!("/v1/transit/decrypt/{NAME}"), decrypt.into());
    Asked {
        connections,
        requests: [(encrypt, body), decrypt],
    }
}

fn main() {
    let client = Builder::new_current_thread().enable_all().build();
    client.expect("runtime").block_on(run());
}

async fn run() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = user.set_manifest(deployment.request(&manifest, &[])).await;
    set.expect("sets");
    let guest = deployment.guest(WEB_INITDATA);
    let own = Credentials::fetch(coordinator.addresses.mesh_api, &manifest, guest).await;
    let mut engine = engine(coordinator.addresses.transit_api, &own).await;
    let mesh = Mesh::new();
    let of_mesh = Credentials {
        own: Some(mesh.leaf("web", Some(NAME))),
        mesh_ca: mesh.0.self_signed_pem(),
    };
    let mut empty = Asked {
        connections: Asked::connect(start_empty(&mesh), &of_mesh).await,
        requests: engine.requests.clone(),
    };

    println!(
        "| connections | | time per operation | operations/s | server's processor time | per core |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for count in [1, CONNECTIONS] {
        let mut samples = [Vec::new(), Vec::new()];
        for round in 0..=ROUNDS {
            for (asked, samples) in [&mut engine, &mut empty].into_iter().zip(&mut samples) {
                let sample = asked.round(count).await;
                // The first warms up.
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
        let [walls, servers] = [|one: &Sample| one.wall, |one: &Sample| one.server]
            .map(|of| [0, 1].map(|which: usize| median(&samples[which], of)));
        for (which, name) in ["transit engine", "empty handler"].iter().enumerate() {
            let (wall, server) = (walls[which], servers[which]);
            let (rate, per_core) = (1e6 / wall, 1e6 / server);
            println!(
                "| {count} | {name} | {wall:.1} µs | {rate:.0} | {server:.1} µs | {per_core:.0} |"
            );
        }
        let (wall, server) = (walls[0] / walls[1], servers[0] / servers[1]);
        println!("| {count} | ratio | {wall:.2} | | {server:.2} | |");
    }
}
