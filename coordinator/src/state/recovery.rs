//! Recovery: from a seed share and a history of unknown origin to the state of before.

use std::sync::Arc;

use contrast_pki::{Salt, Seed};

use super::{Deployment, History, StateError, TransitionHash};

/// What seed share owners ask for, when there are enough of them.
pub struct RecoveryRequest {
    /// The seed.
    pub seed: Seed,
    /// Salt of the seed shares document.
    pub salt: Salt,
    /// The latest transitions that the owners have seen.
    pub known: Vec<TransitionHash>,
    /// Recover although other replicas answer that know this deployment.
    pub force: bool,
    /// Recover although the generations of encrypted volumes cannot be believed, and forget them.
    pub forget_volumes: bool,
}

impl std::fmt::Debug for RecoveryRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoveryRequest")
            .field("known", &self.known)
            .field("force", &self.force)
            .field("forget_volumes", &self.forget_volumes)
            .finish_non_exhaustive()
    }
}

/// Checks that the seed opens the history, and that the history is whole.
pub(crate) fn unseal(
    history: &History,
    request: &RecoveryRequest,
) -> Result<Arc<Deployment>, StateError> {
    let seed = Arc::new(request.seed.clone());
    let deployment = Deployment::new(seed, Arc::new(request.salt));
    let deployment = deployment.map_err(StateError::Keys)?;
    history.verify(deployment.transition_key().public_key_spki())?;
    Ok(Arc::new(deployment))
}
