//! No response of a TPM is read beyond its bounds.
#![no_main]

use contrast_attestation::hardware::tpm;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tpm::read_any_response(bytes));
