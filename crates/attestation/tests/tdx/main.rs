//! TDX evidence of the software TEE against the production verifier.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod attributes;
mod rules;
mod tcb;
mod warm;

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use contrast_attestation::{
    AppraisalReport, Check, Demands, Evidence, EvidenceVerifier as _, Issuer as _, PolicyHash,
    ReferenceValue, ReportData, Root, TdxEvidence, Tee, VerifiedEvidence, Verifier, VerifyError,
    appraisal::TdxDemands,
    software::{SoftwareTee, TdxGuest, TdxQuoteFormat},
};

/// What a test case changes about a guest.
type Change = fn(&mut TdxGuest);

const POLICY: PolicyHash = PolicyHash([7; 32]);
const REPORT_DATA: ReportData = ReportData([9; 64]);
const SIGNATURES: &str = "quote and collateral";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Generated once: its SNP half draws RSA keys, which takes seconds.
fn tee() -> &'static SoftwareTee {
    static TEE: OnceLock<SoftwareTee> = OnceLock::new();
    TEE.get_or_init(|| SoftwareTee::generate(now()).expect("software TEE"))
}

fn guest() -> TdxGuest {
    tee().tdx_guest(POLICY)
}

fn verify_with(
    reference: ReferenceValue,
    evidence: &Evidence,
    at: SystemTime,
) -> Result<VerifiedEvidence, VerifyError> {
    Verifier::new(vec![reference], [POLICY]).verify(evidence, &REPORT_DATA, at)
}

fn verify(guest: &TdxGuest, at: SystemTime) -> Result<VerifiedEvidence, VerifyError> {
    let evidence = guest.issue(&REPORT_DATA).expect("issues");
    verify_with(tee().reference_value(Tee::Tdx), &evidence, at)
}

/// Verifies what `change` makes of the default guest.
fn verify_changed(change: impl FnOnce(&mut TdxGuest)) -> Result<VerifiedEvidence, VerifyError> {
    let mut guest = guest();
    change(&mut guest);
    verify(&guest, now())
}

/// Verifies the default guest against what `change` makes of the demands.
fn verify_demanding(change: impl FnOnce(&mut TdxDemands)) -> Result<VerifiedEvidence, VerifyError> {
    let mut reference = tee().reference_value(Tee::Tdx);
    let Demands::Tdx(demands) = &mut reference.demands else {
        panic!("TDX demands")
    };
    change(demands);
    let evidence = guest().issue(&REPORT_DATA).expect("issues");
    verify_with(reference, &evidence, now())
}

/// Verifies what `change` makes of the default guest against what `demand` makes of the demands, at `time`.
fn verify_both(
    change: impl FnOnce(&mut TdxGuest),
    demand: impl FnOnce(&mut TdxDemands),
    time: SystemTime,
) -> Result<VerifiedEvidence, VerifyError> {
    let mut guest = guest();
    change(&mut guest);
    let mut reference = tee().reference_value(Tee::Tdx);
    let Demands::Tdx(demands) = &mut reference.demands else {
        panic!("TDX demands")
    };
    demand(demands);
    let evidence = guest.issue(&REPORT_DATA).expect("issues");
    verify_with(reference, &evidence, time)
}

fn verifier() -> Verifier {
    Verifier::new(vec![tee().reference_value(Tee::Tdx)], [POLICY])
}

fn verify_tampered(change: impl FnOnce(&mut TdxEvidence)) -> Result<VerifiedEvidence, VerifyError> {
    let Evidence::Tdx(mut evidence) = guest().issue(&REPORT_DATA).expect("issues") else {
        panic!("TDX evidence")
    };
    change(&mut evidence);
    verify_with(
        tee().reference_value(Tee::Tdx),
        &Evidence::Tdx(evidence),
        now(),
    )
}

fn report(result: Result<VerifiedEvidence, VerifyError>) -> AppraisalReport {
    match result {
        Err(VerifyError::Refused(report)) => report,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

fn failed(result: Result<VerifiedEvidence, VerifyError>) -> Vec<Check> {
    let report = report(result);
    let checks = report.sets.iter().flat_map(|set| set.checks.checks());
    checks.filter(|check| !check.passed).cloned().collect()
}

/// Asserts that exactly one check failed, and which.
#[track_caller]
fn assert_only(result: Result<VerifiedEvidence, VerifyError>, field: &str, found: &str) {
    let checks = failed(result);
    let [check] = checks.as_slice() else {
        panic!("expected one failed check: {checks:#?}")
    };
    assert_eq!(check.field, field, "{check}");
    assert!(check.found.contains(found), "{check}");
    assert_ne!(check.expected, check.found);
}

/// Asserts that a check of this field failed, whatever else did.
#[track_caller]
fn assert_among(result: Result<VerifiedEvidence, VerifyError>, field: &str, found: &str) {
    let checks = failed(result);
    assert!(
        checks
            .iter()
            .any(|check| check.field == field && check.found.contains(found)),
        "{checks:#?}"
    );
}
