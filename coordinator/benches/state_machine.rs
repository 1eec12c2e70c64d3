//! What a long history costs: applying one more transition to it, and accepting it as a snapshot.
//!
//! `cargo bench -p contrast-coordinator --bench state_machine`. The history has 10,000 transitions, each with a manifest and a
//! policy of its own, which is more than a deployment that changes daily has after 25 years.

#![allow(
    clippy::expect_used,
    reason = "a bench that meets the unexpected has to stop there"
)]

use bytes::Bytes;
use contrast_coordinator::{
    cluster::{
        Change, ClusterId, EntryId, FoundingDocuments, Leader, LogEntry, LogFile, LogStore,
        RecordKey, SignedChain, SnapshotInfo, StateMachine, TypeConfig,
    },
    state::{Directory, Transition, TransitionHash},
};
use contrast_manifest::ManifestHash;
use contrast_pki::{Derivation, Salt, Seed, SigningKey, shares::SeedSharesDocument};
use divan::Bencher;
use futures::stream;
use openraft::{EntryPayload, RaftSnapshotBuilder, storage::RaftStateMachine, vote::RaftLeaderId};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

type C = TypeConfig;

const TRANSITIONS: u64 = 10_000;

fn main() {
    divan::main();
}

/// A replica's state machine and who proposes to it.
struct Replica {
    machine: StateMachine,
    key: SigningKey,
    head: TransitionHash,
    next: u64,
    runtime: Runtime,
    _directory: TempDir,
}

impl Replica {
    fn new() -> Self {
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("directory");
        let claimed = Directory::claim(directory.path()).expect("claims");
        let seed = Seed::from_slice(&[1; 64]).expect("64 bytes");
        let salt = Salt::from_slice(&[2; 32]).expect("32 bytes");
        let derivation = Derivation::new(&seed, &salt);
        let key = derivation.store_record_key().expect("derives");
        let key = RecordKey::new(&key, ClusterId([3; 32]), 4);
        let log = LogStore::create(&LogFile::new(&claimed), key).expect("creates");
        let key = derivation.transition_signing_key().expect("derives");
        Self {
            machine: StateMachine::new(&log, key.public_key_spki()),
            key,
            head: TransitionHash::NONE,
            next: 1,
            runtime: Builder::new_current_thread().build().expect("runtime"),
            _directory: directory,
        }
    }

    fn propose(&mut self) -> LogEntry {
        let manifest = Bytes::from(format!("manifest {}", self.next));
        let mesh_ca = [7; 120];
        let shares = SeedSharesDocument {
            salt: vec![2; 32],
            threshold: 1,
            set: Vec::new(),
            shares: Vec::new(),
        };
        let transition = Transition::sign(
            ManifestHash::of(&manifest),
            self.head,
            &mesh_ca,
            shares.digest().expect("JSON"),
            &self.key,
        );
        let transition = transition.expect("signs");
        let founding = (self.next == 1).then(|| FoundingDocuments {
            seed_shares: shares.to_json().expect("JSON").into(),
            root_certificate: Bytes::from_static(b"root certificate"),
        });
        self.head = transition.hash();
        let log_id = EntryId::new(Leader::new(1, 4), self.next);
        self.next += 1;
        LogEntry {
            log_id,
            payload: EntryPayload::Normal(
                Change {
                    transition,
                    policies: vec![Bytes::from(format!("policy {}", log_id.index))],
                    manifest,
                    founding,
                }
                .into(),
            ),
        }
    }

    fn apply(&mut self, entries: Vec<LogEntry>) {
        let entries = entries.into_iter().map(|entry| Ok((entry, None)));
        let apply = RaftStateMachine::<C>::apply(&mut self.machine, stream::iter(entries));
        self.runtime.block_on(apply).expect("applies");
    }

    fn with_history() -> Self {
        let mut replica = Self::new();
        let entries = (0..TRANSITIONS).map(|_| replica.propose()).collect();
        replica.apply(entries);
        replica
    }

    fn snapshot(&mut self) -> (SnapshotInfo, SignedChain) {
        let machine = &mut self.machine;
        self.runtime.block_on(async {
            let mut builder = RaftStateMachine::<C>::get_snapshot_builder(machine).await;
            let snapshot = RaftSnapshotBuilder::<C>::build_snapshot(&mut builder).await;
            let snapshot = snapshot.expect("builds");
            (snapshot.meta, snapshot.snapshot)
        })
    }
}

/// One entry in a batch of its own, at 10,000 and more transitions.
#[divan::bench(sample_count = 200, sample_size = 1)]
fn apply_one_more(bencher: Bencher<'_, '_>) {
    let mut replica = Replica::with_history();
    let mut ready: Vec<LogEntry> = (0..200).map(|_| replica.propose()).collect();
    ready.reverse();
    bencher.bench_local(|| {
        let entry = ready.pop().expect("as many as samples");
        replica.apply(vec![entry]);
    });
}

/// Decoding, every hash and every signature, and storing: what a new replica does.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn install_snapshot(bencher: Bencher<'_, '_>) {
    let (info, chain) = Replica::with_history().snapshot();
    bencher
        .with_inputs(Replica::new)
        .bench_local_refs(|replica| {
            let machine = &mut replica.machine;
            let install = RaftStateMachine::<C>::install_snapshot(machine, &info, chain.clone());
            replica.runtime.block_on(install).expect("installs");
        });
}
