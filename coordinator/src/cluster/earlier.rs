//! What the Raft store of an earlier life is still good for: its log can have transitions that the history on disk lacks.

use std::{cell::RefCell, fmt, sync::Arc};

use contrast_pki::StoreRecordKey;
use openraft::EntryPayload;

use super::{
    Answer, ClusterId, Command, LogMedium, LogStoreError, NodeId, RecordError, RecordFault,
    RecordName, codec,
    journal::{Remains, guarded, read_remains},
    record::Kind,
    state_machine::apply_command,
};
use crate::state::History;

/// What the store of an earlier life of this replica has. All of it was written under this deployment's seed, by one node of one
/// cluster, but it may be old, and what is in it may never have been committed.
#[derive(Clone)]
pub struct Earlier {
    /// The cluster.
    pub cluster: ClusterId,
    /// The replica's identity in it. Nobody may take it on again.
    pub node: NodeId,
    /// The history of its last snapshot.
    pub history: Option<Arc<History>>,
    /// The commands in the log after that snapshot, oldest first.
    pub commands: Vec<Command>,
}

impl fmt::Debug for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Earlier")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .field("commands", &self.commands.len())
            .finish_non_exhaustive()
    }
}

/// Reads the store of an earlier life and checks every record in it, as [`super::LogStore::open`] does; `None` when there is no
/// store. `key` is that of the deployment: which cluster and node wrote the store is in the store, and in what its MACs cover.
///
/// Nothing is modified, so it can be done again.
///
/// # Errors
/// When any record is not the last one that the store's node wrote there, or the medium cannot be read.
pub fn read_earlier(
    medium: &dyn LogMedium,
    key: &StoreRecordKey,
) -> Result<Option<Earlier>, LogStoreError> {
    let remains = RefCell::new(None);
    let read = |database: &redb::Database| {
        *remains.borrow_mut() = Some(read_remains(database, key)?);
        Ok(())
    };
    guarded(|| medium.inspect(&read))?;
    remains.into_inner().map(Earlier::of).transpose()
}

impl Earlier {
    fn of(remains: Remains) -> Result<Self, LogStoreError> {
        let Remains {
            cluster,
            node,
            snapshot,
            entries,
        } = remains;
        let unusable = |fault| RecordError::new(RecordName::single(Kind::Snapshot), fault);
        let covered = snapshot.as_ref().and_then(|(info, _)| info.last_log_id);
        let records = snapshot.map(|(_, chain)| codec::decode_chain(&chain));
        let records = records
            .transpose()
            .map_err(|error| unusable(RecordFault::of_payload(error)))?;
        let history = records.flatten().map(History::read_links).transpose();
        let history = history.map_err(|_| {
            unusable(RecordFault::Payload(
                "its chain of transitions is not whole",
            ))
        })?;
        let after = entries
            .into_iter()
            .filter(|entry| covered.is_none_or(|covered| entry.log_id.index > covered.index));
        let commands = after.filter_map(|entry| match entry.payload {
            EntryPayload::Normal(command) => Some(command),
            EntryPayload::Blank | EntryPayload::Membership(_) => None,
        });
        Ok(Self {
            cluster,
            node,
            history: history.map(Arc::new),
            commands: commands.collect(),
        })
    }

    /// The history that the earlier life would have had with its whole log committed: its snapshot and the changes after it, by the
    /// rules of [`super::StateMachine`], so that a change which no replica accepted does not come to life now. `None` when
    /// there is none, or a signature in the snapshot is not of `transition_key` (SubjectPublicKeyInfo DER, P-384).
    pub fn replay(&self, transition_key: &[u8]) -> Option<Arc<History>> {
        let mut history = self.history.clone();
        if let Some(snapshot) = &history
            && let Err(error) = snapshot.verify(transition_key)
        {
            tracing::warn!(
                cluster = %self.cluster,
                %error,
                "the snapshot in the Raft store of an earlier life is not of this deployment; its log is ignored"
            );
            return None;
        }
        for command in &self.commands {
            let answer = apply_command(&mut history, command.clone(), transition_key);
            if let Answer::Refused(refusal) = answer {
                tracing::warn!(
                    cluster = %self.cluster,
                    %refusal,
                    "a change in the log of an earlier life does not fit its history; it is ignored"
                );
            }
        }
        history
    }
}

impl Earlier {
    /// Whether this has all of `history`, so that it also has what was reported of encrypted volumes until then.
    pub(crate) fn covers(&self, history: &History, transition_key: &[u8]) -> bool {
        let replayed = self.replay(transition_key);
        replayed.is_some_and(|replayed| replayed.position(history.head().hash).is_some())
    }
}

impl History {
    /// This history, or the one of an earlier life's Raft store if that is the same and goes on after it; with the higher generation
    /// of each volume, whichever of the two goes on.
    ///
    /// Signatures of what is added are checked under `transition_key` (SubjectPublicKeyInfo DER, P-384), those of this history are
    /// not.
    pub fn continued_by(&self, earlier: &Earlier, transition_key: &[u8]) -> Self {
        let Some(replayed) = earlier.replay(transition_key) else {
            return self.clone();
        };
        let (here, there) = (self.head().hash, replayed.head().hash);
        let volumes = self.volumes().merged(replayed.volumes());
        if replayed.position(here).is_some() {
            return (*replayed).clone().with_volumes(volumes);
        }
        if self.position(there).is_none() {
            tracing::warn!(
                cluster = %earlier.cluster,
                stored = %here,
                log = %there,
                "the Raft store of an earlier life has another history than the one beside it; it is ignored"
            );
        }
        self.clone().with_volumes(volumes)
    }
}
