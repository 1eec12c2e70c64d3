use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use contrast_manifest::ManifestHash;
use contrast_pki::{KeyError, SigningKey, verify_p384_sha384};

/// First field of the hashed text: separates transition hashes from any other use of SHA-256 and from later versions.
const LABEL: &[u8] = b"contrast transition v1";
/// First byte of an encoded transition.
const ENCODING: u8 = 1;

/// SHA-256 that names a transition, and through it the whole history up to it. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransitionHash(pub [u8; 32]);

impl TransitionHash {
    /// What comes before the first transition.
    pub const NONE: Self = Self([0; 32]);
}

impl fmt::Display for TransitionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TransitionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransitionHash({self})")
    }
}

/// One link of the history: a manifest became active under a new mesh CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The manifest.
    pub manifest_hash: ManifestHash,
    /// The transition before, or [`TransitionHash::NONE`].
    pub previous: TransitionHash,
    /// Public key of the mesh CA, SubjectPublicKeyInfo DER (P-384).
    pub mesh_ca_public_key: Bytes,
    /// ECDSA P-384 signature with SHA-384, ASN.1 DER, over the hash.
    pub signature: Bytes,
}

/// Bytes are no encoded transition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a transition in encoding {ENCODING}, found {found} bytes of something else")]
pub struct TransitionFormatError {
    /// How many bytes were found.
    pub found: usize,
}

impl Transition {
    /// Makes and signs a transition.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn sign(
        manifest_hash: ManifestHash,
        previous: TransitionHash,
        mesh_ca_public_key: &[u8],
        key: &SigningKey,
    ) -> Result<Self, KeyError> {
        let mut transition = Self {
            manifest_hash,
            previous,
            mesh_ca_public_key: Bytes::copy_from_slice(mesh_ca_public_key),
            signature: Bytes::new(),
        };
        transition.signature = key.sign_sha384(&transition.hash().0)?.into();
        Ok(transition)
    }

    /// SHA-256("contrast transition v1" || manifest hash || previous || SHA-256(mesh CA public key)).
    pub fn hash(&self) -> TransitionHash {
        let mesh_ca = sha256(&[&self.mesh_ca_public_key]);
        TransitionHash(sha256(&[
            LABEL,
            &self.manifest_hash.0,
            &self.previous.0,
            &mesh_ca,
        ]))
    }

    /// Checks the signature under the transition key `spki` (SubjectPublicKeyInfo DER).
    ///
    /// # Errors
    /// When the signature is another key's, or none.
    pub fn verify(&self, spki: &[u8]) -> Result<(), KeyError> {
        verify_p384_sha384(spki, &self.hash().0, &self.signature)
    }

    /// The bytes of the store: 1, manifest hash (32), previous (32), length of the public key (2, big-endian), public key,
    /// signature.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // A P-384 key has 120 bytes.
        let length = u16::try_from(self.mesh_ca_public_key.len()).unwrap_or(u16::MAX);
        [
            &[ENCODING][..],
            &self.manifest_hash.0,
            &self.previous.0,
            &length.to_be_bytes(),
            &self.mesh_ca_public_key,
            &self.signature,
        ]
        .concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, TransitionFormatError> {
        let parse = || {
            let (encoding, rest) = bytes.split_first()?;
            let (manifest_hash, rest) = rest.split_first_chunk()?;
            let (previous, rest) = rest.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (key, signature) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
            (*encoding == ENCODING).then(|| Self {
                manifest_hash: ManifestHash(*manifest_hash),
                previous: TransitionHash(*previous),
                mesh_ca_public_key: Bytes::copy_from_slice(key),
                signature: Bytes::copy_from_slice(signature),
            })
        };
        parse().ok_or(TransitionFormatError { found: bytes.len() })
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &parts.concat()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use contrast_clock::SeededEntropy;

    use super::*;

    fn transition(key: &SigningKey) -> Transition {
        let manifest = ManifestHash([1; 32]);
        Transition::sign(manifest, TransitionHash([2; 32]), b"mesh ca key", key).expect("signs")
    }

    #[test]
    fn hash_equals_a_vector_computed_elsewhere() {
        // Python: sha256(b"contrast transition v1" + b"\1"*32 + b"\2"*32 + sha256(b"mesh ca key").digest())
        let key = SigningKey::generate(&SeededEntropy::new(1)).expect("key");
        assert_eq!(transition(&key).hash().to_string(), VECTOR);
    }

    const VECTOR: &str = "8b4e986f123ef6b8d09a8aacb4b6f0f1b2868bb5411e7e5d014408c172a33bdf";

    #[test]
    fn signature_is_checked_under_the_right_key_only() {
        let key = SigningKey::generate(&SeededEntropy::new(1)).expect("key");
        let other = SigningKey::generate(&SeededEntropy::new(2)).expect("key");
        let transition = transition(&key);
        transition.verify(key.public_key_spki()).expect("own key");
        transition
            .verify(other.public_key_spki())
            .expect_err("other key");
        let changed = Transition {
            previous: TransitionHash::NONE,
            ..transition
        };
        changed
            .verify(key.public_key_spki())
            .expect_err("other content");
    }

    #[test]
    fn encoding_is_lossless_and_truncation_is_noticed() {
        let key = SigningKey::generate(&SeededEntropy::new(1)).expect("key");
        let transition = transition(&key);
        let bytes = transition.encode();
        assert_eq!(Transition::decode(&bytes).expect("decodes"), transition);
        let fixed = 1 + 32 + 32 + 2 + b"mesh ca key".len();
        for length in 0..fixed {
            Transition::decode(&bytes[..length]).expect_err("truncated");
        }
    }
}
