//! A Coordinator that finds what a later version wrote ends with exit code 1 and a sentence that says so, and leaves every byte.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has to stop there"
)]

mod support;

use std::{collections::BTreeMap, fs, os::unix::fs::FileExt as _, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use redb::{Database, ReadableTable as _, TableDefinition};
use support::{Deployment, Process, user_client};

const FORMAT: &str = "format";

/// What a Coordinator left that had a manifest, and the file of each of its ports' addresses.
async fn left_behind() -> Deployment {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let mut process = Process::spawn(deployment.command());
    let addresses = process.addresses(&deployment.address_file());
    let mut client = user_client(addresses["user_api"], &manifest).await;
    let set = client
        .set_manifest(deployment.request(&manifest, &[]))
        .await;
    set.expect("sets");
    drop(client);
    kill(Pid::from_raw(process.0.id().cast_signed()), Signal::SIGTERM).expect("signals");
    assert!(process.0.wait().expect("waits").success());
    fs::remove_file(deployment.address_file()).expect("removes");
    deployment
}

/// As a later version would: another number after the words.
fn say_later(file: &Path, table: &str, words: &str) {
    let database = Database::open(file).expect("opens");
    let transaction = database.begin_write().expect("begins");
    {
        let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
        let mut meta = transaction.open_table(table).expect("opens");
        let said = meta
            .get(FORMAT)
            .expect("reads")
            .map(|row| row.value().to_vec());
        assert_eq!(said.as_deref(), Some(format!("{words} v1").as_bytes()));
        let later = format!("{words} v2");
        meta.insert(FORMAT, later.as_bytes()).expect("inserts");
    }
    transaction.commit().expect("commits");
}

/// All files of the state directory.
fn files(deployment: &Deployment) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(deployment.data.path()).expect("reads") {
        let path = entry.expect("entry").path();
        if path.is_file() {
            let name = path
                .file_name()
                .expect("name")
                .to_string_lossy()
                .into_owned();
            files.insert(name, fs::read(&path).expect("reads"));
        }
    }
    files
}

/// Starts a Coordinator, alone and as one of several.
fn refused(deployment: &Deployment, file: &str, found: &str, reads: &str) {
    let before = files(deployment);
    for peers in [None, Some("127.0.0.1:1,127.0.0.1:2")] {
        let mut command = deployment.command();
        if let Some(peers) = peers {
            command
                .env("CONTRAST_PEERS", peers)
                .env("CONTRAST_PEER_API_ADDRESS", "127.0.0.1:0")
                .env("CONTRAST_PEER_ADVERTISE_ADDRESS", "127.0.0.1:1");
        }
        let mut process = Process::spawn(command);
        let status = process.0.wait().expect("waits");
        let log = process.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let path = deployment.data.path().join(file);
        let sentence = format!(
            "{} has the format `{found}`, this version of the Coordinator reads `{reads}`: a later version wrote it. It was not modified.",
            path.display()
        );
        let last = log.lines().last().unwrap_or_default();
        let last: serde_json::Value = serde_json::from_str(last).expect("JSON lines");
        let message = last["message"].as_str().unwrap_or_default();
        assert!(message.contains(&sentence), "{message}");
        assert!(message.contains("Start that version again"), "{message}");
    }
    for (name, bytes) in files(deployment) {
        assert!(before.get(&name) == Some(&bytes), "{name} was modified");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_history_is_refused_and_untouched() {
    let deployment = left_behind().await;
    let file = deployment.data.path().join("history.redb");
    say_later(&file, "meta", "contrast history");
    let (found, reads) = ("contrast history v2", "contrast history v1");
    refused(&deployment, "history.redb", found, reads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_log_is_refused_and_untouched() {
    let deployment = left_behind().await;
    let file = deployment.data.path().join("raft.redb");
    say_later(&file, "raft_meta", "contrast raft store");
    let (found, reads) = ("contrast raft store v2", "contrast raft store v1");
    refused(&deployment, "raft.redb", found, reads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_database_is_refused_and_untouched() {
    for name in ["history.redb", "raft.redb"] {
        let deployment = left_behind().await;
        let file = fs::File::options()
            .write(true)
            .open(deployment.data.path().join(name));
        let file = file.expect("opens");
        for at in [64, 192] {
            file.write_all_at(&[4], at).expect("writes");
        }
        refused(
            &deployment,
            name,
            "redb file format 4",
            "redb file format 3",
        );
    }
}

/// It is the number alone that is refused above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_version_starts_on_the_same_files() {
    let deployment = left_behind().await;
    let mut process = Process::spawn(deployment.command());
    process.addresses(&deployment.address_file());
}
