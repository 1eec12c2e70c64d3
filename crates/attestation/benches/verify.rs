//! Cost of verifying SNP evidence with a cold and a warm chain cache, beside the one P-384 verification that every report
//! needs whatever is cached.

#![expect(
    clippy::expect_used,
    reason = "a setting that cannot be made is the end of a benchmark"
)]

use std::time::{Duration, SystemTime};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        ParsedPublicKey,
    },
};
use contrast_attestation::{
    Evidence, EvidenceVerifier, Issuer, PolicyHash, ReportData, Tee, Verifier,
    software::SoftwareTee,
};
use divan::{Bencher, black_box};

const POLICY: PolicyHash = PolicyHash([1; 32]);
const REPORT_DATA: ReportData = ReportData([2; 64]);
/// Bytes of a report that its signature covers.
const SIGNED_BYTES: usize = 0x2A0;

fn main() {
    divan::main();
}

#[divan::bench]
fn p384_verification_alone(bencher: Bencher<'_, '_>) {
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("key");
    let message = [3; SIGNED_BYTES];
    let signature = key.sign(&SystemRandom::new(), &message).expect("signature");
    let public = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key.public_key()).expect("point");
    bencher.bench_local(|| {
        public
            .verify_sig(black_box(&message), black_box(signature.as_ref()))
            .expect("holds");
    });
}

#[divan::bench]
fn snp_report_with_warm_chain(bencher: Bencher<'_, '_>) {
    let setting = Setting::new();
    let verifier = setting.verifier();
    setting.verify(&verifier);
    bencher.bench_local(|| setting.verify(black_box(&verifier)));
    assert_eq!(
        verifier.snp_chains().verifications(),
        1,
        "the chain was cold again"
    );
}

#[divan::bench]
fn snp_report_with_cold_chain(bencher: Bencher<'_, '_>) {
    let setting = Setting::new();
    bencher
        .with_inputs(|| setting.verifier())
        .bench_local_values(|verifier| setting.verify(black_box(&verifier)));
}

struct Setting {
    tee: SoftwareTee,
    evidence: Evidence,
    now: SystemTime,
}

impl Setting {
    fn new() -> Self {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let tee = SoftwareTee::generate(now).expect("software TEE");
        let evidence = tee.snp_guest(POLICY).issue(&REPORT_DATA).expect("evidence");
        Self { tee, evidence, now }
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(vec![self.tee.reference_value(Tee::Snp)], [POLICY])
    }

    fn verify(&self, verifier: &Verifier) {
        verifier
            .verify(&self.evidence, &REPORT_DATA, self.now)
            .expect("accepted");
    }
}
