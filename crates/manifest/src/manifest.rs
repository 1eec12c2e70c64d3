use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use contrast_attestation::{PolicyHash, ReferenceValue, Root, Verifier};
use contrast_measure::VcpuCount;

use crate::{
    CertificateKeyDigest, JsonPath, MAX_MANIFEST_BYTES, ManifestError, OwnerKeyDigest, Role,
    SealedSecret, shape,
    validate::{self, Parts},
};

/// SHA-256 of a manifest's exact bytes: its identity. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ManifestHash(pub [u8; 32]);

impl ManifestHash {
    /// Hash of any bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }
}

impl fmt::Display for ManifestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ManifestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManifestHash({self})")
    }
}

/// What the pods with one policy are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyEntry {
    /// Subject alternative names of their certificates: IP addresses, URIs, else DNS names.
    pub sans: Vec<String>,
    /// Name from which their workload secret is derived; empty: they get none.
    pub workload_secret_id: String,
    /// What they may do.
    pub role: Role,
    /// How many vCPUs their VMs have, if that is known.
    pub vcpus: Option<VcpuCount>,
    /// Path of their SPIFFE ID, `ns/<namespace>/<kind in lower case>/<name>`; `None`: their certificates have none.
    pub spiffe_path: Option<String>,
    /// Names of the sealed secrets that they get; each is in [`Manifest::sealed_secrets`].
    pub sealed_secrets: Vec<String>,
}

/// A valid manifest. Cheap to clone.
#[derive(Clone)]
pub struct Manifest(Arc<Inner>);

struct Inner {
    bytes: Vec<u8>,
    hash: ManifestHash,
    parts: Parts,
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest({})", self.0.hash)
    }
}

impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for Manifest {}

impl Manifest {
    /// Reads and checks a manifest file, at most [`MAX_MANIFEST_BYTES`] long.
    ///
    /// # Errors
    /// Lists every problem with its JSON path.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            let message = format!(
                "expected at most {MAX_MANIFEST_BYTES} bytes, found {}",
                bytes.len()
            );
            return Err(ManifestError::single(JsonPath::root(), message));
        }
        let (document, problems) = shape::read(bytes)?;
        let parts = validate::check(&document, problems)?;
        let hash = ManifestHash::of(bytes);
        Ok(Self(Arc::new(Inner {
            bytes: bytes.to_vec(),
            hash,
            parts,
        })))
    }

    /// The file's exact bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// SHA-256 of [`Self::bytes`].
    pub fn hash(&self) -> ManifestHash {
        self.0.hash
    }

    /// All policies by the hash of their initdata document.
    pub fn policies(&self) -> &BTreeMap<PolicyHash, PolicyEntry> {
        &self.0.parts.policies
    }

    /// The policies with role `coordinator`; at least one, and more while Coordinators are upgraded one by one. Each of them may
    /// hold the seed and the mesh CA key.
    pub fn coordinators(&self) -> &BTreeSet<PolicyHash> {
        &self.0.parts.coordinators
    }

    /// What evidence is compared with, in the order `snp`, `tdx`, `insecure`; at least one.
    pub fn reference_values(&self) -> Vec<ReferenceValue> {
        self.0.parts.reference_values.clone()
    }

    /// Whether evidence of a software TEE would be accepted.
    pub fn accepts_insecure_evidence(&self) -> bool {
        self.0
            .parts
            .reference_values
            .iter()
            .any(|reference| matches!(reference.root, Root::Insecure { .. }))
    }

    /// Who may replace this manifest, by key digest; empty: nobody.
    pub fn workload_owners(&self) -> &BTreeSet<OwnerKeyDigest> {
        &self.0.parts.workload_owners
    }

    /// Public keys (SubjectPublicKeyInfo DER) of those owners that the manifest lists by key; of the others it knows the digest only.
    pub fn workload_owner_keys(&self) -> &[Vec<u8>] {
        &self.0.parts.workload_owner_keys
    }

    /// How many of them must sign, at least 1.
    pub fn workload_owner_threshold(&self) -> u32 {
        self.0.parts.workload_owner_threshold
    }

    /// Public keys (PKCS#1 DER of RSA-4096, SubjectPublicKeyInfo DER of X25519) of those who can recover the deployment, in the file's order; at least one.
    pub fn seedshare_owners(&self) -> &[Vec<u8>] {
        &self.0.parts.seedshare_owners
    }

    /// How many of them it takes, at least 1.
    pub fn seedshare_threshold(&self) -> u32 {
        self.0.parts.seedshare_threshold
    }

    /// Keys that get no certificate, whatever their evidence.
    pub fn denied_certificate_keys(&self) -> &BTreeSet<CertificateKeyDigest> {
        &self.0.parts.denied_certificate_keys
    }

    /// Sealed secrets by name.
    pub fn sealed_secrets(&self) -> &BTreeMap<String, SealedSecret> {
        &self.0.parts.sealed_secrets
    }

    /// Trust domain of all SPIFFE IDs; `None`: the one that follows from the root CA.
    pub fn trust_domain(&self) -> Option<&str> {
        self.0.parts.mesh.trust_domain.as_deref()
    }

    /// How long mesh certificates are valid: one minute to one year in whole seconds, 7 days unless the file says otherwise.
    pub fn mesh_cert_lifetime(&self) -> Duration {
        self.0.parts.mesh.lifetime
    }

    /// How long the mesh CA before stays trusted after a change to this manifest: at most 24 hours in whole seconds, and not longer than
    /// a certificate is valid; zero unless the file says otherwise.
    pub fn mesh_ca_overlap(&self) -> Duration {
        self.0.parts.mesh.overlap
    }

    /// Verifier for the evidence of any pod of this manifest.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.reference_values(), self.policies().keys().copied())
            .with_vcpus(self.vcpus())
    }

    /// Verifier for the evidence of Coordinators alone.
    pub fn coordinator_verifier(&self) -> Verifier {
        Verifier::new(self.reference_values(), self.coordinators().iter().copied())
            .with_vcpus(self.vcpus())
    }

    fn vcpus(&self) -> impl Iterator<Item = (PolicyHash, u32)> {
        let policies = self.policies().iter();
        policies.filter_map(|(hash, entry)| Some((*hash, entry.vcpus?.get())))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
