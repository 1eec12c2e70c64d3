use std::fs;

use contrast_clock::SeededEntropy;
use proptest::prelude::*;

use super::*;
use crate::openssl::{openssl, openssl_succeeds};

fn owner(seed: u64) -> WorkloadOwnerKey {
    WorkloadOwnerKey::generate(&SeededEntropy::new(seed)).expect("key")
}

fn public_pem(owner: &WorkloadOwnerKey) -> String {
    encode_string("PUBLIC KEY", LineEnding::LF, owner.public_key_spki()).expect("PEM")
}

#[test]
fn approval_text_agrees_with_its_vector() {
    // Computed once with Python's hashlib: sha256(b"contrast manifest update v1" + b"\1" * 32 + b"\2" * 32).
    assert_eq!(
        update_approval_text(&[1; 32], &[2; 32]),
        "1d273d779b150c9416a72ebe745ee8993ad92bcf993f946a710987b8c07ee36b"
    );
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
    for pem in [pem.as_str(), &public_pem(&owner)] {
        let public = WorkloadOwnerKey::public_key_from_pem(pem).expect("parses");
        assert_eq!(public, owner.public_key_spki());
    }
}

#[test]
fn public_key_cannot_sign_and_other_pem_is_named() {
    assert!(matches!(
        WorkloadOwnerKey::from_pem(&public_pem(&owner(1))),
        Err(OwnerKeyError::PublicOnly)
    ));
    let other = pem::encode(&pem::Pem::new("CERTIFICATE", vec![1]));
    let error = WorkloadOwnerKey::from_pem(&other)
        .expect_err("other")
        .to_string();
    assert!(error.contains("found `CERTIFICATE`"), "{error}");
    assert!(matches!(
        WorkloadOwnerKey::from_pem("no PEM here"),
        Err(OwnerKeyError::Empty)
    ));
}

#[test]
fn public_key_of_another_kind_is_refused() {
    let key = owner(1);
    let mut off_the_curve = key.public_key_spki().to_vec();
    off_the_curve[60] ^= 1;
    for junk in [b"junk".to_vec(), off_the_curve] {
        let pem = pem::encode(&pem::Pem::new("PUBLIC KEY", junk));
        assert!(matches!(
            WorkloadOwnerKey::public_key_from_pem(&pem),
            Err(OwnerKeyError::Key(KeyError::NotAPublicKey))
        ));
    }
}

#[test]
fn debug_and_display_show_only_the_public_half() {
    let key = owner(1);
    let digest = hex::encode(owner_digest(key.public_key_spki()));
    assert_eq!(key.to_string(), digest);
    let spki = hex::encode(key.public_key_spki());
    assert_eq!(
        format!("{key:?}"),
        format!("WorkloadOwnerKey(SigningKey(public {spki}))")
    );
}

#[test]
fn openssl_and_this_crate_accept_each_others_approvals() {
    let directory = tempfile::tempdir().expect("directory");
    let file = |name: &str, contents: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, contents).expect("writes");
        path.to_str().expect("UTF-8").to_owned()
    };
    let owner = owner(4);
    let key = file("key.pem", owner.to_pem().expect("encodes").as_bytes());
    let text = file(
        "approval",
        update_approval_text(&[1; 32], &[2; 32]).as_bytes(),
    );
    let Some(signature) = openssl_succeeds(&["dgst", "-sha256", "-sign", &key, &text]) else {
        return;
    };
    verify_update_approval(owner.public_key_spki(), &[1; 32], &[2; 32], &signature)
        .expect("verifies");

    let public = file("public.pem", public_pem(&owner).as_bytes());
    let signature = owner.approve_update(&[1; 32], &[2; 32]).expect("signs");
    let signature = file("signature", &signature);
    let verify = [
        "dgst",
        "-sha256",
        "-verify",
        &public,
        "-signature",
        &signature,
    ];
    openssl_succeeds(&[&verify[..], &[&text]].concat());
    let other = file("other", update_approval_text(&[1; 32], &[3; 32]).as_bytes());
    let refused = openssl(&[&verify[..], &[&other]].concat()).expect("ran before");
    assert!(!refused.status.success());
}

#[test]
fn keys_made_by_openssl_are_read_in_each_of_their_forms() {
    let pkcs8 = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
    ];
    // This form has `EC PARAMETERS` in front of the key.
    let sec1 = ["ecparam", "-name", "secp384r1", "-genkey"];
    for arguments in [&pkcs8[..], &sec1[..]] {
        let Some(pem) = openssl_succeeds(arguments) else {
            return;
        };
        let pem = String::from_utf8(pem).expect("UTF-8");
        let key = WorkloadOwnerKey::from_pem(&pem).expect("parses");
        let signature = key.approve_update(&[1; 32], &[2; 32]).expect("signs");
        verify_update_approval(key.public_key_spki(), &[1; 32], &[2; 32], &signature)
            .expect("verifies");
    }
    let p256 = openssl_succeeds(&["ecparam", "-name", "prime256v1", "-genkey"]).expect("ran");
    let p256 = String::from_utf8(p256).expect("UTF-8");
    assert!(matches!(
        WorkloadOwnerKey::from_pem(&p256),
        Err(OwnerKeyError::Key(KeyError::NotAPrivateKey { .. }))
    ));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(
        label in "(EC )?(PRIVATE|PUBLIC) KEY",
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in ".{0,200}",
    ) {
        let pem = pem::encode(&pem::Pem::new(label, bytes));
        prop_assert!(WorkloadOwnerKey::from_pem(&pem).is_err());
        prop_assert!(WorkloadOwnerKey::public_key_from_pem(&pem).is_err());
        prop_assert!(WorkloadOwnerKey::from_pem(&text).is_err());
    }
}
