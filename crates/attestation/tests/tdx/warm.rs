//! Platforms that were verified before.

use super::*;

/// Everything that a guest can be made to say.
const CHANGES: [(&str, Change); 21] = [
    ("nothing", |_| {}),
    ("format", |g| g.format = TdxQuoteFormat::V5),
    ("MRTD", |g| g.mr_td[0] ^= 1),
    ("MRSEAM", |g| g.mr_seam[0] ^= 1),
    ("MRCONFIGID", |g| g.mr_config_id[0] ^= 1),
    ("MROWNER", |g| g.mr_owner[0] ^= 1),
    ("MROWNERCONFIG", |g| g.mr_owner_config[0] ^= 1),
    ("RTMR0", |g| g.rtmrs[0][0] ^= 1),
    ("RTMR3", |g| g.rtmrs[3][47] ^= 1),
    ("DEBUG", |g| g.td_attributes[0] ^= 1),
    ("MIGRATABLE", |g| g.td_attributes[3] ^= 0x20),
    ("SEPT_VE_DISABLE", |g| g.td_attributes[3] ^= 0x10),
    ("XFAM", |g| g.xfam[1] ^= 1),
    ("module", |g| g.tee_tcb_svn[0] = 3),
    ("module version", |g| g.tee_tcb_svn[1] = 9),
    ("TDX component", |g| g.tee_tcb_svn[2] = 0),
    ("current module", |g| {
        g.format = TdxQuoteFormat::V5;
        g.tee_tcb_svn2 = Some([3, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }),
    ("service TD", |g| {
        g.format = TdxQuoteFormat::V5;
        g.mr_service_td[0] = 1;
    }),
    ("quoting enclave", |g| g.qe_isv_svn = 2),
    ("PCK certificate", |g| g.pck.smt_enabled = true),
    ("revoked", |g| g.pck.revoked = true),
];

#[test]
fn a_known_platform_is_verified_from_scratch_once() {
    let verifier = verifier();
    for byte in 0..5 {
        let report_data = ReportData([byte; 64]);
        let evidence = guest().issue(&report_data).expect("issues");
        let verified = verifier.verify(&evidence, &report_data, now());
        verified.expect("verified");
    }
    let platforms = verifier.tdx_platforms();
    assert_eq!((platforms.len(), platforms.verifications()), (1, 1));
}

/// The cache must never change an answer: whatever a guest says, a verifier that knows its platform, one that knows its
/// neighbours, and one that knows nothing agree about every check that fails, and about what is accepted.
#[test]
fn what_a_verifier_remembers_never_changes_its_answer() {
    let warm = verifier();
    let answer = |verifier: &Verifier, evidence: &Evidence| match verifier.verify(
        evidence,
        &REPORT_DATA,
        now(),
    ) {
        Ok(verified) => (Some(verified), Vec::new()),
        refused => (None, failed(refused)),
    };
    for round in 0..2 {
        for (name, change) in CHANGES {
            let mut guest = guest();
            change(&mut guest);
            let evidence = guest.issue(&REPORT_DATA).expect("issues");
            let fresh = answer(&verifier(), &evidence);
            for _ in 0..2 {
                assert_eq!(answer(&warm, &evidence), fresh, "{name}, round {round}");
            }
        }
    }
}

#[test]
fn a_forged_quote_of_a_known_platform_is_refused() {
    let verifier = verifier();
    let Evidence::Tdx(genuine) = guest().issue(&REPORT_DATA).expect("issues") else {
        panic!("TDX evidence")
    };
    let verify = |evidence: &TdxEvidence| {
        verifier.verify(&Evidence::Tdx(evidence.clone()), &REPORT_DATA, now())
    };
    verify(&genuine).expect("verified");
    // MRTD in the TD report; the signature does not follow. Then the quote signature itself.
    for offset in [48 + 136, 636, 699] {
        let mut forged = genuine.clone();
        forged.quote[offset] ^= 1;
        assert_among(verify(&forged), SIGNATURES, "signature");
    }
    verify(&genuine).expect("verified");
}

#[test]
fn a_known_platform_expires_with_its_collateral() {
    let verifier = verifier();
    let mut guest = guest();
    let window = guest.collateral.as_mut().expect("collateral");
    (window.issue_date, window.next_update) = (now(), now() + YEAR);
    let evidence = guest.issue(&REPORT_DATA).expect("issues");
    let second = Duration::from_secs(1);
    let verify = |at| verifier.verify(&evidence, &REPORT_DATA, at);
    verify(now()).expect("verified");
    verify(now() + YEAR - second).expect("verified");
    assert_eq!(verifier.tdx_platforms().verifications(), 1);
    for stale in [now() - second, now() + YEAR + second] {
        assert_among(verify(stale), "TCB info validity", "2027");
    }
    // Nothing was forgotten: time that goes back does not make the platform unknown.
    verify(now()).expect("verified");
    assert_eq!(verifier.tdx_platforms().verifications(), 3);
}

#[test]
fn other_collateral_of_a_known_platform_is_verified_from_scratch() {
    let verifier = verifier();
    let Evidence::Tdx(genuine) = guest().issue(&REPORT_DATA).expect("issues") else {
        panic!("TDX evidence")
    };
    let verify =
        |evidence: TdxEvidence| verifier.verify(&Evidence::Tdx(evidence), &REPORT_DATA, now());
    verify(genuine.clone()).expect("verified");
    // The signatures, which the entry is found by, stay the same.
    let mut changed = genuine.clone();
    let collateral = changed.collateral.as_mut().expect("collateral");
    collateral.tcb_info = collateral.tcb_info.replace("OutOfDate", "UpToDate");
    assert_only(verify(changed), SIGNATURES, "tcb_info");
    let mut changed = genuine.clone();
    let collateral = changed.collateral.as_mut().expect("collateral");
    *collateral.pck_crl.last_mut().expect("bytes") ^= 1;
    assert_only(verify(changed), SIGNATURES, "");
    let mut without = genuine;
    without.collateral = None;
    assert_only(verify(without), "collateral", "none");
    assert_eq!(verifier.tdx_platforms().len(), 1);
}

#[test]
fn a_platform_under_another_root_is_not_known() {
    let known = verifier();
    let evidence = guest().issue(&REPORT_DATA).expect("issues");
    known
        .verify(&evidence, &REPORT_DATA, now())
        .expect("verified");
    for root in [Root::Vendor, Root::Insecure { sha256: [1; 32] }] {
        let mut reference = tee().reference_value(Tee::Tdx);
        reference.root = root;
        let other = Verifier::new(vec![reference], [POLICY]).with_chains_of(&known);
        let result = other.verify(&evidence, &REPORT_DATA, now());
        assert_only(result, "root certificate", "");
    }
}

#[test]
fn a_platform_that_was_refused_is_not_known() {
    let verifier = verifier();
    let mut guest = guest();
    guest.collateral.as_mut().expect("collateral").pce_id = [0, 1];
    let evidence = guest.issue(&REPORT_DATA).expect("issues");
    let result = verifier.verify(&evidence, &REPORT_DATA, now());
    assert_only(result, "PCEID of the TCB info", "0001");
    assert!(verifier.tdx_platforms().is_empty());
}

/// What follows a quote, and in which buffer it comes, is not the platform's.
#[test]
fn bytes_after_the_quote_do_not_make_a_platform_unknown() {
    let verifier = verifier();
    let Evidence::Tdx(mut evidence) = guest().issue(&REPORT_DATA).expect("issues") else {
        panic!("TDX evidence")
    };
    for padding in 0..3 {
        evidence.quote.extend(vec![0; padding]);
        let evidence = Evidence::Tdx(evidence.clone());
        verifier
            .verify(&evidence, &REPORT_DATA, now())
            .expect("verified");
    }
    assert_eq!(verifier.tdx_platforms().verifications(), 1);
}

#[test]
fn every_check_that_is_made_has_a_rule_with_a_source() {
    for (name, change) in CHANGES {
        let mut guest = guest();
        change(&mut guest);
        for check in failed_or_none(verify(&guest, now())) {
            let rule = contrast_attestation::specification::rule_of(&check.field);
            assert!(rule.is_some(), "{name}: no rule for {}", check.field);
        }
    }
}

fn failed_or_none(result: Result<VerifiedEvidence, VerifyError>) -> Vec<Check> {
    match result {
        Ok(_) => Vec::new(),
        refused => report(refused)
            .sets
            .iter()
            .flat_map(|set| set.checks.checks().to_vec())
            .collect(),
    }
}
