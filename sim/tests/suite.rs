//! openraft's own tests for stores, on the simulated runtime and a simulated disk.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use contrast_coordinator::cluster::{ClusterId, LogStore, RecordKey, StateMachine};
use contrast_pki::{Derivation, Salt, Seed};
use contrast_sim::{
    SimTypes,
    dice::Dice,
    disk::{Disk, Drive},
    runtime::{Node, NodeRuntime},
};
use openraft::{
    AsyncRuntime, StorageError,
    testing::log::{StoreBuilder, Suite},
};

struct OnSimulatedDisk;

impl StoreBuilder<SimTypes, LogStore, StateMachine, Drive> for OnSimulatedDisk {
    async fn build(&self) -> Result<(Drive, LogStore, StateMachine), StorageError<SimTypes>> {
        let seed = Seed::from_slice(&[1; 64]).expect("64 bytes");
        let derivation = Derivation::new(&seed, &Salt::from_slice(&[2; 32]).expect("32 bytes"));
        let key = derivation.store_record_key().expect("derives");
        let drive = Disk::new(Dice::new(1, "disk")).drive(&Node::new("a"));
        let key = RecordKey::new(&key, ClusterId([1; 32]), 42);
        let log = LogStore::create(&drive, key).expect("creates");
        let signer = derivation.transition_signing_key().expect("derives");
        let machine = StateMachine::new(&log, signer.public_key_spki());
        Ok((drive, log, machine))
    }
}

#[test]
fn openraft_suite_accepts_the_store_in_the_simulation() {
    let suite = async { Suite::test_all(OnSimulatedDisk).await };
    NodeRuntime::with_seed(1)
        .block_on(suite)
        .expect("the suite");
}
