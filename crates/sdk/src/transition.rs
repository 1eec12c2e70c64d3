//! The hash chain of manifests, as the Coordinator publishes it (`user.proto`, message `Transition`).

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{Context, SHA256};
use contrast_proto::user as wire;
use serde::{Serialize, Serializer};

use crate::digest::sha256;

const TRANSITION_LABEL: &[u8] = b"contrast transition v2";

/// Hash of one transition, or all zero for "none yet". Written as 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TransitionHash(pub [u8; 32]);

impl TransitionHash {
    /// What the first transition names as its predecessor.
    pub const NONE: Self = Self([0; 32]);
}

impl fmt::Display for TransitionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for TransitionHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Text or bytes that are no transition hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransitionHashError {
    /// The text is not 64 hex digits.
    #[error(
        "expected the 64 hex digits of a transition hash, found {found} characters that are not"
    )]
    Text {
        /// Number of characters found.
        found: usize,
    },
    /// The bytes are not 32.
    #[error("expected a transition hash of 32 bytes, found {found}")]
    Length {
        /// Number of bytes found.
        found: usize,
    },
}

impl FromStr for TransitionHash {
    type Err = TransitionHashError;

    fn from_str(text: &str) -> Result<Self, TransitionHashError> {
        let mut hash = [0; 32];
        match hex::decode_to_slice(text, &mut hash) {
            Ok(()) => Ok(Self(hash)),
            Err(_) => Err(TransitionHashError::Text {
                found: text.chars().count(),
            }),
        }
    }
}

impl TryFrom<&[u8]> for TransitionHash {
    type Error = TransitionHashError;

    fn try_from(bytes: &[u8]) -> Result<Self, TransitionHashError> {
        let length = TransitionHashError::Length { found: bytes.len() };
        bytes.try_into().map(Self).map_err(|_| length)
    }
}

/// Recomputes the hash of `transition` from its fields.
///
/// # Errors
/// When the manifest hash, the previous hash or the digest of the seed shares does not have 32 bytes.
pub fn transition_hash(
    transition: &wire::Transition,
) -> Result<TransitionHash, TransitionHashError> {
    let manifest = TransitionHash::try_from(transition.manifest_hash.as_ref())?;
    let previous = TransitionHash::try_from(transition.previous.as_ref())?;
    let seed_shares = TransitionHash::try_from(transition.seed_shares_digest.as_ref())?;
    let mut context = Context::new(&SHA256);
    context.update(TRANSITION_LABEL);
    context.update(&manifest.0);
    context.update(&previous.0);
    context.update(&sha256(&transition.mesh_ca_public_key));
    context.update(&seed_shares.0);
    context.update(&sha256(&transition.signing_public_key));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Ok(TransitionHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_covers_all_but_the_signature() {
        let transition = |bytes: [u8; 5]| {
            let [manifest, previous, mesh_ca, seed_shares, signing] = bytes;
            let hash = transition_hash(&wire::Transition {
                manifest_hash: vec![manifest; 32].into(),
                previous: vec![previous; 32].into(),
                mesh_ca_public_key: vec![mesh_ca; 120].into(),
                signature: vec![].into(),
                signing_public_key: vec![signing; 120].into(),
                seed_shares_digest: vec![seed_shares; 32].into(),
            });
            hash.expect("hash")
        };
        // printf 'contrast transition v2' plus 32 x 01, 32 x 00, SHA-256 of 120 x 03, 32 x 04 and SHA-256 of 120 x 05, through sha256sum.
        let given = [1, 0, 3, 4, 5];
        assert_eq!(
            transition(given).to_string(),
            "eaaadc50fd4f9a6bd1f1de1064fd6170d2d4405467c4e7b4e2f4122efaf25d3b"
        );
        for at in 0..given.len() {
            let mut other = given;
            other[at] += 1;
            assert_ne!(transition(given), transition(other));
        }
    }

    #[test]
    fn text_form_is_64_hex_digits() {
        let hash: TransitionHash = "ab".repeat(32).parse().expect("hash");
        assert_eq!(hash, TransitionHash([0xab; 32]));
        assert_eq!(hash.to_string(), "ab".repeat(32));
        assert_eq!(
            "abc".parse::<TransitionHash>(),
            Err(TransitionHashError::Text { found: 3 })
        );
    }
}
