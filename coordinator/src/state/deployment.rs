use std::{collections::VecDeque, fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use contrast_pki::{
    Derivation, MeshCa, RootCa, Salt, SealingKey, Seed, SigningKey, VolumeRecordKey,
};

use super::{History, KeysError, StateError};
use crate::replica::message::MeshCaKey;

/// Mesh CA keys that are kept: that of the latest transition, those under way, and some that were superseded a moment ago.
const KEYS_KEPT: usize = 8;

/// The seed, and what follows from it alone.
pub struct Deployment {
    seed: Arc<Seed>,
    salt: Arc<Salt>,
    derivation: Derivation,
    transition_key: SigningKey,
    volume_key: VolumeRecordKey,
    sealing_key: SealingKey,
}

impl Deployment {
    /// Derives everything from a seed and its salt.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn new(seed: Arc<Seed>, salt: Arc<Salt>) -> Result<Self, KeysError> {
        let derivation = Derivation::new(&seed, &salt);
        Ok(Self {
            transition_key: derivation.transition_signing_key()?,
            volume_key: derivation.volume_record_key()?,
            sealing_key: derivation.sealing_key()?,
            derivation,
            seed,
            salt,
        })
    }

    /// The seed, for attested peers.
    pub(crate) fn seed(&self) -> &Arc<Seed> {
        &self.seed
    }

    /// The salt.
    pub(crate) fn salt(&self) -> &Arc<Salt> {
        &self.salt
    }

    /// Derivations.
    pub fn derivation(&self) -> &Derivation {
        &self.derivation
    }

    /// Signs transitions.
    pub(crate) fn transition_key(&self) -> &SigningKey {
        &self.transition_key
    }

    /// Authenticates the generations of encrypted volumes in the history file.
    pub(crate) fn volume_key(&self) -> &VolumeRecordKey {
        &self.volume_key
    }

    /// Opens what owners sealed for this deployment.
    pub(crate) fn sealing_key(&self) -> &SealingKey {
        &self.sealing_key
    }

    /// Whether this is the very same seed; takes the same time whatever differs.
    pub(crate) fn has_seed(&self, seed: &Seed, salt: &Salt) -> bool {
        let equal =
            |a: &[u8], b: &[u8]| aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok();
        equal(self.seed.expose(), seed.expose()) & equal(self.salt.as_bytes(), salt.as_bytes())
    }

    /// The root CA with the certificate that `history` brings; with a new one when that is unusable.
    pub(crate) fn root_of(&self, history: &History, now: SystemTime) -> Result<RootCa, StateError> {
        let stored = history.root_certificate().to_vec();
        match RootCa::resume(self.derivation.root_ca_key()?, stored, now) {
            Ok(root) => Ok(root),
            Err(error) => {
                // The key is what counts: it follows from the seed. Refusing to serve would only help whoever damaged the disk.
                tracing::warn!(%error, "the stored root certificate is unusable; made a new one with the same key");
                Ok(RootCa::new(self.derivation.root_ca_key()?, now)?)
            }
        }
    }
}

impl fmt::Debug for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deployment(hidden)")
    }
}

/// Mesh CA keys by their public keys, newest last.
#[derive(Default)]
pub(crate) struct Keyring(VecDeque<Kept>);

struct Kept {
    public: Bytes,
    key: MeshCaKey,
    /// When it came here, or was made here.
    received: SystemTime,
    /// With the certificates that were made for it first: a replica must not show different ones for the same key.
    mesh_ca: Option<Arc<MeshCa>>,
}

impl Keyring {
    /// Keeps a key, and forgets the oldest of too many, but never `needed` (SubjectPublicKeyInfo DER).
    ///
    /// # Errors
    /// When it is no P-384 key.
    pub(crate) fn add(
        &mut self,
        key: MeshCaKey,
        needed: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<(), KeysError> {
        let signing = SigningKey::from_private_key_der(&key.pkcs8)?;
        let public = Bytes::copy_from_slice(signing.public_key_spki());
        self.keep(
            Kept {
                public,
                key,
                received: now,
                mesh_ca: None,
            },
            needed,
        );
        Ok(())
    }

    /// As [`add`](Self::add), for a mesh CA that was made here.
    pub(crate) fn add_own(
        &mut self,
        key: MeshCaKey,
        mesh_ca: Arc<MeshCa>,
        needed: Option<&[u8]>,
        now: SystemTime,
    ) {
        let public = Bytes::copy_from_slice(mesh_ca.public_key_spki());
        let mesh_ca = Some(mesh_ca);
        self.keep(
            Kept {
                public,
                key,
                received: now,
                mesh_ca,
            },
            needed,
        );
    }

    fn keep(&mut self, new: Kept, needed: Option<&[u8]>) {
        if self.get(&new.public).is_none() {
            self.0.push_back(new);
        }
        if self.0.len() > KEYS_KEPT {
            let mut kept = self.0.iter();
            let oldest = kept.position(|kept| Some(kept.public.as_ref()) != needed);
            oldest.and_then(|place| self.0.remove(place));
        }
    }

    /// The key with the given public key (SubjectPublicKeyInfo DER).
    pub(crate) fn get(&self, public: &[u8]) -> Option<&MeshCaKey> {
        let found = self.0.iter().find(|kept| kept.public == public);
        found.map(|kept| &kept.key)
    }

    /// When the key with the given public key came here.
    pub(crate) fn received(&self, public: &[u8]) -> Option<SystemTime> {
        let found = self.0.iter().find(|kept| kept.public == public);
        found.map(|kept| kept.received)
    }

    /// The mesh CA with the given public key.
    pub(crate) fn mesh_ca(
        &mut self,
        public: &[u8],
        root: &RootCa,
        now: SystemTime,
    ) -> Option<Result<Arc<MeshCa>, KeysError>> {
        let kept = self.0.iter_mut().find(|kept| kept.public == public)?;
        if let Some(mesh_ca) = &kept.mesh_ca {
            return Some(Ok(Arc::clone(mesh_ca)));
        }
        let key = SigningKey::from_private_key_der(&kept.key.pkcs8).map_err(KeysError::from);
        let made = key.and_then(|key| Ok(Arc::new(MeshCa::from_key(key, root, now)?)));
        kept.mesh_ca = made.as_ref().ok().cloned();
        Some(made)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}
