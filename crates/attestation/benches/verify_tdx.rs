//! Verification of software TDX evidence beside the bare signature checks that it contains.
//!
//! A platform that is not known yet takes nine P-256 verifications: quote, QE report, PCK certificate and its issuer, both
//! CRLs, the TCB signing certificate, TCB info and QE identity. A known one takes the quote's alone.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has no result"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use contrast_attestation::{
    Evidence, EvidenceVerifier as _, Issuer as _, PolicyHash, ReportData, Tee, Verifier,
    software::SoftwareTee,
};
use divan::{Bencher, black_box};

const POLICY: PolicyHash = PolicyHash([7; 32]);
const REPORT_DATA: ReportData = ReportData([9; 64]);

fn main() {
    divan::main();
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn evidence() -> (SoftwareTee, Evidence) {
    let tee = SoftwareTee::generate(now()).expect("software TEE");
    let evidence = tee.tdx_guest(POLICY).issue(&REPORT_DATA).expect("evidence");
    (tee, evidence)
}

#[divan::bench]
fn tdx_evidence_of_a_known_platform(bencher: Bencher<'_, '_>) {
    let (tee, evidence) = evidence();
    let verifier = verifier(&tee);
    let verify = || {
        verifier
            .verify(black_box(&evidence), &REPORT_DATA, now())
            .expect("verified")
    };
    verify();
    bencher.bench(verify);
    assert_eq!(
        verifier.tdx_platforms().verifications(),
        1,
        "the platform was unknown again"
    );
}

#[divan::bench]
fn tdx_evidence_of_an_unknown_platform(bencher: Bencher<'_, '_>) {
    let (tee, evidence) = evidence();
    bencher
        .with_inputs(|| verifier(&tee))
        .bench_values(|verifier| {
            verifier
                .verify(black_box(&evidence), &REPORT_DATA, now())
                .expect("verified")
        });
}

fn verifier(tee: &SoftwareTee) -> Verifier {
    Verifier::new(vec![tee.reference_value(Tee::Tdx)], [POLICY])
}

#[divan::bench]
fn tdx_evidence_issued_in_software(bencher: Bencher<'_, '_>) {
    let (tee, _) = evidence();
    let guest = tee.tdx_guest(POLICY);
    bencher.bench(|| guest.issue(black_box(&REPORT_DATA)).expect("evidence"));
}

#[divan::bench(args = [1, 9])]
fn bare_p256_verifications(bencher: Bencher<'_, '_>, count: usize) {
    let random = SystemRandom::new();
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("key");
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).expect("key");
    let message = [3; 632];
    let signature = key.sign(&random, &message).expect("signature");
    let public_key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref());
    bencher.bench(|| {
        for _ in 0..count {
            public_key
                .verify(black_box(&message), signature.as_ref())
                .expect("verified");
        }
    });
}
