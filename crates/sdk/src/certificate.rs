//! The little that a verifier needs to know about CA certificates that the Coordinator hands out.

use contrast_attestation::printable;
use der::Encode as _;
use serde::Serialize;
use x509_cert::{Certificate, der::DecodePem as _};

use crate::digest::sha256;

/// Text that is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("expected one X.509 certificate in PEM")]
pub struct CertificateError(#[source] der::Error);

/// The public key of a PEM certificate, SubjectPublicKeyInfo DER. Nothing else about the certificate is checked.
///
/// # Errors
/// When `pem` is no certificate.
pub fn public_key(pem: &str) -> Result<Vec<u8>, CertificateError> {
    Certificate::from_pem(pem)
        .and_then(|certificate| {
            certificate
                .tbs_certificate()
                .subject_public_key_info()
                .to_der()
        })
        .map_err(CertificateError)
}

/// What identifies a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateFacts {
    /// Subject, as in RFC 4514.
    pub subject: String,
    /// SHA-256 of the certificate's DER, hex.
    pub sha256: String,
    /// SHA-256 of its SubjectPublicKeyInfo, hex.
    pub key_sha256: String,
    /// Begin of its validity, RFC 3339.
    pub not_before: String,
    /// End of its validity, RFC 3339.
    pub not_after: String,
}

/// Reads a PEM certificate. Nothing about it is checked.
///
/// # Errors
/// When `pem` is no certificate.
pub fn describe(pem: &str) -> Result<CertificateFacts, CertificateError> {
    let certificate = Certificate::from_pem(pem).map_err(CertificateError)?;
    let contents = certificate.tbs_certificate();
    let key = contents.subject_public_key_info().to_der();
    let validity = contents.validity();
    Ok(CertificateFacts {
        subject: printable(&contents.subject().to_string()).into_owned(),
        sha256: hex::encode(sha256(&certificate.to_der().map_err(CertificateError)?)),
        key_sha256: hex::encode(sha256(&key.map_err(CertificateError)?)),
        not_before: validity.not_before.to_string(),
        not_after: validity.not_after.to_string(),
    })
}
