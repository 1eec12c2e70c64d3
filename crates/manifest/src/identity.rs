//! What goes into the SPIFFE IDs of pods, and how long their certificates and mesh CAs are good for.
//!
//! SPIFFE-ID specification (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>): `spiffe://<trust domain>/<path>`, at most
//! 2048 bytes; trust domain of `[a-z0-9._-]`, at most 255 bytes; segments of the path of `[a-zA-Z0-9._-]`, none empty, `.` or `..`.

use std::time::Duration;

use crate::{JsonPath, ManifestDocument, duration, problem::Problems};

/// Longest SPIFFE ID, in bytes.
const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// Longest trust domain, in bytes.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Length of the trust domain that a manifest without one gets: a SHA-256 in hex.
const DEFAULT_TRUST_DOMAIN_BYTES: usize = 64;
/// Bytes of a SPIFFE ID that are neither trust domain nor path.
const SPIFFE_ID_FRAME_BYTES: usize = "spiffe:///".len();

/// How long mesh certificates are valid where the manifest does not say it.
const DEFAULT_LIFETIME: Duration = Duration::from_hours(168);
const MIN_LIFETIME: Duration = Duration::from_mins(1);
const MAX_LIFETIME: Duration = Duration::from_hours(8760);
const MAX_OVERLAP: Duration = Duration::from_hours(24);

/// The valid fields about identities that hold for all pods.
#[derive(Debug)]
pub(crate) struct MeshTerms {
    pub(crate) trust_domain: Option<String>,
    pub(crate) lifetime: Duration,
    pub(crate) overlap: Duration,
}

pub(crate) fn check_terms(
    document: &ManifestDocument,
    root: &JsonPath,
    problems: &mut Problems,
) -> MeshTerms {
    let trust_domain = document.trust_domain.clone();
    if let Some(fault) = trust_domain.as_deref().and_then(fault_of_trust_domain) {
        problems.malformed(&root.key("TrustDomain"), fault);
    }
    let lifetime = check_duration(
        document.mesh_cert_lifetime.as_deref(),
        DEFAULT_LIFETIME,
        (MIN_LIFETIME..=MAX_LIFETIME, "1m to 8760h"),
        &root.key("MeshCertLifetime"),
        problems,
    );
    let path = root.key("MeshCAOverlap");
    let overlap = check_duration(
        document.mesh_ca_overlap.as_deref(),
        Duration::ZERO,
        (Duration::ZERO..=MAX_OVERLAP, "0s to 24h"),
        &path,
        problems,
    );
    if let (Some(lifetime), Some(overlap)) = (lifetime, overlap)
        && overlap > lifetime
    {
        let message = format!(
            "expected at most the lifetime of a mesh certificate, {} s, found {} s; nobody needs the mesh CA before for longer",
            lifetime.as_secs(),
            overlap.as_secs()
        );
        problems.malformed(&path, message);
    }
    MeshTerms {
        trust_domain,
        lifetime: lifetime.unwrap_or(DEFAULT_LIFETIME),
        overlap: overlap.unwrap_or_default(),
    }
}

/// `None`: there is a problem.
fn check_duration(
    given: Option<&str>,
    default: Duration,
    (range, range_in_words): (std::ops::RangeInclusive<Duration>, &str),
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<Duration> {
    let Some(text) = given else {
        return Some(default);
    };
    let fault = match duration::parse(text) {
        Ok(duration) if range.contains(&duration) => return Some(duration),
        Ok(_) => format!("expected a duration from {range_in_words}, found `{text}`"),
        Err(error) => error.to_string(),
    };
    problems.malformed(path, fault);
    None
}

fn fault_of_trust_domain(name: &str) -> Option<String> {
    let odd = name
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_'));
    match odd {
        Some(odd) => Some(format!(
            "expected lower-case letters, digits, `.`, `-` and `_` only, found {odd:?}"
        )),
        None if name.is_empty() => Some(
            "expected a name, found an empty string; leave the field out for the one that follows from the root CA".to_owned(),
        ),
        None => (name.len() > MAX_TRUST_DOMAIN_BYTES).then(|| {
            format!("expected at most {MAX_TRUST_DOMAIN_BYTES} bytes, found {}", name.len())
        }),
    }
}

/// Checks the path of a SPIFFE ID, which is not empty, and the SANs beside it.
pub(crate) fn check_path(
    spiffe_path: &str,
    sans: &[String],
    trust_domain: Option<&str>,
    policy: &JsonPath,
    problems: &mut Problems,
) {
    let domain = trust_domain.map_or(DEFAULT_TRUST_DOMAIN_BYTES, str::len);
    let limit = MAX_SPIFFE_ID_BYTES.saturating_sub(domain.saturating_add(SPIFFE_ID_FRAME_BYTES));
    let path = policy.key("SPIFFEPath");
    if spiffe_path.len() > limit {
        let message = format!(
            "expected at most {limit} bytes, so that the SPIFFE ID has at most {MAX_SPIFFE_ID_BYTES}, found {}",
            spiffe_path.len()
        );
        problems.malformed(&path, message);
    } else if let Some(fault) = fault_of_path(spiffe_path) {
        problems.malformed(&path, fault);
    }
    // X509-SVID specification, section 2: exactly one URI, the SPIFFE ID.
    for (index, san) in sans.iter().enumerate().filter(|(_, san)| is_uri(san)) {
        let message = format!(
            "expected no URI in a policy with SPIFFEPath, for the SPIFFE ID must be the only one, found `{}`; remove one of them",
            san.escape_debug()
        );
        problems.malformed(&policy.key("SANs").index(index), message);
    }
}

/// Whether rules of the mesh that name a workload could mean `san`: they compare `ns/<namespace>/<kind>/<name>` in any trust domain.
pub(crate) fn names_a_workload(san: &str) -> bool {
    let Some((scheme, rest)) = san.split_once("://") else {
        return false;
    };
    let path: Vec<&str> = rest.split('/').skip(1).collect();
    scheme.eq_ignore_ascii_case("spiffe") && matches!(path.as_slice(), ["ns", _, _, _])
}

/// As certificates take it.
fn is_uri(san: &str) -> bool {
    san.contains("://")
}

fn fault_of_path(path: &str) -> Option<String> {
    let expected = "expected `ns/<namespace>/<kind>/<name>`";
    let odd = path
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/')));
    if let Some(odd) = odd {
        return Some(format!(
            "{expected} of letters, digits, `.`, `-` and `_`, found {odd:?}"
        ));
    }
    let segments: Vec<&str> = path.split('/').collect();
    if let Some(segment) = segments.iter().find(|s| matches!(**s, "" | "." | "..")) {
        return Some(format!("{expected}, found the segment `{segment}`"));
    }
    match segments.as_slice() {
        ["ns", _, kind, _] => kind
            .chars()
            .find(char::is_ascii_uppercase)
            .map(|upper| format!("{expected} with a kind in lower case, found `{upper}` in it")),
        _ => Some(format!("{expected}, found `{path}`")),
    }
}
