use contrast_attestation::{PolicyHash, VerifiedEvidence};
use contrast_manifest::{Manifest, PolicyEntry};

/// A pod that may have a certificate: its evidence is verified and its policy is in the manifest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission<'a> {
    pub(crate) evidence: &'a VerifiedEvidence,
    pub(crate) entry: &'a PolicyEntry,
}

/// The pod's policy is not in the manifest.
#[derive(Debug, thiserror::Error)]
#[error(
    "policy {found} is not in the active manifest; if the deployment changed, run `contrast generate` and `contrast set`"
)]
pub(crate) struct AdmitError {
    found: PolicyHash,
}

/// Looks up what the manifest says about a pod.
pub(crate) fn admit<'a>(
    manifest: &'a Manifest,
    evidence: &'a VerifiedEvidence,
) -> Result<Admission<'a>, AdmitError> {
    let found = evidence.policy_hash();
    match manifest.policies().get(&found) {
        Some(entry) => Ok(Admission { evidence, entry }),
        None => Err(AdmitError { found }),
    }
}
