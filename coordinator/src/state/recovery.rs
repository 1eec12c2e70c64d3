//! Recovery: from a seed share and a history of unknown origin to the state of before.

use std::sync::Arc;

use contrast_pki::{Derivation, RootCa, Salt, Seed};

use super::{Keys, Sealed, StateError, TransitionHash};

/// What a seed share owner hands in.
pub struct RecoveryRequest {
    /// The share; with threshold 1 the seed itself.
    pub seed: Seed,
    /// Salt of the seed shares document.
    pub salt: Salt,
    /// Latest transition that the owner has seen, if any.
    pub known: Option<TransitionHash>,
}

impl std::fmt::Debug for RecoveryRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoveryRequest")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

/// Keys of a deployment whose history they opened, and whether the stored root certificate had to be replaced.
#[derive(Debug)]
pub(crate) struct Unsealed {
    pub(crate) keys: Arc<Keys>,
    pub(crate) root_replaced: bool,
}

/// Checks that the seed opens the history, that the history is whole, and that it is not older than what the owner has seen.
pub(crate) fn unseal(
    sealed: &Sealed,
    request: &RecoveryRequest,
    now: std::time::SystemTime,
) -> Result<Unsealed, StateError> {
    let derivation = Derivation::new(&request.seed, &request.salt);
    let transition_key = derivation.transition_signing_key()?;
    sealed.history.verify(transition_key.public_key_spki())?;
    if let Some(known) = request.known {
        sealed.history.check_contains(known)?;
    }
    if sealed.history.seed_shares().salt != request.salt.as_bytes() {
        tracing::warn!(
            "the salt on disk is not the one that opened the history; the stored seed shares were tampered with, \
             keep your own seed-shares.json"
        );
    }
    let stored = sealed.history.root_certificate().to_vec();
    let (root, root_replaced) = match RootCa::resume(derivation.root_ca_key()?, stored, now) {
        Ok(root) => (root, false),
        Err(error) => {
            // The key is what counts: it follows from the seed. Refusing to serve would only help whoever damaged the disk.
            tracing::warn!(%error, "the stored root certificate is unusable; made a new one with the same key");
            (RootCa::new(derivation.root_ca_key()?, now)?, true)
        }
    };
    Ok(Unsealed {
        keys: Arc::new(Keys {
            derivation,
            transition_key,
            root,
        }),
        root_replaced,
    })
}
