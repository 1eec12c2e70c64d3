use std::{fs, process::Command};

use contrast_clock::SeededEntropy;

use super::*;

fn owner(seed: u64) -> WorkloadOwnerKey {
    WorkloadOwnerKey::generate(&SeededEntropy::new(seed)).expect("key")
}

#[test]
fn approval_fits_one_manifest_and_one_base_only() {
    let owner = owner(1);
    let signature = owner.approve_update(&[1; 32], &[2; 32]).expect("signs");
    let verify = |manifest: [u8; 32], base: [u8; 32], spki: &[u8]| {
        verify_update_approval(spki, &manifest, &base, &signature)
    };
    verify([1; 32], [2; 32], owner.public_key_spki()).expect("verifies");
    assert!(verify([3; 32], [2; 32], owner.public_key_spki()).is_err());
    assert!(verify([1; 32], [3; 32], owner.public_key_spki()).is_err());
    assert!(verify([1; 32], [2; 32], self::owner(2).public_key_spki()).is_err());
}

#[test]
fn key_survives_its_pem_and_public_half_is_found_in_it() {
    let owner = owner(3);
    let pem = owner.to_pem().expect("encodes");
    let again = WorkloadOwnerKey::from_pem(&pem).expect("parses");
    assert_eq!(again.public_key_spki(), owner.public_key_spki());
    let public = WorkloadOwnerKey::public_key_from_pem(&pem).expect("parses");
    assert_eq!(public, owner.public_key_spki());
}

#[test]
fn public_key_cannot_sign_and_other_pem_is_named() {
    let public = pem::encode(&pem::Pem::new(
        "PUBLIC KEY",
        owner(1).public_key_spki().to_vec(),
    ));
    assert!(matches!(
        WorkloadOwnerKey::from_pem(&public),
        Err(OwnerKeyError::PublicOnly)
    ));
    let other = pem::encode(&pem::Pem::new("CERTIFICATE", vec![1]));
    let error = WorkloadOwnerKey::from_pem(&other)
        .expect_err("other")
        .to_string();
    assert!(error.contains("found `CERTIFICATE`"), "{error}");
}

#[test]
fn openssl_makes_an_approval_that_verifies() {
    let directory = tempfile::tempdir().expect("directory");
    let (key, text) = (
        directory.path().join("key.pem"),
        directory.path().join("approval"),
    );
    let owner = owner(4);
    fs::write(&key, owner.to_pem().expect("encodes").as_bytes()).expect("writes");
    fs::write(&text, update_approval_text(&[1; 32], &[2; 32])).expect("writes");
    let signed = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .args([&key, &text])
        .output();
    let Ok(output) = signed else {
        println!("skipped: there is no openssl program here");
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    verify_update_approval(owner.public_key_spki(), &[1; 32], &[2; 32], &output.stdout)
        .expect("verifies");
}
