//! Reading a whole store, with the suspicion that it deserves.

use std::{collections::VecDeque, path::PathBuf};

use bytes::Bytes;
use contrast_pki::StoreRecordKey;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableError};

use super::{
    CHAIN, CLUSTER, FORMAT, FORMAT_NAME, Index, LOG, META, NODE, NONE, Single, fault, read_entries,
    row, sha256, unreadable,
};
use crate::cluster::{
    ClusterId, EntryId, LogEntry, LogStoreError, NodeId, RecordFault, RecordKey, RecordName,
    SnapshotInfo,
    codec::{self, Malformed, SnapshotDescription},
    medium::FILE,
    record::{Kind, MAC_BYTES, Mac},
};
use crate::format::Other;

type Rows = ReadOnlyTable<&'static str, &'static [u8]>;

/// What a root says.
struct Root {
    writes: u64,
    first: u64,
    last: Mac,
    vote: Mac,
    committed: Mac,
    purged: Mac,
    snapshot: Mac,
}

impl Root {
    fn parse(payload: &[u8]) -> Option<Self> {
        let (writes, rest) = payload.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (macs, []) = rest.as_chunks::<MAC_BYTES>() else {
            return None;
        };
        let [last, vote, committed, purged, snapshot] = macs else {
            return None;
        };
        Some(Self {
            writes: u64::from_be_bytes(*writes),
            first: u64::from_be_bytes(*first),
            last: *last,
            vote: *vote,
            committed: *committed,
            purged: *purged,
            snapshot: *snapshot,
        })
    }
}

/// Checks and reads every record.
pub(super) fn load(database: &Database, key: &RecordKey) -> Result<Index, LogStoreError> {
    let transaction = database.begin_read().map_err(LogStoreError::from_redb)?;
    let meta = transaction.open_table(META).map_err(foreign)?;
    check_format(&meta)?;
    let name = RecordName::single(Kind::Root);
    let record = meta
        .get(row(Kind::Root))
        .map_err(LogStoreError::from_redb)?;
    let record = record.ok_or_else(|| fault(name, RecordFault::Missing))?;
    let (payload, _) = key.open(name, record.value())?;
    let root =
        Root::parse(payload).ok_or_else(|| unreadable(name)(Malformed("it has not 176 bytes")))?;
    let (cluster, node) = owner(&meta)?;
    if (cluster, node) != (key.cluster(), key.node()) {
        return Err(LogStoreError::Database {
            reason: format!(
                "expected it to name cluster {} and node {}, whose records it has, found cluster {cluster} and node {node}",
                key.cluster(),
                key.node()
            ),
        });
    }

    let vote = single(&meta, key, Kind::Vote, root.vote, codec::decode_vote)?;
    let committed = single(
        &meta,
        key,
        Kind::Committed,
        root.committed,
        codec::decode_entry_id,
    )?;
    let purged = single(
        &meta,
        key,
        Kind::Purged,
        root.purged,
        codec::decode_entry_id,
    )?;
    let snapshot = single(
        &meta,
        key,
        Kind::Snapshot,
        root.snapshot,
        SnapshotDescription::decode,
    )?;
    if let Some(Single { value, .. }) = &snapshot {
        let chain = transaction.open_table(CHAIN).map_err(foreign)?;
        read_chain(&chain, value)?;
    }
    let log = transaction.open_table(LOG).map_err(foreign)?;
    let (entries, last) = read_log(&log, key, &root)?;
    Ok(Index {
        writes: root.writes,
        first: root.first,
        entries,
        last,
        vote,
        committed,
        purged,
        snapshot,
    })
}

/// A table that is missing or of another type means another program's database.
fn foreign(error: TableError) -> LogStoreError {
    match error {
        TableError::Storage(storage) => LogStoreError::from_redb(storage),
        other => LogStoreError::Database {
            reason: format!("it is no Raft store: {other}"),
        },
    }
}

/// Everything in a store whose writer is over.
pub(crate) struct Remains {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) snapshot: Option<(SnapshotInfo, Bytes)>,
    pub(crate) entries: Vec<LogEntry>,
}

/// Checks and reads the store of whichever cluster and node it names.
pub(crate) fn read_remains(
    database: &Database,
    key: &StoreRecordKey,
) -> Result<Remains, LogStoreError> {
    let transaction = database.begin_read().map_err(LogStoreError::from_redb)?;
    let meta = transaction.open_table(META).map_err(foreign)?;
    check_format(&meta)?;
    let (cluster, node) = owner(&meta)?;
    let key = RecordKey::new(key, cluster, node);
    let index = load(database, &key)?;
    Ok(Remains {
        cluster,
        node,
        snapshot: read_snapshot(database, &index)?,
        entries: read_entries(database, &key, &index, index.first..index.end())?,
    })
}

/// Whose store it says it is. Whether that is true, its MACs show.
fn owner(meta: &Rows) -> Result<(ClusterId, NodeId), LogStoreError> {
    Ok((
        ClusterId(plain(meta, CLUSTER)?),
        NodeId::from_be_bytes(plain(meta, NODE)?),
    ))
}

/// A row that is no record.
fn plain<const N: usize>(meta: &Rows, row: &str) -> Result<[u8; N], LogStoreError> {
    let value = meta.get(row).map_err(LogStoreError::from_redb)?;
    let found = value.as_ref().map_or(0, |value| value.value().len());
    let wrong = || LogStoreError::Database {
        reason: format!("expected {N} bytes in row `{row}`, found {found}"),
    };
    let bytes = value.and_then(|value| value.value().try_into().ok());
    bytes.ok_or_else(wrong)
}

fn check_format(meta: &Rows) -> Result<(), LogStoreError> {
    let format = meta.get(FORMAT).map_err(LogStoreError::from_redb)?;
    let format = format.map(|value| value.value().to_vec());
    FORMAT_NAME
        .check(format.as_deref())
        .map_err(|other| match other {
            Other::Newer(newer) => LogStoreError::Newer {
                path: PathBuf::from(FILE),
                newer,
            },
            Other::Foreign(reason) => LogStoreError::Database { reason },
        })
}

/// Reads nothing but the format.
pub(crate) fn check_version(database: &Database) -> Result<(), LogStoreError> {
    let transaction = database.begin_read().map_err(LogStoreError::from_redb)?;
    let meta = transaction.open_table(META).map_err(foreign)?;
    check_format(&meta)
}

/// The record of which there is one; it must be the one that the root names.
fn single<T>(
    meta: &Rows,
    key: &RecordKey,
    kind: Kind,
    expected: Mac,
    decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<Option<Single<T>>, LogStoreError> {
    let name = RecordName::single(kind);
    let record = meta.get(row(kind)).map_err(LogStoreError::from_redb)?;
    match record {
        None if expected == NONE => Ok(None),
        None => Err(fault(name, RecordFault::Missing)),
        Some(_) if expected == NONE => Err(fault(name, RecordFault::Superfluous)),
        Some(record) => {
            let (payload, mac) = key.open(name, record.value())?;
            if mac != expected {
                return Err(fault(name, RecordFault::Stale));
            }
            let value = decode(payload).map_err(unreadable(name))?;
            Ok(Some(Single { value, mac }))
        }
    }
}

fn read_log(
    log: &ReadOnlyTable<u64, &'static [u8]>,
    key: &RecordKey,
    root: &Root,
) -> Result<(VecDeque<Mac>, Option<EntryId>), LogStoreError> {
    let mut macs = VecDeque::new();
    let mut last = None;
    let mut expected = root.first;
    for record in log.iter().map_err(LogStoreError::from_redb)? {
        let (index, record) = record.map_err(LogStoreError::from_redb)?;
        let index = index.value();
        match index.cmp(&expected) {
            std::cmp::Ordering::Less => {
                return Err(fault(RecordName::entry(index), RecordFault::Superfluous));
            }
            std::cmp::Ordering::Greater => {
                return Err(fault(RecordName::entry(expected), RecordFault::Missing));
            }
            std::cmp::Ordering::Equal => {}
        }
        let name = RecordName::entry(index);
        let (payload, mac) = key.open(name, record.value())?;
        let (previous, entry) = codec::decode_entry(index, payload).map_err(unreadable(name))?;
        if let Some(before) = macs.back()
            && previous != *before
        {
            return Err(fault(name, RecordFault::Stale));
        }
        macs.push_back(mac);
        last = Some(entry.log_id);
        expected = index.saturating_add(1);
    }
    // The chain is whole; what it may lack, or have too much, is its end.
    match macs.back() {
        None if root.last == NONE => Ok((macs, last)),
        Some(mac) if *mac == root.last => Ok((macs, last)),
        Some(_) if macs.contains(&root.last) || root.last == NONE => {
            let kept = macs
                .iter()
                .position(|mac| *mac == root.last)
                .map_or(0, |place| place + 1);
            let index = root.first.saturating_add(kept as u64);
            Err(fault(RecordName::entry(index), RecordFault::Superfluous))
        }
        _ => Err(fault(RecordName::entry(expected), RecordFault::Missing)),
    }
}

pub(super) fn read_snapshot(
    database: &Database,
    index: &Index,
) -> Result<Option<(SnapshotInfo, Bytes)>, LogStoreError> {
    let Some(Single { value, .. }) = &index.snapshot else {
        return Ok(None);
    };
    let transaction = database.begin_read().map_err(LogStoreError::from_redb)?;
    let table = transaction
        .open_table(CHAIN)
        .map_err(LogStoreError::from_redb)?;
    Ok(Some((value.info.clone(), read_chain(&table, value)?)))
}

fn read_chain(
    table: &impl ReadableTable<u64, &'static [u8]>,
    description: &SnapshotDescription,
) -> Result<Bytes, LogStoreError> {
    let name = RecordName::single(Kind::Snapshot);
    let chain = table.get(0).map_err(LogStoreError::from_redb)?;
    let chain = chain.ok_or_else(|| fault(name, RecordFault::Missing))?;
    let chain = chain.value();
    match chain.len() as u64 == description.length && sha256(chain) == description.digest {
        true => Ok(Bytes::copy_from_slice(chain)),
        false => Err(fault(
            name,
            RecordFault::Payload("the chain beside it is not the one that it describes"),
        )),
    }
}
