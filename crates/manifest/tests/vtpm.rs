//! Reference values for guests with a virtual TPM.

#![allow(
    clippy::expect_used,
    reason = "a test that meets the unexpected has to stop there"
)]

mod fixture;

use contrast_manifest::{Manifest, ManifestDocument};
use fixture::{parse, problems, valid};
use serde_json::{Value, json};

#[test]
fn a_vtpm_entry_survives_the_way_to_the_file_and_back() {
    let mut value = valid();
    let pcrs = json!({"PCRs": {"4": "44".repeat(32), "11": "bb".repeat(32)}});
    for entry in ["snp/0", "tdx/0", "insecure/0/snp"] {
        let pointer = format!("/ReferenceValues/{entry}");
        value.pointer_mut(&pointer).expect("entry")["VTPM"] = pcrs.clone();
    }
    let manifest = parse(&value).expect("valid");
    let mut values = contrast_manifest::ReferenceValues::default();
    for reference in manifest.reference_values() {
        let vtpm = reference.vtpm.as_ref().expect("demands of the vTPM");
        assert_eq!(
            vtpm.pcrs.iter().collect::<Vec<_>>(),
            [(&4, &[0x44; 32]), (&11, &[0xbb; 32])]
        );
        values.push(&reference, "");
    }
    let mut document = ManifestDocument::from_json(manifest.bytes()).expect("reads");
    document.reference_values = values;
    let again = Manifest::parse(document.to_json().as_bytes()).expect("valid");
    let vtpms = |manifest: &Manifest| {
        let references = manifest.reference_values().into_iter();
        references
            .map(|reference| reference.vtpm)
            .collect::<Vec<_>>()
    };
    assert_eq!(vtpms(&again), vtpms(&manifest));
    let plain = parse(&valid()).expect("valid");
    assert!(plain.reference_values().iter().all(|r| r.vtpm.is_none()));
}

#[test]
fn rejects_vtpm_entries_that_pin_nothing_or_the_wrong_thing() {
    let with = |pcrs: Value| {
        let mut value = valid();
        value["ReferenceValues"]["snp"][0]["VTPM"] = json!({ "PCRs": pcrs });
        problems(&value)
    };
    let path = "$.ReferenceValues.snp[0].VTPM.PCRs";
    let boot = "44".repeat(32);
    for (key, digits, expected) in [
        ("8", boot.as_str(), "remove it; PCR 8 must show"),
        (
            "04",
            &boot,
            "expected the index of a PCR, `0` to `15`, found `04`",
        ),
        (
            "+1",
            &boot,
            "expected the index of a PCR, `0` to `15`, found `+1`",
        ),
        (
            "16",
            &boot,
            "expected the index of a PCR, `0` to `15`, found `16`",
        ),
        (
            "23",
            "",
            "expected the index of a PCR, `0` to `15`, found `23`",
        ),
        (
            "256",
            &boot,
            "expected the index of a PCR, `0` to `15`, found `256`",
        ),
        ("7", "", "missing; fill in 64 hex digits"),
        (
            "7",
            "abcd",
            "expected a SHA-256 PCR, 64 hex digits, found 4 characters",
        ),
    ] {
        let found = with(json!({"4": boot, key: digits}));
        assert_eq!(found.len(), 1, "{found:?}");
        let at = format!("[\"{key}\"]: {expected}");
        assert!(
            found[0].contains(&at) || found[0].starts_with(&format!("{path}.{key}: {expected}")),
            "{found:?}"
        );
    }
    for pcrs in [json!({}), json!({"7": boot})] {
        let found = with(pcrs);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("missing; PCR 4 measures the boot loader"));
    }
    let mut value = valid();
    value["ReferenceValues"]["tdx"][0]["VTPM"] = json!({"Pcrs": {"4": boot}});
    assert_eq!(problems(&value).len(), 2, "the unknown field and the gap");
}
