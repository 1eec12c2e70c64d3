//! Any bytes are a file with a report in one of its forms or a typed error; whatever parses is shown by every accessor.
#![no_main]

use contrast_attestation::{
    appraisal::SnpProduct,
    snp::{CertificateGuid, Report, ReportFile},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = ReportFile::read(bytes) else {
        return;
    };
    let _ = file.certificate(CertificateGuid::VCEK);
    if let Ok(report) = Report::parse(file.report) {
        let product = report.product().unwrap_or(SnpProduct::Turin);
        let _ = (
            report.guest_policy(),
            report.platform_info(),
            report.signing_key(),
        );
        let _ = (
            report.committed_tcb.components(product),
            report.launch_tcb.components(product),
        );
    }
});
