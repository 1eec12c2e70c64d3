//! Stores on a disk in memory, and changes of a small deployment.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use contrast_manifest::ManifestHash;
use contrast_pki::{Derivation, Salt, Seed, SigningKey, shares::SeedSharesDocument};
use openraft::{EntryPayload, vote::RaftLeaderId};
use redb::Database;

use crate::{
    cluster::{
        Change, Check, ClusterId, EntryId, FoundingDocuments, Leader, LogEntry, LogMedium,
        LogStoreError, Members, Node, NodeId, Payload, RecordKey, journal::Journal,
        state_machine::apply_change,
    },
    state::{History, Transition, TransitionHash, tests::fixture::Disk},
};

/// The node whose store most tests use.
pub(super) const NODE: NodeId = 42;

pub(super) fn derivation(seed: u8) -> Derivation {
    let seed = Seed::from_slice(&[seed; 64]).expect("64 bytes");
    Derivation::new(&seed, &Salt::from_slice(&[2; 32]).expect("32 bytes"))
}

pub(super) fn key_of(seed: u8, cluster: u8, node: NodeId) -> RecordKey {
    let key = derivation(seed).store_record_key().expect("derives");
    RecordKey::new(&key, ClusterId([cluster; 32]), node)
}

pub(super) fn key() -> RecordKey {
    key_of(1, 1, NODE)
}

pub(super) fn transition_key(seed: u8) -> SigningKey {
    derivation(seed).transition_signing_key().expect("derives")
}

/// A change of the deployment with seed 1 after `previous`; `manifest` need not be valid for this version.
pub(super) fn change(previous: TransitionHash, manifest: &str) -> Change {
    change_signed_by(1, previous, manifest)
}

pub(super) fn change_signed_by(seed: u8, previous: TransitionHash, manifest: &str) -> Change {
    let manifest = Bytes::copy_from_slice(manifest.as_bytes());
    let mesh_ca = format!("mesh CA key for {manifest:?}");
    let hash = ManifestHash::of(&manifest);
    let transition = Transition::sign(
        hash,
        previous,
        mesh_ca.as_bytes(),
        shares().digest().expect("JSON"),
        &transition_key(seed),
    )
    .expect("signs");
    Change {
        transition,
        policies: vec![Bytes::from(format!("initdata of {manifest:?}"))],
        manifest,
        founding: (previous == TransitionHash::NONE).then(founding),
    }
}

pub(super) fn shares() -> SeedSharesDocument {
    SeedSharesDocument {
        salt: vec![2; 32],
        threshold: 1,
        set: Vec::new(),
        shares: Vec::new(),
    }
}

pub(super) fn founding() -> FoundingDocuments {
    FoundingDocuments {
        seed_shares: shares().to_json().expect("JSON").into(),
        root_certificate: Bytes::from_static(b"root certificate"),
    }
}

pub(super) fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Leader::new(term, NODE), index)
}

pub(super) fn entry(term: u64, index: u64, payload: Payload) -> LogEntry {
    LogEntry {
        log_id: id(term, index),
        payload,
    }
}

pub(super) fn blank(term: u64, index: u64) -> LogEntry {
    entry(term, index, EntryPayload::Blank)
}

pub(super) fn members() -> Members {
    let node = |address: &str| Node::new(address);
    let nodes = std::collections::BTreeMap::from([(NODE, node("a:7778")), (7, node("b:7778"))]);
    Members::new(vec![[NODE].into()], nodes).expect("consistent")
}

/// Signatures are random, so that one set serves all comparisons.
static THREE_ENTRIES: LazyLock<Vec<LogEntry>> = LazyLock::new(|| {
    vec![
        entry(0, 0, EntryPayload::Membership(members())),
        blank(1, 1),
        entry(
            1,
            2,
            EntryPayload::Normal(change(TransitionHash::NONE, "a").into()),
        ),
    ]
});

/// Three entries, always the same: members, a blank one, the first transition.
pub(super) fn three_entries() -> Vec<LogEntry> {
    THREE_ENTRIES.clone()
}

/// A disk, and the journal on it.
pub(super) fn journal() -> (Disk, Journal) {
    let disk = Disk::default();
    let journal = Journal::create(&disk, key(), None).expect("creates");
    (disk, journal)
}

fn database(disk: &Disk) -> Result<Database, LogStoreError> {
    Database::builder()
        // Every read comes from the disk, so that a test can change it under an open store.
        .set_cache_size(0)
        .create_with_backend(disk.file())
        .map_err(LogStoreError::from_redb)
}

impl LogMedium for Disk {
    fn create(&self, write: &Check<'_>) -> Result<Database, LogStoreError> {
        assert!(self.bytes().is_empty(), "the disk is used already");
        let database = database(self)?;
        write(&database)?;
        Ok(database)
    }

    fn open(&self, check: &Check<'_>) -> Result<Database, LogStoreError> {
        if self.bytes().is_empty() {
            return Err(LogStoreError::Absent {
                path: PathBuf::new(),
            });
        }
        check(&database(&Self::holding(self.bytes()))?)?;
        database(self)
    }

    fn inspect(&self, read: &Check<'_>) -> Result<bool, LogStoreError> {
        if self.bytes().is_empty() {
            return Ok(false);
        }
        read(&database(&Self::holding(self.bytes()))?).map(|()| true)
    }

    fn set_aside(&self) -> Result<(), LogStoreError> {
        self.replace_file(Vec::new());
        Ok(())
    }
}

/// A history of the deployment with seed 1. Signatures are random, hashes are not.
pub(super) fn history(names: &[&str]) -> History {
    let mut history: Option<Arc<History>> = None;
    for name in names {
        let head = history
            .as_ref()
            .map_or(TransitionHash::NONE, |h| h.head().hash);
        apply_change(
            &mut history,
            change(head, name),
            transition_key(1).public_key_spki(),
        )
        .expect("follows");
    }
    Arc::unwrap_or_clone(history.expect("at least one name"))
}
