//! Why a replica does not serve.

use bytes::Bytes;

use super::{HistoryError, StateError};
use crate::causes::causes;

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
    #[error("{}", causes(.0))]
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
