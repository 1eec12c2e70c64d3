//! What can happen in one step.

use crate::state::{Chain, Disk, Id};

/// A step. The host schedules all of them: it delays, drops, repeats and reorders by choosing which comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A replica hears nothing of a leader, raises its term and asks for votes.
    Campaign {
        /// The candidate.
        id: Id,
    },
    /// A request for votes arrives and is granted.
    Vote {
        /// The voter.
        id: Id,
        /// Term of the vote.
        term: u8,
        /// The candidate.
        to: Id,
    },
    /// Votes of a quorum arrived.
    Lead {
        /// The new leader.
        id: Id,
    },
    /// A request of the leader of a term arrives, however old, and is acknowledged.
    Replicate {
        /// The receiver.
        id: Id,
        /// Term of the request.
        term: u8,
        /// How much of the leader's log it brings.
        len: u8,
    },
    /// An owner hands a transition to a leader.
    Propose {
        /// The leader.
        id: Id,
    },
    /// Acknowledgements of a quorum arrived; the leader commits.
    Commit {
        /// The leader.
        id: Id,
        /// How much of its log.
        len: u8,
        /// Whether the owner receives the answer.
        answered: bool,
    },
    /// A leader starts to replace the identity that a place had by the one it has now.
    Admit {
        /// The leader.
        id: Id,
        /// The fresh identity.
        joiner: Id,
    },
    /// The host restarts a replica: its memory is gone, a fresh identity boots.
    Restart {
        /// The identity that ends.
        id: Id,
    },
    /// The host boots a second replica at a place and leaves the first one running.
    Clone {
        /// The identity that has company now.
        id: Id,
    },
    /// The host restarts all replicas at once.
    PowerLoss,
    /// A restarted replica takes an identity back from a disk (mutants only).
    Resume {
        /// The booted replica.
        id: Id,
        /// The disk that the host gave it.
        disk: Disk,
    },
    /// Owners recover with a history that some disk or survivor holds.
    Recover {
        /// The history.
        history: Chain,
    },
}
