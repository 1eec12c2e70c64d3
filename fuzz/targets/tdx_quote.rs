//! No quote is accepted without collateral, and none makes the reader fail.
#![no_main]

use std::time::{Duration, SystemTime};

use contrast_attestation::{
    Evidence, Root, TdxCollateral, TdxEvidence, authenticate,
    tdx::{CollateralKey, QuoteDetails},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|quote: &[u8]| {
    let _ = (QuoteDetails::parse(quote), CollateralKey::of(quote));
    let evidence = Evidence::Tdx(TdxEvidence {
        quote: quote.to_vec(),
        collateral: Some(TdxCollateral::default()),
    });
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_687_219_200);
    assert!(!authenticate(&evidence, Root::Vendor, None, now).holds());
});
