//! What openraft is told about this cluster: identities, log entries, answers.

use std::fmt;

use bytes::Bytes;
use contrast_clock::{Entropy, EntropyError};
use contrast_manifest::ManifestHash;
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, Membership, RaftTypeConfig, SnapshotMeta,
    StoredMembership, Vote, impls::leader_id_adv::LeaderId,
};

use crate::state::{Advance, Advanced, Transition, TransitionHash};

/// Names one life of a cluster: 32 random bytes, drawn when a cluster is founded, and anew at every `contrast recover`, so that
/// no record of a cluster before is accepted by the one after. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 32]);

impl ClusterId {
    /// Draws an id.
    ///
    /// # Errors
    /// When `entropy` fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut id = [0; 32];
        entropy.fill(&mut id)?;
        Ok(Self(id))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

/// Names one life of a replica, and must never name another: a replica that starts with an empty log takes a new id.
pub type NodeId = u64;
/// Address of a node's peer API. An address proves nothing: evidence does.
pub type Node = BasicNode;
/// Term and node of a leader. Ids of one term are ordered by node, so that two candidates of a term do not block each other.
pub type Leader = LeaderId<u64, NodeId>;
/// Leader and index of a log entry.
pub type EntryId = LogId<Leader>;
/// A vote, or the leader that was accepted.
pub type NodeVote = Vote<Leader>;
/// What a log entry is for.
pub type Payload = EntryPayload<Command, NodeId, Node>;
/// A log entry.
pub type LogEntry = Entry<Leader, Payload>;
/// Voters and learners.
pub type Members = Membership<NodeId, Node>;
/// Voters and learners, and the entry that made them so.
pub type LoggedMembers = StoredMembership<Leader, NodeId, Node>;
/// What a snapshot covers.
pub type SnapshotInfo = SnapshotMeta<Leader, NodeId, Node>;

openraft::declare_raft_types!(
    /// The cluster's types on tokio.
    pub TypeConfig:
        D = Command,
        R = Answer,
        NodeId = NodeId,
        Node = Node,
        Term = u64,
        LeaderId = Leader,
        Vote = NodeVote,
        Payload = Payload,
        Entry = LogEntry,
);

/// Any type configuration with the data types above: the runtime is open, so that the same store runs in a simulation.
pub trait ClusterTypes:
    RaftTypeConfig<
        D = Command,
        R = Answer,
        NodeId = NodeId,
        Node = Node,
        Term = u64,
        LeaderId = Leader,
        Vote = NodeVote,
        Payload = Payload,
        Entry = LogEntry,
    >
{
}

impl<C> ClusterTypes for C where
    C: RaftTypeConfig<
            D = Command,
            R = Answer,
            NodeId = NodeId,
            Node = Node,
            Term = u64,
            LeaderId = Leader,
            Vote = NodeVote,
            Payload = Payload,
            Entry = LogEntry,
        >
{
}

/// What the members agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "few commands are in memory at a time, and each has far more behind its pointers"
)]
pub enum Command {
    /// The history goes on.
    Change(Change),
    /// An encrypted volume was opened or closed.
    Advance(Advance),
}

impl From<Change> for Command {
    fn from(change: Change) -> Self {
        Self::Change(change)
    }
}

impl From<Advance> for Command {
    fn from(advance: Advance) -> Self {
        Self::Advance(advance)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(change) => change.fmt(f),
            Self::Advance(advance) => write!(
                f,
                "generation {} of volume {}",
                advance.generation.number, advance.volume
            ),
        }
    }
}

/// A proposed change of the history: a signed transition with everything it names. All of it is public; there is no field that
/// could hold a private key, the mesh CA's in particular, which only travels between attested replicas.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// The transition; it names the manifest, its predecessor and the mesh CA's public key.
    pub transition: Transition,
    /// The manifest's exact bytes.
    pub manifest: Bytes,
    /// Policy documents (initdata) that the history may not have yet. Their SHA-256 names them.
    pub policies: Vec<Bytes>,
    /// With the first transition, when the seed is shared anew, and with a recovery that had to replace it.
    pub founding: Option<FoundingDocuments>,
}

/// What is written with the first transition, and replaced by few others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundingDocuments {
    /// JSON of the encrypted seed shares.
    pub seed_shares: Bytes,
    /// Root CA certificate, DER.
    pub root_certificate: Bytes,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transition {}", self.transition.hash())
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("transition", &self.transition.hash())
            .field("previous", &self.transition.previous)
            .field("policies", &self.policies.len())
            .field("founding", &self.founding.is_some())
            .finish_non_exhaustive()
    }
}

/// What became of a committed log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The entry changed no transition: it was a new leader's first, or about members, or a volume's generation before there is a
    /// history.
    NoChange,
    /// What became of a volume's generation.
    Advanced(Advanced),
    /// The transition is part of the history, by this entry or by an earlier one with the same transition.
    Applied(TransitionHash),
    /// The history is as before, on every replica.
    Refused(Refusal),
}

/// A committed change did not fit the history. Every replica comes to the same result, because nothing but the history, the
/// change and the transition key decides, and no step depends on the version of the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Another change was first.
    #[error(
        "the change follows transition {found}, but the latest is {head}; somebody else changed the manifest: look at it \
         with `contrast verify`, then set again"
    )]
    NotNext {
        /// The latest transition.
        head: TransitionHash,
        /// What the change follows.
        found: TransitionHash,
    },
    /// Not signed by a holder of the seed.
    #[error(
        "transition {transition} is not signed with this deployment's transition key; no attested Coordinator proposes \
         such a change: report this"
    )]
    Signature {
        /// The transition.
        transition: TransitionHash,
    },
    /// Transition and manifest do not belong together.
    #[error(
        "transition {transition} names manifest {expected}, but came with manifest {found}; report this"
    )]
    Manifest {
        /// The transition.
        transition: TransitionHash,
        /// What the transition names.
        expected: ManifestHash,
        /// What it came with.
        found: ManifestHash,
    },
    /// The first transition lacks what is written with it, or seed shares are others than the transition names.
    #[error(
        "transition {transition} came without the seed shares that it names or without a root certificate; report this"
    )]
    Founding {
        /// The transition.
        transition: TransitionHash,
    },
}
