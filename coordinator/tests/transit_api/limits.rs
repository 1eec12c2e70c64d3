//! What one workload can take from the others.

use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::{runtime::Handle, time::sleep};

use crate::{
    support::{
        Deployment, WEB_INITDATA, policy_hash,
        transit::{Connection, Credentials},
    },
    world::{NAME, PLAIN_INITDATA, ask, document, fetch, parsed, set, system_clock},
};

/// As many as all workloads together may have.
const STALLED: usize = 256;

#[tokio::test]
async fn bodies_that_never_come_hinder_no_other_workload() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let place = (&deployment, &coordinator);
    let address = coordinator.addresses.transit_api;
    let mut manifest = deployment.document("web");
    let mut plain = manifest.policies[&policy_hash(WEB_INITDATA).to_string()].clone();
    plain.workload_secret_id = String::new();
    let hash = policy_hash(PLAIN_INITDATA).to_string();
    manifest.policies.insert(hash, plain);
    let manifest = parsed(&manifest);
    set(place, &manifest, &[], &[PLAIN_INITDATA]).await;
    let own = fetch(place, &manifest).await;
    let guest = deployment.guest(PLAIN_INITDATA);
    let other = Credentials::fetch(coordinator.addresses.mesh_api, &manifest, guest).await;
    let clock = system_clock();

    let connect = || Connection::open(address, &own, &clock);
    let opened = try_join_all((0..STALLED).map(|_| connect())).await;
    let target = format!("/v1/transit/encrypt/{NAME}");
    let stalled = opened.expect("connect").into_iter().map(|connection| {
        let target = target.clone();
        Handle::current().spawn(async move { connection.stall(&target, 1024 * 1024).await })
    });
    let stalled: Vec<_> = stalled.collect();
    // Long enough for them to arrive, and far less than what they are waited for.
    sleep(Duration::from_secs(2)).await;

    let mut api = document();
    let connection = Connection::open(address, &other, &clock).await;
    let mut connection = connection.expect("connects");
    let random = ("POST", "/v1/transit/random", r#"{"bytes": 5}"#);
    let answer = ask(&mut api, &mut connection, random).await;
    assert_eq!(answer.status, 200);
    // Whoever was answered before, to make room, hears of it meanwhile.
    sleep(Duration::from_secs(1)).await;
    let waiting = stalled.iter().filter(|task| !task.is_finished()).count();
    assert_eq!(waiting, STALLED, "answered only after the others had ended");

    // Its owner is not told that it is unhealthy, either.
    drop(connection);
    let connection = Connection::open(address, &own, &clock).await;
    let health = ("GET", "/v1/sys/health", Bytes::new());
    let answer = connection.expect("connects").ask(health).await;
    assert_eq!(answer.expect("answers").status, 200);
    for task in stalled {
        task.abort();
    }
    coordinator.stop().await.expect("stops");
}
