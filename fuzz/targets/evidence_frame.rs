//! What decodes as evidence encodes to the same evidence.
#![no_main]

use contrast_attestation::Evidence;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(evidence) = Evidence::decode(bytes) {
        let _ = evidence.report_data();
        let again = Evidence::decode(&evidence.encode()).expect("own encoding");
        assert_eq!(again, evidence);
    }
});
