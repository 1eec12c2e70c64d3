use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use contrast_manifest::ManifestHash;
use contrast_pki::{KeyError, SigningKey, verify_p384_sha384};

/// First field of the hashed text: separates transition hashes from any other use of SHA-256 and from later versions.
const LABEL: &[u8] = b"contrast transition v2";
/// First byte of an encoded transition.
const ENCODING: u8 = 2;

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
    /// SHA-256 of the seed shares document that is in force with this transition, as JSON.
    pub seed_shares: [u8; 32],
    /// Public half of the transition key, SubjectPublicKeyInfo DER (P-384). It follows from the seed, so it is the same in all transitions of
    /// a deployment, and no other deployment has it.
    pub signing_public_key: Bytes,
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
        seed_shares: [u8; 32],
        key: &SigningKey,
    ) -> Result<Self, KeyError> {
        let mut transition = Self {
            manifest_hash,
            previous,
            mesh_ca_public_key: Bytes::copy_from_slice(mesh_ca_public_key),
            seed_shares,
            signing_public_key: Bytes::copy_from_slice(key.public_key_spki()),
            signature: Bytes::new(),
        };
        transition.signature = key.sign_sha384(&transition.hash().0)?.into();
        Ok(transition)
    }

    /// SHA-256("contrast transition v2" || manifest hash || previous || SHA-256(mesh CA public key) || seed shares || SHA-256(signing
    /// public key)). Each part after the label has 32 bytes.
    pub fn hash(&self) -> TransitionHash {
        TransitionHash(sha256(&[
            LABEL,
            &self.manifest_hash.0,
            &self.previous.0,
            &sha256(&[&self.mesh_ca_public_key]),
            &self.seed_shares,
            &sha256(&[&self.signing_public_key]),
        ]))
    }

    /// Checks that this names the transition key `spki` (SubjectPublicKeyInfo DER) and is signed by it.
    ///
    /// # Errors
    /// When the signature is another key's, or none.
    pub fn verify(&self, spki: &[u8]) -> Result<(), KeyError> {
        if self.signing_public_key != spki {
            return Err(KeyError::BadSignature);
        }
        verify_p384_sha384(spki, &self.hash().0, &self.signature)
    }

    /// The bytes of the store: 2, manifest hash (32), previous (32), seed shares (32), length of the mesh CA's key (2, big-endian), that key,
    /// length of the signing key (2), that key, signature.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // A P-384 key has 120 bytes.
        let length = |key: &Bytes| u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes();
        [
            &[ENCODING][..],
            &self.manifest_hash.0,
            &self.previous.0,
            &self.seed_shares,
            &length(&self.mesh_ca_public_key),
            &self.mesh_ca_public_key,
            &length(&self.signing_public_key),
            &self.signing_public_key,
            &self.signature,
        ]
        .concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, TransitionFormatError> {
        let parse = || {
            let (encoding, rest) = bytes.split_first()?;
            let (manifest_hash, rest) = rest.split_first_chunk()?;
            let (previous, rest) = rest.split_first_chunk()?;
            let (seed_shares, rest) = rest.split_first_chunk()?;
            let (mesh_ca, rest) = split_key(rest)?;
            let (signing, signature) = split_key(rest)?;
            (*encoding == ENCODING).then(|| Self {
                manifest_hash: ManifestHash(*manifest_hash),
                previous: TransitionHash(*previous),
                mesh_ca_public_key: Bytes::copy_from_slice(mesh_ca),
                seed_shares: *seed_shares,
                signing_public_key: Bytes::copy_from_slice(signing),
                signature: Bytes::copy_from_slice(signature),
            })
        };
        parse().ok_or(TransitionFormatError { found: bytes.len() })
    }
}

/// A key behind its length, and the rest.
fn split_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
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
        let previous = TransitionHash([2; 32]);
        Transition::sign(manifest, previous, b"mesh ca key", [3; 32], key).expect("signs")
    }

    #[test]
    fn hash_equals_a_vector_computed_elsewhere() {
        // Python: sha256(b"contrast transition v2" + b"\1"*32 + b"\2"*32 + sha256(b"mesh ca key").digest()
        //   + b"\3"*32 + sha256(b"signing key").digest())
        let key = SigningKey::generate(&SeededEntropy::new(1)).expect("key");
        let transition = Transition {
            signing_public_key: Bytes::from_static(b"signing key"),
            ..transition(&key)
        };
        assert_eq!(transition.hash().to_string(), VECTOR);
    }

    const VECTOR: &str = "6244212571d15fa10ede3e44bef8b317e280ebed1d342e6c5a3b67e7396ce7a9";

    #[test]
    fn signature_is_checked_under_the_right_key_only() {
        let key = SigningKey::generate(&SeededEntropy::new(1)).expect("key");
        let other = SigningKey::generate(&SeededEntropy::new(2)).expect("key");
        let transition = transition(&key);
        transition.verify(key.public_key_spki()).expect("own key");
        transition
            .verify(other.public_key_spki())
            .expect_err("other key");
        let replaced = Transition {
            signing_public_key: Bytes::copy_from_slice(other.public_key_spki()),
            ..transition.clone()
        };
        assert_ne!(replaced.hash(), transition.hash());
        let changed = Transition {
            previous: TransitionHash::NONE,
            ..transition.clone()
        };
        let shared_anew = Transition {
            seed_shares: [4; 32],
            ..transition
        };
        for changed in [replaced, changed, shared_anew] {
            changed
                .verify(key.public_key_spki())
                .expect_err("other content");
        }
    }

    #[test]
    fn encoding_is_lossless_and_truncation_is_noticed() {
        let key = SigningKey::generate(&SeededEntropy::new(1)).expect("key");
        let transition = transition(&key);
        let bytes = transition.encode();
        assert_eq!(Transition::decode(&bytes).expect("decodes"), transition);
        let fixed = 1 + 3 * 32 + 2 + b"mesh ca key".len() + 2 + key.public_key_spki().len();
        for length in 0..fixed {
            Transition::decode(&bytes[..length]).expect_err("truncated");
        }
    }
}
