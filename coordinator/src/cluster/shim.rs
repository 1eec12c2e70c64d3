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
    todo!()
}
impl StateMachine {
    pub fn with_sink(_: &LogStore, _: &[u8], _: Arc<dyn Sink>) -> Self {
        todo!()
    }
}
impl LogStore {
    pub fn create_with_snapshot(
        _: &dyn LogMedium,
        _: RecordKey,
        _: Members,
        _: &History,
    ) -> Result<Self, LogStoreError> {
        todo!()
    }
    pub fn changes_after(&self, _: u64) -> Result<Vec<Change>, LogStoreError> {
        todo!()
    }
}
impl LogStoreError {
    pub fn is_full(&self) -> bool {
        todo!()
    }
}
impl dyn LogMedium {
    pub fn set_aside(&self) -> Result<(), LogStoreError> {
        todo!()
    }
}
impl Store {
    pub(crate) fn follow(&mut self, _: &History, _: &Observer) -> Result<(), StoreError> {
        todo!()
    }
}
impl History {
    pub(crate) fn latest_manifest(&self) -> Result<contrast_manifest::Manifest, HistoryError> {
        todo!()
    }
    pub(crate) fn latest_manifest_bytes(&self) -> bytes::Bytes {
        todo!()
    }
    pub(crate) fn continued_by(&self, _: &Earlier, _: &[u8]) -> History {
        todo!()
    }
    pub(crate) fn continued_by_changes(&self, _: &[Change], _: &[u8]) -> History {
        todo!()
    }
}
impl Guard {
    pub(crate) fn check_room(&self, _: &UpdateRequest) -> Result<(), StateError> {
        todo!()
    }
}
