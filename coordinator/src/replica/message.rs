//! What replicas ask of each other, free of any wire format. `crate::peer` carries it over attested TLS; a simulation carries it
//! in memory.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use contrast_manifest::ManifestHash;
use contrast_pki::{Salt, Seed};
use zeroize::Zeroizing;

use crate::{
    cluster::{ClusterId, EntryId, LogEntry, NodeId, NodeVote, SignedChain, SnapshotInfo},
    state::{Advance, Advanced, TransitionHash, UpdateRequest},
};

/// Where a replica's peer API is: `host:port`. It is a name that a replica keeps over restarts, and proves nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Arc<str>);

impl Place {
    /// The place with the given `host:port`.
    pub fn new(address: &str) -> Self {
        Self(address.into())
    }

    /// `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

/// Names one process: drawn at its start. Tells a replica that an answer is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub u64);

/// A question to a replica.
#[derive(Debug, Clone)]
pub enum Request {
    /// Who are you? The only question that may be asked, and answered, without evidence. Answer: [`Reply::Welcome`].
    Hello {
        /// Who asks.
        boot: BootId,
        /// Latest transition that the asking replica has in memory or on its disk.
        head: Option<TransitionHash>,
    },
    /// A replica without a place in the cluster asks for what it takes to become a learner. Answer: [`Reply::Secrets`].
    FetchSecrets,
    /// A replica whose Raft runs asks to be admitted. Answer: [`Reply::Done`], when the leader has begun to; ask again until the
    /// membership says so.
    Join {
        /// The cluster.
        cluster: ClusterId,
        /// The fresh identity.
        node: NodeId,
        /// Where it is; a dead identity of the same place is replaced.
        place: Place,
    },
    /// Raft. Answer: [`Reply::Raft`].
    Raft(RaftCall),
    /// Up to where must a state be applied to be confirmed now? Asked of the leader. Answer: [`Reply::ReadIndex`].
    Confirm {
        /// The cluster.
        cluster: ClusterId,
        /// Who asks.
        node: NodeId,
    },
    /// Keep this mesh CA key: a transition that needs it is about to be proposed. Answer: [`Reply::Done`].
    OfferKey {
        /// The cluster.
        cluster: ClusterId,
        /// The key.
        key: MeshCaKey,
    },
    /// The mesh CA key with this public key. Answer: [`Reply::Key`].
    FetchKey {
        /// The cluster.
        cluster: ClusterId,
        /// SubjectPublicKeyInfo DER.
        public_key: Bytes,
    },
    /// Set a manifest; asked of the leader on behalf of an owner. Answer: [`Reply::Set`].
    Propose {
        /// The cluster; `None` when the asked replica has none yet.
        cluster: Option<ClusterId>,
        /// What the owner asked.
        update: UpdateRequest,
    },
    /// Record the generation of an encrypted volume; asked of the leader on behalf of a pod. Answer: [`Reply::Volume`].
    AdvanceVolume {
        /// The cluster.
        cluster: ClusterId,
        /// What the pod reported.
        advance: Advance,
    },
    /// This replica is about to stop: take it out of the membership. Asked of the leader. Answer: [`Reply::Done`] when it is out.
    Leave {
        /// The cluster.
        cluster: ClusterId,
        /// Who leaves.
        node: NodeId,
    },
}

impl Request {
    /// Short name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "Hello",
            Self::FetchSecrets => "FetchSecrets",
            Self::Join { .. } => "Join",
            Self::Raft(_) => "Raft",
            Self::Confirm { .. } => "Confirm",
            Self::OfferKey { .. } => "OfferKey",
            Self::FetchKey { .. } => "FetchKey",
            Self::Propose { .. } => "Propose",
            Self::AdvanceVolume { .. } => "AdvanceVolume",
            Self::Leave { .. } => "Leave",
        }
    }
}

/// An answer; which one fits which question is said there.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To [`Request::Hello`].
    Welcome(Welcome),
    /// To [`Request::FetchSecrets`].
    Secrets(Secrets),
    /// To [`Request::Raft`].
    Raft(RaftReply),
    /// To [`Request::Confirm`].
    ReadIndex {
        /// Index that must be applied.
        index: u64,
        /// Whether the leader has nothing left to change about the asking node: it is a voter, or a spare learner.
        settled: bool,
    },
    /// To [`Request::FetchKey`]; `None` when the asked replica does not have it.
    Key(Option<MeshCaKey>),
    /// To [`Request::Propose`].
    Set(SetReceipt),
    /// To [`Request::AdvanceVolume`].
    Volume(Advanced),
    /// It is done.
    Done,
}

/// Who a replica is. Claims, until the connection's evidence is checked.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The process.
    pub boot: BootId,
    /// What it is.
    pub standing: Standing,
}

/// What a replica is.
#[derive(Debug, Clone)]
pub enum Standing {
    /// Never had a manifest, knows no cluster.
    Empty,
    /// Is about to found a cluster.
    Founding,
    /// Restarted, and waits to be admitted or recovered.
    Waiting,
    /// Takes part in a cluster.
    Member(MemberReport),
}

/// What a member tells about its cluster.
#[derive(Debug, Clone)]
pub struct MemberReport {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member's identity.
    pub node: NodeId,
    /// All members.
    pub members: Vec<Member>,
    /// Where the leader is, if the member knows one.
    pub leader: Option<Place>,
    /// Whether the member confirmed its state with a quorum within the bound.
    pub confirmed: bool,
    /// The latest manifest, its exact bytes.
    pub manifest: Bytes,
    /// The latest transition.
    pub head: TransitionHash,
    /// Index of the last log entry that the member applied.
    pub applied: u64,
    /// Whether the member's history contains the transition of the question; true when it named none.
    pub contains_head: bool,
}

/// A member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Identity.
    pub node: NodeId,
    /// Where it is.
    pub place: Place,
    /// Voter or learner.
    pub voter: bool,
}

/// What a replica needs in order to become a learner.
#[derive(Clone)]
pub struct Secrets {
    /// The cluster.
    pub cluster: ClusterId,
    /// The seed.
    pub seed: Arc<Seed>,
    /// The salt.
    pub salt: Arc<Salt>,
    /// The mesh CA key of the latest transition, if the member has it.
    pub mesh_ca_keys: Vec<MeshCaKey>,
    /// The latest manifest, as a quorum confirmed it a moment ago. Whoever has the seed says so, so it is more than a claim: a
    /// replica that believes another manifest than this one must not take the seed.
    pub manifest: ManifestHash,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// A mesh CA's private key. Travels between attested replicas only.
#[derive(Clone)]
pub struct MeshCaKey {
    /// Private key, PKCS#8 DER (P-384).
    pub pkcs8: Arc<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for MeshCaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshCaKey(hidden)")
    }
}

/// What `SetManifest` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetReceipt {
    /// Root CA certificate, PEM.
    pub root_ca: String,
    /// Mesh CA certificate, self-signed form, PEM.
    pub mesh_ca: String,
    /// The transition.
    pub transition: TransitionHash,
    /// JSON of the encrypted seed shares, when the transition made them, or may have.
    pub seed_shares: Option<String>,
}

/// A Raft message from one identity of a cluster to another.
#[derive(Debug, Clone)]
pub struct RaftCall {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who asks.
    pub from: NodeId,
    /// Who is asked; any other identity at the same place refuses.
    pub to: NodeId,
    /// The message.
    pub message: RaftMessage,
}

/// A Raft message. Fields are those of openraft's requests.
#[derive(Debug, Clone)]
pub enum RaftMessage {
    /// AppendEntries.
    Append {
        /// The leader's vote.
        vote: NodeVote,
        /// The entry before the first one.
        previous: Option<EntryId>,
        /// Entries.
        entries: Vec<LogEntry>,
        /// Up to where the leader has committed.
        committed: Option<EntryId>,
    },
    /// RequestVote.
    Vote(Ballot),
    /// Pre-Vote: would you?
    PreVote(Ballot),
    /// A whole snapshot.
    Snapshot {
        /// The leader's vote.
        vote: NodeVote,
        /// What it covers.
        info: SnapshotInfo,
        /// The chain.
        chain: SignedChain,
    },
    /// The leader hands over.
    Transfer {
        /// The leader's vote.
        vote: NodeVote,
        /// Who is to lead.
        to: NodeId,
        /// What that node must have flushed.
        last: Option<EntryId>,
    },
}

/// A candidate's request.
#[derive(Debug, Clone)]
pub struct Ballot {
    /// The candidate's vote.
    pub vote: NodeVote,
    /// Its last entry.
    pub last: Option<EntryId>,
    /// Whether the leader asked for this election.
    pub transfer: bool,
}

/// Answer to a Raft message.
#[derive(Debug, Clone)]
pub enum RaftReply {
    /// To [`RaftMessage::Append`].
    Append(AppendReply),
    /// To [`RaftMessage::Vote`] and [`RaftMessage::PreVote`].
    Vote {
        /// The answering node's vote.
        vote: NodeVote,
        /// Whether the vote is given.
        granted: bool,
        /// The answering node's last entry.
        last: Option<EntryId>,
    },
    /// To [`RaftMessage::Snapshot`].
    Snapshot {
        /// The answering node's vote.
        vote: NodeVote,
    },
    /// To [`RaftMessage::Transfer`]: whether the node will stand for election.
    Transfer {
        /// True: it will.
        accepted: bool,
    },
}

/// Answer to AppendEntries.
#[derive(Debug, Clone)]
pub enum AppendReply {
    /// All entries are stored.
    Success,
    /// Entries up to this one are stored.
    Partial(Option<EntryId>),
    /// The entry before the first one is not there.
    Conflict,
    /// The node has seen a higher vote.
    HigherVote(NodeVote),
}
