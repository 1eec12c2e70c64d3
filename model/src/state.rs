//! What a state of the model holds: the living replicas, what the network may still deliver, what the host has on
//! disks, and what outsiders were told.

use std::collections::{BTreeMap, BTreeSet};

/// An identity of a replica in Raft. Identities of one epoch are never given out twice.
pub type Id = u8;

/// The transitions of a log in order. A signed chain of hashes is modelled by its whole content, so "contains the
/// transition" is "starts with the chain that ends in it".
pub type Chain = Vec<u8>;

/// A set of identities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Voters(pub u16);

impl Voters {
    /// The set of the given identities.
    pub fn of(ids: impl IntoIterator<Item = Id>) -> Self {
        ids.into_iter().fold(Self(0), Self::with)
    }

    /// The set and one more identity.
    #[must_use]
    pub fn with(self, id: Id) -> Self {
        Self(self.0 | 1 << id)
    }

    /// Whether the identity is in the set.
    pub fn contains(self, id: Id) -> bool {
        self.0 & 1 << id != 0
    }

    /// The identities in the set.
    pub fn ids(self) -> impl Iterator<Item = Id> {
        (0..16).filter(move |id| self.contains(*id))
    }

    fn majority_in(self, of: Self) -> bool {
        (self.0 & of.0).count_ones() * 2 > of.0.count_ones()
    }
}

/// A membership: one set of voters, or two while Raft's joint consensus moves from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Config {
    /// The voters; in a joint membership those before the change.
    pub voters: Voters,
    /// The voters after the change, in a joint membership.
    pub next: Option<Voters>,
}

impl Config {
    /// Whether the set is a quorum: a majority of the voters and, in a joint membership, of the next ones too.
    pub fn quorum(self, set: Voters) -> bool {
        set.majority_in(self.voters) && self.next.is_none_or(|next| set.majority_in(next))
    }
}

/// What an entry of the log carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payload {
    /// A manifest transition, named by the order in which owners asked for it.
    Transition(u8),
    /// A membership, in effect as soon as it is in the log.
    Membership(Config),
}

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Term of the leader that made it.
    pub term: u8,
    /// What it carries.
    pub payload: Payload,
}

/// The transitions in the entries.
pub fn chain(entries: &[Entry]) -> Chain {
    entries
        .iter()
        .filter_map(|entry| match entry.payload {
            Payload::Transition(id) => Some(id),
            Payload::Membership(_) => None,
        })
        .collect()
}

/// The membership in effect: the latest in the log, and its position counted from 1.
pub fn membership(entries: &[Entry]) -> Option<(usize, Config)> {
    (1..=entries.len())
        .rev()
        .find_map(|len| match entries[len - 1].payload {
            Payload::Membership(config) => Some((len, config)),
            Payload::Transition(_) => None,
        })
}

/// What Raft calls a server's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Follows, or has not joined yet.
    Follower,
    /// Asks for votes in its term.
    Candidate,
    /// Leads its term.
    Leader,
}

/// A running replica. What it holds in memory is also what its disk holds at this moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Its identity.
    pub id: Id,
    /// The cluster it belongs to; a recovery founds the next one.
    pub epoch: u8,
    /// Its term.
    pub term: u8,
    /// For whom it voted in its term.
    pub voted: Option<Id>,
    /// Follower, candidate or leader.
    pub role: Role,
    /// How many entries it knows to be committed; kept for leaders only.
    pub committed: u8,
    /// Its log; empty for a replica that has not joined.
    pub log: Vec<Entry>,
}

impl Node {
    /// A replica that has just booted: a fresh identity, nothing else.
    pub fn fresh(id: Id, epoch: u8) -> Self {
        Self {
            id,
            epoch,
            term: 0,
            voted: None,
            role: Role::Follower,
            committed: 0,
            log: Vec::new(),
        }
    }

    /// The membership in effect for this replica; none before it received a log.
    pub fn config(&self) -> Option<Config> {
        membership(&self.log).map(|(_, config)| config)
    }

    /// The transitions it knows to be committed.
    pub fn committed_chain(&self) -> Chain {
        chain(&self.log[..usize::from(self.committed)])
    }
}

/// A message that was sent and that the host may deliver at any time, any number of times, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// A candidate asks for votes.
    Ask {
        /// Cluster.
        epoch: u8,
        /// Term of the candidate.
        term: u8,
        /// The candidate.
        from: Id,
        /// Term of its last entry and length of its log.
        last: (u8, u8),
    },
    /// A vote.
    Vote {
        /// Cluster.
        epoch: u8,
        /// Term of the vote.
        term: u8,
        /// The voter.
        from: Id,
        /// The candidate.
        to: Id,
    },
}

/// The leader of a term and all that it ever sent: requests carry a beginning of this log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leadership {
    /// The leader.
    pub id: Id,
    /// Its log.
    pub log: Vec<Entry>,
    /// How much of it each replica acknowledged as durable; more than the leader knows to be committed only.
    pub acknowledged: BTreeMap<Id, u8>,
    /// Once it leads no more: how many identities there were, because it sent nothing to later ones.
    pub ended: Option<Id>,
}

/// A disk as the host may have copied it: term, vote and log of one identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk {
    /// Whose disk.
    pub id: Id,
    /// Term on it.
    pub term: u8,
    /// Vote on it.
    pub voted: Option<Id>,
    /// Log on it.
    pub log: Vec<Entry>,
}

/// How a deployment was recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recovery {
    /// No replica that held the history in memory was left.
    AllGone,
    /// Some were left, too few for a quorum.
    Survivors,
}

/// What must never happen; set by the step that made it happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Violations {
    /// Two histories: a commit that contradicts an earlier one.
    pub forked: bool,
    /// A commit without a transition that was acknowledged to an owner before.
    pub lost: bool,
    /// Two identities led the same term.
    pub two_leaders: bool,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// Running replicas by identity.
    pub nodes: Vec<Node>,
    /// Place (pod of the StatefulSet) of each identity ever given out.
    pub places: Vec<u8>,
    /// Messages that may be delivered.
    pub messages: BTreeSet<Message>,
    /// Leaders by epoch and term.
    pub leaders: BTreeMap<(u8, u8), Leadership>,
    /// Histories that were on a disk at some moment.
    pub histories: BTreeSet<Chain>,
    /// Disks at every moment; kept only where a mutant reads them.
    pub disks: BTreeSet<Disk>,
    /// Restarts so far, clones included.
    pub restarts: u8,
    /// Clones so far.
    pub clones: u8,
    /// Transitions that owners asked for so far.
    pub proposed: u8,
    /// The latest cluster.
    pub epoch: u8,
    /// How the latest cluster came to be, if by recovery.
    pub recovery: Option<Recovery>,
    /// The longest chain that was ever committed in the latest cluster, and the latest term that committed.
    pub history: (u8, Chain),
    /// What owners were told; what they pass as guard.
    pub acknowledged: Chain,
    /// The guard of the recovery.
    pub guard: Chain,
    /// What went wrong.
    pub violations: Violations,
}

impl State {
    /// The running replica with this identity.
    pub fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The place of an identity.
    pub fn place(&self, id: Id) -> u8 {
        self.places[usize::from(id)]
    }

    /// Whether some running replicas could still commit: one of them knows a membership of which a quorum runs.
    pub fn quorum_lives(&self) -> bool {
        self.nodes.iter().any(|node| {
            let alive = Voters::of(
                self.nodes
                    .iter()
                    .filter(|other| other.epoch == node.epoch && !other.log.is_empty())
                    .map(|other| other.id),
            );
            node.config().is_some_and(|config| config.quorum(alive))
        })
    }
}
