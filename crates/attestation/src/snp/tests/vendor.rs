//! AMD's own evidence, and software evidence that pretends to be.

use std::{env, fs, path::PathBuf};

use super::*;
use crate::{
    appraisal::{SnpMeasurement, SnpProduct},
    snp::Report,
};

/// AMD's own evidence, or nothing when it is not on this machine.
fn real_evidence() -> Option<SnpEvidence> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/evidence");
    let directory = env::var_os("CONTRAST_EVIDENCE_DIR")
        .map_or(default, PathBuf::from)
        .join("snp");
    if !directory.join("attestation.bin").is_file() {
        println!(
            "skipped: no {}; set CONTRAST_EVIDENCE_DIR",
            directory.display()
        );
        return None;
    }
    let read = |name| fs::read(directory.join(name)).expect("readable");
    let mut chain = pem::parse_many(read("milan.testcer"))
        .expect("PEM")
        .into_iter();
    let mut next = || chain.next().expect("ASK, then ARK").into_contents();
    Some(SnpEvidence {
        report: read("attestation.bin"),
        vek: read("vcek.testcer"),
        ask: next(),
        ark: next(),
        crl: Vec::new(),
    })
}

/// The reference value that a real report meets.
fn reference_for(report: &Report, product: SnpProduct) -> ReferenceValue {
    ReferenceValue {
        vtpm: None,
        name: format!("snp[0] {product}"),
        root: Root::Vendor,
        demands: Demands::Snp(SnpDemands {
            product,
            measurement: SnpMeasurement::Any(report.measurement),
            minimum_tcb: report.committed_tcb.components(product),
            guest_policy: report.guest_policy(),
            platform_info: report.platform_info(),
            minimum_mitigation_vector: 0,
            allowed_chip_ids: vec![report.chip_id],
            trusted_id_key_digests: Vec::new(),
            trusted_author_key_digests: Vec::new(),
        }),
    }
}

/// A time at which the real certificates are valid: 2024-01-01T00:00:00Z.
fn in_2024() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200)
}

#[test]
fn accepts_a_real_milan_report_under_amds_root() {
    let Some(evidence) = real_evidence() else {
        return;
    };
    let report = Report::parse(&evidence.report).expect("parses");
    assert_eq!(report.version, 2);
    assert_eq!(
        report.encode(),
        evidence.report,
        "the encoder writes what the firmware wrote"
    );
    let policy = PolicyHash(report.host_data);
    let verifier = Verifier::new(vec![reference_for(&report, SnpProduct::Milan)], [policy]);
    let (evidence, report_data) = (Evidence::Snp(evidence), ReportData(report.report_data));
    let verified = verifier
        .verify(&evidence, &report_data, in_2024())
        .expect("accepted");
    assert!(!verified.is_insecure());
    assert_eq!(verified.hardware_id(), report.chip_id);

    let error = verifier.verify(&evidence, &report_data, in_2024() + 10 * YEAR);
    let error = error.expect_err("the VCEK ended in 2029").to_string();
    assert!(
        error.contains("2029-09-24T00:55:28Z, found now = 2033-12-29T00:00:00Z (expired)"),
        "{error}"
    );

    let genoa = Verifier::new(vec![reference_for(&report, SnpProduct::Genoa)], [policy]);
    let error = genoa
        .verify(&evidence, &report_data, in_2024())
        .expect_err("Milan")
        .to_string();
    assert!(error.contains("ARK: expected AMD's ARK-Genoa"), "{error}");
}

#[test]
fn every_flipped_byte_of_a_real_report_is_refused() {
    let Some(genuine) = real_evidence() else {
        return;
    };
    let report = Report::parse(&genuine.report).expect("parses");
    let policy = PolicyHash(report.host_data);
    let verifier = Verifier::new(vec![reference_for(&report, SnpProduct::Milan)], [policy]);
    for position in 0..genuine.report.len() {
        let mut forged = genuine.clone();
        forged.report[position] ^= 0x10;
        let outcome = verifier.verify(
            &Evidence::Snp(forged),
            &ReportData(report.report_data),
            in_2024(),
        );
        outcome
            .map(|_| position)
            .expect_err("a flipped byte is refused");
    }
}

#[test]
fn a_software_chain_never_passes_as_amds() {
    let reference = ReferenceValue {
        root: Root::Vendor,
        ..software_tee().reference_value(Tee::Snp)
    };
    let evidence = Evidence::Snp(evidence(&guest()));
    let error = Verifier::new(vec![reference], [POLICY]).verify(&evidence, &REPORT_DATA, now());
    assert!(
        error
            .expect_err("not AMD")
            .to_string()
            .contains("AMD's ARK-Milan")
    );
}
