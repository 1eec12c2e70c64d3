//! What a report says beside its checks: the evidence, the CA certificates, and what the manifest allows.

use contrast_attestation::{ClaimValue, Tee, VerifiedEvidence, printable};
use contrast_manifest::{Manifest, OwnerKeyDigest};
use serde::Serialize;

use crate::{
    certificate::{CertificateFacts, describe},
    digest::sha256,
};

/// Evidence that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EvidenceFacts {
    /// Kind of TEE, `SEV-SNP` or `TDX`.
    pub tee: String,
    /// Name of the reference value that was met.
    pub reference: String,
    /// Whether it comes from a software TEE.
    pub insecure: bool,
    /// Launch measurement (MEASUREMENT or MRTD), hex.
    pub launch_measurement: String,
    /// CHIP_ID or platform instance id, hex; empty when the machine hides it.
    pub hardware_id: String,
    /// Hash of the Coordinator's initdata document, hex.
    pub policy_sha256: String,
    /// Versions of firmware and microcode, as the evidence reports them.
    pub tcb: Vec<Version>,
}

/// Version of a part of the TCB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Which part.
    pub part: &'static str,
    /// Its version: a number, or hex.
    pub version: String,
}

/// The parts of the TCB by the arcs of the claims: the reported TCB of SEV-SNP, the TEE TCB SVNs of TDX.
const SNP_TCB: [(u32, &str); 4] = [
    (28, "boot loader"),
    (29, "SNP firmware"),
    (30, "PSP operating system"),
    (31, "microcode"),
];
const TDX_TCB: [(u32, &str); 2] = [
    (2, "TEE TCB SVN (hex, one byte for each component)"),
    (15, "TCB evaluation data number"),
];

impl EvidenceFacts {
    /// What `evidence` says.
    pub fn of(evidence: &VerifiedEvidence) -> Self {
        let parts = match evidence.tee() {
            Tee::Snp => &SNP_TCB[..],
            Tee::Tdx => &TDX_TCB[..],
            _ => &[],
        };
        let claims = evidence.claims();
        let version = |(arc, part): &(u32, &'static str)| {
            let claim = claims.iter().find(|claim| claim.arc == *arc)?;
            let version = match &claim.value {
                ClaimValue::Integer(number) => number.to_string(),
                ClaimValue::Boolean(value) => value.to_string(),
                ClaimValue::Bytes(bytes) => hex::encode(bytes),
            };
            Some(Version { part, version })
        };
        Self {
            tee: evidence.tee().to_string(),
            reference: printable(evidence.reference()).into_owned(),
            insecure: evidence.is_insecure(),
            launch_measurement: hex::encode(evidence.measurement()),
            hardware_id: hex::encode(evidence.hardware_id()),
            policy_sha256: evidence.policy_hash().to_string(),
            tcb: parts.iter().filter_map(version).collect(),
        }
    }
}

/// The CAs that the Coordinator named. Nobody has checked them unless the checks about them passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Authorities {
    /// The root CA; none when there is no certificate.
    pub root: Option<CertificateFacts>,
    /// The mesh CA; none when there is no certificate.
    pub mesh: Option<CertificateFacts>,
}

impl Authorities {
    /// Reads two PEM certificates.
    pub fn of(root: &str, mesh: &str) -> Self {
        Self {
            root: describe(root).ok(),
            mesh: describe(mesh).ok(),
        }
    }
}

/// What the given manifest allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// The workloads, in the order of their policies.
    pub workloads: Vec<Workload>,
    /// SHA-256 of the keys (SubjectPublicKeyInfo DER) of those who may change the manifest, hex.
    pub workload_owners: Vec<String>,
    /// How many of them must approve.
    pub workload_owner_threshold: u32,
    /// SHA-256 of the keys (PKCS#1 DER) of those who can recover the deployment, hex.
    pub seedshare_owners: Vec<String>,
    /// How many of them it takes.
    pub seedshare_threshold: u32,
}

/// What the pods of one policy are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// SHA-256 of the initdata document, hex.
    pub policy_sha256: String,
    /// `coordinator` or `workload`.
    pub role: String,
    /// Names in its certificates.
    pub names: Vec<String>,
    /// Name of its secret; empty when it has none.
    pub workload_secret_id: String,
}

impl Allowed {
    /// What `manifest` allows.
    pub fn of(manifest: &Manifest) -> Self {
        let shown = |text: &str| printable(text).into_owned();
        let workloads = manifest.policies().iter().map(|(hash, entry)| Workload {
            policy_sha256: hash.to_string(),
            role: entry.role.to_string(),
            names: entry.sans.iter().map(|name| shown(name)).collect(),
            workload_secret_id: shown(&entry.workload_secret_id),
        });
        let owners = manifest.workload_owners().iter();
        let seedshare_owners = manifest.seedshare_owners().iter();
        Self {
            workloads: workloads.collect(),
            workload_owners: owners.map(OwnerKeyDigest::to_string).collect(),
            workload_owner_threshold: manifest.workload_owner_threshold(),
            seedshare_owners: seedshare_owners
                .map(|key| hex::encode(sha256(key)))
                .collect(),
            seedshare_threshold: manifest.seedshare_threshold(),
        }
    }
}
