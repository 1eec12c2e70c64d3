//! One life: an identity in a cluster, its Raft and its store.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::{
    Raft, RaftMetrics, ServerState,
    async_runtime::{Instant as _, WatchReceiver},
    type_config::{TypeConfigExt, alias::InstantOf},
};

use super::{
    message::{Member, Place},
    plan::{Observed, Seen},
    timing::Timing,
};
use crate::cluster::{ClusterId, ClusterTypes, LogStore, Members, Node, NodeId, StateMachine};

/// A learner that lacks at most this many entries has caught up.
const LAG_MAX: u64 = 64;

/// An identity in a cluster. It never comes back when it is dropped.
pub(super) struct Life<C: ClusterTypes> {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) place: Place,
    pub(super) raft: Raft<C, StateMachine>,
    pub(super) machine: StateMachine,
    pub(super) log: LogStore,
    /// One proposal at a time.
    pub(super) proposing: tokio::sync::Mutex<()>,
    /// One membership change at a time.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// Rounds of confirmation; see `reads`.
    pub(super) round: tokio::sync::Mutex<Round>,
    pub(super) rounds_begun: AtomicU64,
    confirmed: Mutex<Option<InstantOf<C>>>,
    /// The leader has nothing left to change about this node.
    settled: AtomicBool,
    leaving: Mutex<BTreeSet<NodeId>>,
    /// As the leader of this term: since when each member is one.
    members_since: Mutex<(u64, BTreeMap<NodeId, InstantOf<C>>)>,
}

/// The latest round of confirmation that ended.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) outcome: Option<Result<(), String>>,
}

impl<C: ClusterTypes> Life<C> {
    pub(super) fn new(
        (cluster, node, place): (ClusterId, NodeId, Place),
        raft: Raft<C, StateMachine>,
        machine: StateMachine,
        log: LogStore,
    ) -> Self {
        Self {
            cluster,
            node,
            place,
            raft,
            machine,
            log,
            proposing: tokio::sync::Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            round: tokio::sync::Mutex::default(),
            rounds_begun: AtomicU64::new(0),
            confirmed: Mutex::new(None),
            settled: AtomicBool::new(false),
            leaving: Mutex::default(),
            members_since: Mutex::default(),
        }
    }

    pub(super) fn metrics(&self) -> RaftMetrics<C> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// A leader that took itself out of the membership still holds its vote, and leads nobody.
    pub(super) fn is_leader(&self) -> bool {
        self.raft.is_leader() && self.metrics().state == ServerState::Leader
    }

    /// Whether the membership names `node`.
    pub(super) fn names(&self, node: NodeId) -> bool {
        let metrics = self.metrics();
        let members = metrics.membership_config.membership();
        members.get_node(&node).is_some()
    }

    /// Whether the membership names this identity.
    pub(super) fn is_member(&self) -> bool {
        self.names(self.node)
    }

    /// Index of the latest membership entry, if it names this identity.
    pub(super) fn named_since(&self) -> Option<u64> {
        let metrics = self.metrics();
        let stored = &metrics.membership_config;
        let named = stored.membership().get_node(&self.node).is_some();
        let entry = stored.log_id().as_ref().map(|id| id.index);
        entry.filter(|_| named)
    }

    /// Whether this identity votes, and will after a change that is under way.
    pub(super) fn is_voter(&self) -> bool {
        let metrics = self.metrics();
        votes(metrics.membership_config.membership(), self.node)
    }

    pub(super) fn members(&self) -> Vec<Member> {
        let metrics = self.metrics();
        let members = metrics.membership_config.membership();
        let member = |(node, at): (&NodeId, &Node)| Member {
            node: *node,
            place: Place::new(&at.addr),
            voter: votes(members, *node),
        };
        members.nodes().map(member).collect()
    }

    /// Everybody but this identity.
    pub(super) fn others(&self) -> Vec<Member> {
        let mut members = self.members();
        members.retain(|member| member.node != self.node);
        members
    }

    /// Where the leader is, if it is another identity.
    pub(super) fn leader_elsewhere(&self) -> Option<Place> {
        let metrics = self.metrics();
        let leader = metrics
            .current_leader
            .filter(|leader| *leader != self.node)?;
        let at = metrics.membership_config.membership().get_node(&leader)?;
        Some(Place::new(&at.addr))
    }

    /// Index of the last entry that was applied.
    pub(super) fn applied(&self) -> u64 {
        let view = self.machine.view();
        view.last_applied.map_or(0, |id| id.index)
    }

    pub(super) fn note_confirmed(&self, at: InstantOf<C>, settled: bool) {
        *locked(&self.confirmed) = Some(at);
        self.settled.store(settled, Ordering::Relaxed);
    }

    /// How long ago the last confirmation was begun.
    pub(super) fn confirmed_ago(&self) -> Option<Duration> {
        locked(&self.confirmed).map(|at| C::now().saturating_duration_since(at))
    }

    /// Whether the last confirmation was begun at most `limit` ago.
    pub(super) fn confirmed_within(&self, limit: Duration) -> bool {
        self.confirmed_ago().is_some_and(|ago| ago <= limit)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    pub(super) fn note_leaving(&self, node: NodeId) {
        locked(&self.leaving).insert(node);
    }

    /// What this replica sees as the leader of its term; `None` when it does not lead.
    pub(super) fn observe(&self, timing: &Timing) -> Option<Observed> {
        let metrics = self.metrics();
        let (heartbeat, replication) = (metrics.heartbeat.as_ref()?, metrics.replication.as_ref()?);
        if metrics.state != ServerState::Leader {
            return None;
        }
        let now = C::now();
        let last = metrics.last_log_index.unwrap_or(0);
        let stored = metrics.membership_config.membership();
        let members_since = self.members_since(metrics.current_term, stored, now);
        let leaving = locked(&self.leaving);
        let seen = |(node, at): (&NodeId, &Node)| {
            let own = *node == self.node;
            let heard = heartbeat.get(node).copied().flatten().map(|heard| *heard);
            // Not heard of in this term yet: silent since this replica leads, or since the node was added, whatever came later.
            let since = heard.or_else(|| members_since.get(node).copied());
            let silent_for = match since {
                Some(since) if !own => now.saturating_duration_since(since),
                _ => Duration::ZERO,
            };
            let matched = replication.get(node).copied().flatten();
            let behind = matched.map(|matched| last.saturating_sub(matched.index));
            let seen = Seen {
                place: Place::new(&at.addr),
                silent_for,
                caught_up: own || behind.is_some_and(|behind| behind <= LAG_MAX),
                leaving: leaving.contains(node),
            };
            (*node, seen)
        };
        Some(Observed {
            leader: self.node,
            configs: stored.get_joint_config().clone(),
            members: stored.nodes().map(seen).collect::<BTreeMap<_, _>>(),
            silence: timing.silence,
            grace: timing.dead_member_grace,
        })
    }

    fn members_since(
        &self,
        term: u64,
        members: &Members,
        now: InstantOf<C>,
    ) -> BTreeMap<NodeId, InstantOf<C>> {
        let mut known = locked(&self.members_since);
        if known.0 != term {
            *known = (term, BTreeMap::new());
        }
        known.1.retain(|node, _| members.get_node(node).is_some());
        for (node, _) in members.nodes() {
            known.1.entry(*node).or_insert(now);
        }
        known.1.clone()
    }

    /// Whether more than one disk has the log up to `index`, as far as there is a second replica alive.
    pub(super) fn is_copied(&self, index: u64, timing: &Timing) -> bool {
        let Some(observed) = self.observe(timing) else {
            return true;
        };
        if observed.configs.iter().all(|voters| voters.len() > 1) {
            // A majority of several voters has it.
            return true;
        }
        let metrics = self.metrics();
        let others = observed
            .members
            .iter()
            .filter(|(node, _)| **node != self.node);
        let mut living = others
            .filter(|(_, seen)| seen.silent_for < timing.silence)
            .peekable();
        let has = |node: &NodeId| {
            let replication = metrics.replication.as_ref();
            let matched = replication.and_then(|all| all.get(node).copied());
            matched
                .flatten()
                .is_some_and(|matched| matched.index >= index)
        };
        living.peek().is_none() || living.any(|(node, _)| has(node))
    }
}

/// Whether `node` votes in every set of voters; there are two while a change is under way.
pub(super) fn votes(members: &Members, node: NodeId) -> bool {
    let configs = members.get_joint_config();
    !configs.is_empty() && configs.iter().all(|config| config.contains(&node))
}

/// No code that could panic runs while one of these locks is held.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C: ClusterTypes> fmt::Debug for Life<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}
