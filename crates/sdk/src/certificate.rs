//! The little that a verifier needs to know about CA certificates that the Coordinator hands out.

use der::Encode as _;
use x509_cert::{Certificate, der::DecodePem as _};

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
