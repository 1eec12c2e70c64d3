//! VEK, ASK and CRL of strangers: the report and the pinned ARK are genuine ones of the software TEE, the rest is not.
#![no_main]

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use contrast_attestation::{
    Evidence, Issuer as _, PolicyHash, ReportData, Root, SnpEvidence, Tee, authenticate,
    software::SoftwareTee,
};
use libfuzzer_sys::fuzz_target;

static GENUINE: OnceLock<(SnpEvidence, Root)> = OnceLock::new();

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn genuine() -> &'static (SnpEvidence, Root) {
    GENUINE.get_or_init(|| {
        let tee = SoftwareTee::generate(now()).expect("software TEE");
        let root = Root::Insecure {
            sha256: tee.root_sha256(Tee::Snp),
        };
        match tee
            .snp_guest(PolicyHash([1; 32]))
            .issue(&ReportData([2; 64]))
        {
            Ok(Evidence::Snp(evidence)) => (evidence, root),
            other => unreachable!("{other:?}"),
        }
    })
}

fuzz_target!(|bytes: &[u8]| {
    let (genuine, root) = genuine();
    let Some((which, content)) = bytes.split_first() else {
        return;
    };
    // Without a CRL nothing is foreign.
    if content.is_empty() {
        return;
    }
    let mut evidence = genuine.clone();
    match which % 3 {
        0 => evidence.vek = content.to_vec(),
        1 => evidence.ask = content.to_vec(),
        _ => evidence.crl = content.to_vec(),
    }
    let changed = evidence != *genuine;
    let holds = authenticate(&Evidence::Snp(evidence), *root, None, now()).holds();
    assert!(!(changed && holds), "foreign certificates were accepted");
});
