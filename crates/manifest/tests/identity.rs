//! SPIFFE IDs, lifetimes of certificates and overlaps of mesh CAs.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has to stop there"
)]

mod fixture;

use std::time::Duration;

use contrast_manifest::{ManifestDocument, diff};
use fixture::{parse, policy, problems, valid};
use serde_json::{Value, json};

/// The valid manifest with `path` as the SPIFFEPath of its workload, and no URI beside it.
fn with_path(path: &str) -> Value {
    let mut value = valid();
    let workload = &mut value["Policies"][policy("3e")];
    workload["SPIFFEPath"] = json!(path);
    workload["SANs"] = json!(["web", "*", "10.0.0.1"]);
    value
}

fn with(field: &str, value: &str) -> Value {
    let mut manifest = valid();
    manifest[field] = json!(value);
    manifest
}

#[test]
fn absent_fields_mean_no_spiffe_id_a_week_and_no_overlap() {
    let manifest = parse(&valid()).expect("valid");
    assert!(
        manifest
            .policies()
            .values()
            .all(|entry| entry.spiffe_path.is_none())
    );
    assert_eq!(manifest.trust_domain(), None);
    assert_eq!(manifest.mesh_cert_lifetime(), Duration::from_hours(168));
    assert_eq!(manifest.mesh_ca_overlap(), Duration::ZERO);
}

#[test]
fn all_fields_are_read_and_survive_the_way_to_the_file() {
    let mut value = with_path("ns/default/deployment/web");
    value["TrustDomain"] = json!("prod.example_1-a");
    value["MeshCertLifetime"] = json!("1h30m");
    value["MeshCAOverlap"] = json!("10m");
    let document = ManifestDocument::from_json(value.to_string().as_bytes()).expect("reads");
    let manifest = parse(&serde_json::from_str(&document.to_json()).expect("JSON")).expect("valid");
    let paths: Vec<Option<&str>> = manifest
        .policies()
        .values()
        .map(|entry| entry.spiffe_path.as_deref())
        .collect();
    assert_eq!(paths, [Some("ns/default/deployment/web"), None]);
    assert_eq!(manifest.trust_domain(), Some("prod.example_1-a"));
    assert_eq!(manifest.mesh_cert_lifetime(), Duration::from_mins(90));
    assert_eq!(manifest.mesh_ca_overlap(), Duration::from_mins(10));
}

#[test]
fn paths_of_another_form_are_refused_with_what_is_wrong() {
    let form = "expected `ns/<namespace>/<kind>/<name>`";
    for (path, words) in [
        ("/ns/a/pod/b", "found the segment ``"),
        ("ns/a/pod/b/", "found the segment ``"),
        ("ns//pod/b", "found the segment ``"),
        ("ns/a/pod/..", "found the segment `..`"),
        ("ns/./pod/b", "found the segment `.`"),
        ("ns/a/pod", "found `ns/a/pod`"),
        ("ns/a/pod/b/c", "found `ns/a/pod/b/c`"),
        ("sa/a/pod/b", "found `sa/a/pod/b`"),
        ("ns/a/Pod/b", "with a kind in lower case, found `P` in it"),
        ("ns/a/pod/b%20", "found '%'"),
        ("ns/a/pod/b c", "found ' '"),
        ("ns/a/pod/b?", "found '?'"),
        ("ns/a/pod/bé", "found 'é'"),
        ("ns/a/pod/b\n", "found '\\n'"),
    ] {
        let found = problems(&with_path(path));
        let [problem] = &found[..] else {
            panic!("{path}: expected one problem, found {found:?}");
        };
        let at = format!("SPIFFEPath: {form}");
        assert!(
            problem.starts_with("$.Policies") && problem.contains(&at) && problem.contains(words),
            "{path}: {problem}"
        );
    }
}

#[test]
fn a_spiffe_id_is_at_most_2048_bytes_long_with_its_trust_domain() {
    let path = |name: usize| format!("ns/a/pod/{}", "n".repeat(name));
    // `spiffe://`, 64 hex digits, `/`, the path.
    let fits = 2048 - 9 - 64 - 1 - "ns/a/pod/".len();
    parse(&with_path(&path(fits))).expect("fits");
    let found = problems(&with_path(&path(fits + 1)));
    assert!(
        found[0].contains("expected at most 1974 bytes") && found[0].contains("found 1975"),
        "{found:?}"
    );
    let mut value = with_path(&path(fits + 1));
    value["TrustDomain"] = json!("short");
    parse(&value).expect("fits with a shorter trust domain");
}

#[test]
fn no_uri_may_stand_beside_a_spiffe_path() {
    let mut value = with_path("ns/default/deployment/web");
    value["Policies"][policy("3e")]["SANs"] = json!(["web", "spiffe://example/web"]);
    let found = problems(&value);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("SANs[1]") && found[0].contains("found `spiffe://example/web`"),
        "{found:?}"
    );
    value["Policies"][policy("3e")]["SPIFFEPath"] = json!("");
    parse(&value).expect("without a SPIFFE ID, URIs are as free as before");
}

#[test]
fn several_policies_may_be_of_one_workload() {
    let mut value = with_path("ns/default/deployment/web");
    let policies = value["Policies"].as_object_mut().expect("object");
    let web = policies[&policy("3e")].clone();
    policies.insert(policy("3f"), web);
    parse(&value).expect("valid");
}

#[test]
fn trust_domains_that_are_none_are_refused() {
    parse(&with("TrustDomain", &"d".repeat(255))).expect("valid");
    for (name, words) in [
        ("", "found an empty string"),
        ("Example.org", "found 'E'"),
        ("example.org/x", "found '/'"),
        ("example:1", "found ':'"),
        (&"d".repeat(256), "at most 255 bytes, found 256"),
    ] {
        let found = problems(&with("TrustDomain", name));
        assert!(
            found.len() == 1 && found[0].starts_with("$.TrustDomain: ") && found[0].contains(words),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn durations_out_of_bounds_are_refused() {
    for (field, value, words) in [
        ("MeshCertLifetime", "59s", "from 1m to 8760h, found `59s`"),
        ("MeshCertLifetime", "0s", "from 1m to 8760h"),
        ("MeshCertLifetime", "8760h1s", "from 1m to 8760h"),
        ("MeshCertLifetime", "a week", "such as `7d`"),
        ("MeshCertLifetime", "", "such as `7d`"),
        ("MeshCAOverlap", "24h1s", "from 0s to 24h"),
        ("MeshCAOverlap", "-1s", "such as `7d`"),
    ] {
        let found = problems(&with(field, value));
        assert!(
            found.len() == 1
                && found[0].starts_with(&format!("$.{field}: "))
                && found[0].contains(words),
            "{field} {value}: {found:?}"
        );
    }
    for (field, value) in [
        ("MeshCertLifetime", "1m"),
        ("MeshCertLifetime", "365d"),
        ("MeshCAOverlap", "0s"),
        ("MeshCAOverlap", "1d"),
    ] {
        parse(&with(field, value)).unwrap_or_else(|error| panic!("{field} {value}: {error}"));
    }
    let mut value = with("MeshCertLifetime", "10m");
    value["MeshCAOverlap"] = json!("10m1s");
    let found = problems(&value);
    assert!(
        found.len() == 1
            && found[0].contains("$.MeshCAOverlap: ")
            && found[0].contains("600 s, found 601 s"),
        "{found:?}"
    );
}

#[test]
fn denied_keys_are_digests_and_each_is_there_once() {
    let listed = |keys: Value| {
        let mut value = valid();
        value["DeniedCertificateKeys"] = keys;
        value
    };
    let (one, other) = ("ab".repeat(32), "cd".repeat(32));
    let manifest = parse(&listed(json!([other, one]))).expect("valid");
    let denied = manifest.denied_certificate_keys().iter();
    let denied: Vec<String> = denied.map(ToString::to_string).collect();
    assert_eq!(denied, [one.clone(), other]);
    assert!(
        parse(&valid())
            .expect("valid")
            .denied_certificate_keys()
            .is_empty()
    );
    for (keys, expected) in [
        (
            json!([one, one.to_uppercase()]),
            "$.DeniedCertificateKeys[1]: the same key is listed twice; remove one of the entries",
        ),
        (
            json!(["abcd"]),
            "$.DeniedCertificateKeys[0]: expected the SHA-256 of a certificate's public key, 64 hex digits, found 4 characters",
        ),
        (json!(one), "$.DeniedCertificateKeys: invalid type"),
    ] {
        let found = problems(&listed(keys));
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{found:?}"
        );
    }
}

#[test]
fn differences_are_explained_in_words() {
    let one = valid();
    let mut other = with_path("ns/default/deployment/web");
    other["Policies"][policy("3e")]["SANs"] = one["Policies"][policy("3e")]["SANs"].clone();
    other["TrustDomain"] = json!("example.org");
    other["MeshCertLifetime"] = json!("24h");
    other["MeshCAOverlap"] = json!("10m");
    other["DeniedCertificateKeys"] = json!(["ab".repeat(32)]);
    let text = diff::explain(one.to_string().as_bytes(), other.to_string().as_bytes()).to_string();
    for line in [
        "SPIFFEPath: expected nothing, found \"ns/default/deployment/web\"; certificates of these pods carry no SPIFFE ID in the expected manifest, a SPIFFE ID with the path `ns/default/deployment/web` in the found one",
        "; all SPIFFE IDs are in the trust domain of the root CA in the expected manifest, in the trust domain `example.org` in the found one",
        "; mesh certificates are valid for 168h (the default) in the expected manifest, for 24h in the found one",
        "stay trusted not at all in the expected manifest, for 10m in the found one",
        "; the found manifest also denies certificates to this key",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}
