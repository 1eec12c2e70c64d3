//! Document to valid parts: the meaning of every field. Collects all problems.

use std::collections::{BTreeMap, BTreeSet};

use contrast_attestation::{PolicyHash, ReferenceValue};
use contrast_measure::{VCPUS_MAX, VcpuCount};

use crate::{
    CertificateKeyDigest, JsonPath, ManifestDocument, ManifestError, OwnerKeyDigest,
    PolicyDocument, PolicyEntry, Role, SealedSecret,
    identity::{self, MeshTerms},
    owners,
    problem::Problems,
    reference_values, sealed, vcpus,
};

/// Longest subject alternative name, in bytes.
const MAX_SAN_BYTES: usize = 2048;
/// Longest DNS name (RFC 1035 section 2.3.4, without the root's dot).
const MAX_DNS_NAME_BYTES: usize = 253;
/// The name that today's manifests give to every workload. No verifier takes it for another name.
const ANY_NAME: &str = "*";
/// Longest workload secret id, in bytes.
const MAX_SECRET_ID_BYTES: usize = 1024;

/// What a valid manifest consists of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) policies: BTreeMap<PolicyHash, PolicyEntry>,
    pub(crate) coordinators: BTreeSet<PolicyHash>,
    pub(crate) reference_values: Vec<ReferenceValue>,
    pub(crate) workload_owners: BTreeSet<OwnerKeyDigest>,
    pub(crate) workload_owner_keys: Vec<Vec<u8>>,
    pub(crate) workload_owner_threshold: u32,
    pub(crate) seedshare_owners: Vec<Vec<u8>>,
    pub(crate) seedshare_threshold: u32,
    pub(crate) denied_certificate_keys: BTreeSet<CertificateKeyDigest>,
    pub(crate) mesh: MeshTerms,
    pub(crate) sealed_secrets: BTreeMap<String, SealedSecret>,
}

pub(crate) fn check(
    document: &ManifestDocument,
    mut problems: Problems,
) -> Result<Parts, ManifestError> {
    let root = JsonPath::root();
    let policies = check_policies(document, &root.key("Policies"), &mut problems);
    let coordinators = coordinators(&policies, &root.key("Policies"), &mut problems);
    let reference_values = reference_values::check(
        &document.reference_values,
        &root.key("ReferenceValues"),
        &mut problems,
    );
    vcpus::check_coverage(document, &root, &mut problems);
    let (workload_owners, workload_owner_keys) =
        check_workload_owners(document, &root, &mut problems);
    let listed = document
        .workload_owner_key_digests
        .len()
        .saturating_add(document.workload_owner_pub_keys.len());
    let workload_owner_threshold = threshold(
        document.workload_owner_threshold,
        listed,
        &root.key("WorkloadOwnerThreshold"),
        &mut problems,
    );
    let seedshare_owners = check_seedshare_owners(document, &root, &mut problems);
    let seedshare_threshold = threshold(
        document.seedshare_threshold,
        document.seedshare_owner_pub_keys.len(),
        &root.key("SeedshareThreshold"),
        &mut problems,
    );
    let denied_certificate_keys = check_denied_keys(document, &root, &mut problems);
    let mesh = identity::check_terms(document, &root, &mut problems);
    let sealed_secrets = sealed::check(document, &root, &mut problems);
    let found = problems.into_found();
    match found.is_empty() {
        true => Ok(Parts {
            policies,
            coordinators,
            reference_values,
            workload_owners,
            workload_owner_keys,
            workload_owner_threshold,
            seedshare_owners,
            seedshare_threshold,
            denied_certificate_keys,
            mesh,
            sealed_secrets,
        }),
        false => Err(ManifestError::new(found)),
    }
}

fn check_policies(
    document: &ManifestDocument,
    path: &JsonPath,
    problems: &mut Problems,
) -> BTreeMap<PolicyHash, PolicyEntry> {
    let mut policies = BTreeMap::new();
    for (key, policy) in &document.policies {
        let path = path.key(key);
        let entry = check_entry(policy, document.trust_domain.as_deref(), &path, problems);
        if let Some(upper) = key.chars().find(char::is_ascii_uppercase) {
            let message = format!("expected lower-case hex digits, found `{upper}`");
            problems.malformed(&path, message);
        } else if let Some(hash) = hex_array(key, "a policy hash (SHA-256)", &path, problems) {
            policies.insert(PolicyHash(hash), entry);
        }
    }
    check_transit_keys(&document.policies, path, problems);
    policies
}

/// The transit key of an id is the beginning of the workload secret whose id has its version before that, `<version>_<id>`: who has the
/// second must not be another workload than who has the first.
fn check_transit_keys(
    policies: &BTreeMap<String, PolicyDocument>,
    path: &JsonPath,
    problems: &mut Problems,
) {
    let ids: BTreeSet<&str> = policies
        .values()
        .map(|policy| policy.workload_secret_id.as_str())
        .filter(|id| !id.is_empty())
        .collect();
    for (hash, policy) in policies {
        let Some((version, id)) = policy.workload_secret_id.split_once('_') else {
            continue;
        };
        let is_version = version
            .parse()
            .is_ok_and(|number: u32| number.to_string() == version);
        if is_version && ids.contains(id) {
            let message = format!(
                "the secret with this id is the transit key of `{id}`, which another policy has, in version {version}; choose another id"
            );
            problems.malformed(&path.key(hash).key("WorkloadSecretID"), message);
        }
    }
}

fn check_entry(
    policy: &PolicyDocument,
    trust_domain: Option<&str>,
    path: &JsonPath,
    problems: &mut Problems,
) -> PolicyEntry {
    for (index, san) in policy.sans.iter().enumerate() {
        if let Some(fault) = fault_of_san(san) {
            problems.malformed(&path.key("SANs").index(index), fault);
        }
    }
    let id = &policy.workload_secret_id;
    if id.len() > MAX_SECRET_ID_BYTES || id.chars().any(char::is_control) {
        problems.malformed(
            &path.key("WorkloadSecretID"),
            format!("expected at most {MAX_SECRET_ID_BYTES} bytes without control characters"),
        );
    }
    let role = Role::parse(&policy.role).unwrap_or_else(|| {
        problems.malformed(
            &path.key("Role"),
            format!(
                "expected `coordinator` or an empty string, found `{}`",
                policy.role
            ),
        );
        Role::Workload
    });
    let spiffe_path = (!policy.spiffe_path.is_empty()).then(|| policy.spiffe_path.clone());
    if let Some(spiffe_path) = &spiffe_path {
        identity::check_path(spiffe_path, &policy.sans, trust_domain, path, problems);
    }
    PolicyEntry {
        sans: policy.sans.clone(),
        workload_secret_id: id.clone(),
        role,
        vcpus: policy
            .vcpus
            .and_then(|number| check_vcpus(number, &path.key("VCPUs"), problems)),
        spiffe_path,
        sealed_secrets: policy.sealed_secrets.clone(),
    }
}

fn check_vcpus(number: i64, path: &JsonPath, problems: &mut Problems) -> Option<VcpuCount> {
    let vcpus = vcpus::count(number);
    if vcpus.is_none() {
        let message = format!("expected a number from 1 to {VCPUS_MAX}, found {number}");
        problems.malformed(path, message);
    }
    vcpus
}

fn fault_of_san(san: &str) -> Option<String> {
    if san.is_empty() {
        return Some("expected an IP address, a URI or a DNS name, found an empty string".into());
    }
    if let Some(odd) = san.chars().find(|c| !c.is_ascii_graphic()) {
        return Some(format!(
            "expected visible ASCII characters only, found {odd:?}"
        ));
    }
    if identity::names_a_workload(san) {
        return Some(format!(
            "expected no SPIFFE ID of the form that SPIFFEPath makes, by which the mesh tells workloads apart, found `{san}`; write SPIFFEPath instead"
        ));
    }
    let labels = san.strip_prefix("*.").unwrap_or(san);
    if san != ANY_NAME && !san.contains("://") && labels.contains('*') {
        return Some(format!(
            "expected `{ANY_NAME}`, or a wildcard as the whole first label of a DNS name (`*.example.com`), found `{san}`"
        ));
    }
    let limit = if san.contains("://") {
        MAX_SAN_BYTES
    } else {
        MAX_DNS_NAME_BYTES
    };
    (san.len() > limit).then(|| format!("expected at most {limit} bytes, found {}", san.len()))
}

fn coordinators(
    policies: &BTreeMap<PolicyHash, PolicyEntry>,
    path: &JsonPath,
    problems: &mut Problems,
) -> BTreeSet<PolicyHash> {
    let coordinators: BTreeSet<PolicyHash> = policies
        .iter()
        .filter(|(_, entry)| entry.role == Role::Coordinator)
        .map(|(hash, _)| *hash)
        .collect();
    if coordinators.is_empty() {
        problems.malformed(
            path,
            "expected at least one policy with Role `coordinator`, found none; deploy a Coordinator and run generate again",
        );
    }
    coordinators
}

/// Digests of all owners, and the keys of those that are listed by key.
fn check_workload_owners(
    document: &ManifestDocument,
    root: &JsonPath,
    problems: &mut Problems,
) -> (BTreeSet<OwnerKeyDigest>, Vec<Vec<u8>>) {
    let (mut owners, mut keys) = (BTreeSet::new(), Vec::new());
    let mut add = |digest, path: &JsonPath, problems: &mut Problems| {
        if !owners.insert(digest) {
            problems.malformed(path, "the same owner is listed twice; it would count twice");
        }
    };
    let path = root.key("WorkloadOwnerKeyDigests");
    for (index, digest) in document.workload_owner_key_digests.iter().enumerate() {
        let path = path.index(index);
        if let Some(digest) = hex_array(digest, "a key digest (SHA-256)", &path, problems) {
            add(OwnerKeyDigest(digest), &path, problems);
        }
    }
    let path = root.key("WorkloadOwnerPubKeys");
    for (index, key) in document.workload_owner_pub_keys.iter().enumerate() {
        let path = path.index(index);
        let Some(key) = hex_bytes(key, &path, problems) else {
            continue;
        };
        match owners::check_workload_owner(&key) {
            Ok(digest) => {
                add(digest, &path, problems);
                keys.push(key);
            }
            Err(error) => problems.malformed(&path, error.to_string()),
        }
    }
    (owners, keys)
}

fn check_seedshare_owners(
    document: &ManifestDocument,
    root: &JsonPath,
    problems: &mut Problems,
) -> Vec<Vec<u8>> {
    let path = root.key("SeedshareOwnerPubKeys");
    if document.seedshare_owner_pub_keys.is_empty() {
        problems.malformed(
            &path,
            "expected at least one key; without a seed share owner nobody can recover the deployment after a restart",
        );
    }
    let mut owners: Vec<Vec<u8>> = Vec::new();
    for (index, key) in document.seedshare_owner_pub_keys.iter().enumerate() {
        let path = path.index(index);
        let Some(key) = hex_bytes(key, &path, problems) else {
            continue;
        };
        match owners::check_seed_share_owner(&key) {
            Ok(()) if owners.contains(&key) => {
                problems.malformed(
                    &path,
                    "the same owner is listed twice; it would get two shares",
                );
            }
            Ok(()) => owners.push(key),
            Err(error) => problems.malformed(&path, error.to_string()),
        }
    }
    owners
}

fn check_denied_keys(
    document: &ManifestDocument,
    root: &JsonPath,
    problems: &mut Problems,
) -> BTreeSet<CertificateKeyDigest> {
    let path = root.key("DeniedCertificateKeys");
    let mut denied = BTreeSet::new();
    for (index, digest) in document.denied_certificate_keys.iter().enumerate() {
        let path = path.index(index);
        let what = "the SHA-256 of a certificate's public key";
        let digest = hex_array(digest, what, &path, problems).map(CertificateKeyDigest);
        if digest.is_some_and(|digest| !denied.insert(digest)) {
            problems.malformed(
                &path,
                "the same key is listed twice; remove one of the entries",
            );
        }
    }
    denied
}

/// Without owners there is nothing to count; then only the default is accepted.
fn threshold(given: Option<i64>, owners: usize, path: &JsonPath, problems: &mut Problems) -> u32 {
    let threshold = given.unwrap_or(1);
    let limit = owners.max(1);
    match u32::try_from(threshold) {
        Ok(threshold) if threshold >= 1 && usize::try_from(threshold).is_ok_and(|t| t <= limit) => {
            threshold
        }
        _ => {
            problems.malformed(
                path,
                format!(
                    "expected a number from 1 to the number of owners ({owners}), found {threshold}"
                ),
            );
            1
        }
    }
}

/// Reads exactly `N` bytes of hex; `what` names them in the message.
pub(crate) fn hex_array<const N: usize>(
    text: &str,
    what: &str,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<[u8; N]> {
    let digits = N.saturating_mul(2);
    if text.len() != digits {
        let message = format!(
            "expected {what}, {digits} hex digits, found {} characters",
            text.chars().count()
        );
        problems.malformed(path, message);
        return None;
    }
    hex_bytes(text, path, problems)?.try_into().ok()
}

fn hex_bytes(text: &str, path: &JsonPath, problems: &mut Problems) -> Option<Vec<u8>> {
    match hex::decode(text) {
        Ok(bytes) => Some(bytes),
        Err(hex::FromHexError::InvalidHexCharacter { c, index }) => {
            problems.malformed(
                path,
                format!("expected hex digits only, found {c:?} at position {index}"),
            );
            None
        }
        Err(_) => {
            problems.malformed(
                path,
                format!(
                    "expected an even number of hex digits, found {}",
                    text.len()
                ),
            );
            None
        }
    }
}
