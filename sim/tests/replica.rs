//! Replicas in the simulated world, without faults.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{sync::Arc, time::Duration};

use contrast_coordinator::{
    replica::{Timing, message::Place},
    state::TransitionHash,
};
use contrast_sim::{
    checker::Checker,
    clock::SimWallClock,
    deployment::{Owners, coordinator_policy},
    dice::Dice,
    disk::Disk,
    journal::Journal,
    network::{Identity, Network},
    process::{Machine, Process},
    runtime::{Node, NodeRuntime, sleep_in_world},
};
use openraft::AsyncRuntime;

async fn boot(network: &Network, name: &str, number: u64) -> Process {
    let place = Place::new(name);
    network.list(&place);
    let machine = Machine {
        place: place.clone(),
        disk: Disk::new(Dice::new(number, "disk")),
        clock: Arc::new(SimWallClock::default()),
        network: network.clone(),
    };
    let identity = Identity {
        name: format!("{name}.{number}"),
        place,
        policy: coordinator_policy(1),
        genuine: true,
    };
    let node = Node::new(&identity.name);
    let booted = Process::boot(&machine, node, identity, Timing::default(), number).await;
    booted.expect("opens").expect("lives")
}

async fn story(seed: u64) -> (Journal, Vec<TransitionHash>) {
    let journal = Journal::default();
    let checker = Checker::new(&journal, Duration::from_secs(10));
    let network = Network::new(Dice::new(seed, "network"), &journal, &checker);
    network.allow_secrets_to(coordinator_policy(1));
    let mut replicas = Vec::new();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        replicas.push(boot(&network, name, number as u64).await);
    }
    let owners = Owners::new().expect("owners");
    let mut chain = vec![TransitionHash::NONE];
    for (index, process) in replicas.iter().enumerate() {
        let base = *chain.last().expect("never empty");
        let request = owners.request(&format!("m{index}"), &[1], base);
        let (replica, request) = (Arc::clone(&process.replica), request.expect("request"));
        let task = process
            .node
            .spawn(async move { replica.set_manifest(request).await });
        let receipt = task.await.expect("lives").expect("sets");
        chain.push(receipt.transition);
        journal.event(receipt.transition);
        sleep_in_world(Duration::from_secs(10)).await;
    }
    for process in &replicas {
        let replica = Arc::clone(&process.replica);
        let read = process.node.spawn(async move { replica.confirmed().await });
        let active = read.await.expect("lives").expect("confirms");
        assert_eq!(Some(&active.transition()), chain.last());
    }
    (journal, chain)
}

#[test]
fn three_replicas_found_a_cluster_set_on_any_and_read_on_all_and_the_seed_repeats_it() {
    let run = |seed| NodeRuntime::with_seed(seed).block_on(story(seed));
    let (journal, chain) = run(1);
    assert_eq!(journal.verdict(), None);
    let (again, same_chain) = run(1);
    assert_eq!(chain, same_chain);
    assert_eq!(journal.fingerprint(), again.fingerprint());
}

#[test]
fn same_seed_repeats_a_whole_run_with_its_faults_and_another_seed_differs() {
    let run = |seed| contrast_sim::world::run(seed, 40);
    let (first, again, other) = (run(7), run(7), run(8));
    assert_eq!(first.verdict, None);
    assert_eq!(first.trace, again.trace);
    assert_eq!(first.fingerprint, again.fingerprint);
    assert_ne!(first.fingerprint, other.fingerprint);
}
