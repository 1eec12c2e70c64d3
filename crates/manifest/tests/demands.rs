//! What the optional demands of reference values become, and what is wrong with them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has to stop there"
)]

mod fixture;

use contrast_attestation::{
    Demands,
    appraisal::{SnpDemands, TdxDemands, TdxTcbPolicy, TdxTcbStatus},
};
use contrast_manifest::diff;
use fixture::{parse, problems, valid};
use serde_json::{Value, json};

fn demands(value: &Value) -> (SnpDemands, TdxDemands) {
    let manifest = parse(value).expect("valid");
    let references = manifest.reference_values();
    let mut demands = references.iter().map(|r| r.demands.clone());
    match (demands.next(), demands.next()) {
        (Some(Demands::Snp(snp)), Some(Demands::Tdx(tdx))) => (snp, tdx),
        other => panic!("the valid manifest starts with SNP and TDX: {other:?}"),
    }
}

/// The valid manifest's first SNP and TDX reference values without the fields `absent`.
fn without(absent: &[&str]) -> Value {
    let mut value = valid();
    for list in ["snp", "tdx"] {
        let entry = value["ReferenceValues"][list][0]
            .as_object_mut()
            .expect("object");
        entry.retain(|name, _| !absent.contains(&name.as_str()));
    }
    value
}

fn tdx_problems(field: &str, found: Value) -> Vec<String> {
    let mut value = valid();
    value["ReferenceValues"]["tdx"][0][field] = found;
    problems(&value)
}

#[test]
fn optional_demands_are_read() {
    let (snp, tdx) = demands(&valid());
    assert_eq!(snp.trusted_id_key_digests, [[0xa1; 48]]);
    assert_eq!(snp.trusted_author_key_digests, [[0xa2; 48], [0xa3; 48]]);
    assert_eq!(
        (tdx.mr_owner, tdx.mr_owner_config),
        ([0x9a; 48], [0x9b; 48])
    );
    assert_eq!(
        tdx.tcb_policy,
        TdxTcbPolicy {
            accepted: [TdxTcbStatus::OutOfDate, TdxTcbStatus::SwHardeningNeeded].into(),
            platform_grace_period_days: 90,
        }
    );
}

#[test]
fn absent_demands_are_the_strict_ones() {
    let (snp, tdx) = demands(&without(&[
        "TrustedIDKeyDigests",
        "TrustedAuthorKeyDigests",
        "MrOwner",
        "MrOwnerConfig",
        "AcceptedTCBStatus",
        "PlatformGracePeriodDays",
    ]));
    assert!(snp.trusted_id_key_digests.is_empty());
    assert!(snp.trusted_author_key_digests.is_empty());
    assert_eq!((tdx.mr_owner, tdx.mr_owner_config), ([0; 48], [0; 48]));
    assert_eq!(tdx.tcb_policy, TdxTcbPolicy::default());
    for status in TdxTcbStatus::ALL {
        let up_to_date = status == TdxTcbStatus::UpToDate;
        assert_eq!(tdx.tcb_policy.accepts(status), up_to_date, "{status}");
    }
}

#[test]
fn rejects_statuses_that_cannot_be_accepted() {
    let path = "$.ReferenceValues.tdx[0].AcceptedTCBStatus";
    for (found, message) in [
        (
            json!(["UpToDate", "Revoked"]),
            "[1]: expected another status, found `Revoked`; ",
        ),
        (
            json!(["UpToDate", "uptodate"]),
            "[1]: expected one of UpToDate, SWHardeningNeeded, ",
        ),
        (
            json!(["UpToDate", "OutOfDate", "OutOfDate"]),
            "[2]: `OutOfDate` is listed twice",
        ),
        (json!(["OutOfDate"]), ": expected `UpToDate` in the list; "),
    ] {
        let problems = tdx_problems("AcceptedTCBStatus", found);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with(&format!("{path}{message}")),
            "{problems:?}"
        );
    }
}

#[test]
fn every_status_that_intel_has_but_revoked_can_be_accepted() {
    let mut value = valid();
    value["ReferenceValues"]["tdx"][0]["AcceptedTCBStatus"] = json!([
        "UpToDate",
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
        "TDRelaunchAdvised",
        "TDRelaunchAdvisedConfigurationNeeded",
    ]);
    let (_, tdx) = demands(&value);
    assert!(
        TdxTcbStatus::ALL
            .iter()
            .all(|status| tdx.tcb_policy.accepts(*status))
    );
}

#[test]
fn a_grace_period_and_an_outdated_status_need_each_other() {
    let path = "$.ReferenceValues.tdx[0].PlatformGracePeriodDays";
    for days in [0, -1, 3651] {
        assert_eq!(
            tdx_problems("PlatformGracePeriodDays", json!(days)),
            [format!(
                "{path}: expected a number from 1 to 3650, found {days}"
            )]
        );
    }
    let missing = problems(&without(&["PlatformGracePeriodDays"]));
    assert_eq!(missing.len(), 1);
    assert!(
        missing[0].starts_with(&format!("{path}: missing; ")),
        "{missing:?}"
    );
    let idle = tdx_problems(
        "AcceptedTCBStatus",
        json!(["UpToDate", "SWHardeningNeeded"]),
    );
    assert_eq!(
        idle,
        [format!(
            "{path}: it has no effect; remove it, or add OutOfDate to AcceptedTCBStatus"
        )]
    );
}

#[test]
fn rejects_digests_of_keys_that_are_none() {
    for field in ["TrustedIDKeyDigests", "TrustedAuthorKeyDigests"] {
        for (found, message) in [
            (
                "00".repeat(48),
                "expected the digest of a key, found zeros; ",
            ),
            (
                "abcd".to_owned(),
                "expected a SHA-384 digest, 96 hex digits, found 4 characters",
            ),
        ] {
            let mut value = valid();
            value["ReferenceValues"]["snp"][0][field] = json!([found]);
            let problems = problems(&value);
            let expected = format!("$.ReferenceValues.snp[0].{field}[0]: {message}");
            assert_eq!(problems.len(), 1);
            assert!(problems[0].starts_with(&expected), "{problems:?}");
        }
    }
}

#[test]
fn rejects_owner_values_of_another_length() {
    for field in ["MrOwner", "MrOwnerConfig"] {
        let problems = tdx_problems(field, json!("abcd"));
        let expected = format!("$.ReferenceValues.tdx[0].{field}: expected ");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with(&expected), "{problems:?}");
        assert!(
            problems[0].ends_with("96 hex digits, found 4 characters"),
            "{problems:?}"
        );
    }
}

#[test]
fn a_loosened_demand_shows_in_the_differences() {
    let strict = serde_json::to_vec(&without(&["AcceptedTCBStatus", "PlatformGracePeriodDays"]));
    let loose = serde_json::to_vec(&valid());
    let (strict, loose) = (strict.expect("JSON"), loose.expect("JSON"));
    let text = diff::explain(&strict, &loose).to_string();
    for line in [
        "$.ReferenceValues.tdx[0].AcceptedTCBStatus: expected nothing, found [\"UpToDate\",\"OutOfDate\"",
        "$.ReferenceValues.tdx[0].PlatformGracePeriodDays: expected nothing, found 90",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
