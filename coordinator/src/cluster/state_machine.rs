use std::{fmt, io, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use contrast_manifest::ManifestHash;
use contrast_pki::shares::SeedSharesDocument;
use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot,
    storage::{EntryResponder, RaftStateMachine},
};

use super::{
    Answer, Change, ClusterTypes, Command, EntryId, Leader, LogEntry, LogStore, LoggedMembers,
    Node, NodeId, Refusal, SnapshotInfo, codec, log_store::SharedJournal,
};
use crate::state::{History, HistoryError, TransitionHash, named};

/// What was applied, at one point of the log. It never changes.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The history; `None` before the first transition.
    pub history: Option<Arc<History>>,
    /// The last entry that was applied.
    pub last_applied: Option<EntryId>,
    /// The last members that were applied.
    pub members: LoggedMembers,
}

/// Hears of what was applied, for example to keep a second copy of the history.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Called with the new view when history or members changed, before readers see it and clients hear of it. Views that openraft
    /// restores from this node's own snapshot are not told. It may block.
    ///
    /// # Errors
    /// Are logged and change nothing: the Raft store has everything durably.
    fn applied(&self, view: &Arc<View>) -> Result<(), io::Error>;
}

/// A snapshot's content: the signed chain of transitions with all manifests, policies, the encrypted seed shares and the root
/// certificate. Nothing in it is secret, and its signatures, not its sender, make it trustworthy.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedChain(pub Bytes);

impl fmt::Debug for SignedChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedChain({} bytes)", self.0.len())
    }
}

/// A snapshot was refused. State and disk are as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The bytes are no chain.
    #[error(
        "the snapshot is no chain of transitions that this version reads: {0}; the replica that sent it is damaged, or of a later version: \
         then update this one"
    )]
    Malformed(&'static str),
    /// The chain is not whole, or a signature in it is wrong.
    #[error("the snapshot's chain is not this deployment's history")]
    History(#[source] Box<HistoryError>),
    /// The chain leaves out what this replica has applied.
    #[error(
        "the snapshot forks the history: expected a chain that contains transition {expected}, found one that ends in {found}; \
         stop this cluster and compare its replicas, a committed transition must never disappear"
    )]
    Fork {
        /// The latest transition here.
        expected: TransitionHash,
        /// The latest transition of the snapshot.
        found: TransitionHash,
    },
}

impl From<HistoryError> for ChainError {
    fn from(error: HistoryError) -> Self {
        Self::History(Box::new(error))
    }
}

impl From<ChainError> for io::Error {
    fn from(error: ChainError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Applies committed entries to the history.
///
/// It lives in memory: after a restart openraft installs the stored snapshot and applies the entries after it again. It never
/// reads the clock, draws randomness or parses a manifest, because replicas of different versions have to come to the same result.
/// That a manifest is valid and approved is the business of whoever proposes it; that this version can use it, of whoever reads
/// the [`View`].
#[derive(Debug, Clone)]
pub struct StateMachine {
    view: Arc<ArcSwap<View>>,
    journal: SharedJournal,
    /// SubjectPublicKeyInfo DER.
    transition_key: Bytes,
    sink: Option<Arc<dyn Sink>>,
}

impl StateMachine {
    /// A state machine that keeps its snapshot in the store of `log` and accepts transitions signed under `transition_key`
    /// (SubjectPublicKeyInfo DER, P-384).
    pub fn new(log: &LogStore, transition_key: &[u8]) -> Self {
        Self {
            view: Arc::default(),
            journal: log.journal(),
            transition_key: Bytes::copy_from_slice(transition_key),
            sink: None,
        }
    }

    /// As [`StateMachine::new`]; `sink` hears of every change.
    pub fn with_sink(log: &LogStore, transition_key: &[u8], sink: Arc<dyn Sink>) -> Self {
        Self {
            sink: Some(sink),
            ..Self::new(log, transition_key)
        }
    }

    /// What is applied now. Clones of a state machine share it.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    fn tell_sink(&self, view: &Arc<View>) {
        if let Some(sink) = &self.sink
            && let Err(error) = sink.applied(view)
        {
            tracing::error!(
                %error,
                "what was applied could not be passed on; it is safe in the Raft store, and the next change tries again"
            );
        }
    }

    pub(super) fn apply_entry(&self, view: &mut View, entry: LogEntry) -> Answer {
        let answer = match entry.payload {
            EntryPayload::Blank => Answer::NoChange,
            EntryPayload::Normal(command) => {
                apply_command(&mut view.history, command, &self.transition_key)
            }
            EntryPayload::Membership(members) => {
                view.members = LoggedMembers::new(Some(entry.log_id), members);
                Answer::NoChange
            }
        };
        view.last_applied = Some(entry.log_id);
        answer
    }

    /// Checks a snapshot and makes a view of it.
    fn read(&self, info: &SnapshotInfo, chain: &Bytes) -> Result<View, ChainError> {
        let records = codec::decode_chain(chain).map_err(|error| ChainError::Malformed(error.0))?;
        let history = records.map(History::read_links).transpose()?;
        if let Some(history) = &history {
            history.verify(&self.transition_key)?;
        }
        if let Some(current) = &self.view().history {
            let expected = current.head().hash;
            let found = history
                .as_ref()
                .map_or(TransitionHash::NONE, |h| h.head().hash);
            let contained = history
                .as_ref()
                .is_some_and(|history| history.position(expected).is_some());
            if !contained {
                return Err(ChainError::Fork { expected, found });
            }
        }
        Ok(View {
            history: history.map(Arc::new),
            last_applied: info.last_log_id,
            members: info.last_membership.clone(),
        })
    }
}

/// Whether two views, of which one was made from the other, have another history or other members.
fn differ(before: &View, after: &View) -> bool {
    let same_history = match (&before.history, &after.history) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after),
        (before, after) => before.is_none() && after.is_none(),
    };
    !same_history || before.members != after.members
}

/// What becomes of a command, whoever applies it.
pub(super) fn apply_command(
    history: &mut Option<Arc<History>>,
    command: Command,
    transition_key: &[u8],
) -> Answer {
    match command {
        Command::Change(change) => match apply_change(history, change, transition_key) {
            Ok(hash) => Answer::Applied(hash),
            Err(refusal) => Answer::Refused(refusal),
        },
        Command::Advance(advance) => match history {
            None => Answer::NoChange,
            Some(history) => {
                let mut volumes = history.volumes().clone();
                let advanced = volumes.advance(&advance);
                // What is the same history stays the same to those who watch it.
                if volumes != *history.volumes() {
                    Arc::make_mut(history).set_volumes(volumes);
                }
                Answer::Advanced(advanced)
            }
        },
    }
}

/// The transition's hash, when it is part of the history afterwards.
pub(super) fn apply_change(
    history: &mut Option<Arc<History>>,
    change: Change,
    transition_key: &[u8],
) -> Result<TransitionHash, Refusal> {
    let Change {
        transition: next,
        manifest,
        policies,
        founding,
    } = change;
    let transition = next.hash();
    let current = history.as_ref();
    if current.is_some_and(|history| history.position(transition).is_some()) {
        return Ok(transition);
    }
    let head = current.map_or(TransitionHash::NONE, |history| history.head().hash);
    if next.previous != head {
        return Err(Refusal::NotNext {
            head,
            found: next.previous,
        });
    }
    let found = ManifestHash::of(&manifest);
    if next.manifest_hash != found {
        return Err(Refusal::Manifest {
            transition,
            expected: next.manifest_hash,
            found,
        });
    }
    next.verify(transition_key)
        .map_err(|_| Refusal::Signature { transition })?;
    let policies = named(policies);
    let unreadable = || Refusal::Founding { transition };
    let founding = founding
        .map(|founding| {
            let shares = SeedSharesDocument::from_json(&founding.seed_shares);
            Ok((shares.map_err(|_| unreadable())?, founding.root_certificate))
        })
        .transpose()?;
    let in_force = match (&founding, &history) {
        (Some((shares, _)), _) => shares.digest().ok(),
        (None, Some(history)) => Some(history.head().transition.seed_shares),
        (None, None) => None,
    };
    if in_force != Some(next.seed_shares) {
        return Err(unreadable());
    }
    match history {
        None => {
            let (shares, root) = founding.ok_or_else(unreadable)?;
            let founded = History::found(next, &manifest, policies, shares, &root);
            *history = Some(Arc::new(founded));
        }
        Some(history) => {
            let history = Arc::make_mut(history);
            history.extend(next, &manifest, &policies);
            if let Some((shares, root)) = founding {
                history.replace_founding(shares, root);
            }
        }
    }
    Ok(transition)
}

/// Makes a snapshot of the view at the time when it was asked for.
#[derive(Debug)]
pub struct SnapshotBuilder {
    view: Arc<View>,
    journal: SharedJournal,
}

type ChainSnapshot = Snapshot<Leader, NodeId, Node, SignedChain>;

impl<C: ClusterTypes> RaftSnapshotBuilder<C> for SnapshotBuilder {
    type SnapshotData = SignedChain;

    async fn build_snapshot(&mut self) -> Result<ChainSnapshot, io::Error> {
        let chain = codec::encode_chain(self.view.history.as_deref());
        let chain = chain.map_err(|error| super::LogStoreError::Encode(error.0))?;
        let meta = SnapshotInfo {
            last_log_id: self.view.last_applied,
            last_membership: self.view.members.clone(),
        };
        self.journal.lock().save_snapshot(&meta, &chain)?;
        Ok(Snapshot {
            meta,
            snapshot: SignedChain(chain),
        })
    }
}

impl<C: ClusterTypes> RaftStateMachine<C> for StateMachine {
    type SnapshotData = SignedChain;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<EntryId>, LoggedMembers), io::Error> {
        let view = self.view();
        Ok((view.last_applied, view.members.clone()))
    }

    /// Readers see all entries of one call at once, and clients hear of them after that.
    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + OptionalSend,
    {
        let before = self.view();
        let mut view = View::clone(&before);
        let mut answers = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let answer = self.apply_entry(&mut view, entry);
            if let Answer::Refused(refusal) = &answer {
                tracing::warn!(%refusal, "a committed change does not fit the history");
            }
            answers.extend(responder.map(|responder| (responder, answer)));
        }
        let view = Arc::new(view);
        if differ(&before, &view) {
            self.tell_sink(&view);
        }
        self.view.store(view);
        for (responder, answer) in answers {
            responder.send(answer);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            view: self.view(),
            journal: self.journal.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotInfo,
        snapshot: SignedChain,
    ) -> Result<(), io::Error> {
        let view = self.read(meta, &snapshot.0)?;
        let view = Arc::new(view);
        let is_new = self.journal.lock().save_snapshot(meta, &snapshot.0)?;
        if is_new {
            self.tell_sink(&view);
        }
        self.view.store(view);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<ChainSnapshot>, io::Error> {
        let stored = self.journal.lock().snapshot()?;
        Ok(stored.map(|(meta, chain)| Snapshot {
            meta,
            snapshot: SignedChain(chain),
        }))
    }
}
