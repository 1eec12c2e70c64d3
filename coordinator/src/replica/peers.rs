//! How a replica reaches others, and what it believes of whom.

use std::{collections::BTreeSet, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use contrast_attestation::{PolicyHash, VerifiedEvidence, Verifier};
use contrast_manifest::{Manifest, ManifestHash, Role};

use super::message::{Place, Reply, Request};

/// A future that a trait object returns.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a manifest says about Coordinators: whom to believe.
pub struct Trusted {
    /// The manifest.
    pub manifest: ManifestHash,
    /// Verifier for evidence of any pod of the manifest.
    pub verifier: Verifier,
    /// Policies with role `coordinator`.
    pub coordinators: BTreeSet<PolicyHash>,
}

impl Trusted {
    /// What `manifest` says; evidence that was verified under the manifest `before` does not become cold.
    pub fn of(manifest: &Manifest, before: Option<&Self>) -> Self {
        let verifier = match before {
            Some(before) => manifest.verifier().with_chains_of(&before.verifier),
            None => manifest.verifier(),
        };
        let coordinators = manifest
            .policies()
            .iter()
            .filter(|(_, entry)| entry.role == Role::Coordinator)
            .map(|(hash, _)| *hash)
            .collect();
        Self {
            manifest: manifest.hash(),
            verifier,
            coordinators,
        }
    }

    /// Whether verified evidence is that of a Coordinator.
    pub fn is_coordinator(&self, verified: &VerifiedEvidence) -> bool {
        self.coordinators.contains(&verified.policy_hash())
    }
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trusted")
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

/// Whom a question may go to.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Whoever answers. Nothing secret is in the question, and the answer is a claim.
    Anyone,
    /// Only a Coordinator of this manifest: the connection's evidence is checked before the question is sent.
    CoordinatorOf(Arc<Trusted>),
}

/// What the other side of a connection has proven.
pub trait Caller: Send + Sync {
    /// Checks that the caller is a Coordinator of `trusted`, on this connection and now.
    ///
    /// # Errors
    /// Says which check failed, for people.
    fn prove_coordinator(&self, trusted: &Trusted) -> Result<(), String>;
}

/// What is known of a peer's evidence, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceSummary {
    /// `SEV-SNP` or `TDX`.
    pub tee: String,
    /// Name of the reference value that it met.
    pub reference: String,
    /// Its policy.
    pub policy: PolicyHash,
    /// Whether it is of a software TEE.
    pub insecure: bool,
}

/// A question was not answered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nobody there, or no answer in time. Whether the question arrived is unknown.
    #[error("{place} does not answer: {reason}")]
    Unreachable {
        /// Who was asked.
        place: Place,
        /// Why.
        reason: String,
    },
    /// The other side is no Coordinator of our manifest. The question was not sent.
    #[error("{place} is not believed: {reason}")]
    NotBelieved {
        /// Who was asked.
        place: Place,
        /// The check that failed.
        reason: String,
    },
    /// The other side does not believe us.
    #[error("{place} does not believe this replica: {reason}")]
    NotBelievedBy {
        /// Who was asked.
        place: Place,
        /// The check that failed.
        reason: String,
    },
    /// The other side answered with an error.
    #[error("{place}: {failure}")]
    Failed {
        /// Who was asked.
        place: Place,
        /// The error.
        failure: PeerFailure,
    },
}

/// An error that a replica answers to another.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFailure {
    /// The caller's evidence is not that of a Coordinator of the active manifest.
    #[error("the caller is no Coordinator of the active manifest: {0}")]
    NotCoordinator(String),
    /// The question is for another cluster, or another identity.
    #[error("the question is for another cluster or another identity")]
    OtherIdentity,
    /// The asked replica does not lead.
    #[error("this replica does not lead{}", .leader.as_ref().map_or_else(String::new, |leader| format!("; {leader} does")))]
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<Place>,
    },
    /// The asked replica cannot answer now.
    #[error("not now: {0}")]
    Unavailable(String),
    /// The asked replica does not understand the question: one of both is of a later version.
    #[error("it does not understand the question ({0}): update the older one of both replicas")]
    Unreadable(String),
    /// The request of an owner was refused; passed on to the owner as it is.
    #[error("{}", .0.message)]
    Owner(OwnerFailure),
}

/// The answer to an owner whose request another replica refused: a gRPC status.
#[derive(Debug, Clone)]
pub struct OwnerFailure {
    /// gRPC status code.
    pub code: i32,
    /// Message for people.
    pub message: String,
    /// Details, `google.rpc.Status` protobuf.
    pub details: Bytes,
}

/// The other replicas. Implementations never retry: the caller decides.
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// Where this replica is, as others reach it.
    fn own_place(&self) -> Place;

    /// Where replicas may be, this one included or not. Untrusted and possibly incomplete.
    fn places(&self) -> BoxFuture<Vec<Place>>;

    /// Asks `place`, if `trust` allows, and waits at most `within` for the answer.
    fn call(
        &self,
        place: Place,
        request: Request,
        trust: Trust,
        within: Duration,
    ) -> BoxFuture<Result<Reply, CallError>>;

    /// What the replica at `place` proves on a connection that is open; `None` without one.
    fn evidence(&self, place: &Place) -> Option<EvidenceSummary>;
}
