//! Certificates from one replica and from three.
//!
//! Clients and replicas share the processors, so requests per second say little about what each replica could do on a processor of
//! its own. What is compared is processor time: with one processor each, replicas together issue as fast as the busiest of them
//! allows.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

use contrast_proto::mesh::{NewMeshCertRequest, mesh_api_client::MeshApiClient};
use tonic::transport::Channel;

use crate::{
    support::{WEB_INITDATA, mesh_client, trio::ReplicaProcess},
    table::{self, Samples, millis},
    world::Cluster,
};

const CLIENTS: usize = 64;
const ROUNDS: usize = 3;
const LASTS: Duration = Duration::from_secs(5);
const ALONE: usize = 500;

/// What replicas did under load.
struct Load {
    issued: usize,
    wall: Duration,
    /// Processor time of each replica.
    spent: Vec<Duration>,
    latency: Samples,
}

impl Load {
    /// Certificates per second, if each replica had one processor for itself.
    fn rate(&self) -> f64 {
        let busiest = self.spent.iter().max().expect("replicas");
        self.issued as f64 / busiest.as_secs_f64()
    }

    fn per_certificate(&self) -> Duration {
        let issued = u32::try_from(self.issued).expect("fits");
        self.spent.iter().sum::<Duration>() / issued
    }
}

pub(crate) async fn run() {
    let single = Cluster::start(1).await;
    let trio = Cluster::start(3).await;
    let (leader, _) = trio.leader().await;
    let follower = (leader + 1) % 3;

    table::header();
    let [mut one, mut led, mut followed] = [const { Vec::new() }; 3];
    let mut clients = [
        (connect(&single, &single.replicas[0]).await, &mut one),
        (connect(&trio, &trio.replicas[leader]).await, &mut led),
        (
            connect(&trio, &trio.replicas[follower]).await,
            &mut followed,
        ),
    ];
    for _ in 0..ALONE {
        for (client, samples) in &mut clients {
            samples.push(request(client).await);
        }
    }
    let [one, led, followed] = [one, led, followed].map(Samples::from_iter);
    table::row("`NewMeshCert`, one replica", &one);
    table::row("`NewMeshCert`, leader of three", &led);
    table::row("`NewMeshCert`, follower of three", &followed);
    let extra = |samples: &Samples| millis(samples.median().saturating_sub(one.median()));
    println!(
        "\nconfirmation by a quorum, p50: {} at the leader, {} at a follower\n",
        extra(&led),
        extra(&followed)
    );

    println!(
        "| {CLIENTS} clients | certificates/s | p50 | p99 | processor time per certificate | busiest replica's share | certificates/s with a processor each |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut gains = Vec::new();
    for _ in 0..ROUNDS {
        let one = load(&single).await;
        let three = load(&trio).await;
        for (name, load) in [("one replica", &one), ("three replicas", &three)] {
            let busiest = load.spent.iter().max().expect("replicas");
            let share = busiest.as_secs_f64() / load.spent.iter().sum::<Duration>().as_secs_f64();
            println!(
                "| {name} | {:.0} | {} | {} | {} | {:.0} % | {:.0} |",
                load.issued as f64 / load.wall.as_secs_f64(),
                millis(load.latency.median()),
                millis(load.latency.percentile(99)),
                millis(load.per_certificate()),
                share * 100.0,
                load.rate(),
            );
        }
        gains.push(three.rate() / one.rate());
    }
    gains.sort_by(f64::total_cmp);
    println!(
        "\nthree replicas with a processor each issue {:.2} times as much as one with one (median of {ROUNDS} rounds)",
        gains[ROUNDS / 2]
    );
}

async fn connect(cluster: &Cluster, replica: &ReplicaProcess) -> MeshApiClient<Channel> {
    let guest = cluster.owner.guest(WEB_INITDATA);
    let client = mesh_client(replica.mesh_api, &cluster.manifest, guest).await;
    client.expect("attests")
}

async fn request(client: &mut MeshApiClient<Channel>) -> Duration {
    let start = Instant::now();
    client
        .new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("issues");
    start.elapsed()
}

/// Every client has a connection of its own and asks again as soon as it is answered.
async fn load(cluster: &Cluster) -> Load {
    let mut clients = Vec::new();
    for (_, replica) in (0..CLIENTS).zip(cluster.replicas.iter().cycle()) {
        clients.push(connect(cluster, replica).await);
    }
    let issued = Arc::new(AtomicUsize::new(0));
    let before: Vec<Duration> = cluster.replicas.iter().map(spent).collect();
    let start = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let issued = Arc::clone(&issued);
            Handle::current().spawn(async move {
                let mut samples = Vec::new();
                while start.elapsed() < LASTS {
                    samples.push(request(&mut client).await);
                    issued.fetch_add(1, Ordering::Relaxed);
                }
                samples
            })
        })
        .collect();
    let mut samples = Vec::new();
    for task in tasks {
        samples.extend(task.await.expect("a client"));
    }
    let wall = start.elapsed();
    let after = cluster.replicas.iter().map(spent);
    Load {
        issued: issued.load(Ordering::Relaxed),
        wall,
        spent: after
            .zip(before)
            .map(|(after, before)| after - before)
            .collect(),
        latency: samples.into_iter().collect(),
    }
}

/// Processor time that a replica has used, user and system, from `proc_pid_stat(5)`.
fn spent(replica: &ReplicaProcess) -> Duration {
    // Linux counts in USER_HZ, which is 100 on every architecture that Coordinators run on.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{}/stat", replica.pid())).expect("it runs");
    // The name in parentheses may contain spaces; the state follows as field 3.
    let (_, fields) = stat.rsplit_once(") ").expect("the format of Linux");
    let ticks: u32 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u32>().expect("ticks"))
        .sum();
    TICK * ticks
}
