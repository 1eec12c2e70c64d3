//! Measurements by the number of vCPUs, and whether there is one for every policy.

use std::collections::BTreeMap;

use contrast_attestation::appraisal::ByVcpus;
use contrast_measure::{VCPUS_MAX, VcpuCount};

use crate::{
    JsonPath, ManifestDocument, SnpReferenceValue, TdxReferenceValue, problem::Problems,
    validate::hex_array,
};

/// A number of vCPUs, if it is one.
pub(crate) fn count(number: i64) -> Option<VcpuCount> {
    VcpuCount::new(u32::try_from(number).ok()?).ok()
}

/// Reads measurements by number: nothing when one is wrong or still to be filled in.
pub(crate) fn measurements(
    document: &BTreeMap<String, String>,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<ByVcpus> {
    let mut measurements = ByVcpus::new();
    let mut complete = true;
    for (key, value) in document {
        let at = path.key(key);
        let vcpus = key.parse().ok().and_then(count);
        // One spelling for each, so that no number can stand there twice.
        let vcpus = vcpus.filter(|vcpus| vcpus.to_string() == *key);
        let value = match (vcpus, value.as_str()) {
            (None, _) => {
                problems.malformed(
                    &at,
                    format!("expected a number of vCPUs, `1` to `{VCPUS_MAX}`, found `{key}`"),
                );
                None
            }
            // Whether a policy needs it is known where coverage is checked, which asks for it.
            (Some(_), "") => None,
            (Some(_), value) => hex_array(value, "a SHA-384 digest", &at, problems),
        };
        match vcpus.zip(value) {
            Some((vcpus, value)) => {
                measurements.insert(vcpus.get(), value);
            }
            None => complete = false,
        }
    }
    complete.then_some(measurements)
}

/// The file's form.
pub(crate) fn document(measurements: &ByVcpus) -> BTreeMap<String, String> {
    let entries = measurements.iter();
    entries
        .map(|(vcpus, value)| (vcpus.to_string(), hex::encode(value)))
        .collect()
}

/// Every reference value that has measurements by number must have one for each number that a policy names: a pod may be scheduled
/// to any machine.
pub(crate) fn check_coverage(
    document: &ManifestDocument,
    root: &JsonPath,
    problems: &mut Problems,
) {
    let mut users: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for (policy, entry) in &document.policies {
        if let Some(vcpus) = entry.vcpus.and_then(count) {
            users.entry(vcpus.get()).or_default().push(policy);
        }
    }
    let path = root.key("ReferenceValues");
    let mut check_snp = |value: &SnpReferenceValue, path: &JsonPath| {
        let path = path.key("TrustedMeasurements");
        let source = |vcpus| format!("`contrast measure snp ... --vcpus {vcpus}` prints");
        check_covered(&value.trusted_measurements, &users, &path, source, problems);
    };
    for (index, value) in document.reference_values.snp.iter().enumerate() {
        check_snp(value, &path.key("snp").index(index));
    }
    for (index, value) in document.reference_values.insecure.iter().enumerate() {
        if let Some(value) = &value.snp {
            check_snp(value, &path.key("insecure").index(index).key("snp"));
        }
    }
    let mut check_tdx = |value: &TdxReferenceValue, path: &JsonPath| {
        let path = path.key("Rtmr0ByVCPUs");
        let source = |_| {
            "`contrast measure tdx ...` prints as RTMR0 with the ACPI files of such a VM".to_owned()
        };
        check_covered(&value.rtmr0_by_vcpus, &users, &path, source, problems);
    };
    for (index, value) in document.reference_values.tdx.iter().enumerate() {
        check_tdx(value, &path.key("tdx").index(index));
    }
    for (index, value) in document.reference_values.insecure.iter().enumerate() {
        if let Some(value) = &value.tdx {
            check_tdx(value, &path.key("insecure").index(index).key("tdx"));
        }
    }
}

/// `source` says what gives the measurement for a number.
fn check_covered(
    measurements: &BTreeMap<String, String>,
    users: &BTreeMap<u32, Vec<&str>>,
    path: &JsonPath,
    source: impl Fn(u32) -> String,
    problems: &mut Problems,
) {
    if measurements.is_empty() {
        return;
    }
    for (vcpus, policies) in users {
        let key = vcpus.to_string();
        if measurements.get(&key).is_none_or(String::is_empty) {
            problems.fill_in(
                &path.key(&key),
                format!(
                    "missing; {} a VM with {vcpus} {}: fill in what {}",
                    needing(policies),
                    if *vcpus == 1 { "vCPU" } else { "vCPUs" },
                    source(*vcpus),
                ),
            );
        }
    }
    let unused = measurements.iter().filter(|(key, value)| {
        let used = key
            .parse()
            .is_ok_and(|vcpus: u32| users.contains_key(&vcpus));
        value.is_empty() && !used
    });
    for (key, _) in unused.filter(|(key, _)| key.parse().ok().and_then(count).is_some()) {
        problems.fill_in(
            &path.key(key),
            "missing; fill in 96 hex digits, or remove it: no policy has this number",
        );
    }
}

fn needing(policies: &[&str]) -> String {
    match policies {
        [] => String::new(),
        [one] => format!("policy {one} needs"),
        [one, others @ ..] => format!("policy {one} and {} more need", others.len()),
    }
}
