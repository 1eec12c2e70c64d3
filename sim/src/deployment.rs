//! The deployment that the cluster serves: its manifests, and the owners with their keys.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use contrast_attestation::{
    Demands, PolicyHash, ReferenceValue, Root,
    appraisal::{SnpDemands, SnpGuestPolicy, SnpMeasurement, SnpPlatformInfo, SnpProduct, SnpTcb},
};
use contrast_clock::SeededEntropy;
use contrast_coordinator::{
    replica::peers::Trusted,
    state::{Approval, SeedShareRequest, TransitionHash, UpdateRequest},
};
use contrast_manifest::{Manifest, ManifestDocument, ManifestError, ManifestHash, PolicyDocument};
use contrast_pki::{
    OwnerKeyError, Salt, SeedError, WorkloadOwnerKey,
    shares::{SeedShareOwnerKey, SeedSharesDocument, SharesError, decrypt_share},
};

/// X25519, because shares for RSA have randomness of the library's own, and a run must repeat. They guard nothing.
const SEED_SHARE_OWNERS: [&str; 3] = [
    include_str!("seed-share-owner-1.pem"),
    include_str!("seed-share-owner-2.pem"),
    include_str!("seed-share-owner-3.pem"),
];
/// How many of them it takes.
const SEED_SHARE_THRESHOLD: i64 = 2;

/// Something that the owners do failed, which is no fault of any replica.
#[derive(Debug, thiserror::Error)]
pub enum OwnersError {
    /// A key of theirs does not work.
    #[error("an owner's key cannot be used")]
    Key(#[from] OwnerKeyError),
    /// Their seed share cannot be opened.
    #[error("the seed share cannot be used")]
    Share(#[from] SharesError),
    /// The share is no seed.
    #[error("the seed share or salt has a wrong length")]
    Length(#[from] SeedError),
    /// They wrote no valid manifest.
    #[error("the manifest is refused")]
    Manifest(#[from] ManifestError),
}

/// Initdata of a version of the Coordinator.
fn coordinator_initdata(version: u64) -> Bytes {
    Bytes::from(format!("coordinator {version}"))
}

/// Initdata of a workload.
const WORKLOAD_INITDATA: &[u8] = b"workload";

/// Policy that a Coordinator of the given version is started with.
pub fn coordinator_policy(version: u64) -> PolicyHash {
    policy_hash(&coordinator_initdata(version))
}

/// Policy of a workload: genuine, and no Coordinator.
pub fn workload_policy() -> PolicyHash {
    policy_hash(WORKLOAD_INITDATA)
}

fn policy_hash(document: &[u8]) -> PolicyHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, document).as_ref());
    PolicyHash(hash)
}

/// The owners of the deployment. Their keys are the same in every run.
#[derive(Debug)]
pub struct Owners {
    workload: WorkloadOwnerKey,
}

impl Owners {
    /// Makes the workload owner's key.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn new() -> Result<Self, OwnersError> {
        let workload = WorkloadOwnerKey::generate(&SeededEntropy::new(1))?;
        Ok(Self { workload })
    }

    /// The manifest with the given name, under which Coordinators of these versions are trusted.
    ///
    /// # Errors
    /// When a key cannot be used.
    pub fn manifest(&self, name: &str, versions: &[u64]) -> Result<Bytes, OwnersError> {
        let coordinators = versions.iter().map(|version| {
            let entry = entry(&["coordinator"], "coordinator");
            (coordinator_policy(*version).to_string(), entry)
        });
        let workload = (workload_policy().to_string(), entry(&[name, "*"], ""));
        let share_owners = SEED_SHARE_OWNERS
            .into_iter()
            .map(|pem| Ok(hex::encode(SeedShareOwnerKey::from_pem(pem)?.as_der())))
            .collect::<Result<_, SharesError>>()?;
        let mut document = ManifestDocument {
            policies: coordinators.chain([workload]).collect::<BTreeMap<_, _>>(),
            workload_owner_pub_keys: vec![hex::encode(self.workload.public_key_spki())],
            seedshare_owner_pub_keys: share_owners,
            seedshare_threshold: Some(SEED_SHARE_THRESHOLD),
            ..ManifestDocument::default()
        };
        document
            .reference_values
            .push(&reference_value(), "Simulation");
        Ok(Bytes::from(document.to_json()))
    }

    /// A request to set that manifest after `base`.
    ///
    /// # Errors
    /// When a key cannot be used.
    pub fn request(
        &self,
        name: &str,
        versions: &[u64],
        base: TransitionHash,
    ) -> Result<UpdateRequest, OwnersError> {
        let manifest = self.manifest(name, versions)?;
        let hash = ManifestHash::of(&manifest);
        let approval = Approval {
            public_key: Bytes::copy_from_slice(self.workload.public_key_spki()),
            signature: self.workload.approve_update(&hash.0, &base.0)?.into(),
        };
        let coordinators = versions.iter().copied().map(coordinator_initdata);
        Ok(UpdateRequest {
            manifest,
            policies: coordinators
                .chain([Bytes::from_static(WORKLOAD_INITDATA)])
                .collect(),
            base,
            approvals: vec![approval],
        })
    }

    /// Numbers of the seed share owners.
    pub fn seed_share_owners(&self) -> std::ops::Range<usize> {
        0..SEED_SHARE_OWNERS.len()
    }

    /// What a seed share owner hands in for a recovery.
    ///
    /// # Errors
    /// When the share cannot be opened.
    pub fn seed_share(
        &self,
        owner: usize,
        shares: &SeedSharesDocument,
        known: Option<TransitionHash>,
        forget_volumes: bool,
    ) -> Result<SeedShareRequest, OwnersError> {
        let key = SEED_SHARE_OWNERS.get(owner).copied().unwrap_or_default();
        Ok(SeedShareRequest {
            share: decrypt_share(shares, key)?,
            salt: Salt::from_slice(&shares.salt)?,
            known,
            force: false,
            forget_volumes,
        })
    }
}

/// Whom a manifest trusts.
///
/// # Errors
/// When it is refused.
pub fn trusted(manifest: &[u8]) -> Result<Trusted, OwnersError> {
    let manifest = Manifest::parse(manifest)?;
    Ok(Trusted::of(&manifest, None))
}

fn entry(sans: &[&str], role: &str) -> PolicyDocument {
    PolicyDocument {
        sans: sans.iter().map(ToString::to_string).collect(),
        workload_secret_id: "secret".to_owned(),
        role: role.to_owned(),
        vcpus: None,
        spiffe_path: String::new(),
        sealed_secrets: Vec::new(),
    }
}

/// No evidence is verified in a simulation, but a manifest has to say what it would demand.
fn reference_value() -> ReferenceValue {
    ReferenceValue {
        vtpm: None,
        name: String::new(),
        root: Root::Vendor,
        demands: Demands::Snp(SnpDemands {
            product: SnpProduct::Milan,
            measurement: SnpMeasurement::Any([7; 48]),
            minimum_tcb: SnpTcb::default(),
            guest_policy: SnpGuestPolicy {
                smt: true,
                ..SnpGuestPolicy::default()
            },
            platform_info: SnpPlatformInfo::default(),
            minimum_mitigation_vector: 0,
            allowed_chip_ids: Vec::new(),
            trusted_id_key_digests: Vec::new(),
            trusted_author_key_digests: Vec::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_trusts_the_versions_it_names_and_differs_by_name() {
        let owners = Owners::new().expect("owners");
        let manifest = owners.manifest("a", &[1]).expect("manifest");
        assert_ne!(manifest, owners.manifest("b", &[1]).expect("manifest"));
        let trusted = trusted(&manifest).expect("valid");
        let trusts = |policy| trusted.coordinators.contains(&policy);
        assert!(trusts(coordinator_policy(1)));
        assert!(!trusts(coordinator_policy(2)) && !trusts(workload_policy()));
    }
}
