//! Cost of verifying SNP evidence with a cold and a warm chain cache, each beside the bare signature checks that it contains:
//! one P-384 verification for a warm chain; on top of it, for a cold one, three of RSASSA-PSS with 4096 bits (ARK by itself,
//! ASK by the ARK, VCEK by the ASK).

#![expect(
    clippy::expect_used,
    reason = "a setting that cannot be made is the end of a benchmark"
)]

use std::time::{Duration, SystemTime};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        ParsedPublicKey, RSA_PSS_2048_8192_SHA384, RSA_PSS_SHA384, RsaKeyPair, UnparsedPublicKey,
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

/// What no warm verification can do without.
#[divan::bench]
fn bare_p384_verification(bencher: Bencher<'_, '_>) {
    let report = P384::new();
    bencher.bench_local(|| report.verify());
}

/// What no cold verification can do without.
#[divan::bench]
fn bare_p384_and_three_rsa_4096_verifications(bencher: Bencher<'_, '_>) {
    let report = P384::new();
    let certificate = Rsa4096::new();
    bencher.bench_local(|| {
        for _ in 0..3 {
            certificate.verify();
        }
        report.verify();
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

struct P384 {
    key: ParsedPublicKey,
    signature: Vec<u8>,
}

impl P384 {
    const MESSAGE: [u8; SIGNED_BYTES] = [3; SIGNED_BYTES];

    fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("key");
        let signature = key.sign(&SystemRandom::new(), &Self::MESSAGE);
        Self {
            key: ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key.public_key()).expect("point"),
            signature: signature.expect("signature").as_ref().to_vec(),
        }
    }

    fn verify(&self) {
        self.key
            .verify_sig(black_box(&Self::MESSAGE), black_box(&self.signature))
            .expect("holds");
    }
}

struct Rsa4096 {
    /// RSAPublicKey, as it comes out of a certificate; it is parsed each time, as a certificate's is.
    key: Vec<u8>,
    signature: Vec<u8>,
}

impl Rsa4096 {
    /// About what a VCEK certificate's signature covers.
    const MESSAGE: [u8; 800] = [4; 800];

    fn new() -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa4096).expect("key");
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(
            &RSA_PSS_SHA384,
            &SystemRandom::new(),
            &Self::MESSAGE,
            &mut signature,
        )
        .expect("signature");
        Self {
            key: key.public_key().as_ref().to_vec(),
            signature,
        }
    }

    fn verify(&self) {
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, &self.key)
            .verify(black_box(&Self::MESSAGE), black_box(&self.signature))
            .expect("holds");
    }
}
