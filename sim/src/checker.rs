//! The promises, checked while the world runs.
//!
//! | promise | checked when |
//! | --- | --- |
//! | one history: within a cluster, of any two histories one begins with the other | a replica's history is looked at |
//! | after a recovery no history lacks what an owner was told before it | likewise |
//! | what was acknowledged or read stays: an operation that starts later sees it (linearizability) | an operation ends |
//! | nothing is issued under a superseded transition later than the bound | a certificate is issued |
//! | generations of encrypted volumes only rise, and belong to one pod each ([`generations`](self)) | a pod is answered |
//! | no two leaders have the same leader id, no two entries are committed at one index | a leader replicates |
//!
//! The object that clients use is a chain that only grows, so linearizability is simple: all heads lie on one chain, and what an
//! operation sees contains every head that was known when it started.
//!
//! Owners follow decision 9: answers to questions from before a recovery tell them nothing.

mod generations;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contrast_coordinator::{
    cluster::{ClusterId, Leader, NodeId},
    replica::message::{RaftCall, RaftMessage},
    state::{Generation, TransitionHash, VolumeId},
};

use self::generations::Generations;
pub use self::generations::{Floor, Question, Said};
use crate::journal::Journal;

/// Watches a run. Clones are the same checker.
#[derive(Debug, Clone)]
pub struct Checker {
    state: Arc<Mutex<State>>,
    journal: Journal,
    /// How long a replica may issue without a confirmation, as any clock of the run may measure it.
    bound: Duration,
}

#[derive(Debug, Default)]
struct State {
    clusters: BTreeMap<[u8; 32], Cluster>,
    /// What owners were told, and when first.
    told: BTreeMap<TransitionHash, Duration>,
    depths: BTreeMap<TransitionHash, usize>,
    epoch: u64,
    /// What owners had been told when the last recovery began.
    guards: Vec<TransitionHash>,
    generations: Generations,
}

#[derive(Debug, Default)]
struct Cluster {
    /// The longest history that any of its replicas had.
    chain: Vec<TransitionHash>,
    /// What every history must contain.
    guards: Vec<TransitionHash>,
    /// Who replicated under a leader id.
    leaders: BTreeMap<(u64, NodeId), String>,
    committed: BTreeMap<u64, Leader>,
    /// Which process spoke as an identity.
    identities: BTreeMap<NodeId, String>,
}

/// An operation of a client that has started.
#[derive(Debug, Clone)]
pub struct Operation {
    epoch: u64,
    /// What was known when it started.
    known: Vec<TransitionHash>,
}

impl Checker {
    /// Promises that are broken go to `journal`; `bound` is the time for which a replica may issue without a confirmation, on the
    /// fastest clock of the run.
    pub fn new(journal: &Journal, bound: Duration) -> Self {
        Self {
            state: Arc::default(),
            journal: journal.clone(),
            bound,
        }
    }

    /// Looks at the history that a replica has, oldest first.
    pub fn look(&self, cluster: ClusterId, replica: &str, chain: &[TransitionHash]) {
        let mut state = self.state();
        for (place, hash) in chain.iter().enumerate() {
            state.depths.insert(*hash, place + 1);
        }
        let cluster = state.cluster(cluster);
        let common = cluster.chain.len().min(chain.len());
        if cluster.chain[..common] != chain[..common] {
            self.journal.broken(format_args!(
                "the history forks: {replica} has {}, another replica of its cluster had {}",
                Shown(chain),
                Shown(&cluster.chain)
            ));
        }
        if chain.len() > cluster.chain.len() {
            cluster.chain = chain.to_vec();
        }
        if let Some(lost) = cluster.guards.iter().find(|guard| !chain.contains(guard)) {
            self.journal.broken(format_args!(
                "recovered without {lost}, which an owner was told is set: {replica} has {}",
                Shown(chain)
            ));
        }
    }

    /// A client starts an operation.
    pub fn begin(&self) -> Operation {
        let state = self.state();
        Operation {
            epoch: state.epoch,
            known: state.told.keys().copied().collect(),
        }
    }

    /// The answer to an operation: the history as the client was told it is. True when the client may believe it.
    pub fn end(
        &self,
        operation: &Operation,
        what: &str,
        chain: &[TransitionHash],
        now: Duration,
    ) -> bool {
        let mut state = self.state();
        if operation.epoch != state.epoch {
            return false;
        }
        let Some(head) = chain.last() else {
            if let Some(lost) = operation.known.first() {
                self.journal.broken(format_args!(
                    "{what} saw no history, but {lost} was known before"
                ));
            }
            return true;
        };
        if let Some(lost) = operation.known.iter().find(|known| !chain.contains(known)) {
            self.journal.broken(format_args!(
                "{what} saw {}, without {lost}, which was known before it started",
                Shown(chain)
            ));
        }
        state.depths.insert(*head, chain.len());
        state.told.entry(*head).or_insert(now);
        true
    }

    /// A certificate is issued under the last transition of `chain`.
    pub fn issue(&self, replica: &str, chain: &[TransitionHash], now: Duration) {
        let state = self.state();
        let newer = state
            .told
            .iter()
            .find(|(told, at)| now > **at + self.bound && !chain.contains(told));
        if let Some((told, at)) = newer {
            let late = now - *at;
            self.journal.broken(format_args!(
                "{replica} issues under {}, {late:?} after {told} was acknowledged",
                Shown(chain)
            ));
        }
    }

    /// The latest transition that an owner was told is set: what `recover` must be guarded with.
    pub fn latest(&self) -> Option<TransitionHash> {
        let state = self.state();
        let depth = |hash: &&TransitionHash| state.depths.get(*hash).copied().unwrap_or_default();
        state.told.keys().max_by_key(depth).copied()
    }

    /// Owners start to recover: every cluster that is founded from now on must contain what they know now. With `forget_volumes` they
    /// do without the generations of encrypted volumes.
    pub fn begin_recovery(&self, forget_volumes: bool) {
        let mut state = self.state();
        state.epoch += 1;
        state.guards = state.told.keys().copied().collect();
        state.generations.begin_recovery(forget_volumes);
    }

    /// A pod starts to ask about a volume, or to report its generation.
    pub fn ask(&self, volume: VolumeId, report: Option<Generation>) -> Question {
        let mut state = self.state();
        let epoch = state.epoch;
        state.generations.ask(epoch, volume, report)
    }

    /// The answer to a pod. One to a question from before a recovery is not judged: what it says may be forgotten.
    pub fn answer(&self, question: &Question, what: &str, said: Said) {
        let mut state = self.state();
        if question.epoch == state.epoch
            && let Err(why) = state.generations.answer(question, said)
        {
            self.journal.broken(format_args!("{what}: {why}"));
        }
    }

    /// What pods have been told until now: an owner is about to ask for a transition.
    pub fn floor(&self) -> Floor {
        let state = self.state();
        state.generations.floor(state.epoch)
    }

    /// The owner was told that the transition is set: no recovery may go below `floor`.
    pub fn cover(&self, floor: &Floor) {
        let mut state = self.state();
        if floor.epoch == state.epoch {
            state.generations.cover(floor);
        }
    }

    /// A process speaks as an identity of a cluster. No other process ever may.
    pub fn identify(&self, sender: &str, cluster: ClusterId, node: NodeId) {
        let mut state = self.state();
        let identities = &mut state.cluster(cluster).identities;
        let known = identities.entry(node).or_insert_with(|| sender.to_owned());
        if known != sender {
            self.journal.broken(format_args!(
                "{sender} speaks as identity {node} of its cluster, as {known} did"
            ));
        }
    }

    /// A replica sends a Raft message.
    pub fn watch(&self, sender: &str, call: &RaftCall) {
        self.watch_append(sender, call);
        self.identify(sender, call.cluster, call.from);
    }

    fn watch_append(&self, sender: &str, call: &RaftCall) {
        let RaftMessage::Append {
            vote,
            entries,
            committed,
            ..
        } = &call.message
        else {
            return;
        };
        let mut state = self.state();
        let cluster = state.cluster(call.cluster);
        let leader = vote.leader_id;
        let known = cluster
            .leaders
            .entry((leader.term, leader.node_id))
            .or_insert_with(|| sender.to_owned());
        if known != sender {
            self.journal.broken(format_args!(
                "{sender} leads as {leader} of its cluster, as {known} did"
            ));
        }
        let committed = *committed;
        let entries = entries.iter().map(|entry| entry.log_id);
        for id in entries.chain(committed) {
            if committed.is_none_or(|committed| id.index > committed.index) {
                continue;
            }
            match cluster.committed.entry(id.index) {
                Entry::Vacant(vacant) => {
                    vacant.insert(id.leader_id);
                }
                Entry::Occupied(known) if *known.get() != id.leader_id => {
                    let known = known.get();
                    self.journal.broken(format_args!(
                        "{sender} holds entry {} of {} for committed, which was committed as one of {known}",
                        id.index, id.leader_id
                    ));
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    /// How many leaders replicated, in all clusters.
    pub fn leaders(&self) -> usize {
        let state = self.state();
        state.clusters.values().map(|c| c.leaders.len()).sum()
    }

    /// How many terms of any cluster had more than one leader. openraft's default leader ids are ordered within a term, so this
    /// is no fault.
    pub fn shared_terms(&self) -> usize {
        let state = self.state();
        state
            .clusters
            .values()
            .map(|cluster| {
                let terms: BTreeSet<u64> = cluster.leaders.keys().map(|(term, _)| *term).collect();
                cluster.leaders.len() - terms.len()
            })
            .sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cluster(&mut self, cluster: ClusterId) -> &mut Cluster {
        let guards = &self.guards;
        self.clusters.entry(cluster.0).or_insert_with(|| Cluster {
            guards: guards.clone(),
            ..Cluster::default()
        })
    }
}

/// The end of a chain, for people.
struct Shown<'a>(&'a [TransitionHash]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.last() {
            Some(head) => write!(f, "{} transition(s) up to {head}", self.0.len()),
            None => f.write_str("no transition"),
        }
    }
}

#[cfg(test)]
mod tests;
