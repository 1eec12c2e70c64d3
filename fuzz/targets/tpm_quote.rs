//! A TPM quote is parsed within its bounds.
#![no_main]

use contrast_attestation::vtpm::TpmQuote;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(quote) = TpmQuote::parse(bytes) {
        assert!(quote.extra_data.len() + quote.pcr_digest.len() < bytes.len());
    }
});
