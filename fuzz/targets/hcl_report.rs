//! An HCL report is parsed within its bounds, and its runtime data is read whatever it holds.
#![no_main]

use contrast_attestation::vtpm::HclReport;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = HclReport::parse(bytes) {
        assert!(report.runtime_data.len() < bytes.len());
        let _ = (
            report.attestation_key(),
            report.user_data(),
            report.expected_report_data(),
        );
    }
});
