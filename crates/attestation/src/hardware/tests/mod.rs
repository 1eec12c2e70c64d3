//! Stand-ins for kernel, firmware and host. The software TEE is the firmware, so that the evidence has the real formats.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a stand-in of tests fails like a test"
)]

mod configfs;
mod interfaces;
mod qgs;
mod sev_guest;
mod tdx_guest;

use crate::{
    Evidence, EvidenceVerifier as _, PolicyHash, ReportData, SnpEvidence, Verifier,
    snp::{CertificateGuid, encode_certificate_table},
    software::fixture::{now, software_tee},
};

const POLICY: PolicyHash = PolicyHash([3; 32]);
const REPORT_DATA: ReportData = ReportData([4; 64]);

fn verify(evidence: &Evidence) {
    let verifier = Verifier::new(
        vec![software_tee().reference_value(evidence.tee())],
        [POLICY],
    );
    verifier
        .verify(evidence, &REPORT_DATA, now())
        .expect("accepted");
}

/// What the host would hand out.
fn table_of(evidence: &SnpEvidence) -> Vec<u8> {
    encode_certificate_table(&[
        (CertificateGuid::ARK, &evidence.ark),
        (CertificateGuid::ASK, &evidence.ask),
        (CertificateGuid::VCEK, &evidence.vek),
    ])
}
