//! What others read out of a leaf certificate that is known to be ours: one whose chain was verified.

use std::time::SystemTime;

use der::{Decode as _, asn1::ObjectIdentifier};
use x509_cert::Certificate;

use crate::CertificateError;

/// Workload secret id, UTF8String.
const WORKLOAD_SECRET_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9901.3.1");

/// What a leaf certificate says about its subject. It is worth what the verification of the chain is worth, which is not done here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafFacts {
    /// The extension 1.3.9901.3.1; `None` for a workload without a secret.
    pub workload_secret_id: Option<String>,
    /// End of validity.
    pub not_after: SystemTime,
}

impl LeafFacts {
    /// Reads a certificate, DER.
    ///
    /// # Errors
    /// When it is no certificate, or has the extension twice or with something else than one UTF8String.
    pub fn read(certificate: &[u8]) -> Result<Self, CertificateError> {
        let certificate = Certificate::from_der(certificate)?;
        let tbs = certificate.tbs_certificate();
        let mut ids = tbs
            .extensions()
            .into_iter()
            .flatten()
            .filter(|extension| extension.extn_id == WORKLOAD_SECRET_ID)
            .map(|extension| String::from_der(extension.extn_value.as_bytes()));
        let workload_secret_id = ids.next().transpose()?;
        if ids.next().is_some() {
            return Err(CertificateError::ForeignExtension {
                found: WORKLOAD_SECRET_ID.to_string(),
            });
        }
        Ok(Self {
            workload_secret_id,
            not_after: tbs.validity().not_after.to_system_time(),
        })
    }
}
