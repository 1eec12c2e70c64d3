use crate::{cluster::LogStoreError, replica::peers::OwnerFailure};
use contrast_clock::EntropyError;
use contrast_manifest::ManifestError;
use contrast_pki::{CertificateError, DeriveError, KeyError, SeedError, shares::SharesError};

use std::time::Duration;

use super::{
    ApprovalError, HistoryError, PoliciesError, StoreError, TransitionHash, VOLUMES_MAX,
    VOLUMES_PER_SECRET_ID_MAX, VolumesError,
};

/// The state did not change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Nothing was ever set.
    #[error("no manifest set yet; run `contrast set` first")]
    NoManifest,
    /// The seed is missing.
    #[error("this Coordinator restarted and has no seed; run `contrast recover` first")]
    RecoveryNeeded,
    /// Recovery without a history.
    #[error("there is nothing to recover: no manifest was ever set on this Coordinator")]
    NothingToRecover,
    /// Recovery of a Coordinator that serves.
    #[error("this Coordinator serves already; there is nothing to recover")]
    AlreadyRecovered,
    /// Recovery while others live.
    #[error(
        "replica {place} lives and remembers this deployment ({standing}); recover at that replica, or let it admit this one. \
         If it is to be given up, end it first, or use `--force`"
    )]
    SurvivorAnswers {
        /// The replica that answered.
        place: String,
        /// What it says about itself.
        standing: String,
    },
    /// A survivor knows more than the replica that was asked to recover.
    #[error(
        "replica {place} has transitions that this replica lacks (its latest is {head}); recover at that replica"
    )]
    SurvivorKnowsMore {
        /// The replica that answered.
        place: String,
        /// Its latest transition.
        head: TransitionHash,
    },
    /// Two replicas are asked to begin at the same time.
    #[error(
        "replica {place} is being set up or recovered at this moment; try again, this replica will then join it"
    )]
    BeginsElsewhere {
        /// The other replica.
        place: String,
    },
    /// Restarted, and not in the cluster again.
    #[error("this replica restarted and is not admitted yet: {reason}")]
    NotAdmitted {
        /// Why.
        reason: String,
    },
    /// The generations of encrypted volumes on the disk cannot be believed.
    #[error(
        "{0}: the host may have put back or removed a part of the disk. Restore the Coordinator's volume; to recover without, so that \
         an older image of an encrypted volume is not noticed at its next start, use `--forget-volumes`"
    )]
    Volumes(VolumesError),
    /// There are too many encrypted volumes.
    #[error(
        "as many encrypted volumes are recorded as may be, {} for a workload secret id and {} in all; give new workloads another \
         workload secret id, or begin a new deployment",
        VOLUMES_PER_SECRET_ID_MAX,
        VOLUMES_MAX
    )]
    TooManyVolumes,
    /// The disk has a history that cannot be used.
    #[error(
        "the history on this replica's disk cannot be used, and was left as it is: {0}. This replica founds and recovers nothing; a \
         cluster that admits it puts its own history there and keeps this one as `history.set-aside.redb`. To start over, move \
         the file away"
    )]
    Damaged(String),
    /// Seed and history are there, something else is missing.
    #[error("this replica cannot serve: {0}")]
    Held(String),
    /// No majority.
    #[error("no quorum: {0}; try again when more replicas are connected")]
    NoQuorum(String),
    /// The last confirmation is too old.
    #[error(
        "this replica could not confirm its state with a quorum for {}, which is more than the bound of {} s: it may be cut off \
         from the other replicas and have a superseded manifest; ask another replica, or try again",
        ago.map_or_else(|| "its whole life".to_owned(), |ago| format!("{} s", ago.as_secs())), bound.as_secs()
    )]
    Unconfirmed {
        /// Age of the last confirmation.
        ago: Option<Duration>,
        /// The bound.
        bound: Duration,
    },
    /// Whether the change took effect is unknown.
    #[error(
        "whether the manifest was set is unknown: {0}; repeat the same request, it takes effect at most once"
    )]
    Undecided(String),
    /// Another replica refused.
    #[error("{}", .0.message)]
    Forwarded(OwnerFailure),
    /// The Raft store.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// Raft stopped.
    #[error("replication stopped: {0}; this replica ends and starts anew")]
    Stopped(String),
    /// The update is for an older state.
    #[error(
        "the update follows transition {found}, but the latest is {latest}; somebody else changed the manifest: look at \
         it with `contrast verify`, then set again"
    )]
    StaleBase {
        /// The latest transition.
        latest: TransitionHash,
        /// What the update follows.
        found: TransitionHash,
    },
    /// The manifest is not valid.
    #[error(transparent)]
    Manifest(ManifestError),
    /// A sealed secret of another deployment.
    #[error(
        "the sealed secret `{name}` does not open in this deployment: it was sealed with another sealing key or under another name. Seal it \
         again with the sealing key of this deployment, which `contrast set` and `contrast verify` write; a first manifest cannot have sealed \
         secrets, because there is no sealing key before it"
    )]
    Sealed {
        /// Its name.
        name: String,
    },
    /// Policy documents and manifest do not fit together.
    #[error(transparent)]
    Policies(#[from] PoliciesError),
    /// The owners did not approve.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// A seed for a Coordinator that has one.
    #[error("this Coordinator has a manifest and a seed already; import into one that has none")]
    NotEmpty,
    /// What a seed share owner handed in is not of the document that is in force.
    #[error(
        "the salt is not that of this deployment's seed shares document; use the document that the latest `contrast set` wrote"
    )]
    OtherSalt,
    /// The history on disk.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A seed share or salt of a wrong length, or an unsupported threshold.
    #[error(transparent)]
    Shares(#[from] SharesError),
    /// The cryptographic library or the source of randomness failed.
    #[error("keys could not be made")]
    Keys(#[source] KeysError),
    /// The code that changes the state panicked; the state is as before.
    #[error(
        "internal error: changing the state panicked; the state is as before, please report this"
    )]
    Panicked,
}

/// Keys could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// Seed or salt.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// Identities.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// Derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// Certificates.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Signing.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl<E: Into<KeysError>> From<E> for StateError {
    fn from(error: E) -> Self {
        Self::Keys(error.into())
    }
}
