use std::{fmt, sync::Arc};

use contrast_attestation::Verifier;
use contrast_manifest::Manifest;
use contrast_pki::{Derivation, MeshCa, RootCa, SigningKey};

use super::{History, StateError, TransitionHash};

/// What the Coordinator knows. Each phase holds exactly the data that exists in it.
#[derive(Debug, Clone)]
pub enum Phase {
    /// No manifest was ever set.
    Empty,
    /// There is a history on disk, but the seed is not in memory: waits for recovery.
    Sealed(Arc<Sealed>),
    /// Serves.
    Active(Arc<Active>),
}

impl Phase {
    /// The active state.
    ///
    /// # Errors
    /// [`StateError::NoManifest`] or [`StateError::RecoveryNeeded`].
    pub fn active(&self) -> Result<&Arc<Active>, StateError> {
        match self {
            Self::Empty => Err(StateError::NoManifest),
            Self::Sealed(_) => Err(StateError::RecoveryNeeded),
            Self::Active(active) => Ok(active),
        }
    }

    /// Name of the phase: `empty`, `sealed` or `active`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Sealed(_) => "sealed",
            Self::Active(_) => "active",
        }
    }
}

/// A history whose signatures nobody has checked yet.
#[derive(Debug)]
pub struct Sealed {
    pub(crate) history: Arc<History>,
    pub(crate) manifest: Manifest,
}

impl Sealed {
    /// The history as it was found.
    pub fn history(&self) -> &History {
        &self.history
    }
}

/// Everything it takes to serve.
pub struct Active {
    pub(crate) history: Arc<History>,
    pub(crate) manifest: Manifest,
    pub(crate) verifier: Verifier,
    pub(crate) keys: Arc<Keys>,
    pub(crate) mesh_ca: MeshCa,
}

impl Active {
    /// The history; its signatures are right.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The active manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Verifier for evidence of any pod of the active manifest.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// What follows from the seed.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The mesh CA of the latest transition.
    pub fn mesh_ca(&self) -> &MeshCa {
        &self.mesh_ca
    }

    /// The latest transition.
    pub fn transition(&self) -> TransitionHash {
        self.history.head().hash
    }
}

impl fmt::Debug for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Active")
            .field("manifest", &self.manifest)
            .field("transition", &self.transition())
            .finish_non_exhaustive()
    }
}

/// What follows from the seed and lives as long as the deployment.
pub struct Keys {
    pub(crate) derivation: Derivation,
    pub(crate) transition_key: SigningKey,
    pub(crate) root: RootCa,
}

impl Keys {
    /// Derivations of workload secrets.
    pub fn derivation(&self) -> &Derivation {
        &self.derivation
    }

    /// The root CA.
    pub fn root(&self) -> &RootCa {
        &self.root
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(hidden)")
    }
}
