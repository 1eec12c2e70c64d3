use std::fmt;

use aws_lc_rs::{
    digest::{Digest, SHA256, SHA384, digest},
    encoding::{AsDer as _, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING,
        EcdsaKeyPair, KeyPair as _, ParsedPublicKey, VerificationAlgorithm,
    },
};
use contrast_clock::{Entropy, EntropyError};
use zeroize::Zeroizing;

/// Length of a P-384 scalar in bytes.
const SCALAR_BYTES: usize = 48;
/// Personalisation string of C2SP det-keygen for this curve.
const PERSONALIZATION: &[u8] = b"det ECDSA key gen P-384";
/// Least length of a det-keygen seed in bytes.
const KEYGEN_SEED_BYTES_MIN: usize = 16;

/// `ECPrivateKey` (RFC 5915) up to the scalar: SEQUENCE, version 1, OCTET STRING of 48 bytes.
const SEC1_HEAD: [u8; 7] = [0x30, 0x3e, 0x02, 0x01, 0x01, 0x04, 0x30];
/// `ECPrivateKey` after the scalar: `[0]` with the object identifier of secp384r1 (1.3.132.0.34).
const SEC1_TAIL: [u8; 9] = [0xa0, 0x07, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// `SubjectPublicKeyInfo` (RFC 5480) of an uncompressed point on secp384r1, up to the 96 bytes of its coordinates.
const SPKI_HEAD: [u8; 24] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00, 0x04,
];

/// Length of such a `SubjectPublicKeyInfo` in bytes.
const SPKI_BYTES: usize = 120;

/// A key or a signature could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret for deterministic key generation is too short.
    #[error("a key needs a secret of at least 16 bytes, found {found}")]
    SecretTooShort {
        /// Its length in bytes.
        found: usize,
    },
    /// The bytes are no private key on P-384.
    #[error("not a P-384 private key: {reason}")]
    NotAPrivateKey {
        /// What the library says.
        reason: String,
    },
    /// The source of randomness failed.
    #[error("cannot draw a key")]
    Entropy(#[from] EntropyError),
    /// The library could not sign.
    #[error("signing failed inside the cryptographic library")]
    Signing,
    /// The bytes are no public key on P-384.
    #[error(
        "not a P-384 public key: expected 120 bytes of SubjectPublicKeyInfo DER with an uncompressed point"
    )]
    NotAPublicKey,
    /// The signature is not by that key over that message.
    #[error("the signature does not verify under this key")]
    BadSignature,
}

/// An ECDSA key on P-384. Its scalar lives in the cryptographic library, which wipes it, and is hidden from `Debug`.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public_key_spki: Vec<u8>,
}

impl SigningKey {
    /// The key that C2SP det-keygen (c2sp.org/det-keygen, section ECDSA) makes of `secret`: HMAC_DRBG with SHA-256 and a
    /// personalisation string per curve, and its first 384 bits as the scalar.
    ///
    /// # Errors
    /// When the secret is shorter than 16 bytes, or the scalar is out of range (probability below 2^-194).
    pub fn from_det_keygen(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < KEYGEN_SEED_BYTES_MIN {
            return Err(KeyError::SecretTooShort {
                found: secret.len(),
            });
        }
        let mut drbg = HmacDrbg::new(&[secret, PERSONALIZATION]);
        let first = drbg.block();
        let second = drbg.block();
        let scalar: Zeroizing<Vec<u8>> = Zeroizing::new(
            first
                .iter()
                .chain(second.iter())
                .copied()
                .take(SCALAR_BYTES)
                .collect(),
        );
        let sec1 = [
            SEC1_HEAD.as_slice(),
            scalar.as_slice(),
            SEC1_TAIL.as_slice(),
        ]
        .concat();
        Self::from_private_key_der(&Zeroizing::new(sec1))
    }

    /// A random key.
    ///
    /// # Errors
    /// When `entropy` fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new([0; 64]);
        entropy.fill(secret.as_mut_slice())?;
        Self::from_det_keygen(secret.as_slice())
    }

    /// Reads a PKCS#8 `PrivateKeyInfo` or an RFC 5915 `ECPrivateKey` in DER.
    ///
    /// # Errors
    /// When the bytes are neither, or on another curve.
    pub fn from_private_key_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_ASN1_SIGNING, der)
            .map_err(|error| KeyError::NotAPrivateKey {
                reason: error.to_string(),
            })?;
        let public_key: PublicKeyX509Der<'_> =
            pair.public_key()
                .as_der()
                .map_err(|_| KeyError::NotAPrivateKey {
                    reason: "no public key".to_owned(),
                })?;
        let public_key_spki = public_key.as_ref().to_vec();
        Ok(Self {
            pair,
            public_key_spki,
        })
    }

    /// The private key as PKCS#8 `PrivateKeyInfo`, DER.
    ///
    /// # Errors
    /// When the library cannot encode it.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self
            .pair
            .to_pkcs8v1()
            .map_err(|_| KeyError::NotAPrivateKey {
                reason: "cannot be encoded".to_owned(),
            })?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// The public key as `SubjectPublicKeyInfo`, DER.
    pub fn public_key_spki(&self) -> &[u8] {
        &self.public_key_spki
    }

    /// Signs with SHA-384; ASN.1 DER.
    ///
    /// # Errors
    /// When the library fails.
    pub fn sign_sha384(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message)
            .map_err(|_| KeyError::Signing)?;
        Ok(signature.as_ref().to_vec())
    }

    /// Signs with SHA-256; ASN.1 DER.
    ///
    /// # Errors
    /// When the library fails.
    pub fn sign_sha256(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        // The library signs with P-384 only what it takes for a SHA-384 digest. ECDSA reads a digest as an integer (FIPS
        // 186-5 section 6.4.1), so a SHA-256 digest behind 16 zero bytes is the same integer, and so the same signature.
        let mut padded = vec![0; SHA384.output_len().saturating_sub(SHA256.output_len())];
        padded.extend_from_slice(digest(&SHA256, message).as_ref());
        let padded = Digest::import_less_safe(&padded, &SHA384).map_err(|_| KeyError::Signing)?;
        let signature = self
            .pair
            .sign_digest(&padded)
            .map_err(|_| KeyError::Signing)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SigningKey(public {})",
            hex::encode(&self.public_key_spki)
        )
    }
}

/// Verifies an ECDSA signature (ASN.1 DER) with SHA-384 under a P-384 key (`SubjectPublicKeyInfo` DER).
///
/// # Errors
/// When the key is none or the signature does not verify.
pub fn verify_p384_sha384(spki: &[u8], message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
    verify(&ECDSA_P384_SHA384_ASN1, spki, message, signature)
}

/// Verifies an ECDSA signature (ASN.1 DER) with SHA-256 under a P-384 key (`SubjectPublicKeyInfo` DER).
///
/// # Errors
/// When the key is none or the signature does not verify.
pub fn verify_p384_sha256(spki: &[u8], message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
    verify(&ECDSA_P384_SHA256_ASN1, spki, message, signature)
}

fn verify(
    algorithm: &'static dyn VerificationAlgorithm,
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), KeyError> {
    let key = parse_public_key(algorithm, spki)?;
    key.verify_sig(message, signature)
        .map_err(|_| KeyError::BadSignature)
}

/// Refuses bytes that are not the `SubjectPublicKeyInfo` of a point on P-384.
pub(crate) fn check_public_key(spki: &[u8]) -> Result<(), KeyError> {
    parse_public_key(&ECDSA_P384_SHA384_ASN1, spki).map(|_| ())
}

/// The library would also take bare and compressed points, and bytes behind the key. One key must have one encoding only, for owners are known by the
/// digest of theirs.
fn parse_public_key(
    algorithm: &'static dyn VerificationAlgorithm,
    spki: &[u8],
) -> Result<ParsedPublicKey, KeyError> {
    if spki.len() != SPKI_BYTES || !spki.starts_with(&SPKI_HEAD) {
        return Err(KeyError::NotAPublicKey);
    }
    ParsedPublicKey::new(algorithm, spki).map_err(|_| KeyError::NotAPublicKey)
}

/// HMAC_DRBG with SHA-256 (SP 800-90A Rev. 1, section 10.1.2), without reseeding.
struct HmacDrbg {
    key: Zeroizing<[u8; 32]>,
    value: Zeroizing<[u8; 32]>,
}

impl HmacDrbg {
    /// Instantiates with the concatenation of `seed_material`.
    fn new(seed_material: &[&[u8]]) -> Self {
        let mut drbg = Self {
            key: Zeroizing::new([0x00; 32]),
            value: Zeroizing::new([0x01; 32]),
        };
        for round in [0x00, 0x01] {
            let head = [drbg.value.as_slice(), &[round]].concat();
            let head = Zeroizing::new(head);
            // One allocation of the right size: a vector that grows leaves unwiped copies behind.
            let message = Zeroizing::new([&[head.as_slice()], seed_material].concat().concat());
            drbg.key = hmac_sha256(&drbg.key, &message);
            drbg.value = hmac_sha256(&drbg.key, drbg.value.as_slice());
        }
        drbg
    }

    /// The next 32 bytes of output.
    fn block(&mut self) -> Zeroizing<[u8; 32]> {
        self.value = hmac_sha256(&self.key, self.value.as_slice());
        self.value.clone()
    }
}

fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> Zeroizing<[u8; 32]> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = Zeroizing::new([0; 32]);
    for (to, from) in bytes.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    bytes
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
