//! Measurements by the number of vCPUs that a policy says.

use super::*;
use crate::appraisal::{ByVcpus, SnpMeasurement};

const OTHER_POLICY: PolicyHash = PolicyHash([0x0b; 32]);

fn digest_of(vcpus: u32) -> [u8; 48] {
    [u8::try_from(vcpus).expect("few vCPUs"); 48]
}

/// A guest with `vcpus` vCPUs that runs under `policy`.
fn guest_of(policy: PolicyHash, vcpus: u32) -> SnpGuest {
    let mut guest = software_tee().snp_guest(policy);
    guest.measurement = digest_of(vcpus);
    guest
}

/// The failed checks when POLICY has 3 vCPUs, the other one does not say how many, and the reference value has measurements for
/// `listed`.
fn failed(guest: &SnpGuest, listed: &[u32]) -> Vec<String> {
    let listed: ByVcpus = listed.iter().map(|n| (*n, digest_of(*n))).collect();
    let reference = ReferenceValue {
        vtpm: None,
        name: "snp[0]".to_owned(),
        root: root(),
        demands: Demands::Snp(SnpDemands {
            measurement: SnpMeasurement::ByVcpus(listed),
            ..demands()
        }),
    };
    let verifier = Verifier::new(vec![reference], [POLICY, OTHER_POLICY]).with_vcpus([(POLICY, 3)]);
    match verifier.verify(&Evidence::Snp(evidence(guest)), &REPORT_DATA, now()) {
        Ok(_) => Vec::new(),
        Err(VerifyError::Refused(report)) => {
            let checks = report.sets.iter().flat_map(|set| set.checks.checks());
            let failed = checks.filter(|check| !check.passed);
            failed.map(ToString::to_string).collect()
        }
        Err(error) => unreachable!("{error}"),
    }
}

#[test]
fn the_measurement_for_the_number_of_the_policy_is_accepted() {
    assert_eq!(failed(&guest_of(POLICY, 3), &[1, 3, 12]), [""; 0]);
}

#[test]
fn the_measurement_for_another_number_is_refused_with_both_numbers() {
    let expected = format!(
        "MEASUREMENT: expected {} (for the 3 vCPUs of this policy), found {} (for 1 vCPU)",
        "03".repeat(48),
        "01".repeat(48)
    );
    assert_eq!(failed(&guest_of(POLICY, 1), &[1, 3, 12]), [expected]);
}

#[test]
fn a_measurement_for_no_number_is_refused() {
    let found = format!("found {} (for no listed number of vCPUs)", "02".repeat(48));
    for (policy, expected) in [
        (
            POLICY,
            format!("{} (for the 3 vCPUs of this policy)", "03".repeat(48)),
        ),
        (
            OTHER_POLICY,
            "one of the measurements for 1, 3 or 12 vCPUs".to_owned(),
        ),
    ] {
        assert_eq!(
            failed(&guest_of(policy, 2), &[1, 3, 12]),
            [format!("MEASUREMENT: expected {expected}, {found}")]
        );
    }
}

#[test]
fn a_policy_without_a_number_may_show_any_listed_measurement() {
    for vcpus in [1, 3, 12] {
        assert_eq!(
            failed(&guest_of(OTHER_POLICY, vcpus), &[1, 3, 12]),
            [""; 0],
            "{vcpus}"
        );
    }
}

#[test]
fn a_number_without_a_measurement_accepts_nothing() {
    let expected = format!(
        "MEASUREMENT: expected the measurement for the 3 vCPUs of this policy, which the reference value does not have (it has those \
         for 1 or 2 vCPUs), found {} (for 1 vCPU)",
        "01".repeat(48)
    );
    assert_eq!(failed(&guest_of(POLICY, 1), &[1, 2]), [expected]);
    // Not even the right one, when nobody listed it.
    assert_eq!(failed(&guest_of(POLICY, 3), &[1, 2]).len(), 1);
    assert_eq!(failed(&guest_of(POLICY, 3), &[]).len(), 1);
    assert_eq!(failed(&guest_of(OTHER_POLICY, 3), &[]).len(), 1);
}

#[test]
fn one_measurement_for_all_is_accepted_from_every_policy() {
    let guest = guest();
    let verifier = verifier(demands()).with_vcpus([(POLICY, 3)]);
    let evidence = Evidence::Snp(evidence(&guest));
    let verified = verifier.verify(&evidence, &REPORT_DATA, now());
    assert_eq!(
        verified.expect("accepted").measurement(),
        &guest.measurement
    );
}
