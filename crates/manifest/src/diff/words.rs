//! What a difference means, for values whose effect is not seen from their name.

use serde_json::Value;

use super::Difference;
use crate::json::Segment;

/// A half sentence, or nothing.
pub(super) fn of(difference: &Difference) -> Option<String> {
    let Difference {
        path,
        expected,
        found,
    } = difference;
    let key = |segment: &Segment| match segment {
        Segment::Key(key) => Some(key.clone()),
        Segment::Index(_) => None,
    };
    let keys: Vec<String> = path.segments().iter().filter_map(key).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    match keys.as_slice() {
        ["Policies", _, "VCPUs"] => Some(format!(
            "evidence of these pods shows the measurement for {} in the expected manifest, for {} in the found one",
            vcpus(expected.as_deref()),
            vcpus(found.as_deref()),
        )),
        ["Policies", _, "SPIFFEPath"] => Some(format!(
            "certificates of these pods carry {} in the expected manifest, {} in the found one",
            spiffe_path(expected.as_deref()),
            spiffe_path(found.as_deref()),
        )),
        ["TrustDomain"] => Some(format!(
            "all SPIFFE IDs are in {} in the expected manifest, in {} in the found one",
            trust_domain(expected.as_deref()),
            trust_domain(found.as_deref()),
        )),
        ["MeshCertLifetime"] => Some(format!(
            "mesh certificates are valid for {} in the expected manifest, for {} in the found one",
            text(expected.as_deref()).unwrap_or_else(|| "168h (the default)".to_owned()),
            text(found.as_deref()).unwrap_or_else(|| "168h (the default)".to_owned()),
        )),
        ["MeshCAOverlap"] => Some(format!(
            "after a change of the manifest, certificates of the mesh CA before, those of removed workloads included, stay trusted {} \
             in the expected manifest, {} in the found one",
            overlap(expected.as_deref()),
            overlap(found.as_deref()),
        )),
        ["SealedSecrets", name] => Some(match (expected, found) {
            (None, _) => format!("the found manifest also has the sealed secret `{name}`"),
            (_, None) => format!("the found manifest lacks the sealed secret `{name}`"),
            _ => format!("the manifests have different ciphertexts or kinds for `{name}`"),
        }),
        ["Policies", _, "SealedSecrets"] => Some(match (expected, found) {
            (None, _) => "the found manifest also gives these pods that sealed secret".to_owned(),
            (_, None) => {
                "the found manifest does not give these pods that sealed secret".to_owned()
            }
            _ => "the manifests give these pods different sealed secrets".to_owned(),
        }),
        ["DeniedCertificateKeys"] => Some(match (expected, found) {
            (None, _) => "the found manifest also denies certificates to this key".to_owned(),
            (_, None) => "the found manifest does not deny certificates to this key".to_owned(),
            _ => "the manifests deny certificates to different keys".to_owned(),
        }),
        ["ReferenceValues", .., map, count] if what(map).is_some() => {
            let verb = match (expected, found) {
                (None, _) => "also accepts the",
                (_, None) => "lacks the",
                _ => "has another",
            };
            Some(format!(
                "the found manifest {verb} {} of VMs with {}",
                what(map)?,
                vcpus(Some(count))
            ))
        }
        ["ReferenceValues", .., map] => Some(whole(what(map)?, found.as_deref())),
        _ => None,
    }
}

/// What the values of a map by number of vCPUs are.
fn what(map: &str) -> Option<&'static str> {
    match map {
        "TrustedMeasurements" => Some("launch digest"),
        "Rtmr0ByVCPUs" => Some("RTMR0"),
        _ => None,
    }
}

fn whole(what: &str, found: Option<&str>) -> String {
    let numbers = found.and_then(|text| match serde_json::from_str(text).ok()? {
        Value::Object(map) => Some(map.keys().cloned().collect::<Vec<_>>().join(", ")),
        _ => None,
    });
    match numbers {
        Some(numbers) => {
            format!(
                "the found manifest has the {what} for each of these numbers of vCPUs: {numbers}"
            )
        }
        None => format!("the found manifest does not say the {what} for each number of vCPUs"),
    }
}

fn vcpus(number: Option<&str>) -> String {
    match number {
        None => "any listed number of vCPUs".to_owned(),
        Some("1") => "1 vCPU".to_owned(),
        Some(number) => format!("{number} vCPUs"),
    }
}

/// What a JSON string says.
fn text(json: Option<&str>) -> Option<String> {
    serde_json::from_str(json?).ok()
}

fn spiffe_path(json: Option<&str>) -> String {
    match text(json).filter(|path| !path.is_empty()) {
        Some(path) => format!("a SPIFFE ID with the path `{path}`"),
        None => "no SPIFFE ID".to_owned(),
    }
}

fn trust_domain(json: Option<&str>) -> String {
    match text(json) {
        Some(name) => format!("the trust domain `{name}`"),
        None => "the trust domain of the root CA".to_owned(),
    }
}

fn overlap(json: Option<&str>) -> String {
    match text(json) {
        Some(duration) => format!("for {duration}"),
        None => "not at all".to_owned(),
    }
}
