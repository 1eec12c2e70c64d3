use aws_lc_rs::digest::{SHA256, digest};

use super::*;

/// Expected values were computed once with Python's `hmac` and `hashlib`, not with this crate: extract and expand of RFC
/// 5869, HMAC_DRBG as C2SP det-keygen writes it down, and the curve's point addition on Python integers.
fn derivation() -> Derivation {
    let seed: Vec<u8> = (0..64).collect();
    let salt: Vec<u8> = (100..132).collect();
    Derivation::new(
        &Seed::from_slice(&seed).expect("seed"),
        &Salt::from_slice(&salt).expect("salt"),
    )
}

#[test]
fn workload_secret_agrees_with_its_vector() {
    let secret = derivation()
        .workload_secret("apps/v1/Deployment/default/web")
        .expect("derives");
    assert_eq!(
        secret.to_hex().as_str(),
        "931f513c874df95a23228b2ef37dc42604e844e9a4f4ca09b532287f8c4de5bb8bf23477968771c0d2095165078b59d22ab7b93df3189cd062949efb83388c2c"
    );
}

#[test]
fn transit_key_agrees_with_its_vector() {
    let key = derivation().transit_key(1, "vault").expect("derives");
    assert_eq!(
        hex::encode(key.expose()),
        "8ccb43ba4dc8241d3e5ec0104c083fb1d6b49918fece33d8f1f9234e5637dc4d"
    );
}

#[test]
fn transit_hmac_and_signing_keys_agree_with_their_vectors() {
    let key = derivation().transit_hmac_key(1, "vault").expect("derives");
    assert_eq!(
        hex::encode(key.expose()),
        "d2fcdda2892faf2056b4d2fdfb259043b4609c38a4e3cf2fe59adc33475dad3ed4c1795efacd4cdb5098740a781e0fe5df24215594ab7799dd2cb7d596eba110"
    );
    let key = derivation().transit_signing_key(1, "vault");
    let key = key.expect("derives");
    assert_eq!(
        hex::encode(digest(&SHA256, key.public_key_spki())),
        "29627ec622d72041e9ccee0eafb89e11a558d6ac6afa17eeefd727b2b654418b"
    );
}

#[test]
fn volume_record_key_agrees_with_its_vector() {
    let key = derivation().volume_record_key().expect("derives");
    assert_eq!(
        hex::encode(key.expose()),
        "8a5d0ba7b7e5d6c43c239b918d3ae97c3efe641f5a1aee31f9d8a05d98d351a452af371d9627d392d0b0080f5127762b7767c2720f0d136db00c2af9230c2569"
    );
}

#[test]
fn store_record_key_agrees_with_its_vector() {
    let key = derivation().store_record_key().expect("derives");
    assert_eq!(
        hex::encode(key.expose()),
        "2924095efe4b06cb2d8766583fc2d7da40384675069754acfcd6143925e8e7d8c0339ff2eb2374d8694cbd7587d02d1732e739ab90efb97a183fd2ca5f89234f"
    );
}

#[test]
fn signing_keys_agree_with_their_vectors() {
    let fingerprint = |key: SigningKey| hex::encode(digest(&SHA256, key.public_key_spki()));
    assert_eq!(
        fingerprint(derivation().root_ca_key().expect("derives")),
        "6fc31657aa18204d3c3e41112074209958d0409b3d3e7b5eb528ac046eba6c3b"
    );
    assert_eq!(
        fingerprint(derivation().transition_signing_key().expect("derives")),
        "a054d2a1cd9340c694a0bf3b93df5dfa37340a317567d3815bbc32ff308a8cd5"
    );
}

#[test]
fn empty_id_has_no_secret() {
    let derivation = derivation();
    assert!(matches!(
        derivation.workload_secret(""),
        Err(DeriveError::EmptyId)
    ));
    assert!(matches!(
        derivation.transit_key(1, ""),
        Err(DeriveError::EmptyId)
    ));
}

#[test]
fn every_input_changes_the_secret() {
    let secret = |seed: u8, salt: u8, id: &str| {
        let seed = Seed::from_slice(&[seed; 64]).expect("seed");
        let salt = Salt::from_slice(&[salt; 32]).expect("salt");
        let secret = Derivation::new(&seed, &salt).workload_secret(id);
        secret.expect("derives").to_hex().to_string()
    };
    let first = secret(1, 2, "a");
    assert_eq!(first, secret(1, 2, "a"));
    assert_ne!(first, secret(3, 2, "a"));
    assert_ne!(first, secret(1, 3, "a"));
    assert_ne!(first, secret(1, 2, "b"));
}

#[test]
fn debug_shows_nothing() {
    let derivation = derivation();
    assert_eq!(format!("{derivation:?}"), "Derivation(hidden)");
    let secret = derivation.workload_secret("x").expect("derives");
    assert_eq!(format!("{secret:?}"), "WorkloadSecret(hidden)");
    let key = derivation.transit_key(1, "x").expect("derives");
    assert_eq!(format!("{key:?}"), "TransitKey(hidden)");
    let key = derivation.store_record_key().expect("derives");
    assert_eq!(format!("{key:?}"), "StoreRecordKey(hidden)");
    let key = derivation.volume_record_key().expect("derives");
    assert_eq!(format!("{key:?}"), "VolumeRecordKey(hidden)");
}
