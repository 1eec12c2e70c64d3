//! Making a store, in one transaction.

use redb::{Database, Durability};

use super::{
    CHAIN, CLUSTER, FORMAT, FORMAT_NAME, Index, LOG, META, NODE, Single, begin, put, put_entry_id,
    sha256,
};
use crate::cluster::{
    LogStoreError, RecordKey, SnapshotInfo, codec::SnapshotDescription, record::Kind,
};

/// What a new store has instead of the log before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a> {
    /// What the chain covers. The log is purged up to its last entry.
    pub(crate) info: &'a SnapshotInfo,
    /// The chain.
    pub(crate) chain: &'a [u8],
}

/// Writes tables and records of a store without log entries.
pub(super) fn initialise(
    database: &Database,
    key: &RecordKey,
    start: Option<Start<'_>>,
) -> Result<Index, LogStoreError> {
    let mut index = Index::default();
    let transaction = begin(database, Durability::Immediate)?;
    {
        let mut meta = transaction
            .open_table(META)
            .map_err(LogStoreError::from_redb)?;
        for (row, value) in [
            (FORMAT, FORMAT_NAME.name().as_bytes()),
            (CLUSTER, &key.cluster().0),
            (NODE, &key.node().to_be_bytes()),
        ] {
            meta.insert(row, value).map_err(LogStoreError::from_redb)?;
        }
        transaction
            .open_table(LOG)
            .map_err(LogStoreError::from_redb)?;
        let mut table = transaction
            .open_table(CHAIN)
            .map_err(LogStoreError::from_redb)?;
        if let Some(Start { chain, .. }) = start {
            table.insert(0, chain).map_err(LogStoreError::from_redb)?;
        }
    }
    if let Some(Start { info, chain }) = start {
        let description = SnapshotDescription {
            info: info.clone(),
            length: chain.len() as u64,
            digest: sha256(chain),
        };
        let mac = put(&transaction, key, Kind::Snapshot, &description.encode())?;
        index.snapshot = Some(Single {
            value: description,
            mac,
        });
        index.purged = put_entry_id(&transaction, key, Kind::Purged, info.last_log_id)?;
        index.first = info.last_log_id.map_or(0, |id| id.index.saturating_add(1));
    }
    put(&transaction, key, Kind::Root, &index.root())?;
    transaction.commit().map_err(LogStoreError::from_redb)?;
    Ok(index)
}
