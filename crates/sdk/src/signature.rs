//! The signature of transitions.

use aws_lc_rs::signature::ECDSA_P384_SHA384_ASN1;
use contrast_attestation::keys::ParsedPublicKey;
use der::{Decode as _, asn1::ObjectIdentifier};
use x509_cert::spki::SubjectPublicKeyInfoRef;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("its key is no SubjectPublicKeyInfo of a point on P-384")]
    Key,
    #[error("it does not verify")]
    Wrong,
}

/// Verifies an ECDSA signature (ASN.1 DER) with SHA-384 under a P-384 key (SubjectPublicKeyInfo DER).
pub(crate) fn verify_p384_sha384(
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let spki = SubjectPublicKeyInfoRef::from_der(spki).map_err(|_| SignatureError::Key)?;
    let curve = spki.algorithm.parameters_oid();
    if spki.algorithm.oid != EC_PUBLIC_KEY || curve != Ok(SECP384R1) {
        return Err(SignatureError::Key);
    }
    let point = spki.subject_public_key.as_bytes();
    let point = point.ok_or(SignatureError::Key)?;
    let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, point);
    let key = key.map_err(|_| SignatureError::Key)?;
    key.verify_sig(message, signature)
        .map_err(|_| SignatureError::Wrong)
}
