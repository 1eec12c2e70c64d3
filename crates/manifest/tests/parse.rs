//! What is accepted and what is refused, with which words.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod fixture;

use contrast_attestation::{Demands, Root};
use contrast_manifest::{Manifest, ManifestDocument, ManifestHash, OwnerKeyDigest, Role};
use fixture::{OWNER_KEY, parse, policy, problems, problems_with, valid};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn accepts_a_complete_manifest_and_knows_every_part() {
    let bytes = serde_json::to_vec(&valid()).expect("JSON");
    let manifest = Manifest::parse(&bytes).expect("valid");
    assert_eq!(manifest.bytes(), bytes);
    assert_eq!(manifest.hash(), ManifestHash::of(&bytes));
    assert_eq!(manifest.policies().len(), 2);
    assert_eq!(coordinators(&manifest), [policy("c0")]);
    let coordinator = &manifest.policies()[manifest.coordinators().first().expect("one")];
    assert_eq!(
        (coordinator.role, coordinator.sans.len()),
        (Role::Coordinator, 2)
    );

    let references = manifest.reference_values();
    let names: Vec<&str> = references.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["snp[0] Metal-QEMU-SNP", "tdx[0]", "insecure[0]"]);
    assert!(manifest.accepts_insecure_evidence());
    assert_eq!(references[2].root, Root::Insecure { sha256: [0xaa; 32] });
    let Demands::Snp(snp) = &references[0].demands else {
        panic!("SNP first")
    };
    assert_eq!(
        (snp.minimum_tcb.microcode, snp.minimum_tcb.fmc),
        (115, None)
    );
    assert!(snp.guest_policy.smt && !snp.guest_policy.debug);
    let Demands::Tdx(tdx) = &references[1].demands else {
        panic!("TDX second")
    };
    assert_eq!(
        (tdx.rtmrs[3], tdx.min_tcb_evaluation_data_number),
        ([0x77; 48], 17)
    );

    let owner = OwnerKeyDigest::of(&hex::decode(OWNER_KEY.as_str()).expect("hex"));
    assert!(manifest.workload_owners().contains(&owner));
    assert!(
        manifest
            .workload_owners()
            .contains(&OwnerKeyDigest([0xcc; 32]))
    );
    assert_eq!(
        (
            manifest.workload_owner_threshold(),
            manifest.seedshare_threshold()
        ),
        (2, 2)
    );
    assert_eq!(manifest.seedshare_owners().len(), 2);
}

#[test]
fn document_written_and_read_again_is_the_same() {
    let bytes = serde_json::to_vec(&valid()).expect("JSON");
    let document = ManifestDocument::from_json(&bytes).expect("reads");
    let text = document.to_json();
    assert!(text.ends_with("}\n") && text.contains("\n  \"Policies\": {"));
    assert_eq!(
        ManifestDocument::from_json(text.as_bytes()).expect("reads"),
        document
    );
    Manifest::parse(text.as_bytes()).expect("still valid");
}

#[test]
fn reference_values_survive_the_way_to_the_file_and_back() {
    let manifest = parse(&valid()).expect("valid");
    let mut document = ManifestDocument::from_json(manifest.bytes()).expect("reads");
    document.reference_values = contrast_manifest::ReferenceValues::default();
    for (reference, platform) in manifest
        .reference_values()
        .iter()
        .zip(["Metal-QEMU-SNP", "", ""])
    {
        document.reference_values.push(reference, platform);
    }
    let again = Manifest::parse(document.to_json().as_bytes()).expect("valid");
    assert_eq!(again.reference_values(), manifest.reference_values());
}

#[test]
fn defaults_are_one_owner_each_and_no_updates() {
    let mut value = valid();
    for field in [
        "WorkloadOwnerKeyDigests",
        "WorkloadOwnerPubKeys",
        "WorkloadOwnerThreshold",
        "SeedshareThreshold",
    ] {
        value.as_object_mut().expect("object").remove(field);
    }
    let manifest = parse(&value).expect("valid");
    assert!(manifest.workload_owners().is_empty());
    assert_eq!(
        (
            manifest.workload_owner_threshold(),
            manifest.seedshare_threshold()
        ),
        (1, 1)
    );
}

#[test]
fn lists_every_unknown_field() {
    let mut value = valid();
    value["Colour"] = json!("red");
    value["ReferenceValues"]["snp"][0]["MinimumTCB"]["SNPVersoin"] = json!(8);
    value["Policies"][policy("3e")]["Sans"] = json!([]);
    let found = problems(&value);
    assert_eq!(found.len(), 3);
    for path in [
        "$.Colour".to_owned(),
        "$.ReferenceValues.snp[0].MinimumTCB.SNPVersoin".to_owned(),
        format!(r#"$.Policies["{}"].Sans"#, policy("3e")),
    ] {
        let expected = format!(
            "{path}: unknown field; remove it, correct its name, or use the version that knows it"
        );
        assert!(found.contains(&expected), "{expected} in {found:#?}");
    }
}

#[test]
fn lists_every_value_of_a_wrong_type() {
    let mut value = valid();
    value["SeedshareThreshold"] = json!("one");
    value["Policies"][policy("3e")]["SANs"][2] = json!(7);
    value["ReferenceValues"]["snp"][0]["MinimumTCB"]["SNPVersion"] = json!(8.5);
    let found = problems(&value);
    assert_eq!(found.len(), 3, "{found:#?}");
    for path in [
        "$.SeedshareThreshold: invalid type: string \"one\"".to_owned(),
        format!(
            "$.Policies[\"{}\"].SANs[2]: invalid type: integer `7`",
            policy("3e")
        ),
        "$.ReferenceValues.snp[0].MinimumTCB.SNPVersion: invalid type: floating point `8.5`"
            .to_owned(),
    ] {
        assert!(
            found.iter().any(|problem| problem.starts_with(&path)),
            "{path} in {found:#?}"
        );
    }
}

#[test]
fn lists_problems_of_shape_and_meaning_together() {
    let mut value = valid();
    value["Colour"] = json!(1);
    value["SeedshareThreshold"] = json!(3);
    value["WorkloadOwnerThreshold"] = json!(0);
    let error = parse(&value).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the manifest has 3 problems:\n  $.Colour: unknown field; remove it, correct its name, or use the version that knows it\n  \
         $.WorkloadOwnerThreshold: expected a number from 1 to the number of owners (2), found 0\n  \
         $.SeedshareThreshold: expected a number from 1 to the number of owners (2), found 3"
    );
}

#[test]
fn rejects_duplicate_fields() {
    let text = serde_json::to_string(&valid()).expect("JSON");
    let twice = text.replacen("{\"Policies\"", "{\"SeedshareThreshold\":1,\"Policies\"", 1);
    let error = Manifest::parse(twice.as_bytes()).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the manifest is not valid: $.SeedshareThreshold: the field is there twice; keep one of them"
    );
}

#[test]
fn rejects_what_is_no_json_object() {
    for (bytes, message) in [
        (&b""[..], "not a JSON document: EOF"),
        (b"[]", "expected a JSON object, found an array"),
        (b"{\"Policies\": ", "not a JSON document: EOF"),
        (b"\xff", "not a JSON document: expected value"),
        (b"{} x", "not a JSON document: trailing characters"),
    ] {
        let error = Manifest::parse(bytes).expect_err("refused").to_string();
        assert!(
            error.starts_with(&format!("the manifest is not valid: $: {message}")),
            "{error}"
        );
    }
    let oversized = vec![b' '; contrast_manifest::MAX_MANIFEST_BYTES + 1];
    let error = Manifest::parse(&oversized)
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("at most 4194304 bytes, found 4194305"),
        "{error}"
    );
}

#[test]
fn rejects_policy_hash_that_is_not_hex_or_has_a_wrong_length() {
    for (key, message) in [
        (
            "ab".repeat(31),
            "expected a policy hash (SHA-256), 64 hex digits, found 62 characters",
        ),
        (
            "zz".repeat(32),
            "expected hex digits only, found 'z' at position 0",
        ),
        ("AB".repeat(32), "expected lower-case hex digits, found `A`"),
    ] {
        let mut value = valid();
        value["Policies"][&key] = json!({"SANs": ["x"]});
        assert_eq!(
            problems(&value),
            [format!("$.Policies[\"{key}\"]: {message}")]
        );
    }
}

fn coordinators(manifest: &Manifest) -> Vec<String> {
    manifest
        .coordinators()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn coordinators_of_two_versions_are_both_accepted_and_workloads_are_none_of_them() {
    let mut value = valid();
    value["Policies"][policy("c1")] = json!({"SANs": ["coordinator"], "Role": "coordinator"});
    let manifest = parse(&value).expect("valid");
    assert_eq!(coordinators(&manifest), [policy("c0"), policy("c1")]);
    assert_eq!(manifest.policies().len(), 3);
}

#[test]
fn rejects_a_manifest_without_coordinator_and_an_unknown_role() {
    let pointer = format!("/Policies/{}/Role", policy("c0"));
    assert_eq!(
        problems_with(&pointer, json!("")),
        [
            "$.Policies: expected at least one policy with Role `coordinator`, found none; deploy a Coordinator and run generate again"
        ]
    );
    let pointer = format!("/Policies/{}/Role", policy("3e"));
    assert_eq!(
        problems_with(&pointer, json!("admin")),
        [format!(
            r#"$.Policies["{}"].Role: expected `coordinator` or an empty string, found `admin`"#,
            policy("3e")
        )]
    );
}

#[test]
fn rejects_names_that_no_certificate_can_carry() {
    let pointer = format!("/Policies/{}/SANs/0", policy("3e"));
    let path = format!(r#"$.Policies["{}"].SANs[0]"#, policy("3e"));
    for (san, message) in [
        (
            String::new(),
            "expected an IP address, a URI or a DNS name, found an empty string".to_owned(),
        ),
        (
            "a b".to_owned(),
            "expected visible ASCII characters only, found ' '".to_owned(),
        ),
        (
            "f*.example.com".to_owned(),
            "expected `*`, or a wildcard as the whole first label of a DNS name (`*.example.com`), found `f*.example.com`".to_owned(),
        ),
        (
            "*.*.example.com".to_owned(),
            "expected `*`, or a wildcard as the whole first label of a DNS name (`*.example.com`), found `*.*.example.com`".to_owned(),
        ),
        (
            "SPIFFE://other/ns/shop/deployment/pay".to_owned(),
            "expected no SPIFFE ID of the form that SPIFFEPath makes, by which the mesh tells workloads apart, found \
             `SPIFFE://other/ns/shop/deployment/pay`; write SPIFFEPath instead"
                .to_owned(),
        ),
        (
            "x".repeat(254),
            "expected at most 253 bytes, found 254".to_owned(),
        ),
    ] {
        assert_eq!(
            problems_with(&pointer, json!(san)),
            [format!("{path}: {message}")]
        );
    }
}

#[test]
fn wildcards_and_foreign_uris_are_names() {
    for san in [
        "*",
        "*.example.com",
        "spiffe://example/web",
        "https://example.com/*",
    ] {
        let mut value = valid();
        value["Policies"][policy("3e")]["SANs"][0] = json!(san);
        let text = value.to_string();
        assert!(Manifest::parse(text.as_bytes()).is_ok(), "{san}");
    }
}

#[test]
fn rejects_guest_policy_with_debug_or_migration() {
    let mut value = valid();
    value["ReferenceValues"]["snp"][0]["GuestPolicy"]["Debug"] = json!(true);
    value["ReferenceValues"]["insecure"][0]["snp"]["GuestPolicy"]["MigrateMA"] = json!(true);
    let found = problems(&value);
    assert_eq!(found.len(), 2);
    assert!(
        found[0].starts_with(
            "$.ReferenceValues.snp[0].GuestPolicy.Debug: expected false, found true; "
        )
    );
    assert!(found[1].starts_with(
        "$.ReferenceValues.insecure[0].snp.GuestPolicy.MigrateMA: expected false, found true; "
    ));
}

#[test]
fn rejects_tcb_numbers_that_are_missing_or_out_of_range() {
    let found = problems_with(
        "/ReferenceValues/snp/0/MinimumTCB",
        json!({"BootloaderVersion": 256, "TEEVersion": -1, "SNPVersion": 1, "FMCVersion": 1}),
    );
    assert_eq!(
        found,
        [
            "$.ReferenceValues.snp[0].MinimumTCB.BootloaderVersion: expected a number from 0 to 255, found 256",
            "$.ReferenceValues.snp[0].MinimumTCB.TEEVersion: expected a number from 0 to 255, found -1",
            "$.ReferenceValues.snp[0].MinimumTCB.MicrocodeVersion: missing; fill in the lowest version, 0 to 255, that you accept on your machines",
            "$.ReferenceValues.snp[0].MinimumTCB.FMCVersion: only Turin has an FMC version; remove it for Milan",
        ]
    );
}

#[test]
fn turin_needs_an_fmc_version() {
    let mut value = valid();
    value["ReferenceValues"]["snp"][0]["ProductName"] = json!("Turin");
    assert!(
        problems(&value)[0]
            .starts_with("$.ReferenceValues.snp[0].MinimumTCB.FMCVersion: missing; ")
    );
    value["ReferenceValues"]["snp"][0]["MinimumTCB"]["FMCVersion"] = json!(1);
    parse(&value).expect("valid");
}

#[test]
fn gaps_that_the_operator_has_to_fill_are_told_apart() {
    let mut value = valid();
    value["ReferenceValues"]["snp"][0]["MinimumTCB"] = json!({});
    value["ReferenceValues"]["tdx"][0]["MrSeam"] = json!("");
    let error = parse(&value).expect_err("refused");
    assert_eq!(error.problems().len(), 5);
    assert!(error.only_gaps());
    value["SeedshareThreshold"] = json!(0);
    assert!(!parse(&value).expect_err("refused").only_gaps());
}

#[test]
fn rejects_hex_of_wrong_length_anywhere() {
    for (pointer, path, digits) in [
        (
            "/ReferenceValues/snp/0/TrustedMeasurement",
            "$.ReferenceValues.snp[0].TrustedMeasurement",
            96,
        ),
        (
            "/ReferenceValues/snp/0/AllowedChipIDs/0",
            "$.ReferenceValues.snp[0].AllowedChipIDs[0]",
            128,
        ),
        (
            "/ReferenceValues/tdx/0/MrTd",
            "$.ReferenceValues.tdx[0].MrTd",
            96,
        ),
        (
            "/ReferenceValues/tdx/0/MrSeam",
            "$.ReferenceValues.tdx[0].MrSeam",
            96,
        ),
        (
            "/ReferenceValues/tdx/0/Rtmrs/2",
            "$.ReferenceValues.tdx[0].Rtmrs[2]",
            96,
        ),
        (
            "/ReferenceValues/tdx/0/Rtmr0Alternatives/0",
            "$.ReferenceValues.tdx[0].Rtmr0Alternatives[0]",
            96,
        ),
        (
            "/ReferenceValues/tdx/0/Xfam",
            "$.ReferenceValues.tdx[0].Xfam",
            16,
        ),
        (
            "/ReferenceValues/tdx/0/AllowedPIIDs/0",
            "$.ReferenceValues.tdx[0].AllowedPIIDs[0]",
            32,
        ),
        (
            "/ReferenceValues/insecure/0/RootSHA256",
            "$.ReferenceValues.insecure[0].RootSHA256",
            64,
        ),
        (
            "/WorkloadOwnerKeyDigests/0",
            "$.WorkloadOwnerKeyDigests[0]",
            64,
        ),
    ] {
        let found = problems_with(pointer, json!("abcd"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(&format!("{path}: expected ")),
            "{found:?}"
        );
        assert!(
            found[0].ends_with(&format!("{digits} hex digits, found 4 characters")),
            "{found:?}"
        );
    }
}

#[test]
fn rejects_incomplete_reference_values() {
    assert_eq!(
        problems_with("/ReferenceValues", json!({})),
        [
            "$.ReferenceValues: expected at least one entry in `snp`, `tdx` or `insecure`; nothing can be attested without one"
        ]
    );
    assert_eq!(
        problems_with("/ReferenceValues/tdx/0/Rtmrs", json!(["00"])),
        ["$.ReferenceValues.tdx[0].Rtmrs: expected 4 entries, RTMR0 to RTMR3, found 1"]
    );
    assert_eq!(
        problems_with("/ReferenceValues/tdx/0/Rtmrs", json!([])),
        ["$.ReferenceValues.tdx[0].Rtmrs: missing; fill in RTMR0 to RTMR3, 96 hex digits each"]
    );
    assert_eq!(
        problems_with(
            "/ReferenceValues/insecure/0",
            json!({"RootSHA256": "aa".repeat(32)})
        ),
        ["$.ReferenceValues.insecure[0]: expected exactly one of `snp` and `tdx`, found neither"]
    );
    assert_eq!(
        problems_with("/ReferenceValues/snp/0/ProductName", json!("Rome")),
        ["$.ReferenceValues.snp[0].ProductName: expected Milan, Genoa or Turin, found `Rome`"]
    );
}

proptest! {
    #[test]
    fn never_panics_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::parse(&bytes);
    }

    #[test]
    fn never_panics_on_a_damaged_manifest(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = serde_json::to_vec(&valid()).expect("JSON");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Manifest::parse(&bytes);
    }
}
