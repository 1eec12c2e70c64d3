//! A host that takes the record of encrypted volumes out of a replica's disk, lets the replica start beside others, and ends all of
//! them at the worst moment.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contrast_coordinator::{
    replica::{Timing, message::Place},
    state::{
        Advance, Advanced, Collected, Collection, Generation, StateError, TransitionHash, VolumeId,
    },
};
use contrast_sim::{
    checker::Checker,
    clock::SimWallClock,
    deployment::{Owners, coordinator_policy},
    dice::Dice,
    disk::{Disk, FileName},
    journal::Journal,
    network::{Identity, Network},
    process::{Machine, Process},
    runtime::{Node, NodeRuntime, sleep_in_world},
};
use openraft::AsyncRuntime;

const VOLUME: VolumeId = VolumeId([7; 16]);

struct World {
    network: Network,
    journal: Journal,
    machines: Vec<Machine>,
    boots: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let journal = Journal::default();
        let checker = Checker::new(&journal, Duration::from_secs(10));
        let network = Network::new(Dice::new(seed, "network"), &journal, &checker);
        network.allow_secrets_to(coordinator_policy(1));
        let machine = |number: u64| {
            let place = Place::new(&format!("{number}"));
            network.list(&place);
            Machine {
                place,
                disk: Disk::new(Dice::new(number, "disk")),
                clock: Arc::new(SimWallClock::default()),
                network: network.clone(),
            }
        };
        Self {
            machines: (0..3).map(machine).collect(),
            network,
            journal,
            boots: 0,
        }
    }

    /// Starts a process that ends after so many disk operations.
    async fn boot(&mut self, index: usize, operations: u64) -> Option<Process> {
        self.boots += 1;
        let machine = &self.machines[index];
        let identity = Identity {
            name: format!("{}.{}", machine.place, self.boots),
            place: machine.place.clone(),
            policy: coordinator_policy(1),
            genuine: true,
        };
        let node = Node::new(&identity.name);
        node.kill_after_disk_operations(operations);
        let booted = Process::boot(machine, node, identity, Timing::default(), self.boots).await;
        booted.ok().flatten()
    }
}

/// Recovers at a replica that is alone; the generation that it then shows.
async fn recover(process: &Process, known: TransitionHash) -> Result<Option<u64>, StateError> {
    let replica = Arc::clone(&process.replica);
    let work = async move {
        let owners = Owners::new().expect("owners");
        let snapshot = replica.guard().snapshot();
        let history = snapshot.history().expect("a history");
        let mut collection = Collection::default();
        let mut request = None;
        for owner in owners.seed_share_owners().take(2) {
            let share = owners.seed_share(owner, history.seed_shares(), Some(known), false);
            let added = collection.add(history, share.expect("own share"), Instant::now());
            if let Collected::Complete(complete) = added.expect("of this deployment") {
                request = Some(complete);
            }
        }
        replica.recover(request.expect("two of three")).await?;
        let (_, volumes) = replica.confirmed_volumes().await?;
        Ok(volumes.get("secret", VOLUME).map(|at| at.number))
    };
    process.node.spawn(work).await.expect("lives")
}

/// Generation 1 is accepted, and a manifest covers it. Then the host takes the record and the logs of one replica, starts it beside the
/// others, and ends all when it has done so many disk operations. What a recovery of that disk shows.
async fn story(operations: u64) -> Result<Option<u64>, StateError> {
    let mut world = World::new(1);
    let mut replicas = Vec::new();
    for index in 0..3 {
        replicas.push(world.boot(index, u64::MAX).await.expect("lives"));
        sleep_in_world(Duration::from_secs(1)).await;
    }
    let replica = Arc::clone(&replicas[0].replica);
    let work = async move {
        let owners = Owners::new().expect("owners");
        let set = async |name: &str, base| {
            let request = owners.request(name, &[1], base).expect("request");
            let receipt = replica.set_manifest(request).await;
            receipt.expect("sets").transition
        };
        let first = set("m1", TransitionHash::NONE).await;
        let advance = Advance {
            secret_id: "secret".into(),
            volume: VOLUME,
            generation: Generation {
                number: 1,
                reporter: [1; 32],
            },
        };
        let advanced = replica.advance_volume(advance).await.expect("records");
        assert_eq!(advanced, Advanced::Accepted);
        // All replicas are admitted, and have it.
        NodeRuntime::sleep(Duration::from_secs(20)).await;
        set("m2", first).await
    };
    let known = replicas[0].node.spawn(work).await.expect("lives");
    sleep_in_world(Duration::from_secs(5)).await;

    replicas[2].node.kill();
    let disk = world.machines[2].disk.clone();
    assert!(disk.put_volume_record(None));
    disk.wipe(FileName::Log);
    disk.wipe(FileName::LogAside);
    let beside = world.boot(2, operations).await;
    sleep_in_world(Duration::from_secs(5)).await;
    for process in replicas.iter().chain(&beside) {
        process.node.kill();
    }
    let alone = world.boot(2, u64::MAX).await.expect("lives");
    sleep_in_world(Duration::from_secs(1)).await;
    let outcome = recover(&alone, known).await;
    alone.node.kill();
    world.network.end();
    assert_eq!(world.journal.verdict(), None);
    outcome
}

#[test]
fn replica_that_starts_beside_others_makes_no_record_up() {
    let (mut refused, mut shown) = (0, 0);
    for operations in (0..40).step_by(6).chain([u64::MAX]) {
        match NodeRuntime::with_seed(1).block_on(story(operations)) {
            Ok(found) => {
                assert_eq!(found, Some(1), "ended after {operations} disk operations");
                shown += 1;
            }
            Err(error) => {
                assert!(matches!(error, StateError::Volumes(_)), "{error}");
                refused += 1;
            }
        }
    }
    // Before it is admitted there is no record, and then it has that of the others.
    assert!(refused > 0 && shown > 0, "{refused} refused, {shown} shown");
}
