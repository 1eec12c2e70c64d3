//! The DER of RSA keys.

use der::{
    Decode as _, Encode as _, Sequence,
    asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UintRef},
};
use zeroize::Zeroizing;

use super::SharesError;

/// Object identifier rsaEncryption (RFC 8017, appendix A.1).
pub(super) const RSA_ENCRYPTION: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// PEM label of PKCS#1 private keys, the form in which owner keys are written.
pub(super) const PKCS1_PEM: &str = "RSA PRIVATE KEY";
/// PEM label of PKCS#8 private keys.
pub(super) const PKCS8_PEM: &str = "PRIVATE KEY";

#[derive(Sequence)]
pub(super) struct AlgorithmIdentifier<'a> {
    pub(super) algorithm: ObjectIdentifier,
    parameters: AnyRef<'a>,
}

impl AlgorithmIdentifier<'_> {
    /// rsaEncryption; its parameters must be NULL (RFC 8017, appendix A.1).
    pub(super) const RSA: Self = Self {
        algorithm: RSA_ENCRYPTION,
        parameters: AnyRef::NULL,
    };
}

#[derive(Sequence)]
pub(super) struct SubjectPublicKeyInfo<'a> {
    pub(super) algorithm: AlgorithmIdentifier<'a>,
    pub(super) subject_public_key: BitStringRef<'a>,
}

/// `PrivateKeyInfo`, RFC 5208. Borrows, as the two below, so that no part of a private key is copied to where it is not wiped.
#[derive(Sequence)]
struct PrivateKeyInfo<'a> {
    version: u8,
    algorithm: AlgorithmIdentifier<'a>,
    private_key: &'a OctetStringRef,
}

/// `RSAPublicKey`, RFC 8017 appendix A.1.1.
#[derive(Sequence)]
pub(super) struct RsaPublicKey<'a> {
    pub(super) modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// `RSAPrivateKey`, RFC 8017 appendix A.1.2, of which only the public half is used.
#[derive(Sequence)]
struct RsaPrivateKey<'a> {
    version: u8,
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
    private_exponent: UintRef<'a>,
    prime1: UintRef<'a>,
    prime2: UintRef<'a>,
    exponent1: UintRef<'a>,
    exponent2: UintRef<'a>,
    coefficient: UintRef<'a>,
}

pub(super) fn pkcs1_from_pem(text: &str) -> Result<Zeroizing<Vec<u8>>, SharesError> {
    let parsed = pem::parse(text).map_err(|_| SharesError::PrivateKey)?;
    let pkcs1 = parsed.tag() == PKCS1_PEM;
    let pkcs8 = parsed.tag() == PKCS8_PEM;
    let contents = Zeroizing::new(parsed.into_contents());
    match (pkcs1, pkcs8) {
        (true, _) => Ok(contents),
        (_, true) => pkcs1_from_pkcs8(&contents),
        _ => Err(SharesError::PrivateKey),
    }
}

pub(super) fn pkcs1_from_pkcs8(pkcs8: &[u8]) -> Result<Zeroizing<Vec<u8>>, SharesError> {
    let info = PrivateKeyInfo::from_der(pkcs8).map_err(|_| SharesError::PrivateKey)?;
    match info.algorithm.algorithm {
        RSA_ENCRYPTION => Ok(Zeroizing::new(info.private_key.as_bytes().to_vec())),
        _ => Err(SharesError::PrivateKey),
    }
}

pub(super) fn pkcs8_from_pkcs1(pkcs1: &[u8]) -> Result<Zeroizing<Vec<u8>>, SharesError> {
    let info = PrivateKeyInfo {
        version: 0,
        algorithm: AlgorithmIdentifier::RSA,
        private_key: OctetStringRef::new(pkcs1).map_err(|_| SharesError::PrivateKey)?,
    };
    info.to_der()
        .map(Zeroizing::new)
        .map_err(|_| SharesError::PrivateKey)
}

pub(super) fn public_half(pkcs1: &[u8]) -> Result<Vec<u8>, SharesError> {
    let private = RsaPrivateKey::from_der(pkcs1).map_err(|_| SharesError::PrivateKey)?;
    RsaPublicKey {
        modulus: private.modulus,
        public_exponent: private.public_exponent,
    }
    .to_der()
    .map_err(|_| SharesError::PrivateKey)
}
