//! No bit of genuine evidence can be changed.

#![allow(clippy::expect_used, reason = "helpers of tests fail like tests")]

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use contrast_attestation::{
    Demands, Evidence, EvidenceVerifier as _, Issuer as _, PolicyHash, ReportData, SnpEvidence,
    Tee, Verifier,
    appraisal::{SnpProduct, SnpTcb},
    snp::SigningKey,
    software::{SnpGuest, SoftwareTee, TdxQuoteFormat},
};

const POLICY: PolicyHash = PolicyHash([1; 32]);
const REPORT_DATA: ReportData = ReportData([2; 64]);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn tee() -> &'static SoftwareTee {
    static TEE: OnceLock<SoftwareTee> = OnceLock::new();
    TEE.get_or_init(|| SoftwareTee::generate(now()).expect("software TEE"))
}

/// A guest of each report version, one on Turin, one with a VLEK, each with a verifier that accepts it.
fn guests() -> Vec<(&'static str, SnpGuest, Verifier)> {
    let milan = |version| {
        let mut guest = tee().snp_guest(POLICY);
        guest.version = version;
        guest
    };
    let mut turin = milan(5);
    let tcb = SnpTcb {
        bootloader: 1,
        tee: 1,
        snp: 4,
        microcode: 72,
        fmc: Some(1),
    };
    turin.product = SnpProduct::Turin;
    turin.certificate.product_name = "Turin-B0".into();
    turin.chip_id[8..].fill(0);
    turin.certificate.hardware_id = turin.chip_id[..8].to_vec();
    let turin = turin.with_tcb(tcb);
    let mut vlek = milan(3);
    vlek.key_info = 1 << 2;
    vlek.certificate.kind = SigningKey::Vlek;
    vlek.certificate.product_name = "Milan".into();
    let guests = [
        ("v2", milan(2)),
        ("v3", milan(3)),
        ("v4", milan(4)),
        ("v5", milan(5)),
        ("Turin", turin),
        ("VLEK", vlek),
    ];
    let with_verifier = |(name, guest): (&'static str, SnpGuest)| {
        let mut reference = tee().reference_value(Tee::Snp);
        if let Demands::Snp(demands) = &mut reference.demands {
            demands.product = guest.product;
            demands.minimum_tcb = guest.committed_tcb;
        }
        (name, guest, Verifier::new(vec![reference], [POLICY]))
    };
    guests.map(with_verifier).into()
}

fn issue(guest: &SnpGuest) -> SnpEvidence {
    match guest.issue(&REPORT_DATA).expect("evidence") {
        Evidence::Snp(evidence) => evidence,
        other => unreachable!("an SNP guest issued {other:?}"),
    }
}

fn accepts(verifier: &Verifier, evidence: SnpEvidence) -> bool {
    verifier
        .verify(&Evidence::Snp(evidence), &REPORT_DATA, now())
        .is_ok()
}

#[test]
fn every_shape_of_report_is_accepted_unchanged() {
    for (name, guest, verifier) in guests() {
        let evidence = Evidence::Snp(issue(&guest));
        if let Err(error) = verifier.verify(&evidence, &REPORT_DATA, now()) {
            unreachable!("{name}: {error}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_report_is_refused() {
    for (name, guest, verifier) in guests() {
        let genuine = issue(&guest);
        for bit in 0..genuine.report.len() * 8 {
            let mut forged = genuine.clone();
            forged.report[bit / 8] ^= 1 << (bit % 8);
            assert!(!accepts(&verifier, forged), "{name}: bit {bit}");
        }
    }
}

/// The certificates are verified from scratch each time, so that only every 13th bit is tried: 13 is no multiple of 8, so that
/// all positions in a byte come up.
#[test]
fn flipped_bits_of_certificates_are_refused() {
    let (_, guest, verifier) = guests().swap_remove(1);
    let genuine = issue(&guest);
    type Part = fn(&mut SnpEvidence) -> &mut Vec<u8>;
    let parts: [Part; 3] = [|e| &mut e.vek, |e| &mut e.ask, |e| &mut e.ark];
    for part in parts {
        let bits = part(&mut genuine.clone()).len() * 8;
        for bit in (0..bits).step_by(13) {
            let mut forged = genuine.clone();
            part(&mut forged)[bit / 8] ^= 1 << (bit % 8);
            assert!(!accepts(&verifier, forged), "bit {bit}");
        }
    }
}

/// The verifier knows the platform from the genuine quote, so that what it remembers is put to the test as well.
#[test]
fn every_flipped_bit_of_a_quote_is_refused() {
    for format in [TdxQuoteFormat::V4, TdxQuoteFormat::V5] {
        let verifier = Verifier::new(vec![tee().reference_value(Tee::Tdx)], [POLICY]);
        let mut guest = tee().tdx_guest(POLICY);
        guest.format = format;
        let Ok(Evidence::Tdx(genuine)) = guest.issue(&REPORT_DATA) else {
            unreachable!("a TDX guest issues TDX evidence");
        };
        let accepts = |evidence| {
            verifier
                .verify(&Evidence::Tdx(evidence), &REPORT_DATA, now())
                .is_ok()
        };
        assert!(accepts(genuine.clone()));
        // The PCK chain is text at the end of the quote: PEM has bits without a meaning (line ends, armour). Everything
        // before it is binary.
        let pem = b"-----BEGIN";
        let binary = genuine
            .quote
            .windows(pem.len())
            .position(|window| window == pem)
            .expect("PEM");
        for bit in 0..binary * 8 {
            let mut forged = genuine.clone();
            forged.quote[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !accepts(forged),
                "{format:?}, bit {bit} of byte {}",
                bit / 8
            );
        }
    }
}
