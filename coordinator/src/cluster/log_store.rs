use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
    vote::RaftLeaderId,
};

use super::{
    ClusterTypes, Command, EntryId, Leader, LogEntry, LogMedium, LogStoreError, LoggedMembers,
    Members, NodeVote, RecordKey, SnapshotInfo, codec,
    journal::{Journal, Start},
};
use crate::state::History;

/// A journal that log store, its readers and the state machine share.
#[derive(Debug, Clone)]
pub(crate) struct SharedJournal(Arc<Mutex<Journal>>);

impl SharedJournal {
    /// A panic inside leaves the journal given up or unchanged, so a poisoned lock is no further danger.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Journal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// openraft's log storage: votes and entries of one node on an untrusted disk.
///
/// Every write is durable when its method returns, in the order of calls, so a vote is always durable before the entries of its
/// term; openraft hears of the flush of an append before the append returns. The exception is the committed marker, which becomes
/// durable with the next write. Methods block their thread for the time of one flush: a slow disk delays the Raft task itself, so
/// the election timeout has to be well above a flush. In return a simulation without threads runs the same code.
///
/// An error of the disk is final: openraft stops, and whatever would touch the disk fails with [`LogStoreError::GivenUp`].
#[derive(Debug, Clone)]
pub struct LogStore(SharedJournal);

impl LogStore {
    /// Makes the store of a node with a fresh identity.
    ///
    /// # Errors
    /// When there is a store already ([`LogStoreError::Exists`]), or it cannot be written.
    pub fn create(medium: &dyn LogMedium, key: RecordKey) -> Result<Self, LogStoreError> {
        Ok(Self::of(Journal::create(medium, key, None)?))
    }

    /// Makes the store of the founder of a cluster that begins with `history`: a snapshot of it with the given members, as of entry 0
    /// of term 0, up to which the log is purged. openraft comes up with it as an initialised cluster, so that
    /// `Raft::initialize` must not be called; other nodes receive the snapshot.
    ///
    /// # Errors
    /// When there is a store already ([`LogStoreError::Exists`]), or it cannot be written.
    pub fn create_with_snapshot(
        medium: &dyn LogMedium,
        key: RecordKey,
        members: Members,
        history: &History,
    ) -> Result<Self, LogStoreError> {
        // The id that openraft gives the first entry of a cluster that it initialises itself.
        let first = EntryId::new(Leader::new(0, 0), 0);
        let info = SnapshotInfo {
            last_log_id: Some(first),
            last_membership: LoggedMembers::new(Some(first), members),
        };
        let chain = codec::encode_chain(Some(history));
        let chain = chain.map_err(|error| LogStoreError::Encode(error.0))?;
        let start = Start {
            info: &info,
            chain: &chain,
        };
        Ok(Self::of(Journal::create(medium, key, Some(start))?))
    }

    /// Opens the store of a node that resumes its identity. Every record is checked.
    ///
    /// # Errors
    /// When there is no store ([`LogStoreError::Absent`]), or any record in it is not the last one that this node wrote there. The
    /// medium is then unchanged.
    pub fn open(medium: &dyn LogMedium, key: RecordKey) -> Result<Self, LogStoreError> {
        Ok(Self::of(Journal::open(medium, key)?))
    }

    fn of(journal: Journal) -> Self {
        Self(SharedJournal(Arc::new(Mutex::new(journal))))
    }

    /// All commands of the log after an index, committed or not, oldest first.
    ///
    /// # Errors
    /// When an entry is not what this process wrote.
    pub(crate) fn commands_after(&self, index: u64) -> Result<Vec<Command>, LogStoreError> {
        let entries = self.0.lock().entries(index.saturating_add(1), u64::MAX)?;
        let command = |entry: LogEntry| match entry.payload {
            EntryPayload::Normal(command) => Some(command),
            EntryPayload::Blank | EntryPayload::Membership(_) => None,
        };
        Ok(entries.into_iter().filter_map(command).collect())
    }

    pub(crate) fn journal(&self) -> SharedJournal {
        self.0.clone()
    }
}

impl<C: ClusterTypes> RaftLogReader<C> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.0.lock().entries(from, to)?)
    }

    async fn read_vote(&mut self) -> Result<Option<NodeVote>, io::Error> {
        Ok(self.0.lock().vote())
    }
}

impl<C: ClusterTypes> RaftLogStorage<C> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let journal = self.0.lock();
        Ok(LogState {
            last_purged_log_id: journal.purged(),
            last_log_id: journal.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &NodeVote) -> Result<(), io::Error> {
        Ok(self.0.lock().save_vote(vote)?)
    }

    async fn save_committed(&mut self, committed: Option<EntryId>) -> Result<(), io::Error> {
        Ok(self.0.lock().save_committed(committed)?)
    }

    async fn read_committed(&mut self) -> Result<Option<EntryId>, io::Error> {
        Ok(self.0.lock().committed())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.0.lock().append(entries.into_iter().collect())?;
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<EntryId>) -> Result<(), io::Error> {
        Ok(self.0.lock().truncate_after(last_log_id)?)
    }

    async fn purge(&mut self, log_id: EntryId) -> Result<(), io::Error> {
        Ok(self.0.lock().purge(log_id)?)
    }
}
