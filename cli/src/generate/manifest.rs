//! The manifest: created from the platforms' reference values, or updated without losing what people edited.

use std::{collections::BTreeSet, fs, io};

use contrast_attestation::{
    ReferenceValue, Root, Tee,
    appraisal::{
        Demands, SnpDemands, SnpGuestPolicy, SnpMeasurement, SnpPlatformInfo, SnpProduct, SnpTcb,
        TdxDemands, TdxTcbPolicy,
    },
};
use contrast_manifest::{
    Manifest, ManifestDocument, OwnerKeyDigest, PolicyDocument, ProblemKind, Role,
};
use contrast_platform::Hardware;

use super::{
    GenerateError, Options, Platform, ReferenceValuesChoice, Workload,
    owner_keys::OwnerKeys,
    plan::{Plan, PlannedWorkload},
};

/// How long pods trust the mesh CA of the manifest before, where the manifest is new: long enough for each to fetch a certificate.
const NEW_OVERLAP: &str = "10m";

pub(super) struct Built {
    pub(super) text: String,
    pub(super) hash: String,
    pub(super) workloads: Vec<Workload>,
    pub(super) kept_coordinators: Vec<String>,
    pub(super) fill_in: Vec<String>,
    pub(super) notices: Vec<String>,
}

pub(super) fn build(
    options: &Options,
    plan: &Plan,
    keys: &OwnerKeys,
) -> Result<Built, GenerateError> {
    let invalid = |source| GenerateError::Manifest {
        path: options.manifest.clone(),
        source,
    };
    let mut document = match fs::read(&options.manifest) {
        Ok(text) => ManifestDocument::from_json(&text).map_err(invalid)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => new_document(options, plan)?,
        Err(source) => {
            let path = options.manifest.clone();
            return Err(GenerateError::File {
                action: "read",
                path,
                source,
            });
        }
    };
    let before = std::mem::take(&mut document.policies);
    let mut kept_coordinators = Vec::new();
    let mut workloads = Vec::new();
    let mut notices = Vec::new();
    for planned in &plan.workloads {
        let hash = hex::encode(planned.initdata.hash());
        let secret_id = planned.id();
        let role = match planned.coordinator {
            true => Role::Coordinator,
            false => Role::Workload,
        };
        // Names that somebody edited stay, also when the policy changed. Who shares a secret with others inherits no names: they could be theirs.
        let old = before.get(&hash).or_else(|| {
            let mut same = before
                .values()
                .filter(|old| old.workload_secret_id == secret_id && old.role == role.as_str());
            let sharers = plan
                .workloads
                .iter()
                .filter(|other| other.id() == secret_id);
            let is_alone = !secret_id.is_empty() && sharers.count() == 1;
            same.next().filter(|_| is_alone && same.next().is_none())
        });
        let mut sans = old.map_or_else(
            || vec![planned.identity.name.clone(), "*".to_owned()],
            |old| old.sans.clone(),
        );
        // Nobody dials the Coordinator through the mesh.
        let spiffe_path = match planned.coordinator {
            true => String::new(),
            false => {
                add_names(&mut sans, &planned.service_names);
                spiffe_path(planned, &sans, &mut notices)
            }
        };
        if let Some(first) = workloads
            .iter()
            .find(|first: &&Workload| first.policy == hash)
        {
            return Err(GenerateError::SamePolicy {
                workload: planned.identity.shown(),
                other: format!(
                    "{} `{}` in namespace `{}`",
                    first.kind, first.name, first.namespace
                ),
            });
        }
        document.policies.insert(
            hash.clone(),
            PolicyDocument {
                sans: sans.clone(),
                workload_secret_id: secret_id.clone(),
                role: role.as_str().to_owned(),
                vcpus: Some(planned.vcpus.get().into()),
                spiffe_path,
                sealed_secrets: planned.sealed_secrets.clone(),
            },
        );
        workloads.push(Workload {
            kind: planned.identity.kind.clone(),
            namespace: planned.identity.namespace.clone(),
            name: planned.identity.name.clone(),
            policy: hash,
            sans,
            workload_secret_id: secret_id,
            coordinator: planned.coordinator,
            vcpus: planned.vcpus.get(),
            injected: planned.injected.clone(),
        });
    }
    for (hash, entry) in before {
        let earlier = entry.role == Role::Coordinator.as_str();
        if options.keep_coordinator && earlier && !document.policies.contains_key(&hash) {
            kept_coordinators.push(hash.clone());
            document.policies.insert(hash, entry);
        }
    }
    match options.disable_updates {
        true => {
            document.workload_owner_pub_keys.clear();
            document.workload_owner_key_digests.clear();
            document.workload_owner_threshold = None;
        }
        false => {
            let digests = &document.workload_owner_key_digests;
            let by_digest = |key: &&String| {
                let digest = hex::decode(key).map(|spki| OwnerKeyDigest::of(&spki).to_string());
                digest.is_ok_and(|digest| contains(digests, &digest))
            };
            let new = keys.workload.iter().filter(|key| !by_digest(key));
            merge(&mut document.workload_owner_pub_keys, new);
        }
    }
    merge(
        &mut document.seedshare_owner_pub_keys,
        keys.seedshare.iter(),
    );
    if let Some(threshold) = options.workload_owner_threshold {
        document.workload_owner_threshold = Some(threshold.into());
    }
    if let Some(threshold) = options.seedshare_threshold {
        document.seedshare_threshold = Some(threshold.into());
    }

    notices.extend(without_reference_value(plan, &document));
    let text = document.to_json();
    let fill_in = match Manifest::parse(text.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(error) if error.only_gaps() => error
            .problems()
            .iter()
            .filter(|problem| problem.kind == ProblemKind::FillIn)
            .map(ToString::to_string)
            .collect(),
        Err(source) => return Err(invalid(source)),
    };
    let hash = hex::encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        text.as_bytes(),
    ));
    Ok(Built {
        text,
        hash,
        workloads,
        kept_coordinators,
        fill_in,
        notices,
    })
}

/// Adds the names that are not there, behind the others.
fn add_names(sans: &mut Vec<String>, names: &[String]) {
    for name in names {
        if !sans.contains(name) {
            sans.push(name.clone());
        }
    }
}

/// Path of the workload's SPIFFE ID, or nothing where a URI takes its place.
fn spiffe_path(planned: &PlannedWorkload, sans: &[String], notices: &mut Vec<String>) -> String {
    let identity = &planned.identity;
    if let Some(uri) = sans.iter().find(|san| san.contains("://")) {
        notices.push(format!(
            "{} gets no SPIFFE ID, because a certificate has one URI at most and its names in the manifest include `{uri}`; remove that for \
             `allow=` and `identity=` of the service mesh to know the workload",
            identity.shown()
        ));
        return String::new();
    }
    let kind = identity.kind.to_ascii_lowercase();
    format!("ns/{}/{kind}/{}", identity.namespace, identity.name)
}

/// Pods on platforms that the manifest, which exists already, does not know.
fn without_reference_value(plan: &Plan, document: &ManifestDocument) -> Vec<String> {
    let values = &document.reference_values;
    let known: Vec<&str> = (values.snp.iter().map(|value| value.platform.as_str()))
        .chain(values.tdx.iter().map(|value| value.platform.as_str()))
        .chain((!values.insecure.is_empty()).then_some(Platform::SoftwareTee.display()))
        .collect();
    let missing = |planned: &PlannedWorkload| {
        let platform = planned.platform?;
        let display = platform.display();
        let is_known = known
            .iter()
            .any(|known| known.eq_ignore_ascii_case(display));
        (!is_known).then(|| {
            format!(
                "{} runs on {display}, for which the manifest has no reference value, so it will be refused; add one with `\"Platform\": \"{display}\"`",
                planned.identity.shown()
            )
        })
    };
    plan.workloads.iter().filter_map(missing).collect()
}

/// Adds the keys, hex, that are not there; people may have written theirs in upper case.
fn merge<'a>(keys: &mut Vec<String>, added: impl Iterator<Item = &'a String>) {
    for key in added {
        if !contains(keys, key) {
            keys.push(key.clone());
        }
    }
    keys.sort();
    keys.dedup();
}

fn contains(all: &[String], hex: &str) -> bool {
    all.iter().any(|one| one.eq_ignore_ascii_case(hex))
}

/// With reference values for the platforms that were named, and for those of the pods.
fn new_document(options: &Options, plan: &Plan) -> Result<ManifestDocument, GenerateError> {
    if options.reference_values.is_empty() {
        return Err(GenerateError::NoReferenceValues);
    }
    let used = plan.workloads.iter().filter_map(|planned| planned.platform);
    let used: BTreeSet<Platform> = used.collect();
    let named = options.reference_values.iter();
    let named: BTreeSet<Platform> = named.map(ReferenceValuesChoice::platform).collect();
    let added = used.difference(&named).copied();
    let added = added.filter(|platform| platform.hardware() != Hardware::Software);
    let mut choices = options.reference_values.clone();
    choices.extend(added.map(ReferenceValuesChoice::Metal));
    let mut document = ManifestDocument {
        mesh_ca_overlap: Some(NEW_OVERLAP.to_owned()),
        ..ManifestDocument::default()
    };
    for choice in &choices {
        match choice {
            ReferenceValuesChoice::Metal(platform) => metal(*platform, &mut document),
            ReferenceValuesChoice::Insecure { directory, tee } => {
                let reference = software_tee(directory, *tee)?;
                document
                    .reference_values
                    .push(&reference, "Insecure-Software-TEE");
            }
        }
    }
    Ok(document)
}

/// What a new manifest says of `platform`; `None` for the software TEE, which has a root for each directory.
///
/// Launch measurement and TCB are empty: they are the operator's to fill in.
pub fn reference_values(platform: Platform) -> Option<serde_json::Value> {
    if platform.hardware() == Hardware::Software {
        return None;
    }
    let mut document = ManifestDocument::default();
    metal(platform, &mut document);
    serde_json::to_value(&document.reference_values).ok()
}

/// What is known of bare metal in advance. Launch measurement and TCB are the operator's to fill in.
fn metal(platform: Platform, document: &mut ManifestDocument) {
    let tdx = platform.hardware() == Hardware::Tdx;
    let platform = platform.display();
    let demands = match tdx {
        true => Demands::Tdx(TdxDemands {
            mr_td: [0; 48],
            mr_seam: [0; 48],
            rtmrs: [[0; 48]; 4],
            rtmr0_alternatives: Vec::new(),
            rtmr0_by_vcpus: Default::default(),
            xfam: [0xe7, 0x02, 0x06, 0, 0, 0, 0, 0],
            allowed_piids: Vec::new(),
            memory_integrity: false,
            smt_disabled: false,
            static_platform: false,
            min_tcb_evaluation_data_number: 0,
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            tcb_policy: TdxTcbPolicy::default(),
        }),
        false => Demands::Snp(SnpDemands {
            product: SnpProduct::Genoa,
            measurement: SnpMeasurement::Any([0; 48]),
            minimum_tcb: SnpTcb::default(),
            guest_policy: SnpGuestPolicy {
                smt: true,
                ..SnpGuestPolicy::default()
            },
            platform_info: SnpPlatformInfo {
                smt_enabled: true,
                ..SnpPlatformInfo::default()
            },
            minimum_mitigation_vector: 0,
            allowed_chip_ids: Vec::new(),
            trusted_id_key_digests: Vec::new(),
            trusted_author_key_digests: Vec::new(),
        }),
    };
    let reference = ReferenceValue {
        name: platform.to_owned(),
        root: Root::Vendor,
        demands,
        vtpm: None,
    };
    document.reference_values.push(&reference, platform);
    // Zeros are no values: the validator asks for what is absent.
    if let Some(snp) = document.reference_values.snp.last_mut().filter(|_| !tdx) {
        snp.trusted_measurement = Some(String::new());
        snp.minimum_tcb = Default::default();
    }
    if let Some(tdx) = document.reference_values.tdx.last_mut().filter(|_| tdx) {
        tdx.mr_td.clear();
        tdx.mr_seam.clear();
        tdx.rtmrs.clear();
    }
}

#[cfg(feature = "software-tee")]
fn software_tee(directory: &std::path::Path, tee: Tee) -> Result<ReferenceValue, GenerateError> {
    let software =
        contrast_attestation::software::SoftwareTee::open(directory).map_err(|error| {
            GenerateError::SoftwareTee {
                path: directory.to_owned(),
                reason: error.to_string(),
            }
        })?;
    Ok(software.reference_value(tee))
}

#[cfg(not(feature = "software-tee"))]
fn software_tee(directory: &std::path::Path, _: Tee) -> Result<ReferenceValue, GenerateError> {
    Err(GenerateError::SoftwareTee {
        path: directory.to_owned(),
        reason: "this build has no software TEE (feature `software-tee`)".to_owned(),
    })
}
