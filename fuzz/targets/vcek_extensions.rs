//! No certificate but AMD's own is accepted, and none makes the reader fail.
#![no_main]

use std::time::{Duration, SystemTime};

use contrast_attestation::{Evidence, Root, SnpEvidence, appraisal::SnpProduct, authenticate, snp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|vek: &[u8]| {
    let product = snp::Endorsement::read(vek).map_or(SnpProduct::Milan, |key| key.product);
    let chain = snp::vendor_chain(product);
    // Version 2, so that the certificate decides the product.
    let mut report = vec![0; snp::REPORT_BYTES];
    report[0] = 2;
    let evidence = Evidence::Snp(SnpEvidence {
        report,
        vek: vek.to_vec(),
        ask: chain.ask.to_vec(),
        ark: chain.ark.to_vec(),
        crl: Vec::new(),
    });
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200);
    assert!(!authenticate(&evidence, Root::Vendor, None, now).holds());
});
