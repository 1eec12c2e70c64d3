//! TCB info, QE identity and CRLs of strangers: the quote is a genuine one of the software TEE, the collateral is not.
#![no_main]

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use contrast_attestation::{
    Evidence, Issuer as _, PolicyHash, ReportData, Root, TdxEvidence, Tee, authenticate,
    software::SoftwareTee,
};
use libfuzzer_sys::fuzz_target;

static GENUINE: OnceLock<(TdxEvidence, Root)> = OnceLock::new();

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn genuine() -> &'static (TdxEvidence, Root) {
    GENUINE.get_or_init(|| {
        let tee = SoftwareTee::generate(now()).expect("software TEE");
        let root = Root::Insecure {
            sha256: tee.root_sha256(Tee::Tdx),
        };
        match tee
            .tdx_guest(PolicyHash([1; 32]))
            .issue(&ReportData([2; 64]))
        {
            Ok(Evidence::Tdx(evidence)) => (evidence, root),
            other => unreachable!("{other:?}"),
        }
    })
}

fuzz_target!(|bytes: &[u8]| {
    let (genuine, root) = genuine();
    let Some((which, content)) = bytes.split_first() else {
        return;
    };
    let mut evidence = genuine.clone();
    let Some(collateral) = &mut evidence.collateral else {
        return;
    };
    let text = || String::from_utf8_lossy(content).into_owned();
    match which % 6 {
        0 => collateral.tcb_info = text(),
        1 => collateral.qe_identity = text(),
        2 => collateral.pck_crl = content.to_vec(),
        3 => collateral.root_ca_crl = content.to_vec(),
        4 => collateral.tcb_info_issuer_chain = text(),
        _ => collateral.qe_identity_issuer_chain = text(),
    }
    let changed = evidence != *genuine;
    let holds = authenticate(&Evidence::Tdx(evidence), *root, None, now()).holds();
    assert!(!(changed && holds), "foreign collateral was accepted");
});
