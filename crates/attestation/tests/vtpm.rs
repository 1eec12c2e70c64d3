//! Evidence through a vTPM: what a genuine guest shows is accepted, and every single deviation is refused by the check that is
//! there for it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use contrast_attestation::{
    Demands, Evidence, EvidenceVerifier as _, Issuer as _, PolicyHash, ReferenceValue, ReportData,
    Root, Tee, Verifier, VerifyError, VtpmEvidence, VtpmHardware, authenticate,
    software::{SoftwareTee, VtpmGuest, VtpmGuestHardware, encode_hcl_report},
    vtpm::{HclReport, TpmQuote},
};

const POLICY: PolicyHash = PolicyHash([1; 32]);
const REPORT_DATA: ReportData = ReportData([2; 64]);
const TEES: [Tee; 2] = [Tee::Snp, Tee::Tdx];

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn tee() -> &'static SoftwareTee {
    static TEE: OnceLock<SoftwareTee> = OnceLock::new();
    TEE.get_or_init(|| SoftwareTee::generate(now()).expect("software TEE"))
}

fn guest(kind: Tee) -> VtpmGuest {
    tee().vtpm_guest(kind, POLICY).expect("guest")
}

fn issue(guest: &VtpmGuest) -> VtpmEvidence {
    match guest.issue(&REPORT_DATA).expect("issues") {
        Evidence::Vtpm(evidence) => evidence,
        other => panic!("expected vTPM evidence, found {other:?}"),
    }
}

fn reference(kind: Tee) -> ReferenceValue {
    tee().vtpm_reference_value(kind)
}

fn verify(reference: ReferenceValue, evidence: &Evidence) -> Vec<String> {
    let verifier = Verifier::new(vec![reference], [POLICY, PolicyHash([7; 32])]);
    outcome(verifier.verify(evidence, &REPORT_DATA, now()))
}

/// Names of the failed checks; none when the evidence was accepted.
fn outcome<T>(outcome: Result<T, VerifyError>) -> Vec<String> {
    match outcome {
        Ok(_) => Vec::new(),
        Err(VerifyError::Refused(report)) => report.sets[0]
            .checks
            .checks()
            .iter()
            .filter(|check| !check.passed)
            .map(|check| check.field.clone())
            .collect(),
        Err(other) => panic!("expected a report, found {other}"),
    }
}

/// What is refused when `change` was made to genuine evidence.
fn refused(kind: Tee, change: impl FnOnce(&VtpmGuest, &mut VtpmEvidence)) -> Vec<String> {
    let guest = guest(kind);
    let mut evidence = issue(&guest);
    change(&guest, &mut evidence);
    verify(reference(kind), &Evidence::Vtpm(evidence))
}

#[test]
fn a_genuine_guest_is_accepted_with_the_policy_of_pcr_8() {
    for kind in TEES {
        let evidence = Evidence::Vtpm(issue(&guest(kind)));
        let evidence = Evidence::decode(&evidence.encode()).expect("decodes");
        assert_eq!((evidence.tee(), evidence.report_data()), (kind, None));
        let verifier = Verifier::new(vec![reference(kind)], [PolicyHash([7; 32]), POLICY]);
        let verified = verifier
            .verify(&evidence, &REPORT_DATA, now())
            .expect("accepted");
        assert_eq!((verified.tee(), verified.policy_hash()), (kind, POLICY));
        assert!(verified.is_insecure());
    }
}

#[test]
fn evidence_is_bound_to_its_report_data() {
    for kind in TEES {
        let evidence = Evidence::Vtpm(issue(&guest(kind)));
        let verifier = Verifier::new(vec![reference(kind)], [POLICY]);
        let other = verifier.verify(&evidence, &ReportData([3; 64]), now());
        assert_eq!(outcome(other), ["TPM quote extraData"]);
        verifier
            .verify_unbound(&evidence, now())
            .expect("accepted without a connection");
    }
}

#[test]
fn a_direct_report_does_not_meet_a_reference_value_for_vtpms() {
    let direct = [
        (Tee::Snp, tee().snp_guest(POLICY).issue(&REPORT_DATA)),
        (Tee::Tdx, tee().tdx_guest(POLICY).issue(&REPORT_DATA)),
    ];
    for (kind, evidence) in direct {
        let evidence = evidence.expect("issues");
        assert_eq!(verify(reference(kind), &evidence), ["vTPM"]);
        assert!(verify(tee().reference_value(kind), &evidence).is_empty());
    }
}

#[test]
fn vtpm_evidence_does_not_meet_a_reference_value_without_one_and_the_refusal_says_what_to_write() {
    for kind in TEES {
        let evidence = Evidence::Vtpm(issue(&guest(kind)));
        let direct = tee().reference_value(kind);
        assert_eq!(verify(direct.clone(), &evidence), ["vTPM"]);
        let error = Verifier::new(vec![direct], [POLICY])
            .verify(&evidence, &REPORT_DATA, now())
            .expect_err("refused")
            .to_string();
        assert!(error.contains(r#"add "VTPM": {"PCRs": {"4":"#), "{error}");
    }
}

#[test]
fn the_policy_is_in_pcr_8_and_nowhere_else() {
    // HOSTDATA names an allowed policy, PCR 8 does not.
    for kind in TEES {
        let mut guest = tee().vtpm_guest(kind, PolicyHash([6; 32])).expect("guest");
        match &mut guest.hardware {
            VtpmGuestHardware::Snp(snp) => snp.policy_hash = POLICY,
            VtpmGuestHardware::Tdx(tdx) => tdx.mr_config_id[..32].copy_from_slice(&POLICY.0),
        }
        let evidence = Evidence::Vtpm(issue(&guest));
        assert_eq!(verify(reference(kind), &evidence), ["PCR 8"]);
    }
}

#[test]
fn pcr_8_extended_twice_never_or_not_quoted_shows_no_policy() {
    let twice = {
        let once = TpmQuote::policy_pcr(&PolicyHash([9; 32]));
        TpmQuote::digest_of(&[once, POLICY.0])
    };
    for value in [Some(twice), Some([0; 32]), Some(POLICY.0), None] {
        let mut guest = guest(Tee::Snp);
        match value {
            Some(value) => guest.pcrs.insert(8, value),
            None => guest.pcrs.remove(&8),
        };
        let evidence = Evidence::Vtpm(issue(&guest));
        assert_eq!(
            verify(reference(Tee::Snp), &evidence),
            ["PCR 8"],
            "{value:?}"
        );
    }
}

#[test]
fn every_listed_pcr_must_be_quoted_and_equal() {
    for value in [Some([5; 32]), None] {
        let mut guest = guest(Tee::Tdx);
        match value {
            Some(value) => guest.pcrs.insert(4, value),
            None => guest.pcrs.remove(&4),
        };
        let evidence = Evidence::Vtpm(issue(&guest));
        assert_eq!(
            verify(reference(Tee::Tdx), &evidence),
            ["PCR 4"],
            "{value:?}"
        );
    }
    let mut guest = guest(Tee::Snp);
    guest.pcrs.insert(7, [4; 32]);
    let evidence = Evidence::Vtpm(issue(&guest));
    assert!(verify(reference(Tee::Snp), &evidence).is_empty());
    let mut strict = reference(Tee::Snp);
    let vtpm = strict.vtpm.as_mut().expect("demands");
    vtpm.pcrs.insert(7, [5; 32]);
    assert_eq!(verify(strict, &evidence), ["PCR 7"]);
}

#[test]
fn pcr_values_that_were_not_quoted_are_refused() {
    // The guest booted something else; the values beside the quote are those that the manifest wants.
    let mut evil = guest(Tee::Snp);
    let wanted: Vec<[u8; 32]> = evil.pcrs.values().copied().collect();
    evil.pcrs.insert(4, [5; 32]);
    let mut evidence = issue(&evil);
    evidence.pcr_values = wanted;
    assert_eq!(
        verify(reference(Tee::Snp), &Evidence::Vtpm(evidence)),
        ["TPM quote pcrDigest"]
    );
    // One more value than was quoted.
    let failed = refused(Tee::Snp, |_, evidence| evidence.pcr_values.push([0; 32]));
    assert_eq!(failed, ["TPM quote pcrDigest"]);
}

#[test]
fn a_value_cannot_be_given_another_index() {
    // PCR 10 is the guest's to extend: it holds what PCR 4 should.
    let failed = refused(Tee::Snp, |guest, evidence| {
        let boot = guest.pcrs[&4];
        let pcrs = BTreeMap::from([(8, guest.pcrs[&8]), (10, boot)]);
        let extra_data = TpmQuote::expected_extra_data(&REPORT_DATA);
        (evidence.tpm_quote, evidence.tpm_signature) =
            guest.quote(&extra_data, &pcrs).expect("quote");
        evidence.pcr_values = pcrs.into_values().collect();
    });
    assert_eq!(failed, ["PCR 4"]);
}

#[test]
fn several_selections_and_other_banks_are_no_quote() {
    // Behind magic, type, qualifiedSigner, extraData, clockInfo and firmwareVersion.
    const SELECTIONS: usize = 4 + 2 + 36 + 34 + 17 + 8;
    for (offset, value) in [(3, 2), (5, 0x04)] {
        let failed = refused(Tee::Snp, |guest, evidence| {
            evidence.tpm_quote[SELECTIONS + offset] = value;
            evidence.tpm_signature = guest.sign(&evidence.tpm_quote).expect("signature");
        });
        assert_eq!(failed, ["TPM quote"]);
    }
}

#[test]
fn a_quote_of_another_tpm_is_refused() {
    for kind in TEES {
        let failed = refused(kind, |_, evidence| {
            let other = issue(&guest(kind));
            evidence.tpm_quote = other.tpm_quote;
            evidence.tpm_signature = other.tpm_signature;
        });
        assert_eq!(failed, ["TPM quote signature"]);
    }
}

#[test]
fn a_changed_quote_is_refused() {
    let length = issue(&guest(Tee::Snp)).tpm_quote.len();
    let guest = guest(Tee::Snp);
    let genuine = issue(&guest);
    for bit in 0..length * 8 {
        let mut evidence = genuine.clone();
        evidence.tpm_quote[bit / 8] ^= 1 << (bit % 8);
        let failed = verify(reference(Tee::Snp), &Evidence::Vtpm(evidence));
        assert!(
            failed.contains(&"TPM quote signature".to_owned()),
            "bit {bit}: {failed:?}"
        );
    }
}

#[test]
fn runtime_data_with_another_key_is_not_what_the_hardware_signed() {
    let field = |kind| match kind {
        Tee::Snp => vec!["REPORT_DATA"],
        _ => vec!["REPORTDATA", "TDREPORT REPORTDATA"],
    };
    for kind in TEES {
        let failed = refused(kind, |_, evidence| {
            let attacker = guest(kind);
            let theirs = issue(&attacker);
            let hcl = HclReport::parse(&evidence.hcl_report).expect("HCL report");
            let report_type = if kind == Tee::Snp { 2 } else { 4 };
            let forged =
                encode_hcl_report(report_type, hcl.hardware_report, 1, &attacker.runtime_data);
            evidence.hcl_report = forged;
            evidence.tpm_quote = theirs.tpm_quote;
            evidence.tpm_signature = theirs.tpm_signature;
        });
        assert_eq!(failed, field(kind));
    }
}

#[test]
fn a_tdx_quote_that_is_not_for_the_runtime_data_is_refused() {
    // The TDREPORT fits the runtime data, but nobody can verify a TDREPORT; the quote is of a TD of the attacker's.
    let failed = refused(Tee::Tdx, |_, evidence| {
        let Ok(Evidence::Tdx(other)) = tee().tdx_guest(POLICY).issue(&REPORT_DATA) else {
            panic!("TDX evidence");
        };
        evidence.hardware = VtpmHardware::Tdx(other);
    });
    assert_eq!(failed, ["REPORTDATA"]);
    // The quote fits, the TDREPORT does not.
    let failed = refused(Tee::Tdx, |guest, evidence| {
        evidence.hcl_report = encode_hcl_report(4, &[], 1, &guest.runtime_data);
    });
    assert_eq!(failed, ["TDREPORT REPORTDATA"]);
}

#[test]
fn runtime_data_must_name_exactly_one_attestation_key() {
    let with = |change: &dyn Fn(&str) -> String| {
        let mut guest = guest(Tee::Snp);
        let text = String::from_utf8(guest.runtime_data).expect("JSON");
        guest.runtime_data = change(&text).into_bytes();
        verify(reference(Tee::Snp), &Evidence::Vtpm(issue(&guest)))
    };
    assert!(with(&|text| text.to_owned()).is_empty());
    let key = |text: &str| {
        let start = text.find('{').expect("document");
        let start = start + 1 + text[start + 1..].find('{').expect("key");
        let end = start + text[start..].find('}').expect("key's end") + 1;
        text[start..end].to_owned()
    };
    // Only the key of another name is there.
    let failed = with(&|text| text.replace("HCLAkPub", "HCLEkPub"));
    assert_eq!(failed, ["vTPM attestation key"]);
    // Twice, so that two readers could disagree about which one counts.
    let failed = with(&|text| text.replacen(&key(text), &[key(text), key(text)].join(","), 1));
    assert_eq!(failed, ["vTPM attestation key"]);
    let failed = with(&|text| text.replacen('{', r#"{"keys":[],"#, 1));
    assert_eq!(failed, ["vTPM attestation key"]);
    let failed = with(&|text| text.replacen(r#""kid""#, r#""kid":"HCLEkPub","kid""#, 1));
    assert_eq!(failed, ["vTPM attestation key"]);
    let failed = with(&|text| format!("{text}{text}"));
    assert_eq!(failed, ["vTPM attestation key"]);
    // A second key beside it is none of ours.
    let other = tee().vtpm_guest(Tee::Snp, POLICY).expect("guest");
    let other = String::from_utf8(other.runtime_data).expect("JSON");
    let other = key(&other).replace("HCLAkPub", "HCLEkPub");
    assert!(
        with(&|text| text.replacen(&key(text), &[key(text), other.clone()].join(","), 1))
            .is_empty()
    );
}

#[test]
fn an_hcl_report_of_another_kind_is_refused() {
    let failed = refused(Tee::Tdx, |guest, evidence| {
        let hcl = HclReport::parse(&evidence.hcl_report).expect("HCL report");
        let report = hcl.hardware_report.to_vec();
        evidence.hcl_report = encode_hcl_report(2, &report, 1, &guest.runtime_data);
    });
    assert_eq!(failed, ["HCL report type"]);
    let failed = refused(Tee::Snp, |_, evidence| evidence.hcl_report.truncate(1000));
    assert_eq!(failed, ["HCL report"]);
}

#[test]
fn the_hardware_is_judged_like_direct_evidence() {
    let failed = |change: fn(&mut VtpmGuestHardware), kind| {
        let mut guest = guest(kind);
        change(&mut guest.hardware);
        verify(reference(kind), &Evidence::Vtpm(issue(&guest)))
    };
    // A guest's own report, requested below the paravisor's privilege, carries any report data that it likes.
    let vmpl = failed(
        |hardware| {
            if let VtpmGuestHardware::Snp(guest) = hardware {
                guest.vmpl = 2;
            }
        },
        Tee::Snp,
    );
    assert_eq!(vmpl, ["VMPL"]);
    let measurement = failed(
        |hardware| {
            if let VtpmGuestHardware::Snp(guest) = hardware {
                guest.measurement[0] ^= 1;
            }
        },
        Tee::Snp,
    );
    assert_eq!(measurement, ["MEASUREMENT"]);
    let debug = failed(
        |hardware| {
            if let VtpmGuestHardware::Snp(guest) = hardware {
                guest.guest_policy.debug = true;
            }
        },
        Tee::Snp,
    );
    assert_eq!(debug, ["guest policy DEBUG"]);
    let mr_td = failed(
        |hardware| {
            if let VtpmGuestHardware::Tdx(guest) = hardware {
                guest.mr_td[0] ^= 1;
            }
        },
        Tee::Tdx,
    );
    assert_eq!(mr_td, ["MRTD"]);
}

#[test]
fn a_reference_value_of_the_other_tee_is_not_for_it() {
    let verifier = Verifier::new(vec![reference(Tee::Tdx)], [POLICY]);
    let evidence = Evidence::Vtpm(issue(&guest(Tee::Snp)));
    assert!(matches!(
        verifier.verify(&evidence, &REPORT_DATA, now()),
        Err(VerifyError::NoReferenceValue {
            found: Tee::Snp,
            ..
        })
    ));
    assert!(matches!(reference(Tee::Snp).demands, Demands::Snp(_)));
}

#[test]
fn without_a_manifest_everything_but_the_pcrs_is_verified() {
    for kind in TEES {
        let evidence = Evidence::Vtpm(issue(&guest(kind)));
        let root = Root::Insecure {
            sha256: tee().root_sha256(kind),
        };
        let outcome = authenticate(&evidence, root, Some(&REPORT_DATA), now());
        assert!(outcome.holds(), "{:?}", outcome.checks());
        assert_eq!(outcome.policy_hash(), None);
        let other = ReportData([3; 64]);
        assert!(!authenticate(&evidence, root, Some(&other), now()).holds());
        let Evidence::Vtpm(mut evidence) = evidence else {
            panic!("vTPM evidence");
        };
        evidence.pcr_values[0] = [0; 32];
        let outcome = authenticate(&Evidence::Vtpm(evidence), root, None, now());
        assert!(!outcome.holds());
    }
}
