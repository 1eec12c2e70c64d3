//! Any 1184 bytes are a report or a typed error; whatever parses is shown by every accessor.
#![no_main]

use contrast_attestation::{appraisal::SnpProduct, snp::Report};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = Report::parse(bytes) {
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
