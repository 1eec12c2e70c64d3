use std::sync::OnceLock;

use super::*;

/// RSA-4096 key generation takes seconds.
fn owner_pem() -> &'static str {
    static PEM: OnceLock<Zeroizing<String>> = OnceLock::new();
    PEM.get_or_init(|| generate_owner_key_pem().expect("key"))
}

fn seed() -> Seed {
    Seed::from_slice(&[7; 64]).expect("seed")
}

fn salt() -> Salt {
    Salt::from_slice(&[9; 32]).expect("salt")
}

fn document() -> SeedSharesDocument {
    let owner = SeedShareOwnerKey::from_pem(owner_pem()).expect("public half");
    encrypt_seed(&seed(), &salt(), &[owner], 1).expect("encrypts")
}

#[test]
fn owner_recovers_the_seed_through_the_file() {
    let json = document().to_json().expect("serializes");
    let document = SeedSharesDocument::from_json(json.as_bytes()).expect("parses");
    let share = decrypt_share(&document, owner_pem()).expect("decrypts");
    let found = combine(document.threshold, &[share]).expect("combines");
    assert_eq!(found.expose(), seed().expose());
    assert_eq!(document.salt().expect("salt"), salt());
}

#[test]
fn document_of_todays_contrast_has_threshold_one() {
    let json = format!(
        r#"{{"SeedShares":[{{"PublicKey":"00","EncryptedSeed":"01"}}],"Salt":"{}"}}"#,
        "09".repeat(32)
    );
    let document = SeedSharesDocument::from_json(json.as_bytes()).expect("parses");
    assert_eq!(document.threshold, 1);
}

#[test]
fn key_of_somebody_else_opens_nothing() {
    let mut document = document();
    document.shares[0].public_key[20] ^= 1;
    let error = decrypt_share(&document, owner_pem()).expect_err("no share");
    assert!(matches!(error, SharesError::NotAnOwner { available: 1 }));
}

#[test]
fn damaged_share_is_refused() {
    let mut document = document();
    document.shares[0].encrypted_seed[100] ^= 1;
    let error = decrypt_share(&document, owner_pem()).expect_err("damaged");
    assert!(matches!(error, SharesError::Decrypt));
}

#[test]
fn share_of_wrong_length_is_no_seed() {
    let error = combine(1, &[SeedShare::from_bytes(vec![1; 63])]).expect_err("too short");
    assert_eq!(error.to_string(), "the seed has 63 bytes, expected 64");
    assert!(matches!(
        combine(1, &[]),
        Err(SharesError::TooFew {
            found: 0,
            threshold: 1
        })
    ));
}

#[test]
fn threshold_above_one_and_no_owner_are_refused() {
    let owner = SeedShareOwnerKey::from_pem(owner_pem()).expect("public half");
    let error = encrypt_seed(&seed(), &salt(), &[owner], 2).expect_err("threshold");
    assert!(matches!(
        error,
        SharesError::ThresholdUnsupported { requested: 2 }
    ));
    assert!(matches!(
        encrypt_seed(&seed(), &salt(), &[], 1),
        Err(SharesError::NoOwner)
    ));
}

#[test]
fn public_key_that_is_none_is_refused() {
    assert!(SeedShareOwnerKey::from_pkcs1_der(&[0x30, 0x00]).is_err());
    assert!(SeedShareOwnerKey::from_pem("junk").is_err());
}

#[test]
fn debug_hides_the_share() {
    assert_eq!(
        format!("{:?}", SeedShare::from_bytes(vec![1])),
        "SeedShare(hidden)"
    );
}
