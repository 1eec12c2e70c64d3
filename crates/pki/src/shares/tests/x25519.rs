//! Owners with X25519 keys.

use contrast_clock::SeededEntropy;

use super::*;

/// The key that the share below was made for, written by OpenSSL.
const OWNER: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEIIj617gYrqbH+PvwMdJrf5Fev6byn8MC4lBCnSx+rMNy
-----END PRIVATE KEY-----
";
/// The seed of these tests, sealed to that key by pyhpke 0.6.5 with the salt of these tests: another implementation of RFC 9180.
const SEALED: &str = "fcff1936e341de93b1fde62636877962fe7fcaa915f922c312acee47b4d8991cbf0ed28ae74624e541a463f9aa240e9ced578534e7be8c866ff49db816fb36b30b5a9e2d6f92dd2eb010ed5eecf0eccd60a304e937b9a490e1b4e2f25b18a27261839f529f5e520a6d09e032c832f27f";
/// PKCS#8 of an X25519 key without the key's bytes (RFC 8410, section 10.3).
const PKCS8_START: &str = "302e020100300506032b656e04220420";

/// A key of its own for each number.
pub(super) fn owner_pem(number: u8) -> Zeroizing<String> {
    let start = hex::decode(PKCS8_START).expect("hex");
    let key = pem::Pem::new(PKCS8_PEM, [start, vec![number; 32]].concat());
    Zeroizing::new(pem::encode(&key))
}

fn shared(entropy: &dyn Entropy) -> SeedSharesDocument {
    let owner = SeedShareOwnerKey::from_pem(OWNER).expect("public half");
    encrypt_seed(&seed(), &salt(), &[owner], 1, entropy).expect("encrypts")
}

#[test]
fn owner_recovers_the_seed_and_each_encryption_is_another() {
    let document = shared(&SystemEntropy);
    let share = decrypt_share(&document, OWNER).expect("decrypts");
    assert_eq!(share.expose(), seed().expose());
    // Encapsulated key, seed, tag.
    assert_eq!(document.shares[0].encrypted_seed.len(), 32 + 64 + 16);
    assert_ne!(document, shared(&SystemEntropy));
}

#[test]
fn same_randomness_makes_the_same_document() {
    let again = || shared(&SeededEntropy::new(3));
    assert_eq!(again(), again());
}

#[test]
fn share_that_another_implementation_sealed_is_opened() {
    let mut document = shared(&SystemEntropy);
    document.shares[0].encrypted_seed = hex::decode(SEALED).expect("hex");
    let share = decrypt_share(&document, OWNER).expect("decrypts");
    assert_eq!(share.expose(), seed().expose());
}

#[test]
fn share_of_another_salt_or_a_changed_one_does_not_open() {
    let refused = |document: &SeedSharesDocument| {
        let error = decrypt_share(document, OWNER).expect_err("refused");
        assert!(matches!(error, SharesError::Decrypt), "{error}");
    };
    let mut moved = shared(&SystemEntropy);
    moved.salt = vec![8; 32];
    refused(&moved);
    for at in 0..112 {
        let mut changed = shared(&SystemEntropy);
        changed.shares[0].encrypted_seed[at] ^= 1;
        refused(&changed);
    }
    for length in [0, 31, 32, 47, 111] {
        let mut short = shared(&SystemEntropy);
        short.shares[0].encrypted_seed.truncate(length);
        refused(&short);
    }
}

#[test]
fn key_is_read_in_each_form_that_openssl_writes() {
    let directory = tempfile::tempdir().expect("directory");
    let own = SeedShareOwnerKey::from_pem(OWNER).expect("public half");
    assert_eq!(
        SeedShareOwnerKey::from_der(own.as_der()).expect("reads"),
        own
    );
    let key = write(directory.path(), "key.pem", OWNER.as_bytes());
    let text = |arguments: &[&str]| {
        let text = openssl_succeeds(arguments)?;
        Some(String::from_utf8(text).expect("UTF-8"))
    };
    let Some(public) = text(&["pkey", "-in", &key, "-pubout"]) else {
        return;
    };
    assert_eq!(SeedShareOwnerKey::from_pem(&public).expect("reads"), own);
    // Of the same length, for signatures.
    for algorithm in ["X448", "ED25519"] {
        let other = text(&["genpkey", "-algorithm", algorithm]).expect("ran before");
        let other = write(directory.path(), "other.pem", other.as_bytes());
        let public = text(&["pkey", "-in", &other, "-pubout"]).expect("ran before");
        assert!(SeedShareOwnerKey::from_pem(&public).is_err());
    }
}

#[test]
fn key_of_small_order_and_missing_randomness_are_told() {
    let mut der = SeedShareOwnerKey::from_pem(OWNER)
        .expect("public half")
        .as_der()
        .to_vec();
    let start = der.len() - 32;
    der[start..].fill(0);
    let zero = SeedShareOwnerKey::from_der(&der).expect("looks like a key");
    let error = encrypt_seed(&seed(), &salt(), &[zero], 1, &SystemEntropy).expect_err("refused");
    assert!(matches!(error, SharesError::SmallOrder), "{error}");

    let owner = SeedShareOwnerKey::from_pem(OWNER).expect("public half");
    let error = encrypt_seed(&seed(), &salt(), &[owner], 1, &several::Broken).expect_err("refused");
    assert!(matches!(error, SharesError::Entropy(_)), "{error}");
}
