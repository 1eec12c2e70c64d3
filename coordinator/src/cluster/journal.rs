//! The store: records in a redb database.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `raft_meta` | `format` | `contrast raft store v1` |
//! | `raft_meta` | `cluster`, `node` | cluster id (32), node id (8, big-endian): whose store it is. Not records, but every MAC covers them |
//! | `raft_meta` | `root`, `vote`, `committed`, `purged`, `snapshot` | the record of that kind, if any; `root` always |
//! | `raft_log` | log index | record of the entry |
//! | `raft_chain` | 0 | the snapshot's chain, named by length and SHA-256 in the record `snapshot` |
//!
//! Payload of the root, 176 bytes, numbers big-endian: how often the store was written (8), index of the first entry (8), MAC
//! of the last entry, of the vote, of the committed marker, of the purged marker, of the snapshot description (32 each; zeros
//! where there is none). Each entry carries the MAC of the one before it, so the root fixes the whole log by its last entry.
//!
//! A change writes the records that change and the root in one transaction. It is durable when it returns, but for the
//! committed marker, which becomes durable with the next change: openraft only uses it to apply entries sooner after a
//! restart, and an older one is right, too.

mod create;
mod load;

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    ops::Range,
    panic::{self, AssertUnwindSafe},
};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction};

pub(crate) use create::Start;
use create::initialise;
use load::load;
use load::read_snapshot;
pub(crate) use load::{Remains, check_version, read_remains};

use super::{
    EntryId, LogEntry, LogMedium, LogStoreError, NodeVote, RecordError, RecordFault, RecordKey,
    RecordName, SnapshotInfo,
    codec::{self, Malformed, SnapshotDescription},
    record::{Kind, MAC_BYTES, Mac},
};
use crate::format::Format;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("raft_meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("raft_log");
const CHAIN: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("raft_chain");

const FORMAT: &str = "format";
const FORMAT_NAME: Format = Format {
    words: "contrast raft store",
    version: 1,
};
const CLUSTER: &str = "cluster";
const NODE: &str = "node";
const NONE: Mac = [0; MAC_BYTES];

/// The row of a record of which there is one.
fn row(kind: Kind) -> &'static str {
    match kind {
        Kind::Root => "root",
        Kind::Vote => "vote",
        Kind::Entry => "entry",
        Kind::Committed => "committed",
        Kind::Purged => "purged",
        Kind::Snapshot => "snapshot",
    }
}

/// A record of which there is one, as it was written last.
#[derive(Debug, Clone)]
struct Single<T> {
    value: T,
    mac: Mac,
}

/// Everything that the root fixes. The disk may forget or change it; this process does not.
#[derive(Debug, Clone, Default)]
struct Index {
    writes: u64,
    first: u64,
    /// MACs of the entries from `first` on.
    entries: VecDeque<Mac>,
    last: Option<EntryId>,
    vote: Option<Single<NodeVote>>,
    committed: Option<Single<EntryId>>,
    purged: Option<Single<EntryId>>,
    snapshot: Option<Single<SnapshotDescription>>,
}

impl Index {
    /// Index after the last entry.
    fn end(&self) -> u64 {
        self.first.saturating_add(self.entries.len() as u64)
    }

    fn mac_of(&self, index: u64) -> Option<&Mac> {
        let place = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get(place)
    }

    fn last_mac(&self) -> Mac {
        self.entries.back().copied().unwrap_or(NONE)
    }

    fn root(&self) -> Vec<u8> {
        let mut root = Vec::with_capacity(176);
        root.extend(self.writes.to_be_bytes());
        root.extend(self.first.to_be_bytes());
        root.extend(self.last_mac());
        root.extend(self.vote.as_ref().map_or(NONE, |single| single.mac));
        root.extend(self.committed.as_ref().map_or(NONE, |single| single.mac));
        root.extend(self.purged.as_ref().map_or(NONE, |single| single.mac));
        root.extend(self.snapshot.as_ref().map_or(NONE, |single| single.mac));
        root
    }
}

/// The store of one node. All methods block; a caller has it behind a lock, so writes are in order.
pub(crate) struct Journal {
    /// `None` after a failure: what is on the disk is unknown then.
    database: Option<Database>,
    key: RecordKey,
    index: Index,
}

impl Journal {
    /// Makes a store without log entries.
    pub(crate) fn create(
        medium: &dyn LogMedium,
        key: RecordKey,
        start: Option<Start<'_>>,
    ) -> Result<Self, LogStoreError> {
        let index = RefCell::default();
        let write = |database: &Database| {
            *index.borrow_mut() = initialise(database, &key, start)?;
            Ok(())
        };
        let database = guarded(|| medium.create(&write))?;
        Ok(Self {
            database: Some(database),
            index: index.into_inner(),
            key,
        })
    }

    /// Opens a store and checks every record in it.
    pub(crate) fn open(medium: &dyn LogMedium, key: RecordKey) -> Result<Self, LogStoreError> {
        let (database, index) = guarded(|| {
            let database = medium.open(&|database| load(database, &key).map(drop))?;
            let index = load(&database, &key)?;
            Ok((database, index))
        })?;
        Ok(Self {
            database: Some(database),
            key,
            index,
        })
    }

    pub(crate) fn vote(&self) -> Option<NodeVote> {
        self.index.vote.as_ref().map(|single| single.value)
    }

    pub(crate) fn committed(&self) -> Option<EntryId> {
        self.index.committed.as_ref().map(|single| single.value)
    }

    pub(crate) fn purged(&self) -> Option<EntryId> {
        self.index.purged.as_ref().map(|single| single.value)
    }

    /// Id of the last entry, else of the last purged one.
    pub(crate) fn last(&self) -> Option<EntryId> {
        self.index.last.or_else(|| self.purged())
    }

    /// The entries that exist of `from..to`, in order.
    pub(crate) fn entries(&mut self, from: u64, to: u64) -> Result<Vec<LogEntry>, LogStoreError> {
        let range = from.max(self.index.first)..to.min(self.index.end());
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.with_database(|database, key, index| read_entries(database, key, index, range))
    }

    pub(crate) fn save_vote(&mut self, vote: &NodeVote) -> Result<(), LogStoreError> {
        self.write(Durability::Immediate, |transaction, key, index| {
            let mac = put(transaction, key, Kind::Vote, &codec::encode_vote(vote))?;
            index.vote = Some(Single { value: *vote, mac });
            Ok(())
        })
    }

    pub(crate) fn save_committed(
        &mut self,
        committed: Option<EntryId>,
    ) -> Result<(), LogStoreError> {
        if committed == self.committed() {
            return Ok(());
        }
        self.write(Durability::None, |transaction, key, index| {
            index.committed = put_entry_id(transaction, key, Kind::Committed, committed)?;
            Ok(())
        })
    }

    /// Appends entries, which must follow the last one.
    pub(crate) fn append(&mut self, entries: Vec<LogEntry>) -> Result<(), LogStoreError> {
        // Before anything is written, so that a caller's mistake does not give up the store.
        let mut expected = match (self.index.entries.is_empty(), self.purged()) {
            (false, _) => Some(self.index.end()),
            (true, purged) => purged.map(|id| id.index.saturating_add(1)),
        };
        for entry in &entries {
            let found = entry.log_id.index;
            match expected {
                Some(expected) if expected != found => {
                    return Err(LogStoreError::Gap { expected, found });
                }
                _ => expected = Some(found.saturating_add(1)),
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.write(Durability::Immediate, |transaction, key, index| {
            let mut log = transaction
                .open_table(LOG)
                .map_err(LogStoreError::from_redb)?;
            for entry in &entries {
                if index.entries.is_empty() {
                    index.first = entry.log_id.index;
                }
                let payload = codec::encode_entry(&index.last_mac(), entry);
                let (record, mac) = key.seal(RecordName::entry(entry.log_id.index), &payload)?;
                log.insert(entry.log_id.index, record.as_slice())
                    .map_err(LogStoreError::from_redb)?;
                index.entries.push_back(mac);
                index.last = Some(entry.log_id);
            }
            Ok(())
        })
    }

    /// Removes the entries after `last`; all when it is `None`.
    pub(crate) fn truncate_after(&mut self, last: Option<EntryId>) -> Result<(), LogStoreError> {
        let end = last.map_or(0, |id| id.index.saturating_add(1));
        if end >= self.index.end() {
            return Ok(());
        }
        let before = match end.checked_sub(1) {
            Some(index) => self.entries(index, end)?.pop().map(|entry| entry.log_id),
            None => None,
        };
        self.write(Durability::Immediate, |transaction, _, index| {
            let mut log = transaction
                .open_table(LOG)
                .map_err(LogStoreError::from_redb)?;
            log.retain_in(end.., |_, _| false)
                .map_err(LogStoreError::from_redb)?;
            let kept = usize::try_from(end.saturating_sub(index.first)).unwrap_or(usize::MAX);
            index.entries.truncate(kept);
            index.last = before;
            Ok(())
        })
    }

    /// Removes the entries up to `upto`, and remembers that they existed.
    pub(crate) fn purge(&mut self, upto: EntryId) -> Result<(), LogStoreError> {
        if self
            .purged()
            .is_some_and(|purged| purged.index >= upto.index)
        {
            return Ok(());
        }
        self.write(Durability::Immediate, |transaction, key, index| {
            let mut log = transaction
                .open_table(LOG)
                .map_err(LogStoreError::from_redb)?;
            log.retain_in(..=upto.index, |_, _| false)
                .map_err(LogStoreError::from_redb)?;
            drop(log);
            index.purged = put_entry_id(transaction, key, Kind::Purged, Some(upto))?;
            let gone = upto.index.saturating_add(1).saturating_sub(index.first);
            let gone = usize::try_from(gone)
                .unwrap_or(usize::MAX)
                .min(index.entries.len());
            index.entries.drain(..gone);
            index.first = index.first.max(upto.index.saturating_add(1));
            if index.entries.is_empty() {
                index.last = None;
            }
            Ok(())
        })
    }

    /// Replaces the snapshot, unless the stored one is newer or the same. Returns whether it did.
    pub(crate) fn save_snapshot(
        &mut self,
        info: &SnapshotInfo,
        chain: &[u8],
    ) -> Result<bool, LogStoreError> {
        let description = SnapshotDescription {
            info: info.clone(),
            length: chain.len() as u64,
            digest: sha256(chain),
        };
        if let Some(Single { value, .. }) = &self.index.snapshot
            && (value.info.last_log_id > info.last_log_id || *value == description)
        {
            return Ok(false);
        }
        self.write(Durability::Immediate, |transaction, key, index| {
            let mac = put(transaction, key, Kind::Snapshot, &description.encode())?;
            let mut table = transaction
                .open_table(CHAIN)
                .map_err(LogStoreError::from_redb)?;
            table.insert(0, chain).map_err(LogStoreError::from_redb)?;
            index.snapshot = Some(Single {
                value: description,
                mac,
            });
            Ok(())
        })?;
        Ok(true)
    }

    /// The stored snapshot.
    pub(crate) fn snapshot(&mut self) -> Result<Option<(SnapshotInfo, Bytes)>, LogStoreError> {
        self.with_database(|database, _, index| read_snapshot(database, index))
    }

    fn write(
        &mut self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction, &RecordKey, &mut Index) -> Result<(), LogStoreError>,
    ) -> Result<(), LogStoreError> {
        let mut next = self.index.clone();
        next.writes = next.writes.saturating_add(1);
        let next = self.with_database(|database, key, _| {
            let transaction = begin(database, durability)?;
            change(&transaction, key, &mut next)?;
            put(&transaction, key, Kind::Root, &next.root())?;
            transaction.commit().map_err(LogStoreError::from_redb)?;
            Ok(next)
        })?;
        self.index = next;
        Ok(())
    }

    /// Any error gives the store up: the memory of this process and the disk may differ from then on.
    fn with_database<T>(
        &mut self,
        act: impl FnOnce(&Database, &RecordKey, &Index) -> Result<T, LogStoreError>,
    ) -> Result<T, LogStoreError> {
        let database = self.database.take().ok_or(LogStoreError::GivenUp)?;
        let outcome = guarded(|| act(&database, &self.key, &self.index));
        match &outcome {
            Ok(_) => self.database = Some(database),
            // Closing writes, too, and may meet the same damage.
            Err(_) => drop(guarded(|| {
                drop(database);
                Ok(())
            })),
        }
        outcome
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("key", &self.key)
            .field("writes", &self.index.writes)
            .finish_non_exhaustive()
    }
}

/// Turns a panic into an error. redb promises errors for bytes that only it wrote; an adversary's may make it panic.
pub(crate) fn guarded<T>(
    act: impl FnOnce() -> Result<T, LogStoreError>,
) -> Result<T, LogStoreError> {
    panic::catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
        Err(LogStoreError::Database {
            reason: "the database library gave up on it".to_owned(),
        })
    })
}

fn fault(name: RecordName, fault: RecordFault) -> LogStoreError {
    RecordError::new(name, fault).into()
}

fn unreadable(name: RecordName) -> impl Fn(Malformed) -> LogStoreError {
    move |malformed| fault(name, RecordFault::of_payload(malformed))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn begin(database: &Database, durability: Durability) -> Result<WriteTransaction, LogStoreError> {
    let mut transaction = database.begin_write().map_err(LogStoreError::from_redb)?;
    transaction
        .set_durability(durability)
        .map_err(LogStoreError::from_redb)?;
    Ok(transaction)
}

/// Writes a record of which there is one.
fn put(
    transaction: &WriteTransaction,
    key: &RecordKey,
    kind: Kind,
    payload: &[u8],
) -> Result<Mac, LogStoreError> {
    let (record, mac) = key.seal(RecordName::single(kind), payload)?;
    let mut meta = transaction
        .open_table(META)
        .map_err(LogStoreError::from_redb)?;
    meta.insert(row(kind), record.as_slice())
        .map_err(LogStoreError::from_redb)?;
    Ok(mac)
}

fn put_entry_id(
    transaction: &WriteTransaction,
    key: &RecordKey,
    kind: Kind,
    id: Option<EntryId>,
) -> Result<Option<Single<EntryId>>, LogStoreError> {
    match id {
        Some(value) => {
            let mac = put(transaction, key, kind, &codec::encode_entry_id(&value))?;
            Ok(Some(Single { value, mac }))
        }
        None => {
            let mut meta = transaction
                .open_table(META)
                .map_err(LogStoreError::from_redb)?;
            meta.remove(row(kind)).map_err(LogStoreError::from_redb)?;
            Ok(None)
        }
    }
}

fn read_entries(
    database: &Database,
    key: &RecordKey,
    index: &Index,
    range: Range<u64>,
) -> Result<Vec<LogEntry>, LogStoreError> {
    let transaction = database.begin_read().map_err(LogStoreError::from_redb)?;
    let log = transaction
        .open_table(LOG)
        .map_err(LogStoreError::from_redb)?;
    range
        .map(|at| {
            let name = RecordName::entry(at);
            let record = log.get(at).map_err(LogStoreError::from_redb)?;
            let record = record.ok_or_else(|| fault(name, RecordFault::Missing))?;
            let (payload, mac) = key.open(name, record.value())?;
            if index.mac_of(at) != Some(&mac) {
                return Err(fault(name, RecordFault::Stale));
            }
            let entry = codec::decode_entry(at, payload).map_err(unreadable(name))?;
            Ok(entry.1)
        })
        .collect()
}
