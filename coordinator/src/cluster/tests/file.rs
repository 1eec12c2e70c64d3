//! The store as a file.

use std::{fs, path::Path};

use redb::{Database, TableDefinition};
use tempfile::tempdir;

use super::fixture::{id, key, key_of, three_entries};
use crate::{
    cluster::{LogFile, LogStoreError, NodeVote, journal::Journal},
    state::Directory,
};

const FILE: &str = "raft.redb";

fn file(directory: &Path) -> LogFile {
    LogFile::new(&Directory::claim(directory).expect("claims"))
}

/// The file of a store with a vote and three entries.
fn intact(directory: &Path) -> Vec<u8> {
    let mut journal = Journal::create(&file(directory), key(), None).expect("creates");
    journal.save_vote(&NodeVote::new(1, 42)).expect("saves");
    journal.append(three_entries()).expect("appends");
    drop(journal);
    fs::read(directory.join(FILE)).expect("reads")
}

/// Opens a directory whose store has the given bytes. It has to be the whole store, or an error that blames the disk.
fn refusal(directory: &Path, bytes: &[u8]) -> Option<LogStoreError> {
    let path = directory.join(FILE);
    fs::write(&path, bytes).expect("writes");
    match Journal::open(&file(directory), key()) {
        Ok(mut journal) => {
            assert_eq!(journal.vote(), Some(NodeVote::new(1, 42)));
            assert_eq!(journal.entries(0, 9).expect("reads"), three_entries());
            None
        }
        Err(error) => {
            assert!(error.is_evidence_of_damage(), "{error}");
            assert!(
                fs::read(&path).expect("reads") == bytes,
                "a refused file was modified"
            );
            Some(error)
        }
    }
}

#[test]
fn reopened_file_has_everything() {
    let directory = tempdir().expect("directory");
    let bytes = intact(directory.path());
    assert!(refusal(directory.path(), &bytes).is_none());
}

#[test]
fn truncated_file_is_refused_at_every_length_and_untouched() {
    let directory = tempdir().expect("directory");
    let bytes = intact(directory.path());
    for length in (0..bytes.len())
        .step_by(bytes.len() / 61)
        .chain([1, 4096, bytes.len() - 1])
    {
        assert!(
            refusal(directory.path(), &bytes[..length]).is_some(),
            "{length} bytes were accepted"
        );
    }
}

#[test]
fn changed_file_is_refused_untouched_or_means_the_same() {
    let directory = tempdir().expect("directory");
    let bytes = intact(directory.path());
    let changed = (0..bytes.len()).step_by(bytes.len() / 199).filter(|at| {
        let mut changed = bytes.clone();
        changed[*at] ^= 0x40;
        refusal(directory.path(), &changed).is_some()
    });
    assert!(changed.count() > 0);
}

#[test]
fn foreign_files_are_refused_untouched() {
    let directory = tempdir().expect("directory");
    let other = directory.path().join("other.redb");
    {
        let database = Database::create(&other).expect("creates");
        let transaction = database.begin_write().expect("begins");
        let table: TableDefinition<'_, u64, u64> = TableDefinition::new("raft_meta");
        transaction
            .open_table(table)
            .expect("opens")
            .insert(1, 2)
            .expect("inserts");
        transaction.commit().expect("commits");
    }
    let other = fs::read(&other).expect("reads");
    for bytes in [&b""[..], b"just text", &[0; 100_000], &[0xff; 5000], &other] {
        assert!(refusal(directory.path(), bytes).is_some());
    }
}

#[test]
fn vanished_store_is_no_new_one() {
    let directory = tempdir().expect("directory");
    intact(directory.path());
    fs::remove_file(directory.path().join(FILE)).expect("removes");
    let error = Journal::open(&file(directory.path()), key()).expect_err("gone");
    assert!(matches!(error, LogStoreError::Absent { .. }), "{error}");
    assert!(
        error.to_string().contains("rejoin under a fresh identity"),
        "{error}"
    );
    assert!(!directory.path().join(FILE).exists());
}

#[test]
fn store_is_not_created_over_another() {
    let directory = tempdir().expect("directory");
    let bytes = intact(directory.path());
    let error =
        Journal::create(&file(directory.path()), key_of(1, 1, 43), None).expect_err("in use");
    assert!(matches!(error, LogStoreError::Exists { .. }), "{error}");
    assert!(fs::read(directory.path().join(FILE)).expect("reads") == bytes);
}

#[test]
fn unfinished_creation_is_started_over() {
    let directory = tempdir().expect("directory");
    fs::write(directory.path().join("raft.redb.new"), b"half a f").expect("writes");
    let mut journal = Journal::create(&file(directory.path()), key(), None).expect("creates");
    journal.append(three_entries()).expect("appends");
    assert_eq!(journal.last(), Some(id(1, 2)));
}

#[test]
fn store_of_another_node_is_refused_untouched() {
    let directory = tempdir().expect("directory");
    intact(directory.path());
    let error = Journal::open(&file(directory.path()), key_of(1, 1, 43)).expect_err("another's");
    assert!(
        error
            .to_string()
            .starts_with("the root of the Raft store is not usable: its MAC is wrong"),
        "{error}"
    );
}
