use contrast_manifest::ManifestError;
use contrast_pki::{CertificateError, DeriveError, KeyError, SeedError, shares::SharesError};

use super::{ApprovalError, HistoryError, PoliciesError, StoreError, TransitionHash};

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
    /// Policy documents and manifest do not fit together.
    #[error(transparent)]
    Policies(#[from] PoliciesError),
    /// The owners did not approve.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// Seed shares exist once.
    #[error(
        "the new manifest changes SeedshareOwnerPubKeys or SeedshareThreshold; the seed was shared when the first manifest \
         was set and cannot be shared again: keep both as they are"
    )]
    SeedShareOwnersChanged,
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
