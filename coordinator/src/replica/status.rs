//! What a replica says about itself and its cluster to people. All of it is public.

use std::time::Duration;

use contrast_manifest::ManifestHash;

use super::{message::Place, peers::EvidenceSummary};
use crate::{
    cluster::{ClusterId, NodeId},
    state::TransitionHash,
};

/// A replica's view of itself and of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Where this replica is.
    pub place: Place,
    /// What it is.
    pub role: Role,
    /// Whether it serves, and if not, why; for people.
    pub serving: Result<(), String>,
    /// The cluster; `None` outside of one.
    pub cluster: Option<ClusterStatus>,
    /// The latest manifest and transition, unless there never was one.
    pub active: Option<ActiveStatus>,
    /// How old the last confirmation by a quorum is; `None` before the first.
    pub confirmed_ago: Option<Duration>,
    /// Certificates are issued while `confirmed_ago` is at most this.
    pub confirmation_bound: Duration,
}

/// What a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Never had a manifest.
    Empty,
    /// Restarted, and neither admitted nor recovered.
    Waiting,
    /// Has the secrets, and is not a member yet.
    Joining,
    /// Receives the log, does not vote.
    Learner,
    /// Votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

impl Role {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Waiting => "waiting",
            Self::Joining => "joining",
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

/// The cluster as a replica sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The cluster.
    pub id: ClusterId,
    /// This replica's identity.
    pub node: NodeId,
    /// Raft term.
    pub term: u64,
    /// The leader's identity.
    pub leader: Option<NodeId>,
    /// Index of the last entry that this replica knows to be committed.
    pub committed: u64,
    /// Index of the last entry that it applied.
    pub applied: u64,
    /// All members.
    pub members: Vec<MemberStatus>,
}

/// A member as a replica sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Identity.
    pub node: NodeId,
    /// Where it is.
    pub place: Place,
    /// Voter or learner.
    pub voter: bool,
    /// How long ago the leader heard of it; only the leader knows.
    pub heard_ago: Option<Duration>,
    /// Index up to which the leader knows its log to be right; only the leader knows.
    pub matched: Option<u64>,
    /// What it proves to this replica on a connection that is open.
    pub evidence: Option<EvidenceSummary>,
}

/// What is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveStatus {
    /// The manifest.
    pub manifest: ManifestHash,
    /// The transition.
    pub transition: TransitionHash,
    /// How many transitions there are.
    pub generation: u64,
    /// How long it has been active on this replica.
    pub since: Duration,
}
