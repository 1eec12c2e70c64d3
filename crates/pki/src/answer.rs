//! Answers of the mesh API, which a pod that was enrolled once can tell from those of another deployment.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use der::{DecodePem as _, Encode as _};
use x509_cert::Certificate;

use crate::{KeyError, RootCa, verify_p384_sha384};

/// Begins what is signed. What else the root CA signs are certificates, which begin otherwise.
const LABEL: &[u8] = b"contrast mesh answer v1";

/// A certificate that is to show the key of a root CA does not.
#[derive(Debug, thiserror::Error)]
#[error("the root CA certificate cannot be read; expected one X.509 certificate, PEM")]
pub struct RootKeyError(#[from] der::Error);

/// Public key of a root CA (`SubjectPublicKeyInfo` DER). It follows from the seed: it is the same for a deployment's whole life, while the
/// certificate may be made again.
#[derive(Clone, PartialEq, Eq)]
pub struct RootKey(pub(crate) Vec<u8>);

impl RootKey {
    /// From `SubjectPublicKeyInfo` DER.
    pub fn from_spki(spki: Vec<u8>) -> Self {
        Self(spki)
    }

    /// The key in a certificate, PEM.
    ///
    /// # Errors
    /// When it is none.
    pub fn of_certificate(pem: &str) -> Result<Self, RootKeyError> {
        let certificate = Certificate::from_pem(pem)?;
        let key = certificate.tbs_certificate().subject_public_key_info();
        Ok(Self(key.to_der()?))
    }
}

/// SHA-256 in hex.
impl fmt::Display for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(digest(&SHA256, &self.0)))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({self})")
    }
}

/// What the root CA signs of an answer to a request for a certificate: all of it, and what makes it the answer to this one.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "it holds a secret")]
pub struct MeshAnswer<'a> {
    /// Random bytes of the request.
    pub nonce: &'a [u8],
    /// Key for which the certificate is, `SubjectPublicKeyInfo` DER.
    pub public_key_spki: &'a [u8],
    /// Mesh CA certificate, self-signed form, PEM.
    pub mesh_ca: &'a str,
    /// Leaf and intermediate, PEM.
    pub certificate_chain: &'a str,
    /// Root CA certificate, PEM.
    pub root_ca: &'a str,
    /// Workload secret, or nothing.
    pub workload_secret: &'a [u8],
    /// Transition of the certificate.
    pub transition: &'a [u8],
    /// Mesh CA certificate of the transition before, PEM, or nothing.
    pub previous_mesh_ca: &'a str,
    /// How long that stays trusted, in milliseconds.
    pub previous_mesh_ca_trusted_ms: u64,
    /// Sealed secrets that the manifest gives the pod, opened.
    pub sealed_secrets: &'a [ReleasedSecret<'a>],
}

/// A sealed secret on its way to a pod.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "it holds a secret")]
pub struct ReleasedSecret<'a> {
    /// Kind, as in the manifest.
    pub kind: &'a str,
    /// Name.
    pub name: &'a str,
    /// What was sealed.
    pub content: &'a [u8],
}

impl MeshAnswer<'_> {
    /// What is signed: the fields in the order above. The number is 8 bytes, big-endian. Each sealed secret has three fields, so that an
    /// answer without any is signed as by earlier versions.
    pub fn message(&self) -> AnswerMessage {
        let trusted_ms = self.previous_mesh_ca_trusted_ms.to_be_bytes();
        let mut fields: Vec<&[u8]> = vec![
            self.nonce,
            self.public_key_spki,
            self.mesh_ca.as_bytes(),
            self.certificate_chain.as_bytes(),
            self.root_ca.as_bytes(),
            self.workload_secret,
            self.transition,
            self.previous_mesh_ca.as_bytes(),
            &trusted_ms,
        ];
        for ReleasedSecret {
            kind,
            name,
            content,
        } in self.sealed_secrets
        {
            fields.extend([kind.as_bytes(), name.as_bytes(), content]);
        }
        AnswerMessage::new(LABEL, &fields)
    }
}

/// What the root CA signs of an answer: the label of its kind, which no other signature of this key begins with, and the SHA-256 of each
/// field.
#[expect(missing_debug_implementations, reason = "it holds hashes of secrets")]
pub struct AnswerMessage(Vec<u8>);

impl AnswerMessage {
    pub(crate) fn new(label: &[u8], fields: &[&[u8]]) -> Self {
        let mut message = label.to_vec();
        for field in fields {
            message.extend_from_slice(digest(&SHA256, field).as_ref());
        }
        Self(message)
    }

    /// Signature of the root CA: ECDSA P-384 with SHA-384, ASN.1 DER.
    ///
    /// # Errors
    /// When the library fails.
    pub fn sign(&self, root: &RootCa) -> Result<Vec<u8>, KeyError> {
        root.sign(&self.0)
    }

    /// Checks that signature.
    ///
    /// # Errors
    /// When it is not that of `root` over this answer.
    pub fn verify(&self, root: &RootKey, signature: &[u8]) -> Result<(), KeyError> {
        verify_p384_sha384(&root.0, &self.0, signature)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, SystemTime};

    use contrast_clock::SeededEntropy;

    use super::*;
    use crate::SigningKey;

    const ANSWER: MeshAnswer<'_> = MeshAnswer {
        nonce: &[1; 32],
        public_key_spki: &[2; 91],
        mesh_ca: "mesh CA",
        certificate_chain: "chain",
        root_ca: "root CA",
        workload_secret: &[3; 64],
        transition: &[4; 32],
        previous_mesh_ca: "",
        previous_mesh_ca_trusted_ms: 0,
        sealed_secrets: &[],
    };

    fn root(seed: u64) -> RootCa {
        let key = SigningKey::generate(&SeededEntropy::new(seed)).expect("key");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        RootCa::new(key, now).expect("root CA")
    }

    /// The signature over `answer` is none over `changed`, nor one of another root CA.
    pub(crate) fn assert_all_count<const N: usize>(
        answer: &AnswerMessage,
        changed: [AnswerMessage; N],
    ) {
        let own = root(1);
        let signature = answer.sign(&own).expect("signs");
        let key = RootKey::of_certificate(&own.certificate_pem()).expect("a key");
        answer.verify(&key, &signature).expect("verifies");
        for (place, changed) in changed.iter().enumerate() {
            let verified = changed.verify(&key, &signature);
            assert!(verified.is_err(), "change {place}");
        }
        let other = RootKey::of_certificate(&root(2).certificate_pem()).expect("a key");
        assert!(answer.verify(&other, &signature).is_err());
        assert_ne!(key, other);
    }

    /// The bytes are those that deployed Coordinators and Initializers sign and check. `expected` was computed from the description.
    pub(crate) fn assert_message(answer: &AnswerMessage, label: &str, expected: &str) {
        assert!(answer.0.starts_with(label.as_bytes()));
        assert_eq!(hex::encode(digest(&SHA256, &answer.0)), expected);
    }

    #[test]
    fn what_is_signed_stays_the_same() {
        assert_message(
            &ANSWER.message(),
            "contrast mesh answer v1",
            "ba0d5c7dbe6a22bcc249b17ca67aaf17dec6624e8b263881ae0028d59d34b741",
        );
        let full = MeshAnswer {
            previous_mesh_ca: "previous",
            previous_mesh_ca_trusted_ms: 0x0123_4567,
            sealed_secrets: &[
                ReleasedSecret {
                    kind: "Files",
                    name: "db",
                    content: b"password",
                },
                ReleasedSecret {
                    kind: "Registry",
                    name: "r:5000",
                    content: b"",
                },
            ],
            ..ANSWER
        };
        assert_message(
            &full.message(),
            "contrast mesh answer v1",
            "a5bb91075853ce7b1967a5c9966000a18ee1de9af57af92012b431fdd1217509",
        );
    }

    #[test]
    fn every_field_and_the_key_count() {
        let changed = [
            MeshAnswer {
                nonce: &[],
                ..ANSWER
            },
            MeshAnswer {
                public_key_spki: &[2; 90],
                ..ANSWER
            },
            MeshAnswer {
                mesh_ca: "mesh C",
                ..ANSWER
            },
            MeshAnswer {
                certificate_chain: "",
                ..ANSWER
            },
            MeshAnswer {
                root_ca: "Aroot CA",
                ..ANSWER
            },
            MeshAnswer {
                workload_secret: &[],
                ..ANSWER
            },
            MeshAnswer {
                transition: &[5; 32],
                ..ANSWER
            },
            MeshAnswer {
                previous_mesh_ca: "x",
                ..ANSWER
            },
            MeshAnswer {
                previous_mesh_ca_trusted_ms: 1,
                ..ANSWER
            },
            MeshAnswer {
                sealed_secrets: &[ReleasedSecret {
                    kind: "Files",
                    name: "a",
                    content: b"b",
                }],
                ..ANSWER
            },
        ];
        assert_all_count(&ANSWER.message(), changed.map(|answer| answer.message()));
        assert!(RootKey::of_certificate("junk").is_err());
    }
}
