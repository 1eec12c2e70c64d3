//! Certificate chains, CRLs and the cache of verified chains.

use proptest::prelude::*;

use super::*;
use crate::{
    CheckList,
    snp::{ChainCache, appraise},
    vcpus::{Reference, VcpusOfPolicies},
};

#[test]
fn certificates_out_of_their_time_are_named_with_validity_and_now() {
    let guest = guest();
    assert_eq!(
        failures_at(&guest, demands(), now() + 30 * YEAR),
        [
            "ARK certificate (ARK-Milan) validity",
            "ASK certificate (SEV-Milan) validity",
            "VEK certificate (SEV-VCEK) validity"
        ]
    );
    let evidence = Evidence::Snp(evidence(&guest));
    let error = verifier(demands()).verify(&evidence, &REPORT_DATA, now() - YEAR);
    let error = error.expect_err("not yet valid").to_string();
    let line = "VEK certificate (SEV-VCEK) validity: expected a time from 2027-01-15T07:00:00Z to \
                2034-01-13T08:00:00Z, found now = 2026-01-15T08:00:00Z (not yet valid)";
    assert!(error.contains(line), "{error}");
}

#[test]
fn a_chain_under_another_root_is_refused_at_the_root_and_never_verified_or_cached() {
    let chains = ChainCache::default();
    for root in [Root::Vendor, Root::Insecure { sha256: [1; 32] }] {
        let mut checks = CheckList::default();
        let evidence = evidence(&guest());
        let facts = appraise(
            &evidence,
            &Reference {
                root,
                demands: &demands(),
                vcpus: &VcpusOfPolicies::new(),
            },
            &REPORT_DATA,
            now(),
            &chains,
            &mut checks,
        );
        assert_eq!(facts, None);
        let failed: Vec<_> = checks
            .checks()
            .iter()
            .filter(|check| !check.passed)
            .collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(failed[0].field, "ARK");
    }
    assert_eq!((chains.len(), chains.verifications()), (0, 0));
}

#[test]
fn a_crl_counts_when_it_is_there() {
    let tee = software_tee();
    let (before, after) = (now() - YEAR, now() + YEAR);
    let crl = |revokes_ask, from, to| tee.snp_crl(revokes_ask, from, to).expect("CRL");
    let with_crl = |crl| failures(&guest_with(|guest| guest.crl = crl), demands());
    assert_eq!(with_crl(crl(false, before, after)), [""; 0]);
    assert_eq!(with_crl(crl(true, before, after)), ["ASK revocation"]);
    assert_eq!(
        with_crl(crl(false, before, before + YEAR / 2)),
        ["CRL validity"]
    );
    assert_eq!(with_crl(crl(false, after, after + YEAR)), ["CRL validity"]);

    // Flipping the last bit leaves a list that parses and whose signature does not hold.
    let mut forged = crl(false, before, after);
    *forged.last_mut().expect("not empty") ^= 1;
    assert_eq!(with_crl(forged), ["CRL signature"]);
}

#[test]
fn every_flipped_byte_of_report_or_chain_is_refused() {
    let (before, after) = (now() - YEAR, now() + YEAR);
    let crl = software_tee().snp_crl(false, before, after).expect("CRL");
    let genuine = evidence(&guest_with(|guest| guest.crl = crl));
    let accepts = |verifier: &Verifier, evidence: SnpEvidence| {
        verifier
            .verify(&Evidence::Snp(evidence), &REPORT_DATA, now())
            .is_ok()
    };
    let warm = verifier(demands());
    assert!(accepts(&warm, genuine.clone()));

    let part: [fn(&mut SnpEvidence) -> &mut Vec<u8>; 5] = [
        |evidence| &mut evidence.report,
        |evidence| &mut evidence.vek,
        |evidence| &mut evidence.ask,
        |evidence| &mut evidence.ark,
        |evidence| &mut evidence.crl,
    ];
    for (number, part) in part.into_iter().enumerate() {
        for position in 0..part(&mut genuine.clone()).len() {
            let mut forged = genuine.clone();
            part(&mut forged)[position] ^= 1 << (position % 8);
            assert!(!accepts(&warm, forged), "part {number}, byte {position}");
        }
    }
    assert!(accepts(&warm, genuine));
}

#[test]
fn a_report_of_another_chip_does_not_pass_with_a_cached_chain() {
    let other = software_tee().another_snp_chip(POLICY).expect("chip");
    let verifier = verifier(demands());
    let verify = |evidence| verifier.verify(&Evidence::Snp(evidence), &REPORT_DATA, now());
    let ours = evidence(&guest());
    verify(ours.clone()).expect("warms the cache");

    let theirs = evidence(&other);
    let mixed = SnpEvidence {
        report: theirs.report.clone(),
        ..ours
    };
    let error = verify(mixed)
        .expect_err("report of one chip, chain of another")
        .to_string();
    assert!(
        error.contains("SIGNATURE: expected a signature by the key in the VEK"),
        "{error}"
    );
    assert!(
        error.contains("hardware id in the VCEK certificate"),
        "{error}"
    );

    verify(theirs).expect("its own chain is accepted");
    assert_eq!(verifier.snp_chains().verifications(), 2);
    assert_eq!(verifier.snp_chains().len(), 2);
}

#[test]
fn a_warm_chain_is_not_verified_again_and_survives_a_change_of_manifest() {
    let old = verifier(demands());
    let evidence = Evidence::Snp(evidence(&guest()));
    for _ in 0..3 {
        old.verify(&evidence, &REPORT_DATA, now())
            .expect("accepted");
    }
    let new = verifier(demands()).with_chains_of(&old);
    new.verify(&evidence, &REPORT_DATA, now())
        .expect("accepted");
    assert_eq!(new.snp_chains().verifications(), 1);
}

#[test]
fn an_expired_chain_is_not_served_from_the_cache() {
    let verifier = verifier(demands());
    let evidence = Evidence::Snp(evidence(&guest()));
    verifier
        .verify(&evidence, &REPORT_DATA, now())
        .expect("accepted");
    let error = verifier
        .verify(&evidence, &REPORT_DATA, now() + 8 * YEAR)
        .expect_err("expired");
    assert!(
        error
            .to_string()
            .contains("VEK certificate (SEV-VCEK) validity"),
        "{error}"
    );
    verifier
        .verify(&evidence, &REPORT_DATA, now())
        .expect("the entry is still there");
    assert_eq!(verifier.snp_chains().verifications(), 2);
}

#[test]
fn a_refused_chain_is_not_cached() {
    let verifier = verifier(demands());
    let mut guest = guest();
    guest.certificate.not_after = now() - YEAR;
    let evidence = Evidence::Snp(evidence(&guest));
    for _ in 0..2 {
        verifier
            .verify(&evidence, &REPORT_DATA, now())
            .expect_err("expired");
    }
    assert!(verifier.snp_chains().is_empty());
    assert_eq!(verifier.snp_chains().verifications(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..1500),
        part in 0..5usize,
    ) {
        let mut forged = evidence(&guest());
        let parts = [
            &mut forged.report, &mut forged.vek, &mut forged.ask, &mut forged.ark, &mut forged.crl,
        ];
        let is_absent_crl = part == 4 && bytes.is_empty();
        *parts.into_iter().nth(part).expect("five parts") = bytes;
        let outcome = verifier(demands()).verify(&Evidence::Snp(forged), &REPORT_DATA, now());
        prop_assert_eq!(outcome.is_ok(), is_absent_crl);
    }
}
