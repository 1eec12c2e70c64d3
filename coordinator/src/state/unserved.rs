//! Why a replica does not serve.

use bytes::Bytes;

use super::{HistoryError, StateError};

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Why a replica with a seed and a history does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unserved {
    /// The key of the latest mesh CA is elsewhere.
    #[error(
        "the mesh CA key of the latest transition is not here yet; asking the other replicas for it"
    )]
    MissingKey(Bytes),
    /// This version cannot work with the latest manifest.
    #[error("{}", chain(.0))]
    Manifest(HistoryError),
    /// Keys.
    #[error("{0}")]
    Keys(String),
}

impl Unserved {
    pub(super) fn other(error: StateError) -> Self {
        Self::Keys(error.to_string())
    }
}
