//! Measurements by the number of vCPUs, and how many vCPUs policies have.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has to stop there"
)]

mod fixture;

use contrast_attestation::{
    Demands,
    appraisal::{ByVcpus, SnpMeasurement},
};
use contrast_manifest::{Manifest, ManifestDocument, ReferenceValues, diff};
use fixture::{parse, policy, problems, valid};
use serde_json::{Value, json};

/// The valid manifest, whose Coordinator has 1 vCPU and whose workload has 3, with measurements by number.
fn by_number(snp: Value, rtmr0: Value) -> Value {
    let mut value = valid();
    value["Policies"][policy("c0")]["VCPUs"] = json!(1);
    value["Policies"][policy("3e")]["VCPUs"] = json!(3);
    let entry = value["ReferenceValues"]["snp"][0]
        .as_object_mut()
        .expect("object");
    entry.remove("TrustedMeasurement");
    entry.insert("TrustedMeasurements".to_owned(), snp);
    let entry = value["ReferenceValues"]["tdx"][0]
        .as_object_mut()
        .expect("object");
    entry.remove("Rtmr0Alternatives");
    entry["Rtmrs"][0] = json!("");
    entry.insert("Rtmr0ByVCPUs".to_owned(), rtmr0);
    value
}

fn digests() -> Value {
    json!({"1": "01".repeat(48), "3": "03".repeat(48), "12": "0c".repeat(48)})
}

fn with_digests(snp: Value) -> Value {
    by_number(snp, digests())
}

fn expected() -> ByVcpus {
    [(1, [1; 48]), (3, [3; 48]), (12, [12; 48])].into()
}

#[test]
fn measurements_by_number_are_read() {
    let manifest = parse(&with_digests(digests())).expect("valid");
    let references = manifest.reference_values();
    let (snp, tdx) = match (&references[0].demands, &references[1].demands) {
        (Demands::Snp(snp), Demands::Tdx(tdx)) => (snp, tdx),
        other => panic!("{other:?}"),
    };
    assert_eq!(snp.measurement, SnpMeasurement::ByVcpus(expected()));
    assert_eq!(tdx.rtmr0_by_vcpus, expected());
    assert_eq!(tdx.rtmrs[3], [0x77; 48]);
    let mut vcpus: Vec<Option<u32>> = manifest
        .policies()
        .values()
        .map(|entry| entry.vcpus.map(|vcpus| vcpus.get()))
        .collect();
    vcpus.sort();
    assert_eq!(vcpus, [Some(1), Some(3)]);
}

#[test]
fn demands_written_and_read_again_are_the_same_in_the_order_of_numbers() {
    let manifest = parse(&with_digests(digests())).expect("valid");
    let mut written = ReferenceValues::default();
    for reference in manifest.reference_values() {
        written.push(&reference, "");
    }
    let mut document =
        ManifestDocument::from_json(manifest.bytes()).expect("the manifest is valid");
    document.reference_values = written;
    let text = document.to_json();
    let again = Manifest::parse(text.as_bytes()).expect("valid");
    let demands = |manifest: &Manifest| -> Vec<Demands> {
        let references = manifest.reference_values().into_iter();
        references.map(|reference| reference.demands).collect()
    };
    assert_eq!(demands(&again), demands(&manifest));
    let at = |key: &str| text.find(&format!("\"{key}\": \"0")).expect("key");
    assert!(at("1") < at("3") && at("3") < at("12"), "{text}");
    assert!(!text.contains("\"TrustedMeasurement\": \"\""), "{text}");
    assert!(text.contains("\"VCPUs\": 3"), "{text}");
}

#[test]
fn one_measurement_is_enough_whatever_policies_say() {
    let mut value = valid();
    value["Policies"][policy("3e")]["VCPUs"] = json!(220);
    let manifest = parse(&value).expect("valid");
    let Demands::Snp(snp) = &manifest.reference_values()[0].demands else {
        panic!("the first reference value is of SNP");
    };
    assert_eq!(snp.measurement, SnpMeasurement::Any([0x11; 48]));
}

#[test]
fn a_policy_without_a_measurement_is_named_with_what_to_run() {
    let value = by_number(
        json!({"1": "01".repeat(48), "3": ""}),
        json!({"3": "03".repeat(48)}),
    );
    assert_eq!(
        problems(&value),
        [
            format!(
                "$.ReferenceValues.snp[0].TrustedMeasurements[\"3\"]: missing; policy {} needs a VM with 3 vCPUs: fill in what \
                 `contrast measure snp ... --vcpus 3` prints",
                policy("3e")
            ),
            format!(
                "$.ReferenceValues.tdx[0].Rtmr0ByVCPUs[\"1\"]: missing; policy {} needs a VM with 1 vCPU: fill in what \
                 `contrast measure tdx ...` prints as RTMR0 with the ACPI files of such a VM",
                policy("c0")
            ),
        ]
    );
    assert!(parse(&value).expect_err("refused").only_gaps());

    let mut both = with_digests(json!({"12": "0c".repeat(48)}));
    both["Policies"][policy("c0")]["VCPUs"] = json!(3);
    let found = problems(&both);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains(&format!(
            "policy {} and 1 more need a VM with 3 vCPUs",
            policy("3e")
        )),
        "{found:?}"
    );
}

#[test]
fn reference_values_of_software_tees_are_looked_at_too() {
    let mut value = with_digests(digests());
    let snp = value["ReferenceValues"]["insecure"][0]["snp"]
        .as_object_mut()
        .expect("object");
    snp.remove("TrustedMeasurement");
    snp.insert("TrustedMeasurements".into(), json!({"1": "01".repeat(48)}));
    let found = problems(&value);
    assert_eq!(found.len(), 1, "{found:?}");
    let path = "$.ReferenceValues.insecure[0].snp.TrustedMeasurements[\"3\"]: missing; ";
    assert!(found[0].starts_with(path), "{found:?}");
}

#[test]
fn numbers_and_digests_that_are_none_are_refused() {
    let path = "$.ReferenceValues.snp[0].TrustedMeasurements";
    for key in [
        "0",
        "221",
        "03",
        "+3",
        " 3",
        "-1",
        "4294967297",
        "three",
        "",
    ] {
        let mut map = digests();
        map[key] = json!("0d".repeat(48));
        let expected = format!(": expected a number of vCPUs, `1` to `220`, found `{key}`");
        let found = problems(&with_digests(map));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(path) && found[0].ends_with(&expected),
            "{found:?}"
        );
    }
    let mut map = digests();
    map["12"] = json!("abcd");
    assert_eq!(
        problems(&with_digests(map)),
        [format!(
            "{path}[\"12\"]: expected a SHA-384 digest, 96 hex digits, found 4 characters"
        )]
    );
    let mut map = digests();
    map["12"] = json!("");
    assert_eq!(
        problems(&with_digests(map)),
        [format!(
            "{path}[\"12\"]: missing; fill in 96 hex digits, or remove it: no policy has this number"
        )]
    );
}

#[test]
fn a_number_that_is_listed_twice_is_refused() {
    let text = serde_json::to_string(&with_digests(digests())).expect("JSON");
    let entry = format!("\"3\":\"{}\"", "03".repeat(48));
    let twice = text.replacen(&entry, &format!("{entry},\"3\":\"{}\"", "04".repeat(48)), 1);
    assert_ne!(twice, text);
    let error = Manifest::parse(twice.as_bytes()).expect_err("refused");
    assert_eq!(
        error.problems()[0].to_string(),
        "$.ReferenceValues.snp[0].TrustedMeasurements[\"3\"]: the field is there twice; keep one of them"
    );
}

#[test]
fn numbers_of_policies_that_are_none_are_refused() {
    for number in [0, 221, -1, i64::MAX] {
        let mut value = with_digests(digests());
        value["Policies"][policy("3e")]["VCPUs"] = json!(number);
        assert_eq!(
            problems(&value),
            [format!(
                "$.Policies[\"{}\"].VCPUs: expected a number from 1 to 220, found {number}",
                policy("3e")
            )]
        );
    }
    let mut value = with_digests(digests());
    value["Policies"][policy("3e")]["VCPUs"] = json!("3");
    assert_eq!(problems(&value).len(), 1);
}

#[test]
fn exactly_one_field_says_the_measurement() {
    let mut value = with_digests(digests());
    value["ReferenceValues"]["snp"][0]["TrustedMeasurement"] = json!("11".repeat(48));
    value["ReferenceValues"]["tdx"][0]["Rtmrs"][0] = json!("44".repeat(48));
    value["ReferenceValues"]["tdx"][0]["Rtmr0Alternatives"] = json!(["88".repeat(48)]);
    let found = problems(&value);
    for (found, start) in found.iter().zip([
        "$.ReferenceValues.snp[0].TrustedMeasurements: expected exactly one of `TrustedMeasurement` and `TrustedMeasurements`, found both; ",
        "$.ReferenceValues.tdx[0].Rtmrs[0]: expected an empty string, ",
        "$.ReferenceValues.tdx[0].Rtmr0Alternatives: expected none, ",
    ]) {
        assert!(found.starts_with(start), "{found}");
    }
    assert_eq!(found.len(), 3, "{found:?}");

    let mut neither = valid();
    neither["ReferenceValues"]["snp"][0]["TrustedMeasurement"] = json!("");
    let found = problems(&neither);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("$.ReferenceValues.snp[0].TrustedMeasurement: missing; "),
        "{found:?}"
    );
}

#[test]
fn evidence_through_a_virtual_tpm_has_one_measurement() {
    let mut value = with_digests(digests());
    for tee in ["snp", "tdx"] {
        value["ReferenceValues"][tee][0]["VTPM"] = json!({"PCRs": {"4": "44".repeat(32)}});
    }
    let found = problems(&value);
    assert_eq!(found.len(), 2, "{found:?}");
    for (found, start) in found.iter().zip([
        "$.ReferenceValues.snp[0].TrustedMeasurements: expected `TrustedMeasurement` beside `VTPM`; ",
        "$.ReferenceValues.tdx[0].Rtmr0ByVCPUs: expected `Rtmrs` alone beside `VTPM`; ",
    ]) {
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn differences_are_explained_in_words() {
    let one = with_digests(digests());
    let mut other = one.clone();
    other["Policies"][policy("c0")]["VCPUs"] = json!(3);
    other["Policies"][policy("3e")]
        .as_object_mut()
        .expect("object")
        .remove("VCPUs");
    let map = &mut other["ReferenceValues"]["snp"][0]["TrustedMeasurements"];
    map["1"] = json!("0a".repeat(48));
    map["4"] = json!("04".repeat(48));
    map.as_object_mut().expect("object").remove("12");
    other["ReferenceValues"]["tdx"][0]
        .as_object_mut()
        .expect("object")
        .remove("Rtmr0ByVCPUs");
    let bytes = |value: &Value| serde_json::to_vec(value).expect("JSON");
    let text = diff::explain(&bytes(&one), &bytes(&other)).to_string();
    let back = diff::explain(&bytes(&other), &bytes(&one)).to_string();
    for line in [
        "VCPUs: expected 1, found 3; evidence of these pods shows the measurement for 1 vCPU in the expected manifest, for 3 vCPUs in the found one",
        "VCPUs: expected 3, found nothing; evidence of these pods shows the measurement for 3 vCPUs in the expected manifest, for any listed number of vCPUs in the found one",
        "(first difference at character 2); the found manifest has another launch digest of VMs with 1 vCPU",
        "; the found manifest also accepts the launch digest of VMs with 4 vCPUs",
        "; the found manifest lacks the launch digest of VMs with 12 vCPUs",
        "; the found manifest does not say the RTMR0 for each number of vCPUs",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let line = "; the found manifest has the RTMR0 for each of these numbers of vCPUs: 1, 3, 12";
    assert!(back.contains(line), "{back}");
}
