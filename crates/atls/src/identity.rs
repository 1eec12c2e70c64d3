use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::AsDer,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use der::{
    Decode, Encode, Sequence,
    asn1::{BitString, ObjectIdentifier},
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_cert::{
    certificate::Version,
    name::Name,
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};
use zeroize::Zeroizing;

use crate::tls;

/// ecdsa-with-SHA256 (RFC 5758, section 3.2).
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// Validity of the certificate around its creation. Peers do not look at it; the values keep other tools from choking.
const VALID_BEFORE_NOW: Duration = Duration::from_secs(24 * 60 * 60);
const VALID_AFTER_NOW: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// No identity could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The cryptographic library could not generate a key or sign with it.
    #[error(
        "cannot generate or use an ECDSA P-256 key; the system's random number generator may be unavailable"
    )]
    Key,
    /// The certificate could not be encoded, for example because `now` is out of range for X.509.
    #[error("cannot encode the self-signed certificate")]
    Certificate(#[source] der::Error),
    /// The TLS library refused the key or the certificate.
    #[error("the TLS library does not accept the key or its certificate")]
    Tls(#[source] rustls::Error),
}

/// A TLS key (ECDSA P-256) with a self-signed certificate that carries nothing but the public key.
///
/// The certificate proves possession of the key; evidence says whose key it is. Make a fresh identity for each process or
/// each enrolment, never store one.
pub struct Identity {
    private_key_pkcs8: Zeroizing<Vec<u8>>,
    certificate: CertificateDer<'static>,
    spki: Vec<u8>,
    pub(crate) tls: tls::Configs,
}

impl Identity {
    /// Generates a key and its certificate, valid around `now`.
    ///
    /// # Errors
    /// When randomness is unavailable, or `now` cannot be written in a certificate.
    pub fn generate(now: SystemTime) -> Result<Self, IdentityError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| IdentityError::Key)?;
        let document = key.to_pkcs8v1().map_err(|_| IdentityError::Key)?;
        let private_key_pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        let certificate = CertificateDer::from(self_signed(&key, now)?);
        let spki = tls::spki_of(&certificate).map_err(IdentityError::Tls)?;

        // rustls parses the borrowed bytes and keeps no copy of them, only the library's key object.
        let borrowed = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(private_key_pkcs8.as_slice()));
        let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&borrowed)
            .map_err(IdentityError::Tls)?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate.clone()], signer));
        let tls = tls::Configs::new(&certified).map_err(IdentityError::Tls)?;
        Ok(Self {
            private_key_pkcs8,
            certificate,
            spki,
            tls,
        })
    }

    /// The private key, PKCS#8 v1 DER. A secret: the caller wipes its copies.
    pub fn private_key_pkcs8(&self) -> &[u8] {
        &self.private_key_pkcs8
    }

    /// The public key, SubjectPublicKeyInfo DER; what evidence binds and what certificates are issued for.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The self-signed certificate, X.509 DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }
}

impl fmt::Debug for Identity {
    /// Shows the public key's SHA-256, never the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Identity(spki SHA-256 {:?})",
            digest(&SHA256, &self.spki)
        )
    }
}

/// `TBSCertificate` without the optional parts (RFC 5280, section 4.1).
#[derive(Sequence)]
struct TbsCertificate {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial_number: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    subject_public_key_info: SubjectPublicKeyInfoOwned,
}

#[derive(Sequence)]
struct Certificate {
    tbs_certificate: TbsCertificate,
    signature_algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

fn self_signed(key: &EcdsaKeyPair, now: SystemTime) -> Result<Vec<u8>, IdentityError> {
    let spki = AsDer::as_der(key.public_key()).map_err(|_| IdentityError::Key)?;
    let tbs_certificate = template(spki.as_ref(), now).map_err(IdentityError::Certificate)?;
    let signed_bytes = tbs_certificate
        .to_der()
        .map_err(IdentityError::Certificate)?;
    let signature = key
        .sign(&SystemRandom::new(), &signed_bytes)
        .map_err(|_| IdentityError::Key)?;
    let certificate = Certificate {
        signature_algorithm: tbs_certificate.signature.clone(),
        tbs_certificate,
        signature: BitString::from_bytes(signature.as_ref()).map_err(IdentityError::Certificate)?,
    };
    certificate.to_der().map_err(IdentityError::Certificate)
}

fn template(spki: &[u8], now: SystemTime) -> Result<TbsCertificate, der::Error> {
    let out_of_range = || der::Error::from(der::ErrorKind::DateTime);
    let not_before = now.checked_sub(VALID_BEFORE_NOW).ok_or_else(out_of_range)?;
    let not_after = now.checked_add(VALID_AFTER_NOW).ok_or_else(out_of_range)?;
    let name: Name = "CN=contrast-atls".parse()?;
    // The serial number need not be unpredictable or unique for a self-signed certificate that no one stores.
    let hash = digest(&SHA256, spki);
    let serial = hash.as_ref().get(..16).unwrap_or_default();
    Ok(TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(serial)?,
        signature: AlgorithmIdentifierOwned {
            oid: ECDSA_WITH_SHA256,
            parameters: None,
        },
        issuer: name.clone(),
        validity: Validity::new(Time::try_from(not_before)?, Time::try_from(not_after)?),
        subject: name,
        subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(spki)?,
    })
}

#[cfg(test)]
mod tests {
    use contrast_clock::{SystemWallClock, WallClock};
    use x509_cert::Certificate as ParsedByLibrary;

    use super::*;

    #[test]
    fn certificate_is_plain_x509_and_carries_the_public_key() {
        let identity = Identity::generate(SystemWallClock.now()).expect("identity");
        let parsed = ParsedByLibrary::from_der(identity.certificate_der()).expect("X.509");
        let spki = parsed
            .tbs_certificate()
            .subject_public_key_info()
            .to_der()
            .expect("encodes");
        assert_eq!(spki, identity.spki());
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            identity.private_key_pkcs8(),
        )
        .expect("PKCS#8");
        assert_eq!(
            AsDer::as_der(key.public_key()).expect("SPKI").as_ref(),
            identity.spki()
        );
    }

    #[test]
    fn identities_differ_and_their_debug_output_hides_the_private_key() {
        let now = SystemWallClock.now();
        let (a, b) = (
            Identity::generate(now).expect("a"),
            Identity::generate(now).expect("b"),
        );
        assert_ne!(a.spki(), b.spki());
        let shown = format!("{a:?}");
        assert!(shown.starts_with("Identity(spki SHA-256"), "{shown}");
        assert!(shown.len() < 120, "{shown}");
    }

    #[test]
    fn time_that_x509_cannot_write_is_an_error() {
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(400_000_000_000);
        assert!(matches!(
            Identity::generate(far),
            Err(IdentityError::Certificate(_))
        ));
    }
}
