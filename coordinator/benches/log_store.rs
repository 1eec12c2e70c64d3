//! What it costs to append one entry to the Raft log durably, beside the flush that it cannot do without.
//!
//! `cargo bench -p contrast-coordinator --bench log_store`. All files are in the build's directory for temporary files, so
//! that both sides meet the same disk; on a file system in memory the numbers mean nothing.

#![allow(
    clippy::expect_used,
    reason = "a bench that meets the unexpected has to stop there"
)]

use std::{fs::File, os::unix::fs::FileExt};

use bytes::Bytes;
use contrast_coordinator::{
    cluster::{
        Change, ClusterId, EntryId, Leader, LogEntry, LogFile, LogStore, Payload, RecordKey,
        TypeConfig,
    },
    state::{Directory, Transition, TransitionHash},
};
use contrast_manifest::ManifestHash;
use contrast_pki::{Derivation, Salt, Seed};
use divan::Bencher;
use openraft::{
    EntryPayload,
    storage::{IOFlushed, RaftLogStorage},
    vote::RaftLeaderId,
};
use tempfile::TempDir;
use tokio::runtime::Builder;

fn main() {
    divan::main();
}

fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("directory")
}

/// The least that any durable write costs: 4 KiB over the same place, then `fdatasync`.
#[divan::bench(sample_count = 1000)]
fn bare_fsync(bencher: Bencher<'_, '_>) {
    let directory = directory();
    let file = File::create(directory.path().join("file")).expect("creates");
    file.write_all_at(&[0; 8192], 0).expect("writes");
    file.sync_all().expect("syncs");
    bencher.bench_local(|| {
        file.write_all_at(&[1; 4096], 4096).expect("writes");
        file.sync_data().expect("syncs");
    });
}

/// A leader's first entry, nothing but its id.
#[divan::bench(sample_count = 1000)]
fn append_blank_entry(bencher: Bencher<'_, '_>) {
    append(bencher, &EntryPayload::Blank);
}

/// A transition with a manifest of 4 KiB and two policies of 16 KiB.
#[divan::bench(sample_count = 1000)]
fn append_transition(bencher: Bencher<'_, '_>) {
    let manifest = Bytes::from(vec![b'm'; 4 << 10]);
    let change = Change {
        transition: Transition {
            manifest_hash: ManifestHash::of(&manifest),
            previous: TransitionHash::NONE,
            // As long as real ones; nothing verifies them here.
            mesh_ca_public_key: Bytes::from(vec![1; 120]),
            seed_shares: [5; 32],
            signing_public_key: Bytes::from(vec![6; 120]),
            signature: Bytes::from(vec![2; 103]),
        },
        manifest,
        policies: vec![
            Bytes::from(vec![3; 16 << 10]),
            Bytes::from(vec![4; 16 << 10]),
        ],
        founding: None,
    };
    append(bencher, &EntryPayload::Normal(change.into()));
}

fn append(bencher: Bencher<'_, '_>, payload: &Payload) {
    let directory = directory();
    let claimed = Directory::claim(directory.path()).expect("claims");
    let seed = Seed::from_slice(&[1; 64]).expect("64 bytes");
    let salt = Salt::from_slice(&[2; 32]).expect("32 bytes");
    let key = Derivation::new(&seed, &salt)
        .store_record_key()
        .expect("derives");
    let key = RecordKey::new(&key, ClusterId([3; 32]), 4);
    let mut log = LogStore::create(&LogFile::new(&claimed), key).expect("creates");
    let runtime = Builder::new_current_thread().build().expect("runtime");
    let mut next = 0;
    bencher.bench_local(|| {
        let entry = LogEntry {
            log_id: EntryId::new(Leader::new(1, 4), next),
            payload: payload.clone(),
        };
        next += 1;
        let append = RaftLogStorage::<TypeConfig>::append(&mut log, [entry], IOFlushed::noop());
        runtime.block_on(append).expect("appends");
    });
}
