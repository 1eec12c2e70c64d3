//! Pods learn of a change from any replica, and for how long the mesh CA before stays trusted.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use contrast_clock::{SystemWallClock, WallClock};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::runtime::Handle;

use super::{
    hub::{Hub, Running, timing},
    stories::{NONE, cluster, set, shares_of},
};
use crate::state::{
    StateError, TransitionHash,
    tests::fixture::{document, owner_key, recovery, request},
};

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(50);

fn now() -> SystemTime {
    SystemWallClock.now()
}

async fn set_with_overlap(running: &Running, name: &str, base: TransitionHash) -> TransitionHash {
    let owner = owner_key(1);
    let mut document = document(name, &[&owner]);
    document.mesh_ca_overlap = Some("10m".to_owned());
    let update = request(&document, base, &[&owner]);
    let receipt = running.replica.set_manifest(update).await.expect("sets");
    receipt.transition
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_any_replica_is_woken_by_a_change() {
    let hub = Hub::default();
    let (replicas, first) = cluster(&hub, 3).await;
    let waiting: Vec<_> = replicas
        .iter()
        .map(|running| {
            let replica = Arc::clone(&running.replica);
            Handle::current().spawn(async move { replica.next_transition(Some(first), LONG).await })
        })
        .collect();
    for running in &replicas {
        // Whoever knows nothing, or what is outdated, need not wait.
        for known in [None, Some(NONE)] {
            let news = running.replica.next_transition(known, LONG).await;
            assert_eq!(news.expect("answers"), first);
        }
        let unchanged = running.replica.next_transition(Some(first), SHORT).await;
        assert_eq!(unchanged.expect("answers"), first);
    }
    assert!(waiting.iter().all(|task| !task.is_finished()));
    let second = set(&replicas[0], "second", first).await.expect("sets");
    for task in waiting {
        let news = tokio::time::timeout(LONG, task).await;
        let news = news.expect("wakes").expect("does not panic");
        assert_eq!(news.expect("answers"), second);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_before_a_manifest_or_at_a_replica_that_is_cut_off() {
    let hub = Hub::default();
    let empty = Running::start(&hub, "a");
    let refused = empty.replica.next_transition(None, LONG).await;
    assert!(
        matches!(refused, Err(StateError::NoManifest)),
        "{refused:?}"
    );
    empty.kill(&hub).await;

    let hub = Hub::default();
    let (replicas, first) = cluster(&hub, 3).await;
    let cut = &replicas[2];
    hub.unplug(&cut.place);
    tokio::time::sleep(timing().confirmation_bound).await;
    let refused = cut.replica.next_transition(Some(first), SHORT).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_that_saw_the_change_tells_of_the_same_mesh_ca_before() {
    let hub = Hub::default();
    let (mut replicas, first) = cluster(&hub, 3).await;
    let key = |running: &Running| {
        let active = Arc::clone(running.replica.guard().snapshot().active().expect("active"));
        active.mesh_ca().public_key_spki().to_vec()
    };
    let before = key(&replicas[0]);
    let second = set_with_overlap(&replicas[1], "second", first).await;
    for running in &replicas {
        assert_eq!(running.head().await, second);
        let active = Arc::clone(running.replica.guard().snapshot().active().expect("active"));
        let (pem, left) = active.previous_mesh_ca(now()).expect("still trusted");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        assert!(der.windows(before.len()).any(|part| part == before));
        assert!(left <= Duration::from_mins(10), "{left:?}");
    }

    // Who comes later did not see it.
    let gone = replicas.remove(2);
    let place = gone.place.to_string();
    gone.kill(&hub).await;
    let newcomer = Running::start(&hub, &place);
    newcomer.serves().await;
    let active = newcomer.replica.confirmed().await.expect("confirmed");
    assert_eq!(active.transition(), second);
    assert!(active.previous_mesh_ca(now()).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_that_is_recovered_tells_of_no_mesh_ca_before() {
    let hub = Hub::default();
    let (mut replicas, first) = cluster(&hub, 3).await;
    let second = set_with_overlap(&replicas[0], "second", first).await;
    let survivor = replicas.remove(0);
    assert_eq!(survivor.head().await, second);
    for lost in replicas {
        lost.kill(&hub).await;
    }
    let shares = shares_of(&survivor);
    tokio::time::sleep(timing().silence).await;
    let recovered = survivor.replica.recover(recovery(&shares, Some(second)));
    let recovered = recovered.await.expect("recovers");
    let active = survivor.replica.confirmed().await.expect("confirmed");
    assert_eq!(active.transition(), recovered);
    assert!(active.previous_mesh_ca(now()).is_none());
}
