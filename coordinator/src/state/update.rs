//! Who may change the manifest to what. Pure.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use contrast_attestation::PolicyHash;
use contrast_manifest::{Manifest, ManifestHash, OwnerKeyDigest};
use contrast_pki::verify_update_approval;

use super::TransitionHash;

/// One owner's approval of one update.
#[derive(Debug, Clone)]
pub struct Approval {
    /// The owner's key, SubjectPublicKeyInfo DER.
    pub public_key: Bytes,
    /// Signature over the update's approval text, ASN.1 DER.
    pub signature: Bytes,
}

/// The workload owners of the active manifest did not approve an update.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// There are no owners.
    #[error("the active manifest has no workload owner keys, so nobody can update it, for ever")]
    UpdatesDisabled,
    /// Too few valid approvals.
    #[error(
        "the update needs {needed} valid signature(s) of workload owners, found {valid}{}",
        faults_text(faults)
    )]
    NotEnough {
        /// The active manifest's threshold.
        needed: u32,
        /// Distinct owners with a valid signature.
        valid: usize,
        /// What is wrong with the other signatures.
        faults: Vec<String>,
    },
}

fn faults_text(faults: &[String]) -> String {
    match faults {
        [] => "; sign it with a workload owner's key".to_owned(),
        faults => format!(": {}", faults.join("; ")),
    }
}

/// Checks that enough owners of `active` approved the update from `base` to `manifest`.
pub(crate) fn check_approvals(
    active: &Manifest,
    manifest: ManifestHash,
    base: TransitionHash,
    approvals: &[Approval],
) -> Result<(), ApprovalError> {
    if active.workload_owners().is_empty() {
        return Err(ApprovalError::UpdatesDisabled);
    }
    let mut valid = BTreeSet::new();
    let mut faults = Vec::new();
    for approval in approvals {
        let owner = OwnerKeyDigest::of(&approval.public_key);
        if !active.workload_owners().contains(&owner) {
            faults.push(format!(
                "key {owner} is not among the active manifest's workload owners"
            ));
        } else if verify_update_approval(
            &approval.public_key,
            &manifest.0,
            &base.0,
            &approval.signature,
        )
        .is_ok()
        {
            valid.insert(owner);
        } else {
            faults.push(format!(
                "the signature by key {owner} is not over this update"
            ));
        }
    }
    let needed = active.workload_owner_threshold();
    match usize::try_from(needed).is_ok_and(|needed| valid.len() >= needed) {
        true => Ok(()),
        false => Err(ApprovalError::NotEnough {
            needed,
            valid: valid.len(),
            faults,
        }),
    }
}

/// Policy documents and manifest do not fit together.
#[derive(Debug, thiserror::Error)]
#[error(
    "the policy documents do not match the manifest: {} missing, {} superfluous ({}); run `contrast generate` again and \
     pass the same resources",
    missing.len(), extra.len(), list(missing, extra)
)]
pub struct PoliciesError {
    /// Keys of the manifest without a document.
    pub missing: Vec<PolicyHash>,
    /// Documents whose hash is no key of the manifest.
    pub extra: Vec<PolicyHash>,
}

fn list(missing: &[PolicyHash], extra: &[PolicyHash]) -> String {
    const SHOWN: usize = 8;
    let missing = missing.iter().map(|hash| format!("missing {hash}"));
    let extra = extra.iter().map(|hash| format!("superfluous {hash}"));
    let named: Vec<String> = missing.chain(extra).take(SHOWN).collect();
    named.join(", ")
}

/// Checks that `documents` are exactly those that `manifest` names; repeats are harmless.
pub(crate) fn check_policies(
    manifest: &Manifest,
    documents: Vec<Bytes>,
) -> Result<BTreeMap<PolicyHash, Bytes>, PoliciesError> {
    let policies = named(documents);
    let wanted = manifest.policies();
    let missing: Vec<PolicyHash> = wanted
        .keys()
        .filter(|hash| !policies.contains_key(hash))
        .copied()
        .collect();
    let extra: Vec<PolicyHash> = policies
        .keys()
        .filter(|hash| !wanted.contains_key(hash))
        .copied()
        .collect();
    match missing.is_empty() && extra.is_empty() {
        true => Ok(policies),
        false => Err(PoliciesError { missing, extra }),
    }
}

/// Whether both manifests share the seed in the same way; the order of owners does not matter.
pub(crate) fn same_seed_share_owners(a: &Manifest, b: &Manifest) -> bool {
    let owners = |manifest: &Manifest| -> BTreeSet<Vec<u8>> {
        manifest.seedshare_owners().iter().cloned().collect()
    };
    owners(a) == owners(b) && a.seedshare_threshold() == b.seedshare_threshold()
}

/// Initdata documents by their names.
pub(crate) fn named(documents: Vec<Bytes>) -> BTreeMap<PolicyHash, Bytes> {
    documents
        .into_iter()
        .map(|document| (policy_hash(&document), document))
        .collect()
}

/// SHA-256 of an initdata document.
pub(crate) fn policy_hash(document: &[u8]) -> PolicyHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, document).as_ref());
    PolicyHash(hash)
}
