//! openraft's own tests for stores.

use std::future::Future;

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::{TempDir, tempdir};

use super::fixture::{key, transition_key};
use crate::{
    cluster::{LogFile, LogStore, StateMachine, TypeConfig},
    state::{Directory, tests::fixture::Disk},
};

struct InMemory;

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for InMemory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let log = LogStore::create(&Disk::default(), key()).expect("creates");
        let machine = StateMachine::new(&log, transition_key(1).public_key_spki());
        Ok(((), log, machine))
    }
}

struct InFile;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for InFile {
    fn build(
        &self,
    ) -> impl Future<Output = Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>>> + Send
    {
        let directory = tempdir().expect("directory");
        let claimed = Directory::claim(directory.path()).expect("claims");
        let log = LogStore::create(&LogFile::new(&claimed), key()).expect("creates");
        let machine = StateMachine::new(&log, transition_key(1).public_key_spki());
        std::future::ready(Ok((directory, log, machine)))
    }
}

#[tokio::test]
async fn openraft_suite_accepts_the_store_in_memory() {
    Suite::test_all(InMemory).await.expect("the suite");
}

#[tokio::test]
async fn openraft_suite_accepts_the_store_in_a_file() {
    Suite::test_all(InFile).await.expect("the suite");
}
