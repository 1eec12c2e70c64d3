//! Many workloads that start at the same time, as after a power failure of the nodes.

use std::{
    collections::BTreeMap,
    sync::PoisonError,
    time::{Duration, Instant},
};

use contrast_e2e::{
    harness::{Cluster, ReplicaSet, no_network_because},
    load::{Connection, Deployment},
};
use tokio::task::JoinSet;

use crate::story::TURN;

/// Pods, and how many of them ask at once.
const WORKLOADS: usize = 1000;
const AT_ONCE: usize = 50;
const REPLICAS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(60);

/// Everything that one join takes: a key, a connection that both sides prove, a certificate.
async fn join(deployment: Deployment, replica: usize) -> Result<Duration, String> {
    let start = Instant::now();
    let mut connection = Connection::new(
        deployment.replicas[replica],
        &deployment.coordinators,
        &deployment.workload,
    );
    let answer = connection.certificate().await;
    let answer = answer.map_err(|refusal| format!("replica {replica}: {refusal:?}"))?;
    assert!(!answer.certificate_chain.is_empty(), "no certificate");
    Ok(start.elapsed())
}

#[test]
fn a_thousand_workloads_join_and_none_is_refused() {
    if let Some(reason) = no_network_because() {
        eprintln!("joining: skipped, because {reason}");
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 61).expect("cluster");
    cluster.generate().expect("generates");
    let replicas = ReplicaSet::create(&cluster, REPLICAS, &[]).expect("replicas");
    for replica in 0..REPLICAS {
        replicas.start(replica).expect("starts");
    }
    let coordinators = replicas.user_apis(0..REPLICAS);
    cluster
        .owner()
        .contrast(&["set", "-c", &coordinators, "resources"])
        .expect("sets");
    for replica in 0..REPLICAS {
        replicas.await_ready(replica, DEADLINE).expect("ready");
    }
    let deployment = Deployment::of(&cluster, &replicas).expect("deployment");

    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(all_join(&deployment));
}

async fn all_join(deployment: &Deployment) {
    let start = Instant::now();
    let (mut waiting, mut joining) = ((0..WORKLOADS).rev().collect::<Vec<_>>(), JoinSet::new());
    let (mut took, mut refused) = (Vec::new(), BTreeMap::<String, usize>::new());
    loop {
        while joining.len() < AT_ONCE
            && let Some(number) = waiting.pop()
        {
            joining.spawn(join(deployment.clone(), number % REPLICAS));
        }
        match joining.join_next().await {
            None => break,
            Some(joined) => match joined.expect("no panic") {
                Ok(time) => took.push(time),
                Err(error) => *refused.entry(error).or_default() += 1,
            },
        }
    }
    let whole = start.elapsed();
    took.sort();
    let quantile = |percent: usize| took.get(took.len() * percent / 100);
    eprintln!(
        "joining: {} workloads, {AT_ONCE} at once, in {whole:?}; p50 {:?}, p99 {:?}",
        took.len(),
        quantile(50),
        quantile(99)
    );
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(took.len(), WORKLOADS);
}
