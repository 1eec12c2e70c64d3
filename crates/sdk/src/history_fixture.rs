//! A history for tests, here and in the CLI.

use std::time::SystemTime;

use contrast_clock::{SeededEntropy, SystemWallClock, WallClock as _};
use contrast_pki::{MeshCa, RootCa, SigningKey};
use contrast_proto::user::{GetManifestsResponse, Transition};

use super::{History, Memory, TransitionHash, sha256, transition_hash};

pub(crate) const MANIFEST: &str = include_str!("../../../cli/tests/data/manifest.json");
pub(crate) const COORDINATOR: &str = include_str!("../../../cli/tests/data/coordinator.toml");
pub(crate) const WEB: &str = include_str!("../../../cli/tests/data/web.toml");

/// A deployment as the Coordinator would describe it: first manifest, an update, a recovery under the same manifest.
pub(crate) struct Deployment {
    root: RootCa,
    pub(crate) signing_key: SigningKey,
    entropy: SeededEntropy,
    pub(crate) now: SystemTime,
    pub(crate) answer: GetManifestsResponse,
}

impl Deployment {
    pub(crate) fn new() -> Self {
        Self::at(SystemWallClock.now())
    }

    pub(crate) fn at(now: SystemTime) -> Self {
        let entropy = SeededEntropy::new(1);
        let key = SigningKey::generate(&entropy).expect("root key");
        let root = RootCa::new(key, now).expect("root");
        let answer = GetManifestsResponse {
            root_ca: root.certificate_pem(),
            policies: vec![COORDINATOR.as_bytes().into(), WEB.as_bytes().into()],
            ..GetManifestsResponse::default()
        };
        let mut deployment = Self {
            root,
            signing_key: SigningKey::generate(&entropy).expect("signing key"),
            entropy,
            now,
            answer,
        };
        let updated = MANIFEST.replace("\"web\",", "\"web.example\",");
        deployment.append(MANIFEST);
        deployment.append(&updated);
        deployment.append(&updated);
        deployment
    }

    pub(crate) fn append(&mut self, manifest: &str) {
        let mesh = MeshCa::generate(&self.entropy, &self.root, self.now).expect("mesh CA");
        let previous = self
            .answer
            .transitions
            .last()
            .map_or(TransitionHash::NONE, hash);
        self.answer.transitions.push(Transition {
            manifest_hash: sha256(manifest.as_bytes()).to_vec().into(),
            previous: previous.0.to_vec().into(),
            mesh_ca_public_key: mesh.public_key_spki().to_vec().into(),
            signature: Vec::new().into(),
            signing_public_key: Vec::new().into(),
            seed_shares_digest: vec![1; 32].into(),
        });
        self.sign(self.answer.transitions.len() - 1);
        if !self
            .answer
            .manifests
            .iter()
            .any(|known| known == manifest.as_bytes())
        {
            self.answer
                .manifests
                .push(manifest.as_bytes().to_vec().into());
        }
        self.answer.mesh_ca = mesh.self_signed_pem();
    }

    /// Signs a transition with the key that the deployment has now.
    pub(crate) fn sign(&mut self, index: usize) {
        let transition = &mut self.answer.transitions[index];
        transition.signing_public_key = self.signing_key.public_key_spki().to_vec().into();
        let signature = self.signing_key.sign_sha384(&hash(transition).0);
        transition.signature = signature.expect("signs").into();
    }

    pub(crate) fn check(&self) -> History {
        History::check(&self.answer, &Memory::default())
    }
}

pub(crate) fn hash(transition: &Transition) -> TransitionHash {
    transition_hash(transition).expect("hash")
}
