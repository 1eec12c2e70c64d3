use contrast_clock::SeededEntropy;

use super::*;
use crate::{Derivation, Salt, Seed};

fn key(seed: u8) -> SealingKey {
    let seed = Seed::from_slice(&[seed; 64]).expect("seed");
    let salt = Salt::from_slice(&[1; 32]).expect("salt");
    let key = Derivation::new(&seed, &salt).sealing_key();
    key.expect("derives")
}

fn entropy() -> SeededEntropy {
    SeededEntropy::new(1)
}

#[test]
fn opens_in_the_same_deployment_under_the_same_kind_and_name_only() {
    let own = key(1);
    let sealed = own.public().seal("Files", "db", b"content", &entropy());
    let sealed = sealed.expect("seals");
    assert_eq!(sealed.len(), b"content".len() + SEALING_OVERHEAD_BYTES);
    let opened = own.open("Files", "db", &sealed).expect("opens");
    assert_eq!(opened.as_slice(), b"content");
    for (kind, name) in [
        ("Files", "other"),
        ("Registry", "db"),
        ("File", "sdb"),
        ("", "Filesdb"),
    ] {
        assert!(own.open(kind, name, &sealed).is_err(), "{kind} {name}");
    }
    assert!(key(2).open("Files", "db", &sealed).is_err());
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(own.open("Files", "db", &changed).is_err(), "byte {at}");
        assert!(own.open("Files", "db", &sealed[..at]).is_err());
    }
}

/// Computed with Python's `hmac` and `hashlib`, and the ladder of RFC 7748 on Python integers: HKDF of the seed, then DeriveKeyPair of RFC 9180.
#[test]
fn key_agrees_with_its_vector() {
    let seed: Vec<u8> = (0..64).collect();
    let salt: Vec<u8> = (100..132).collect();
    let derivation = Derivation::new(
        &Seed::from_slice(&seed).expect("seed"),
        &Salt::from_slice(&salt).expect("salt"),
    );
    let public = derivation.sealing_key().expect("derives").public();
    assert_eq!(
        hex::encode(public.0),
        "db2a46bb40c881b737ab57acd4a48347cb4b7e59a66e08de20ca271f94417075"
    );
}

#[test]
fn public_key_survives_its_file_and_nothing_else_is_taken_for_one() {
    let public = key(1).public();
    let pem = public.to_pem().expect("encodes");
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
    assert_eq!(SealingPublicKey::from_pem(&pem).expect("reads"), public);
    let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIHcHbQpzGKV9PBbBclGyZkXfTC+H68CZKrF3+6UduSwq\n-----END PRIVATE KEY-----\n";
    for wrong in ["", "junk", private] {
        assert!(SealingPublicKey::from_pem(wrong).is_err());
    }
    // All zeros is a point of small order.
    let zero = SealingPublicKey([0; 32]);
    assert!(zero.seal("Files", "a", b"b", &entropy()).is_err());
}

#[test]
fn files_survive_and_keys_that_lead_elsewhere_do_not() {
    let mut files = SealedFiles::default();
    files.insert("b", b"2");
    files.insert("a", &[0, 255]);
    files.insert("b", b"3");
    let bytes = files.to_bytes().expect("encodes");
    let read = SealedFiles::from_bytes(&bytes).expect("reads");
    let found: Vec<_> = read.iter().collect();
    assert_eq!(found, [("a", &[0, 255][..]), ("b", b"3")]);
    assert_eq!(format!("{read:?}"), "SealedFiles(2 files)");
    for wrong in [
        "",
        "{}",
        r#"{"files":[{"key":"..","content":""}]}"#,
        r#"{"files":[{"key":"a/b","content":""}]}"#,
        r#"{"files":[{"key":"a","content":"?"}]}"#,
        r#"{"files":[{"key":"a","content":""},{"key":"a","content":""}]}"#,
        r#"{"files":[],"more":1}"#,
    ] {
        assert!(
            SealedFiles::from_bytes(wrong.as_bytes()).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn credential_survives_and_what_docker_cannot_read_is_refused() {
    let credential = RegistryCredential::new("me", "pass:word").expect("usable");
    let bytes = credential.to_bytes().expect("encodes");
    assert_eq!(bytes.as_slice(), br#"{"auth":"bWU6cGFzczp3b3Jk"}"#);
    let read = RegistryCredential::from_bytes(&bytes).expect("reads");
    assert_eq!(read.auth, "bWU6cGFzczp3b3Jk");
    for (user, password) in [("", "a"), ("a", ""), ("a:b", "c")] {
        assert!(RegistryCredential::new(user, password).is_err());
    }
    for wrong in ["{}", r#"{"auth":"?"}"#, r#"{"auth":"bWU="}"#] {
        assert!(
            RegistryCredential::from_bytes(wrong.as_bytes()).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn debug_shows_nothing() {
    assert_eq!(format!("{:?}", key(1)), "SealingKey(hidden)");
}
