//! What looking for missing documents adds to the verification of evidence, when all of them are at hand.

#![allow(
    clippy::expect_used,
    reason = "a bench that meets the unexpected has to stop there"
)]

use std::time::{Duration, SystemTime};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use contrast_attestation::{Evidence, SnpEvidence, TdxEvidence};
use contrast_collateral::{Bundle, Collateral};
use contrast_testbed::{evidence, evidence_path};
use divan::Bencher;

fn main() {
    divan::main();
}

/// 2023-06-20T00:00:00Z: everything in the collected evidence is valid.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_687_219_200)
}

fn bundle(names: &[&str]) -> Option<Collateral> {
    let paths: Option<Vec<_>> = names.iter().map(|name| evidence_path(name)).collect();
    let bundle = Bundle::read(&paths?).expect("a bundle");
    Some(Collateral::offline().with_bundle(bundle))
}

#[divan::bench]
fn baseline_p384_verification(bencher: Bencher<'_, '_>) {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random);
    let key = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P384_SHA384_FIXED_SIGNING,
        pkcs8.expect("a key").as_ref(),
    );
    let key = key.expect("a key");
    let message = [7; 672];
    let signature = key.sign(&random, &message).expect("signs");
    let public = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key.public_key().as_ref());
    bencher.bench_local(|| public.verify(&message, signature.as_ref()));
}

#[divan::bench]
fn snp_report_alone(bencher: Bencher<'_, '_>) {
    let (Some(report), Some(collateral)) = (
        evidence("snp/attestation.bin"),
        bundle(&["snp/vcek.testcer"]),
    ) else {
        return;
    };
    let evidence = Evidence::Snp(SnpEvidence {
        report,
        ..SnpEvidence::default()
    });
    bencher.bench_local(|| collateral.complete(&evidence, now()));
}

const OF_INTEL: [&str; 4] = [
    "tdx/sample_tcbInfo_response",
    "tdx/sample_qeIdentity_response",
    "tdx/pckcrl",
    "tdx/rootcrl.der",
];

fn quote() -> Option<(Evidence, Collateral)> {
    let evidence = Evidence::Tdx(TdxEvidence {
        quote: evidence("tdx/tdx_prod_quote_SPR_E4.dat")?,
        collateral: None,
    });
    Some((evidence, bundle(&OF_INTEL)?))
}

#[divan::bench]
fn tdx_quote_alone(bencher: Bencher<'_, '_>) {
    if let Some((evidence, collateral)) = quote() {
        bencher.bench_local(|| collateral.complete(&evidence, now()));
    }
}

#[divan::bench]
fn tdx_quote_with_collateral(bencher: Bencher<'_, '_>) {
    if let Some((evidence, collateral)) = quote() {
        let whole = collateral.complete(&evidence, now()).evidence;
        bencher.bench_local(|| collateral.complete(&whole, now()));
    }
}
