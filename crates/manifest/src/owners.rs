use std::fmt;

use aws_lc_rs::signature::ECDSA_P384_SHA256_ASN1;
use contrast_attestation::keys::ParsedPublicKey;
use der::{
    Decode, Sequence,
    asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef},
};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// id-X25519, RFC 8410 section 3.
const X25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.110");
const X25519_KEY_BYTES: usize = 32;
/// 2^255 - 19, big-endian (RFC 7748, section 4.1). Keys of at least this number are other ways to write smaller ones.
const X25519_PRIME: [u8; X25519_KEY_BYTES] = {
    let mut prime = [0xff; X25519_KEY_BYTES];
    prime[0] = 0x7f;
    prime[31] = 0xed;
    prime
};
const SEED_SHARE_KEY_BITS: u32 = 4096;
const SMALLEST_EXPONENT: [u8; 3] = [1, 0, 1];

/// SHA-256 of a workload owner's SubjectPublicKeyInfo DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKeyDigest(pub [u8; 32]);

impl OwnerKeyDigest {
    /// Digest of a public key (SubjectPublicKeyInfo DER). Any bytes have one; it says nothing about the key.
    pub fn of(public_key_spki: &[u8]) -> Self {
        Self(crate::manifest::sha256(public_key_spki))
    }
}

impl fmt::Display for OwnerKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for OwnerKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerKeyDigest({self})")
    }
}

/// SHA-256 of the SubjectPublicKeyInfo DER of a mesh certificate, which all certificates of one pod's life have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateKeyDigest(pub [u8; 32]);

impl CertificateKeyDigest {
    /// Digest of a public key (SubjectPublicKeyInfo DER).
    pub fn of(public_key_spki: &[u8]) -> Self {
        Self(crate::manifest::sha256(public_key_spki))
    }
}

impl fmt::Display for CertificateKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CertificateKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateKeyDigest({self})")
    }
}

/// An owner's public key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerKeyError {
    /// Not SubjectPublicKeyInfo.
    #[error("expected a SubjectPublicKeyInfo DER structure: {0}")]
    NotSpki(der::Error),
    /// SubjectPublicKeyInfo of another algorithm or curve.
    #[error(
        "expected an ECDSA key on P-384 (algorithm {EC_PUBLIC_KEY}, curve {SECP384R1}), found {found}"
    )]
    NotP384 {
        /// Algorithm and parameters that were found.
        found: String,
    },
    /// The point is not on the curve.
    #[error("the key's point is not on P-384")]
    NotOnCurve,
    /// Neither RSAPublicKey nor SubjectPublicKeyInfo.
    #[error(
        "expected a PKCS#1 RSAPublicKey DER structure, or a SubjectPublicKeyInfo DER structure of an X25519 key: {0}"
    )]
    NotPkcs1(der::Error),
    /// SubjectPublicKeyInfo of something else than X25519.
    #[error(
        "expected the SubjectPublicKeyInfo of an X25519 key (algorithm {X25519} without parameters, {X25519_KEY_BYTES} bytes), or a PKCS#1 RSAPublicKey; found {found}"
    )]
    NotX25519 {
        /// Algorithm, parameters and length that were found.
        found: String,
    },
    /// A second way to write an X25519 key.
    #[error(
        "expected an X25519 key below 2^255 - 19; this is another way to write a smaller one, so that one owner could be listed twice"
    )]
    NotCanonical,
    /// RSA key of another size.
    #[error("expected an RSA key of {SEED_SHARE_KEY_BITS} bits, found {found} bits")]
    KeySize {
        /// Bits of the modulus.
        found: u32,
    },
    /// RSA exponent below 65537 or even.
    #[error("expected an odd public exponent of at least 65537")]
    Exponent,
}

#[derive(Sequence)]
struct Spki<'a> {
    algorithm: Algorithm,
    key: BitStringRef<'a>,
}

#[derive(Sequence)]
struct Algorithm {
    oid: ObjectIdentifier,
    curve: Option<ObjectIdentifier>,
}

/// SubjectPublicKeyInfo of any algorithm, RFC 5280 section 4.1.
#[derive(Sequence)]
struct AnySpki<'a> {
    algorithm: AnyAlgorithm<'a>,
    key: BitStringRef<'a>,
}

#[derive(Sequence)]
struct AnyAlgorithm<'a> {
    oid: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// Checks a workload owner's public key: SubjectPublicKeyInfo DER of an ECDSA P-384 key.
pub(crate) fn check_workload_owner(spki: &[u8]) -> Result<OwnerKeyDigest, OwnerKeyError> {
    let parsed = Spki::from_der(spki).map_err(OwnerKeyError::NotSpki)?;
    if parsed.algorithm.oid != EC_PUBLIC_KEY || parsed.algorithm.curve != Some(SECP384R1) {
        let found = match parsed.algorithm.curve {
            Some(curve) => format!("algorithm {}, curve {curve}", parsed.algorithm.oid),
            None => format!("algorithm {}", parsed.algorithm.oid),
        };
        return Err(OwnerKeyError::NotP384 { found });
    }
    let point = parsed.key.as_bytes().ok_or(OwnerKeyError::NotOnCurve)?;
    ParsedPublicKey::new(&ECDSA_P384_SHA256_ASN1, point).map_err(|_| OwnerKeyError::NotOnCurve)?;
    Ok(OwnerKeyDigest::of(spki))
}

/// Checks a seed share owner's public key: PKCS#1 DER of an RSA-4096 key, or SubjectPublicKeyInfo DER of an X25519 key.
pub(crate) fn check_seed_share_owner(key: &[u8]) -> Result<(), OwnerKeyError> {
    if let Ok(spki) = AnySpki::from_der(key) {
        return check_x25519(&spki);
    }
    let parsed = RsaPublicKey::from_der(key).map_err(OwnerKeyError::NotPkcs1)?;
    let found = bits(parsed.modulus.as_bytes());
    if found != SEED_SHARE_KEY_BITS {
        return Err(OwnerKeyError::KeySize { found });
    }
    let exponent = parsed.exponent.as_bytes();
    let odd = exponent.last().is_some_and(|last| last & 1 == 1);
    let large = (exponent.len(), exponent) >= (SMALLEST_EXPONENT.len(), &SMALLEST_EXPONENT[..]);
    if odd && large {
        Ok(())
    } else {
        Err(OwnerKeyError::Exponent)
    }
}

fn check_x25519(spki: &AnySpki<'_>) -> Result<(), OwnerKeyError> {
    let AnyAlgorithm { oid, parameters } = &spki.algorithm;
    let length = spki.key.as_bytes().map_or(0, <[u8]>::len);
    if *oid == X25519 && parameters.is_none() && length == X25519_KEY_BYTES {
        // The order of digits in which numbers are compared.
        let number = spki.key.as_bytes().unwrap_or_default().iter().rev();
        return match number.lt(&X25519_PRIME) {
            true => Ok(()),
            false => Err(OwnerKeyError::NotCanonical),
        };
    }
    let with = if parameters.is_some() {
        "with"
    } else {
        "without"
    };
    Err(OwnerKeyError::NotX25519 {
        found: format!("algorithm {oid} {with} parameters, {length} bytes"),
    })
}

/// Bits of a big-endian number; inputs are limited by the manifest's size, so the count fits.
fn bits(number: &[u8]) -> u32 {
    let significant = number.iter().skip_while(|byte| **byte == 0);
    let top = significant
        .clone()
        .next()
        .map_or(0, |byte| byte.leading_zeros());
    u32::try_from(significant.count())
        .unwrap_or(u32::MAX)
        .saturating_mul(8)
        .saturating_sub(top)
}
