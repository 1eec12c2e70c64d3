//! The Coordinator's stores on a simulated disk.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use contrast_coordinator::{
    cluster::{ClusterId, LogStore, LogStoreError, NodeId, NodeVote, RecordKey},
    state::Store,
};
use contrast_pki::{Derivation, Salt, Seed};
use contrast_sim::{
    SimTypes,
    dice::Dice,
    disk::{Disk, FileName},
    runtime::{Node, NodeRuntime},
};
use openraft::{AsyncRuntime, RaftLogReader, storage::RaftLogStorage};

const NODE: NodeId = 42;

fn key(node: NodeId) -> RecordKey {
    let seed = Seed::from_slice(&[1; 64]).expect("64 bytes");
    let derivation = Derivation::new(&seed, &Salt::from_slice(&[2; 32]).expect("32 bytes"));
    let key = derivation.store_record_key().expect("derives");
    RecordKey::new(&key, ClusterId([1; 32]), node)
}

fn disk(seed: u64) -> Disk {
    Disk::new(Dice::new(seed, "disk"))
}

/// Writes the votes of terms 1 to `terms`; the last term whose write returned.
async fn write(store: &mut LogStore, terms: u64) -> u64 {
    for term in 1..=terms {
        let vote = NodeVote::new(term, NODE);
        if RaftLogStorage::<SimTypes>::save_vote(store, &vote)
            .await
            .is_err()
        {
            return term - 1;
        }
    }
    terms
}

/// Term of the vote that another process finds.
async fn read(disk: &Disk) -> Result<u64, LogStoreError> {
    let mut store = LogStore::open(&disk.drive(&Node::new("next")), key(NODE))?;
    let vote = RaftLogReader::<SimTypes>::read_vote(&mut store).await;
    Ok(vote.expect("reads").map_or(0, |vote| vote.leader_id.term))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    NodeRuntime::with_seed(1).block_on(future)
}

#[test]
fn power_loss_at_any_disk_operation_keeps_every_acknowledged_vote() {
    run(async {
        let mut kept_unacknowledged = 0;
        let mut seed = 0;
        for operations in 0.. {
            let node = Node::new("a");
            node.kill_after_disk_operations(operations);
            seed += 1;
            let disk = disk(seed);
            let acknowledged = match LogStore::create(&disk.drive(&node), key(NODE)) {
                Ok(mut store) => write(&mut store, 6).await,
                Err(_) => 0,
            };
            disk.lose_power();
            if acknowledged == 6 {
                assert!(operations > 30, "writes went past the countdown");
                assert!(kept_unacknowledged > 0, "no power loss came after a write");
                return;
            }
            match read(&disk).await {
                Ok(found) => {
                    assert!(
                        (acknowledged..=acknowledged + 1).contains(&found),
                        "acknowledged {acknowledged}, found {found}"
                    );
                    kept_unacknowledged += found - acknowledged;
                }
                Err(LogStoreError::Absent { .. }) => assert_eq!(acknowledged, 0),
                Err(error) => panic!("an interrupted store does not open: {error}"),
            }
        }
    });
}

#[test]
fn host_can_put_back_an_old_file_and_no_record_on_it_shows_that() {
    run(async {
        let mut found = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let (disk, node) = (disk(seed), Node::new("a"));
            let mut store = LogStore::create(&disk.drive(&node), key(NODE)).expect("creates");
            assert_eq!(write(&mut store, 4).await, 4);
            node.kill();
            disk.roll_back(FileName::Log);
            found.insert(read(&disk).await.expect("every synced state opens"));
        }
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn file_of_another_node_and_a_damaged_one_are_noticed() {
    run(async {
        let (one, two) = (disk(1), disk(2));
        let node = Node::new("a");
        for (disk, owner) in [(&one, NODE), (&two, NODE + 1)] {
            let mut store = LogStore::create(&disk.drive(&node), key(owner)).expect("creates");
            assert_eq!(write(&mut store, 2).await, 2);
        }
        node.kill();
        one.swap(&two);
        let error = read(&one).await.expect_err("another node's records");
        assert!(matches!(error, LogStoreError::Record(_)), "{error}");
        one.swap(&two);
        assert_eq!(read(&one).await.expect("its own again"), 2);

        let mut noticed = 0;
        for seed in 0..50 {
            let copy = disk(seed);
            copy.swap(&one);
            let image = copy.image(FileName::Log);
            copy.damage(FileName::Log);
            assert_ne!(copy.image(FileName::Log), image);
            match read(&copy).await {
                Ok(term) => assert_eq!(term, 2),
                Err(error) => {
                    assert!(error.is_evidence_of_damage(), "{error}");
                    noticed += 1;
                }
            }
            copy.put_back(FileName::Log, image.expect("a file"));
            copy.swap(&one);
        }
        assert!(noticed > 0, "no damage hit anything");
        one.wipe(FileName::Log);
        let error = read(&one).await.expect_err("removed");
        assert!(matches!(error, LogStoreError::Absent { .. }), "{error}");
    });
}

#[test]
fn full_disk_fails_until_there_is_room_and_a_dead_process_reaches_no_disk() {
    run(async {
        let (disk, node) = (disk(1), Node::new("a"));
        let mut store = LogStore::create(&disk.drive(&node), key(NODE)).expect("creates");
        assert_eq!(write(&mut store, 2).await, 2);
        disk.set_full(true);
        assert_eq!(write(&mut store, 5).await, 0);
        disk.set_full(false);
        assert_eq!(read(&disk).await.expect("opens"), 2);

        let (dead, image) = (Node::new("b"), disk.image(FileName::Log));
        let drive = disk.drive(&dead);
        dead.kill();
        LogStore::open(&drive, key(NODE)).expect_err("the process has ended");
        assert_eq!(disk.image(FileName::Log), image);
    });
}

#[test]
fn history_is_made_once_and_is_whole_whenever_the_power_fails() {
    for operations in 0..40 {
        let (disk, node) = (disk(operations), Node::new("a"));
        node.kill_after_disk_operations(operations);
        drop(Store::open(Box::new(disk.drive(&node))));
        node.kill();
        disk.lose_power();
        let next = disk.drive(&Node::new("b"));
        let (_, records) = Store::open(Box::new(next)).expect("opens");
        assert!(records.is_none());
    }
}
