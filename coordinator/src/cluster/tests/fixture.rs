//! Stores on a disk in memory, and changes of a small deployment.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use contrast_manifest::ManifestHash;
use contrast_pki::{
    Derivation, Salt, Seed, SigningKey, StoreRecordKey, shares::SeedSharesDocument,
};
use openraft::{EntryPayload, vote::RaftLeaderId};
use redb::{Database, ReadableTable as _, TableDefinition};

use crate::{
    cluster::{
        Change, Check, ClusterId, EntryId, FoundingDocuments, Leader, LogEntry, LogMedium,
        LogStoreError, Members, Node, NodeId, Payload, RecordKey, RecordName, journal::Journal,
        record::Kind, state_machine::apply_change,
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

/// Replaces the last entry of a store with one of a kind that this version does not know, as only a keeper of the seed can. `key` is that
/// of the deployment.
pub(crate) fn write_later_entry(disk: &Disk, key: &StoreRecordKey) {
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("raft_meta");
    const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("raft_log");
    let database = database(disk).expect("opens");
    let transaction = database.begin_write().expect("begins");
    {
        let mut meta = transaction.open_table(META).expect("opens");
        let row = |name: &str| {
            let row = meta.get(name).expect("reads").expect("is there");
            row.value().to_vec()
        };
        let cluster = ClusterId(row("cluster").try_into().expect("32 bytes"));
        let node = NodeId::from_be_bytes(row("node").try_into().expect("8 bytes"));
        let key = RecordKey::new(key, cluster, node);
        let name = RecordName::single(Kind::Root);
        let root = row("root");
        let mut root = key.open(name, &root).expect("opens").0.to_vec();

        let mut log = transaction.open_table(LOG).expect("opens");
        let last = log.last().expect("reads").expect("an entry");
        let (index, record) = (last.0.value(), last.1.value().to_vec());
        drop(last);
        let entry = RecordName::entry(index);
        let mut later = key.open(entry, &record).expect("opens").0.to_vec();
        // MAC of the entry before (32), leader (16), then the kind.
        later[48] = 200;
        let (record, mac) = key.seal(entry, &later).expect("seals");
        log.insert(index, record.as_slice()).expect("inserts");
        // Writes (8), first index (8), MAC of the last entry (32).
        root[16..48].copy_from_slice(&mac);
        let (root, _) = key.seal(name, &root).expect("seals");
        meta.insert("root", root.as_slice()).expect("inserts");
    }
    transaction.commit().expect("commits");
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
