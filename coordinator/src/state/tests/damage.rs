//! A store file that is not what it should be is refused and stays as it was, byte for byte.

use std::{fs, path::Path};

use redb::{Database, TableDefinition};
use tempfile::tempdir;

use super::fixture::{document, open_in, owner_key, request};
use crate::state::{Phase, TransitionHash};

const FILE: &str = "history.redb";

/// The file of a store with two manifests.
async fn intact(directory: &Path) -> Vec<u8> {
    let owner = owner_key(1);
    let guard = open_in(directory).expect("opens");
    let first = request(&document("a", &[&owner]), TransitionHash::NONE, &[]);
    let base = guard.set_manifest(first).await.expect("sets").transition();
    let second = request(&document("b", &[&owner]), base, &[&owner]);
    guard.set_manifest(second).await.expect("updates");
    guard.close().await;
    fs::read(directory.join(FILE)).expect("reads")
}

/// Opens a directory whose store has the given bytes; the error's text, or `None` when it was accepted.
fn refusal(directory: &Path, bytes: &[u8]) -> Option<String> {
    let file = directory.join(FILE);
    fs::write(&file, bytes).expect("writes");
    match open_in(directory) {
        Ok(guard) => {
            let snapshot = guard.snapshot();
            let Phase::Sealed(sealed) = &*snapshot else {
                panic!("the history is gone")
            };
            assert_eq!(sealed.history().generation(), 2, "a transition is gone");
            None
        }
        Err(error) => {
            assert!(
                fs::read(&file).expect("reads") == bytes,
                "a refused file was modified"
            );
            Some(error.to_string())
        }
    }
}

#[tokio::test]
async fn truncated_store_is_refused_at_every_length_and_untouched() {
    let directory = tempdir().expect("directory");
    let bytes = intact(directory.path()).await;
    assert_eq!(refusal(directory.path(), &bytes), None);
    let step = bytes.len() / 97;
    let lengths =
        (0..bytes.len())
            .step_by(step)
            .chain([1, 8, 511, 4095, 4096, 4097, bytes.len() - 1]);
    for length in lengths {
        let error = refusal(directory.path(), &bytes[..length]);
        let error =
            error.unwrap_or_else(|| panic!("{length} of {} bytes were accepted", bytes.len()));
        assert!(
            error.contains("is no intact Coordinator store"),
            "{length}: {error}"
        );
        assert!(error.contains("It was not modified."), "{length}: {error}");
    }
}

#[tokio::test]
async fn changed_store_is_refused_untouched_or_means_the_same() {
    let directory = tempdir().expect("directory");
    let bytes = intact(directory.path()).await;
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(bytes.len() / 199) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        // Free pages carry no meaning; a change there may pass.
        if refusal(directory.path(), &changed).is_some() {
            refused += 1;
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn foreign_files_are_refused_untouched() {
    let directory = tempdir().expect("directory");
    let other = directory.path().join("other.redb");
    {
        let database = Database::create(&other).expect("creates");
        let transaction = database.begin_write().expect("begins");
        let table: TableDefinition<'_, u64, u64> = TableDefinition::new("meta");
        transaction
            .open_table(table)
            .expect("opens")
            .insert(1, 2)
            .expect("inserts");
        transaction.commit().expect("commits");
    }
    let other_database = fs::read(&other).expect("reads");
    for bytes in [
        &b""[..],
        b"just text",
        &[0; 100_000],
        &[0xff; 5000],
        &other_database,
    ] {
        let error = refusal(directory.path(), bytes).expect("refused");
        assert!(error.contains("is no intact Coordinator store"), "{error}");
    }
}

#[test]
fn unfinished_creation_is_started_over() {
    let directory = tempdir().expect("directory");
    fs::write(directory.path().join("history.redb.new"), b"half a f").expect("writes");
    let guard = open_in(directory.path()).expect("opens");
    assert!(matches!(&*guard.snapshot(), Phase::Empty));
}

#[test]
fn missing_directory_is_named() {
    let error = open_in(Path::new("/nonexistent/contrast"))
        .expect_err("missing")
        .to_string();
    assert_eq!(error, "cannot open /nonexistent/contrast/lock");
}
