use contrast_clock::Entropy;
use der::{
    Decode as _, Encode as _, Sequence,
    asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef},
};
use zeroize::Zeroizing;

use super::{
    SharesError,
    rsa::{self, PKCS1_PEM, RSA_ENCRYPTION},
    x25519::{self, KEY_BYTES, X25519},
};
use crate::Salt;

/// What seed shares are encrypted for: OAEP's label, HPKE's info.
pub(super) const LABEL: &[u8] = b"seedshare";
/// PEM label of `SubjectPublicKeyInfo`.
pub(super) const SPKI_PEM: &str = "PUBLIC KEY";
/// PEM label of PKCS#8 private keys.
pub(super) const PKCS8_PEM: &str = "PRIVATE KEY";

#[derive(Sequence)]
pub(super) struct AlgorithmIdentifier<'a> {
    pub(super) algorithm: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

impl AlgorithmIdentifier<'_> {
    /// rsaEncryption; its parameters must be NULL (RFC 8017, appendix A.1).
    pub(super) const RSA: Self = Self {
        algorithm: RSA_ENCRYPTION,
        parameters: Some(AnyRef::NULL),
    };
    /// id-X25519; its parameters must be absent (RFC 8410, section 3).
    const X25519: Self = Self {
        algorithm: X25519,
        parameters: None,
    };

    fn is(&self, other: &AlgorithmIdentifier<'_>) -> bool {
        self.algorithm == other.algorithm && self.parameters == other.parameters
    }
}

#[derive(Sequence)]
pub(super) struct SubjectPublicKeyInfo<'a> {
    pub(super) algorithm: AlgorithmIdentifier<'a>,
    pub(super) subject_public_key: BitStringRef<'a>,
}

/// `PrivateKeyInfo`, RFC 5208. Borrows, so that no part of a private key is copied to where it is not wiped.
#[derive(Sequence)]
pub(super) struct PrivateKeyInfo<'a> {
    pub(super) version: u8,
    pub(super) algorithm: AlgorithmIdentifier<'a>,
    pub(super) private_key: &'a OctetStringRef,
}

/// Public key of one seed share owner: RSA or X25519.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedShareOwnerKey {
    der: Vec<u8>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    X25519([u8; KEY_BYTES]),
}

impl SeedShareOwnerKey {
    /// Reads the form that manifests have: `RSAPublicKey` (PKCS#1, RFC 8017 appendix A.1.1) or `SubjectPublicKeyInfo` of X25519
    /// (RFC 8410), both in DER.
    ///
    /// # Errors
    /// When it is neither, or an RSA modulus is shorter than 2048 bits.
    pub fn from_der(der: &[u8]) -> Result<Self, SharesError> {
        if let Ok(spki) = SubjectPublicKeyInfo::from_der(der) {
            return Self::from_spki(&spki);
        }
        rsa::check(der)?;
        Ok(Self {
            der: der.to_vec(),
            kind: Kind::Rsa,
        })
    }

    /// Reads a PEM: a `PUBLIC KEY`, or a private key whose public half is taken.
    ///
    /// # Errors
    /// When it is neither.
    pub fn from_pem(text: &str) -> Result<Self, SharesError> {
        let parsed = pem::parse(text).map_err(|_| SharesError::PublicKey)?;
        if parsed.tag() != SPKI_PEM {
            return Self::from_der(&OwnerPrivateKey::from_pem(text)?.public_key_der()?);
        }
        let spki = SubjectPublicKeyInfo::from_der(parsed.contents())
            .map_err(|_| SharesError::PublicKey)?;
        if !spki.algorithm.is(&AlgorithmIdentifier::RSA) {
            return Self::from_spki(&spki);
        }
        let key = spki.subject_public_key.as_bytes();
        Self::from_der(key.ok_or(SharesError::PublicKey)?)
    }

    /// Not of RSA: its keys are known by their PKCS#1 form.
    fn from_spki(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, SharesError> {
        let key = spki.subject_public_key.as_bytes();
        let key = key.and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok());
        match key {
            Some(key) if spki.algorithm.is(&AlgorithmIdentifier::X25519) => Ok(Self {
                der: x25519_spki(&key)?,
                kind: Kind::X25519(key),
            }),
            _ => Err(SharesError::PublicKey),
        }
    }

    /// The key in the form of manifests; see [`from_der`](Self::from_der).
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn encrypt(
        &self,
        share: &[u8],
        salt: &Salt,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SharesError> {
        match &self.kind {
            Kind::Rsa => rsa::encrypt(&self.der, share),
            Kind::X25519(key) => x25519::seal(key, LABEL, share, salt.as_bytes(), entropy),
        }
    }
}

/// The key in `SubjectPublicKeyInfo` DER of X25519.
pub(crate) fn x25519_of_spki(spki: &[u8]) -> Result<[u8; KEY_BYTES], SharesError> {
    let spki = SubjectPublicKeyInfo::from_der(spki).map_err(|_| SharesError::PublicKey)?;
    match SeedShareOwnerKey::from_spki(&spki)?.kind {
        Kind::X25519(key) => Ok(key),
        Kind::Rsa => Err(SharesError::PublicKey),
    }
}

pub(crate) fn x25519_spki(key: &[u8; KEY_BYTES]) -> Result<Vec<u8>, SharesError> {
    let spki = SubjectPublicKeyInfo {
        algorithm: AlgorithmIdentifier::X25519,
        subject_public_key: BitStringRef::from_bytes(key).map_err(|_| SharesError::PublicKey)?,
    };
    spki.to_der().map_err(|_| SharesError::PublicKey)
}

/// Private key of one seed share owner.
pub(super) enum OwnerPrivateKey {
    /// `RSAPrivateKey`, DER.
    Rsa(Zeroizing<Vec<u8>>),
    X25519(x25519::PrivateKey),
}

impl OwnerPrivateKey {
    /// Reads PKCS#8, or PKCS#1 for RSA.
    pub(super) fn from_pem(text: &str) -> Result<Self, SharesError> {
        let parsed = pem::parse(text).map_err(|_| SharesError::PrivateKey)?;
        let pkcs1 = parsed.tag() == PKCS1_PEM;
        let pkcs8 = parsed.tag() == PKCS8_PEM;
        let contents = Zeroizing::new(parsed.into_contents());
        match (pkcs1, pkcs8) {
            (true, _) => Ok(Self::Rsa(contents)),
            (_, true) => Self::from_pkcs8(&contents),
            _ => Err(SharesError::PrivateKey),
        }
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SharesError> {
        let info = PrivateKeyInfo::from_der(pkcs8).map_err(|_| SharesError::PrivateKey)?;
        let key = info.private_key;
        if info.algorithm.algorithm == RSA_ENCRYPTION {
            return Ok(Self::Rsa(Zeroizing::new(key.as_bytes().to_vec())));
        }
        if !info.algorithm.is(&AlgorithmIdentifier::X25519) {
            return Err(SharesError::PrivateKey);
        }
        // `CurvePrivateKey` is an octet string inside of the octet string (RFC 8410, section 7).
        let key = <&OctetStringRef>::from_der(key.as_bytes());
        let key = key.map_err(|_| SharesError::PrivateKey)?;
        Ok(Self::X25519(x25519::PrivateKey::read(key.as_bytes())?))
    }

    /// Of its public half, the form that manifests have.
    pub(super) fn public_key_der(&self) -> Result<Vec<u8>, SharesError> {
        match self {
            Self::Rsa(pkcs1) => rsa::public_half(pkcs1),
            Self::X25519(key) => x25519_spki(&key.public()),
        }
    }

    pub(super) fn decrypt(&self, ciphertext: &[u8], salt: &[u8]) -> Result<Vec<u8>, SharesError> {
        match self {
            Self::Rsa(pkcs1) => rsa::decrypt(pkcs1, ciphertext),
            Self::X25519(key) => key.open(ciphertext, LABEL, salt),
        }
    }
}
