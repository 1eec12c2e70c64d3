//! The platform's TCB status: what is accepted, and for how long.

use super::*;
use contrast_attestation::appraisal::{TdxTcbPolicy, TdxTcbStatus};

/// 2023-02-15T00:00:00Z, the date of the outdated levels in the software TEE's collateral.
const OUTDATED: u64 = 1_676_419_200;
const DAY: Duration = Duration::from_secs(24 * 3600);
const TCB_STATUS: &str = "TCB status";

fn outdated_accepted_for(days: u32) -> impl Fn(&mut TdxDemands) {
    move |demands| {
        demands.tcb_policy = TdxTcbPolicy {
            accepted: [TdxTcbStatus::OutOfDate].into(),
            platform_grace_period_days: days,
        };
    }
}

#[test]
fn rejects_each_outdated_component_with_its_advisory() {
    let expected = "OutOfDate (SOFTWARE-SA-00001)";
    assert_only(
        verify_changed(|guest| guest.tee_tcb_svn[0] = 3),
        "TCB status",
        expected,
    );
    assert_only(
        verify_changed(|guest| guest.tee_tcb_svn[2] = 1),
        "TCB status",
        expected,
    );
    assert_only(
        verify_changed(|guest| guest.qe_isv_svn = 2),
        "TCB status",
        expected,
    );
}

#[test]
fn rejects_components_below_every_level() {
    let module = verify_changed(|guest| guest.tee_tcb_svn[0] = 1);
    assert_only(module, SIGNATURES, "ISVSVN");
    assert_only(
        verify_changed(|guest| guest.tee_tcb_svn[2] = 0),
        "TCB level",
        "below every level",
    );
    assert_only(
        verify_changed(|guest| guest.tee_tcb_svn[1] = 9),
        SIGNATURES,
        "TDX_09",
    );
    assert_among(verify_changed(|guest| guest.qe_isv_svn = 1), SIGNATURES, "");
}

#[test]
fn an_outdated_component_is_accepted_until_the_last_second_of_its_grace_period() {
    let components: [(&str, Change); 3] = [
        ("TCB date of the platform", |guest| guest.tee_tcb_svn[0] = 3),
        ("TCB date of the platform", |guest| guest.tee_tcb_svn[2] = 1),
        ("TCB date of the quoting enclave", |guest| {
            guest.qe_isv_svn = 2
        }),
    ];
    // The software TEE is of 2027, so that the period has to end after that.
    let days = 2000;
    let end = UNIX_EPOCH + Duration::from_secs(OUTDATED) + DAY * days;
    assert!(end > now());
    for (field, outdate) in components {
        let at = |time| verify_both(outdate, outdated_accepted_for(days), time);
        at(now()).expect("within it");
        at(end).expect("the last second");
        assert_only(
            at(end + Duration::from_secs(1)),
            field,
            "2023-02-15T00:00:00Z",
        );
        let shorter = verify_both(outdate, outdated_accepted_for(days - 1), end);
        assert_only(shorter, field, "2023-02-15T00:00:00Z");
    }
}

#[test]
fn the_current_module_has_the_same_grace_period() {
    let outdate = |guest: &mut TdxGuest| {
        guest.format = TdxQuoteFormat::V5;
        let mut current = guest.tee_tcb_svn;
        current[0] = 3;
        guest.tee_tcb_svn2 = Some(current);
    };
    verify_both(outdate, outdated_accepted_for(2000), now()).expect("within it");
    let late = verify_both(outdate, outdated_accepted_for(1), now());
    assert_only(late, "TCB date of the current module", "2023-02-15");
}

/// The status is what the cache may remember; whether it is good enough is asked again for every quote.
#[test]
fn a_known_platform_is_judged_by_the_demands_and_the_time_of_each_quote() {
    let mut outdated = guest();
    outdated.qe_isv_svn = 2;
    let evidence = outdated.issue(&REPORT_DATA).expect("issues");
    let strict = verifier();
    let mut reference = tee().reference_value(Tee::Tdx);
    let Demands::Tdx(demands) = &mut reference.demands else {
        panic!("TDX demands")
    };
    outdated_accepted_for(3650)(demands);
    let lenient = Verifier::new(vec![reference], [POLICY]).with_chains_of(&strict);

    let verify = |verifier: &Verifier, at| verifier.verify(&evidence, &REPORT_DATA, at);
    verify(&lenient, now()).expect("within the grace period");
    assert_only(verify(&strict, now()), TCB_STATUS, "OutOfDate");
    let later = UNIX_EPOCH + Duration::from_secs(OUTDATED) + DAY * 3651;
    assert_only(
        verify(&lenient, later),
        "TCB date of the quoting enclave",
        "2023",
    );
    assert_eq!(
        lenient.tdx_platforms().verifications(),
        1,
        "never cold again"
    );
}

#[test]
fn accepting_one_status_accepts_no_other() {
    let outdate = |guest: &mut TdxGuest| guest.qe_isv_svn = 2;
    for status in TdxTcbStatus::ALL {
        if status == TdxTcbStatus::OutOfDate {
            continue;
        }
        let other = verify_both(
            outdate,
            |demands| {
                demands.tcb_policy.accepted = [status].into();
                demands.tcb_policy.platform_grace_period_days = 3650;
            },
            now(),
        );
        assert_only(other, TCB_STATUS, "OutOfDate");
    }
}

#[test]
fn a_td_that_was_launched_by_an_outdated_module_has_a_status_of_its_own() {
    let updated_while_running = |guest: &mut TdxGuest| {
        guest.format = TdxQuoteFormat::V5;
        guest.tee_tcb_svn2 = Some(guest.tee_tcb_svn);
        guest.tee_tcb_svn[0] = 3;
    };
    assert_only(
        verify_changed(updated_while_running),
        TCB_STATUS,
        "TDRelaunchAdvised",
    );
    let accepted = verify_both(
        updated_while_running,
        |demands| demands.tcb_policy.accepted = [TdxTcbStatus::TdRelaunchAdvised].into(),
        now(),
    );
    accepted.expect("what is outdated is the launch TCB; the current one is what runs");
}

#[test]
fn the_current_module_of_a_td_counts_like_the_one_that_launched_it() {
    let with_current = |svn: [u8; 3]| {
        verify_changed(move |guest| {
            guest.format = TdxQuoteFormat::V5;
            let mut current = guest.tee_tcb_svn;
            current[..3].copy_from_slice(&svn);
            guest.tee_tcb_svn2 = Some(current);
        })
    };
    with_current([5, 3, 2]).expect("verified");
    let field = "TCB status of the current module";
    assert_only(with_current([3, 3, 2]), field, "OutOfDate");
    assert_only(with_current([5, 3, 1]), field, "OutOfDate");
    assert_only(with_current([5, 3, 0]), SIGNATURES, "TEE_TCB_SVN2");
    assert_only(with_current([5, 9, 2]), SIGNATURES, "TDX_09");
}
