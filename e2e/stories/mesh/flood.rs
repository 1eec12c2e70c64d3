//! Somebody without a certificate connects all the time, while the sidecar starts, crashes, starts again and ends.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use contrast_e2e::harness::mesh::{Application, Bed, Generation, MeshPod, Wire, reach};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};

use crate::scene::{PORT, SERVER, turn};

const CONNECTIONS: usize = 24;
/// Who is dropped waits; not for long.
const PATIENCE: Duration = Duration::from_millis(60);
/// Attempts that each phase waits for.
const ATTEMPTS: u64 = 150;

/// What the flood has done so far.
#[derive(Default)]
struct Count {
    attempts: AtomicU64,
    answers: AtomicU64,
    stop: AtomicBool,
}

struct Flood {
    count: Arc<Count>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Flood {
    fn start(bed: &Bed, stranger: usize, targets: Vec<SocketAddr>) -> Self {
        let count = Arc::new(Count::default());
        let thread = bed.network().spawn(stranger, {
            let count = Arc::clone(&count);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("runtime");
                let mut flood = JoinSet::new();
                for number in 0..CONNECTIONS {
                    let target = targets[number % targets.len()];
                    let count = Arc::clone(&count);
                    flood.spawn_on(connect_all_the_time(target, count), runtime.handle());
                }
                runtime.block_on(async { while flood.join_next().await.is_some() {} });
            }
        });
        Self {
            count,
            thread: Some(thread.expect("thread")),
        }
    }

    /// Waits until it has tried many times from now on.
    fn goes_on(&self, phase: &str) {
        let begun = self.count.attempts.load(Ordering::Relaxed);
        for _ in 0..2000 {
            if self.count.attempts.load(Ordering::Relaxed) >= begun + ATTEMPTS {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{phase}: the flood has dried up");
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.count.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn connect_all_the_time(target: SocketAddr, count: Arc<Count>) {
    let own = match target.is_ipv4() {
        true => "0.0.0.0:0",
        false => "[::]:0",
    };
    let datagrams = UdpSocket::bind(own).await.expect("a port");
    while !count.stop.load(Ordering::Relaxed) {
        count.attempts.fetch_add(1, Ordering::Relaxed);
        // It may be refused at once.
        let _ = datagrams.send_to(b"ping", target).await;
        let answer = async {
            let mut stream = TcpStream::connect(target).await?;
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
            stream.read(&mut [0; 64]).await
        };
        match timeout(PATIENCE, answer).await {
            Ok(Ok(length)) if length > 0 => {
                count.answers.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            Err(_) => {}
        }
    }
}

/// Whether a member reaches the application on all addresses.
fn members_reach(bed: &Bed, member: usize, pod: &MeshPod, wire: &Wire) -> Vec<bool> {
    let reach = |address| reach(bed.network(), member, address, wire).is_ok();
    pod.at(PORT).map(reach).collect()
}

#[test]
fn application_counts_no_connection_around_the_mesh_in_all_its_life() {
    let _turn = turn();
    let Some(mut bed) = Bed::create("flood").expect("network") else {
        return;
    };
    let generation = Generation::create().expect("CA");
    let (stranger, outside) = (bed.stranger().expect("node"), bed.stranger().expect("node"));
    let from_stranger: Vec<IpAddr> = bed.network().addresses(stranger);
    let mut pod = bed.pod(&[]).expect("pod");
    // It is there from the first moment on, which a kubelet would not do.
    let application = Application::start(bed.network(), pod.node, PORT).expect("application");
    let names = [&[SERVER.to_owned()], pod.names().as_slice()].concat();
    let server = generation
        .issue("test/deployment/server", &names)
        .expect("certificate");
    let client = generation.issue("test/deployment/client", &["client".to_owned()]);
    let client = client.and_then(|identity| identity.client());
    let member = Wire::Tls(client.expect("client"), SERVER);
    let (none, all) = (
        vec![false; pod.addresses.len()],
        vec![true; pod.addresses.len()],
    );

    let flood = Flood::start(&bed, stranger, pod.at(PORT).collect());
    flood.goes_on("before the sidecar");
    pod.start().expect("starts");
    flood.goes_on("sidecar without certificates");
    assert!(!pod.is_ready(), "ready without certificates");
    pod.install(&server).expect("installs");
    pod.wait_until_ready().expect("ready");
    flood.goes_on("sidecar ready");
    assert_eq!(members_reach(&bed, outside, &pod, &member), all);

    for _ in 0..3 {
        pod.kill().expect("kills");
        flood.goes_on("sidecar and Envoy killed");
        assert_eq!(members_reach(&bed, outside, &pod, &member), none);
        pod.start().expect("starts again");
        flood.goes_on("sidecar starts again");
        pod.wait_until_ready().expect("ready again");
        assert_eq!(members_reach(&bed, outside, &pod, &member), all);
    }
    pod.stop().expect("ends");
    flood.goes_on("sidecar ended");
    assert_eq!(members_reach(&bed, outside, &pod, &member), none);

    let (attempts, answers) = (
        flood.count.attempts.load(Ordering::Relaxed),
        flood.count.answers.load(Ordering::Relaxed),
    );
    drop(flood);
    let seen = application.seen();
    eprintln!(
        "{attempts} attempts, {answers} answers, {} connections of members",
        seen.connections.len()
    );
    for address in from_stranger {
        assert_eq!(seen.from(address), 0, "{seen:?}");
    }
    assert_eq!(answers, 0);
    assert_eq!(seen.connections.len(), 4 * pod.addresses.len());
    assert!(seen.datagrams.is_empty(), "{seen:?}");
}
