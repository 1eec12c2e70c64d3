//! Who may change, recover and decrypt: keys of owners, and ids of workload secrets.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has to stop there"
)]

mod fixture;

use aws_lc_rs::{
    encoding::AsDer,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use contrast_manifest::OwnerKeyDigest;
use fixture::{OWNER_KEY, parse, problems, problems_with, rsa_key, valid};
use serde_json::json;

#[test]
fn rejects_owner_keys_that_are_none() {
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("key");
    let p256 = hex::encode(p256.public_key().as_der().expect("DER").as_ref());
    let mut off_curve = hex::decode(OWNER_KEY.as_str()).expect("hex");
    *off_curve.last_mut().expect("a key") ^= 1;
    let off_curve = hex::encode(off_curve);
    for (key, message) in [
        (
            "abc".to_owned(),
            "expected an even number of hex digits, found 3",
        ),
        (
            "abcd".to_owned(),
            "expected a SubjectPublicKeyInfo DER structure: ",
        ),
        (p256, "expected an ECDSA key on P-384"),
        (off_curve, "the key's point is not on P-384"),
    ] {
        let found = problems_with("/WorkloadOwnerPubKeys/0", json!(key));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with(&format!("$.WorkloadOwnerPubKeys[0]: {message}")),
            "{found:?}"
        );
    }
    let small = format!("30818902818100{}0203010001", "c1".repeat(128));
    let key = "07".repeat(32);
    let x25519 = format!("302a300506032b656e032100{key}");
    let mut value = valid();
    value["SeedshareOwnerPubKeys"][0] = json!(x25519);
    parse(&value).expect("valid");
    let again = format!("302a300506032b656e032100{}87", "07".repeat(31));
    let prime = format!("302a300506032b656e032100ed{}7f", "ff".repeat(30));
    let below = prime.replace("00ed", "00ec");
    let mut value = valid();
    value["SeedshareOwnerPubKeys"][0] = json!(below);
    parse(&value).expect("valid");
    let ed25519 = format!("302a300506032b6570032100{key}");
    let with_null = format!("302c300706032b656e0500032100{key}");
    let short = format!("3029300506032b656e032000{}", "07".repeat(31));
    let even_exponent = rsa_key(1).replace("0203010001", "0203010000");
    for (key, message) in [
        (
            "3000".to_owned(),
            "expected a PKCS#1 RSAPublicKey DER structure, or a SubjectPublicKeyInfo DER structure of an X25519 key: ",
        ),
        (again, "expected an X25519 key below 2^255 - 19; "),
        (prime, "expected an X25519 key below 2^255 - 19; "),
        (
            ed25519,
            "expected the SubjectPublicKeyInfo of an X25519 key (algorithm 1.3.101.110 without parameters, 32 bytes), or a PKCS#1 RSAPublicKey; found algorithm 1.3.101.112 without parameters, 32 bytes",
        ),
        (
            with_null,
            "expected the SubjectPublicKeyInfo of an X25519 key (algorithm 1.3.101.110 without parameters, 32 bytes), or a PKCS#1 RSAPublicKey; found algorithm 1.3.101.110 with parameters, 32 bytes",
        ),
        (
            short,
            "expected the SubjectPublicKeyInfo of an X25519 key (algorithm 1.3.101.110 without parameters, 32 bytes), or a PKCS#1 RSAPublicKey; found algorithm 1.3.101.110 without parameters, 31 bytes",
        ),
        (small, "expected an RSA key of 4096 bits, found 1024 bits"),
        (
            even_exponent,
            "expected an odd public exponent of at least 65537",
        ),
    ] {
        let found = problems_with("/SeedshareOwnerPubKeys/0", json!(key));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with(&format!("$.SeedshareOwnerPubKeys[0]: {message}")),
            "{found:?}"
        );
    }
}

#[test]
fn rejects_an_owner_who_is_listed_twice() {
    let digest = OwnerKeyDigest::of(&hex::decode(OWNER_KEY.as_str()).expect("hex"));
    assert_eq!(
        problems_with("/WorkloadOwnerKeyDigests/0", json!(digest.to_string())),
        ["$.WorkloadOwnerPubKeys[0]: the same owner is listed twice; it would count twice"]
    );
    assert_eq!(
        problems_with("/SeedshareOwnerPubKeys/1", json!(rsa_key(1))),
        ["$.SeedshareOwnerPubKeys[1]: the same owner is listed twice; it would get two shares"]
    );
}

#[test]
fn rejects_a_deployment_that_nobody_can_recover() {
    let mut value = valid();
    value["SeedshareOwnerPubKeys"] = json!([]);
    value["SeedshareThreshold"] = json!(1);
    assert!(
        problems(&value)[0].starts_with("$.SeedshareOwnerPubKeys: expected at least one key; ")
    );
}

#[test]
fn secret_that_is_the_transit_key_of_another_is_refused() {
    let with = |ids: [&str; 2]| {
        let mut value = valid();
        let policies = value["Policies"].as_object_mut().expect("policies");
        for (entry, id) in policies.values_mut().zip(ids) {
            entry["WorkloadSecretID"] = json!(id);
        }
        value
    };
    for ids in [["shop", "1_shop"], ["12_a_b", "a_b"]] {
        let found = problems(&with(ids));
        assert!(
            found.len() == 1
                && found[0]
                    .contains(".WorkloadSecretID: the secret with this id is the transit key of `"),
            "{found:?}"
        );
    }
    for ids in [
        ["shop", "shop"],
        ["shop", "_shop"],
        ["shop", "x_shop"],
        ["shop", "01_shop"],
        ["", "1_"],
    ] {
        parse(&with(ids)).unwrap_or_else(|error| panic!("{ids:?}: {error}"));
    }
}
