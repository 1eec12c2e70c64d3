//! The leader is killed: how long until a manifest can be set again?

use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

use contrast_manifest::Manifest;
use contrast_proto::user::{SetManifestRequest, user_api_client::UserApiClient};
use tonic::transport::Channel;

use crate::{
    support::{channel, trio::ReplicaProcess},
    table::{self, Samples},
    world::{Cluster, status, term},
};

const RUNS: usize = 50;
/// The part ends early, and says so, after this.
const LONGEST: Duration = Duration::from_secs(600);
/// Between two tries of the client. The issue allows 50 ms.
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

pub(crate) async fn run() {
    let runs = std::env::var("CONTRAST_BENCH_RUNS").ok();
    let runs = runs.map_or(RUNS, |runs| runs.parse().expect("a number of runs"));
    let mut cluster = Cluster::start(3).await;
    let (mut detect, mut elect, mut set, mut total, mut rejoin) = Default::default();
    let [detect, elect, set, total, rejoin]: [&mut Samples; 5] =
        [&mut detect, &mut elect, &mut set, &mut total, &mut rejoin];
    let mut tries = 0;
    let begun = Instant::now();
    for done in 0..runs {
        if begun.elapsed() > LONGEST {
            println!("stopped after {done} of {runs} runs: {LONGEST:?} are over\n");
            break;
        }
        let (leader, before) = cluster.leader().await;
        let (manifest, request) = cluster.next();
        let mut watched = Vec::new();
        for survivor in survivors(&cluster.replicas, leader) {
            watched.push(survivor.client(&cluster.manifest).await);
        }
        let start = Instant::now();
        cluster.replicas[leader].kill();
        let watch = Handle::current().spawn(watch(watched, before, start));
        let living = survivors(&cluster.replicas, leader);
        let (transition, tried) = set_at_any(&living, &cluster.manifest, request).await;
        let all = start.elapsed();
        let (detected, elected) = watch.await.expect("a leader");
        tries += tried;
        detect.push(detected);
        elect.push(elected.saturating_sub(detected));
        set.push(all.saturating_sub(elected));
        total.push(all);
        cluster.took(manifest, transition);

        let start = Instant::now();
        cluster.replicas[leader].start();
        cluster.all_serve().await;
        rejoin.push(start.elapsed());
    }
    table::header();
    table::row("leader killed -> next `set` answered", total);
    table::row(
        "... until a survivor stands for election (a new term)",
        detect,
    );
    table::row("... until one of them leads", elect);
    table::row("... until the `set` is answered", set);
    table::row("killed replica started -> all three serve", rejoin);
    println!(
        "\ntries per `set`: {:.1}",
        f64::from(tries) / total.count() as f64
    );
}

fn survivors(replicas: &[ReplicaProcess], killed: usize) -> Vec<&ReplicaProcess> {
    let others = replicas
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != killed);
    others.map(|(_, replica)| replica).collect()
}

/// When, after `start`, a term later than `before` began and when somebody led in it.
async fn watch(
    mut watched: Vec<UserApiClient<Channel>>,
    before: u64,
    start: Instant,
) -> (Duration, Duration) {
    let mut detected = None;
    loop {
        for client in &mut watched {
            let status = status(client).await;
            if term(&status) > before {
                let detected = *detected.get_or_insert_with(|| start.elapsed());
                if status.role == "leader" {
                    return (detected, start.elapsed());
                }
            }
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// What an owner's client does: connects anew and asks, one replica after the other. Returns the transition, and how many tries it took.
async fn set_at_any(
    living: &[&ReplicaProcess],
    manifest: &Manifest,
    request: SetManifestRequest,
) -> (Vec<u8>, u32) {
    let mut tries = 0;
    for replica in living.iter().cycle() {
        tries += 1;
        let verifier = Arc::new(manifest.coordinator_verifier());
        if let Ok(channel) = channel(replica.user_api, None, verifier).await {
            let set = UserApiClient::new(channel)
                .set_manifest(request.clone())
                .await;
            if let Ok(set) = set {
                return (set.into_inner().transition.to_vec(), tries);
            }
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    panic!("expected living replicas, found none");
}
