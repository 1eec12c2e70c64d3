use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use contrast_attestation::Verifier;
use contrast_manifest::Manifest;
use contrast_pki::{Derivation, MeshCa, RootCa};

use super::{
    Deployment, History, StateError, TransitionHash, Volumes, VolumesError, course::PreviousCa,
    unserved::Unserved,
};
use crate::replica::peers::Trusted;

/// What the Coordinator knows. Each phase holds exactly the data that exists in it.
#[derive(Debug, Clone)]
pub enum Phase {
    /// No manifest was ever set.
    Empty,
    /// There is a history on disk, but the seed is not in memory: waits for other replicas or for recovery.
    Sealed(Arc<Sealed>),
    /// Seed and history are there, but something else is missing.
    Held(Arc<Held>),
    /// Serves.
    Active(Arc<Active>),
}

impl Phase {
    /// The active state.
    ///
    /// # Errors
    /// [`StateError::NoManifest`], [`StateError::RecoveryNeeded`] or [`StateError::Held`].
    pub fn active(&self) -> Result<&Arc<Active>, StateError> {
        match self {
            Self::Empty => Err(StateError::NoManifest),
            Self::Sealed(_) => Err(StateError::RecoveryNeeded),
            Self::Held(held) => Err(StateError::Held(held.why.to_string())),
            Self::Active(active) => Ok(active),
        }
    }

    /// The history, whether its signatures were checked or not.
    pub fn history(&self) -> Option<&Arc<History>> {
        match self {
            Self::Empty => None,
            Self::Sealed(sealed) => Some(&sealed.history),
            Self::Held(held) => Some(&held.history),
            Self::Active(active) => Some(&active.history),
        }
    }

    /// Name of the phase: `empty`, `sealed`, `held` or `active`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Sealed(_) => "sealed",
            Self::Held(_) => "held",
            Self::Active(_) => "active",
        }
    }
}

/// A history whose signatures nobody has checked yet.
#[derive(Debug)]
pub struct Sealed {
    pub(crate) history: Arc<History>,
    /// Generations of encrypted volumes as they were found, which takes the seed to believe.
    pub(crate) volumes: Option<Bytes>,
}

impl Sealed {
    /// The history as it was found.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The generations of encrypted volumes, if a Coordinator with this seed wrote them with this history.
    pub(crate) fn open_volumes(&self, deployment: &Deployment) -> Result<Volumes, VolumesError> {
        let sealed = self.volumes.as_ref().ok_or(VolumesError::Missing)?;
        let head = self.history.head().hash;
        Volumes::open(sealed, deployment.volume_key(), head)
    }
}

/// A history whose signatures are right, and that cannot be served.
#[derive(Debug)]
pub struct Held {
    pub(crate) history: Arc<History>,
    pub(crate) why: Unserved,
}

/// Everything it takes to serve.
pub struct Active {
    pub(crate) history: Arc<History>,
    pub(crate) manifest: Manifest,
    pub(crate) trusted: Arc<Trusted>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) mesh_ca: Arc<MeshCa>,
    pub(crate) previous: Option<PreviousCa>,
    pub(crate) trust_domain: String,
    pub(crate) since: SystemTime,
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
        &self.trusted.verifier
    }

    /// What follows from the seed.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The mesh CA of the latest transition.
    pub fn mesh_ca(&self) -> &MeshCa {
        &self.mesh_ca
    }

    /// The mesh CA of the transition before, self-signed form, PEM, and how long it stays trusted from `now` on: while the overlap of the
    /// active manifest lasts, if this replica saw the change.
    pub fn previous_mesh_ca(&self, now: SystemTime) -> Option<(&str, Duration)> {
        let previous = self.previous.as_ref()?;
        let left = previous.trusted_for(self.manifest.mesh_ca_overlap(), now)?;
        Some((&previous.self_signed_pem, left))
    }

    /// Trust domain of the SPIFFE IDs: that of the manifest, else SHA-256 of the root CA's SubjectPublicKeyInfo, 64 lower-case hex digits.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The latest transition.
    pub fn transition(&self) -> TransitionHash {
        self.history.head().hash
    }

    /// When it became active on this replica.
    pub fn since(&self) -> SystemTime {
        self.since
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

/// What follows from the seed, with the root CA's certificate.
pub struct Keys {
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) root: RootCa,
}

impl Keys {
    /// The seed and what follows from it alone.
    pub(crate) fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Derivations of workload secrets.
    pub fn derivation(&self) -> &Derivation {
        self.deployment.derivation()
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
