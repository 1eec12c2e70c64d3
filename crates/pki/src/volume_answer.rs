//! What the Coordinator says about an encrypted volume, signed as the answer with a certificate is.

use crate::{KeyError, RootCa, RootKey, answer::message, verify_p384_sha384};

/// Begins what is signed; no other signature of the root CA begins so.
const LABEL: &[u8] = b"contrast volume answer v1";

/// What the root CA signs of an answer about a volume: the answer, and what makes it the answer to this question of this pod.
///
/// The pod has no means to judge a Coordinator, so that an impostor could tell it that a volume is new. It cannot sign, because
/// only the seed gives the key that enrolled the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeAnswer<'a> {
    /// Random bytes of the request.
    pub nonce: &'a [u8],
    /// Key that the pod proved to have, `SubjectPublicKeyInfo` DER.
    pub public_key_spki: &'a [u8],
    /// The volume that was asked about.
    pub volume_id: &'a [u8],
    /// The generation that the pod reported; 0 when it only asked.
    pub reported: u64,
    /// Whether a generation of the volume is recorded.
    pub known: bool,
    /// The highest generation that is recorded; 0 when none is.
    pub generation: u64,
    /// Whether what the pod reported is recorded as its own.
    pub accepted: bool,
}

impl VolumeAnswer<'_> {
    /// Signature of the root CA (ECDSA P-384 with SHA-384, ASN.1 DER) over the label, and the SHA-256 of each field in the order above.
    /// Numbers are 8 bytes, big-endian, and truth values one byte, 0 or 1.
    ///
    /// # Errors
    /// When the library fails.
    pub fn sign(&self, root: &RootCa) -> Result<Vec<u8>, KeyError> {
        root.sign(&self.message())
    }

    /// Checks that signature.
    ///
    /// # Errors
    /// When it is not that of `root` over this answer.
    pub fn verify(&self, root: &RootKey, signature: &[u8]) -> Result<(), KeyError> {
        verify_p384_sha384(&root.0, &self.message(), signature)
    }

    fn message(&self) -> Vec<u8> {
        message(
            LABEL,
            &[
                self.nonce,
                self.public_key_spki,
                self.volume_id,
                &self.reported.to_be_bytes(),
                &[u8::from(self.known)],
                &self.generation.to_be_bytes(),
                &[u8::from(self.accepted)],
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use contrast_clock::SeededEntropy;

    use super::*;
    use crate::SigningKey;

    fn root(seed: u64) -> RootCa {
        let key = SigningKey::generate(&SeededEntropy::new(seed)).expect("key");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        RootCa::new(key, now).expect("root CA")
    }

    #[test]
    fn every_field_and_the_key_count() {
        let answer = VolumeAnswer {
            nonce: &[1; 32],
            public_key_spki: &[2; 91],
            volume_id: &[3; 16],
            reported: 4,
            known: true,
            generation: 5,
            accepted: false,
        };
        let own = root(1);
        let signature = answer.sign(&own).expect("signs");
        let key = RootKey::of_certificate(&own.certificate_pem()).expect("a key");
        answer.verify(&key, &signature).expect("verifies");
        let changed = [
            VolumeAnswer {
                nonce: &[],
                ..answer
            },
            VolumeAnswer {
                public_key_spki: &[2; 90],
                ..answer
            },
            VolumeAnswer {
                volume_id: &[4; 16],
                ..answer
            },
            VolumeAnswer {
                reported: 5,
                ..answer
            },
            VolumeAnswer {
                known: false,
                ..answer
            },
            VolumeAnswer {
                generation: 4,
                ..answer
            },
            VolumeAnswer {
                accepted: true,
                ..answer
            },
        ];
        for changed in changed {
            assert!(changed.verify(&key, &signature).is_err(), "{changed:?}");
        }
        let other = RootKey::of_certificate(&root(2).certificate_pem()).expect("a key");
        assert!(answer.verify(&other, &signature).is_err());
    }
}
