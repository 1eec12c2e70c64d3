#![allow(missing_docs, clippy::all, dead_code)]
use super::*;
use crate::state::*;
use std::sync::Arc;
pub trait Sink: std::fmt::Debug + Send + Sync {
    fn applied(&self, view: &Arc<View>) -> Result<(), std::io::Error>;
}
#[derive(Debug)]
pub struct Earlier;
pub fn read_earlier(
    _: &dyn LogMedium,
    _: &contrast_pki::StoreRecordKey,
) -> Result<Option<Earlier>, LogStoreError> {
    Ok(None)
}
impl StateMachine {
    pub fn with_sink(a: &LogStore, b: &[u8], c: Arc<dyn Sink>) -> Self {
        let mut m = Self::new(a, b);
        m.sink = Some(c);
        m
    }
}
impl LogStore {
    pub fn create_with_snapshot(
        m: &dyn LogMedium,
        k: RecordKey,
        mem: Members,
        h: &History,
    ) -> Result<Self, LogStoreError> {
        let store = Self::create(m, k)?;
        let id = EntryId::new(<Leader as openraft::vote::RaftLeaderId>::new(0, 0), 0);
        let meta = SnapshotInfo {
            last_log_id: Some(id),
            last_membership: LoggedMembers::new(Some(id), mem),
        };
        let chain = super::codec::encode_chain(Some(h)).ok().unwrap();
        store.journal().lock().save_snapshot(&meta, &chain)?;
        store.journal().lock().purge(id)?;
        Ok(store)
    }
    pub fn changes_after(&self, _: u64) -> Result<Vec<Change>, LogStoreError> {
        Ok(Vec::new())
    }
}
impl LogStoreError {
    pub fn is_full(&self) -> bool {
        false
    }
}
impl dyn LogMedium {
    pub fn set_aside(&self) -> Result<(), LogStoreError> {
        Ok(())
    }
}
impl History {
    pub(crate) fn continued_by(&self, _: &Earlier, _: &[u8]) -> History {
        self.clone()
    }
    pub(crate) fn continued_by_changes(&self, _: &[Change], _: &[u8]) -> History {
        self.clone()
    }
}
