use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use bytes::Bytes;
use contrast_attestation::{EvidenceVerifier, Issuer, PolicyHash, software::SoftwareTee};
use contrast_manifest::{Manifest, ManifestDocument, Role};
use contrast_pki::WorkloadOwnerKey;
use contrast_proto::user::{OwnerSignature, SetManifestRequest};

use crate::{
    harness::{Cluster, ReplicaSet, TeeKind},
    linearizability::Hash,
};

/// Everything that a client needs to know of a deployment: an owner's files, and a pod's way to prove itself.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// User API and mesh API of each replica.
    pub replicas: Vec<(SocketAddr, SocketAddr)>,
    /// Judges Coordinators.
    pub coordinators: Arc<dyn EvidenceVerifier>,
    /// Proves a workload of the manifest.
    pub workload: Arc<dyn Issuer>,
    manifest: ManifestDocument,
    policies: Vec<Bytes>,
    owner_key: String,
}

impl Deployment {
    /// The deployment that was generated in `cluster` and runs as `replicas`.
    ///
    /// # Errors
    /// When files of the owner's workspace cannot be used.
    pub fn of(cluster: &Cluster, replicas: &ReplicaSet) -> Result<Self> {
        let addresses =
            (0..replicas.count()).map(|one| (replicas.user_api(one), replicas.mesh_api(one)));
        Self::at(cluster, addresses.collect())
    }

    /// The deployment that was generated in `cluster`, at these user and mesh APIs.
    ///
    /// # Errors
    /// When files of the owner's workspace cannot be used.
    pub fn at(cluster: &Cluster, replicas: Vec<(SocketAddr, SocketAddr)>) -> Result<Self> {
        let text = cluster.owner().read("manifest.json")?;
        let manifest = Manifest::parse(text.as_bytes())?;
        let tee = SoftwareTee::open(&cluster.tee())?;
        let workload = manifest
            .policies()
            .iter()
            .find(|(_, entry)| entry.role == Role::Workload)
            .map(|(hash, _)| *hash)
            .context("the manifest has no workload")?;
        let workloads = cluster.workloads()?;
        Ok(Self {
            replicas,
            coordinators: Arc::new(manifest.coordinator_verifier()),
            workload: guest(&tee, cluster.kind(), workload),
            manifest: ManifestDocument::from_json(text.as_bytes())?,
            policies: workloads
                .into_values()
                .map(|workload| workload.initdata.into())
                .collect(),
            owner_key: cluster.owner().read("workload-owner.pem")?,
        })
    }

    /// A request, approved by the owner, for the manifest with the name `variant` in the workloads' certificates, which differs from
    /// that of any other variant; and the hash of that manifest.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn update(&self, variant: &str, base: Hash) -> Result<(SetManifestRequest, Hash)> {
        let mut document = self.manifest.clone();
        for policy in document.policies.values_mut() {
            policy.sans.push(variant.to_owned());
        }
        let text = document.to_json();
        let manifest = Manifest::parse(text.as_bytes())?.hash();
        let signatures = match base == Hash::NONE {
            true => Vec::new(),
            false => {
                let key = WorkloadOwnerKey::from_pem(&self.owner_key)?;
                vec![OwnerSignature {
                    public_key: key.public_key_spki().to_vec().into(),
                    signature: key.approve_update(&manifest.0, &base.0)?.into(),
                }]
            }
        };
        let request = SetManifestRequest {
            manifest: text.into_bytes().into(),
            policies: self.policies.clone(),
            base_transition: base.0.to_vec().into(),
            signatures,
        };
        Ok((request, Hash(manifest.0)))
    }
}

fn guest(tee: &SoftwareTee, kind: TeeKind, policy: PolicyHash) -> Arc<dyn Issuer> {
    match kind {
        TeeKind::Snp => Arc::new(tee.snp_guest(policy)),
        TeeKind::Tdx => Arc::new(tee.tdx_guest(policy)),
    }
}
