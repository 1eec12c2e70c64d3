use contrast_attestation::{PolicyHash, VerifiedEvidence};
use contrast_manifest::{CertificateKeyDigest, Manifest, PolicyEntry};

/// A pod that may have a certificate: its evidence is verified and its policy is in the manifest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission<'a> {
    pub(crate) evidence: &'a VerifiedEvidence,
    pub(crate) entry: &'a PolicyEntry,
}

/// The manifest does not let this pod have a certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmitError {
    /// The pod's policy is not in it.
    #[error(
        "policy {found} is not in the active manifest; if the deployment changed, run `contrast generate` and `contrast set`"
    )]
    Policy { found: PolicyHash },
    /// The pod's key is denied.
    #[error(
        "the active manifest denies certificates to the key {found} (DeniedCertificateKeys); if the pod is sound, restart it, so that \
         it makes another key"
    )]
    Key { found: CertificateKeyDigest },
}

/// Looks up what the manifest says about the pod with this evidence and this key.
pub(crate) fn admit<'a>(
    manifest: &'a Manifest,
    evidence: &'a VerifiedEvidence,
    key: CertificateKeyDigest,
) -> Result<Admission<'a>, AdmitError> {
    let found = evidence.policy_hash();
    let Some(entry) = manifest.policies().get(&found) else {
        return Err(AdmitError::Policy { found });
    };
    match manifest.denied_certificate_keys().contains(&key) {
        true => Err(AdmitError::Key { found: key }),
        false => Ok(Admission { evidence, entry }),
    }
}
