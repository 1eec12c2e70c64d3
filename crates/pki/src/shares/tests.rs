use std::{fs, path::Path, sync::OnceLock};

use contrast_clock::SystemEntropy;
use proptest::prelude::*;

use zeroize::Zeroizing;

use super::{
    owner::{PKCS8_PEM, SPKI_PEM},
    rsa::PKCS1_PEM,
    *,
};
use crate::openssl::openssl_succeeds;

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

fn complete(document: SeedSharesDocument, shares: impl IntoIterator<Item = SeedShare>) -> Seed {
    let mut collector = Collector::new(document);
    for share in shares {
        if let Progress::Complete(seed) = collector.add(share).expect("adds") {
            return seed;
        }
    }
    panic!("too few: {collector:?}");
}

fn document() -> SeedSharesDocument {
    let owner = SeedShareOwnerKey::from_pem(owner_pem()).expect("public half");
    encrypt_seed(&seed(), &salt(), &[owner], 1, &SystemEntropy).expect("encrypts")
}

#[test]
fn owner_recovers_the_seed_through_the_file() {
    let json = document().to_json().expect("serializes");
    let document = SeedSharesDocument::from_json(json.as_bytes()).expect("parses");
    let share = decrypt_share(&document, owner_pem()).expect("decrypts");
    assert_eq!(
        complete(document.clone(), [share]).expose(),
        seed().expose()
    );
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
fn file_has_the_names_and_encodings_of_todays_contrast() {
    let json: serde_json::Value =
        serde_json::from_str(&document().to_json().expect("serializes")).expect("JSON");
    assert_eq!(json["Salt"], "09".repeat(32));
    assert_eq!(json["Threshold"], 1);
    let owner = SeedShareOwnerKey::from_pem(owner_pem()).expect("public half");
    let share = &json["SeedShares"][0];
    assert_eq!(share["PublicKey"], hex::encode(owner.as_der()));
    // RSA-4096: 512 bytes.
    assert_eq!(share["EncryptedSeed"].as_str().map(str::len), Some(1024));
}

#[test]
fn each_owner_finds_the_share_of_their_own() {
    let other = generate_owner_key_pem().expect("key");
    let owners = [&other, owner_pem()].map(|pem| SeedShareOwnerKey::from_pem(pem).expect("public"));
    let document = encrypt_seed(&seed(), &salt(), &owners, 1, &SystemEntropy).expect("encrypts");
    let shares = [&other, owner_pem()].map(|pem| decrypt_share(&document, pem).expect("decrypts"));
    for share in shares {
        assert_eq!(
            complete(document.clone(), [share]).expose(),
            seed().expose()
        );
    }

    let only_other =
        encrypt_seed(&seed(), &salt(), &owners[..1], 1, &SystemEntropy).expect("encrypts");
    let error = decrypt_share(&only_other, owner_pem()).expect_err("no share");
    assert!(matches!(error, SharesError::NotAnOwner { available: 1 }));
}

#[test]
fn salt_of_wrong_length_is_named() {
    let mut document = document();
    document.salt.pop();
    let error = document.salt().expect_err("too short").to_string();
    assert_eq!(error, "the salt has 31 bytes, expected 32");
}

/// Options of `openssl pkeyutl` for the padding of seed shares; the label is `seedshare` in hex.
const OAEP: [&str; 6] = [
    "-pkeyopt",
    "rsa_padding_mode:oaep",
    "-pkeyopt",
    "rsa_oaep_md:sha256",
    "-pkeyopt",
    "rsa_oaep_label:736565647368617265",
];

fn write(directory: &Path, name: &str, contents: &[u8]) -> String {
    let path = directory.join(name);
    fs::write(&path, contents).expect("writes");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn openssl_and_this_crate_open_each_others_shares() {
    let directory = tempfile::tempdir().expect("directory");
    let mut document = document();
    let key = write(directory.path(), "key.pem", owner_pem().as_bytes());
    let share = &document.shares[0].encrypted_seed;
    let share = write(directory.path(), "share", share);
    let decrypt = ["pkeyutl", "-decrypt", "-inkey", &key, "-in", &share];
    let Some(plaintext) = openssl_succeeds(&[&decrypt[..], &OAEP[..]].concat()) else {
        return;
    };
    assert_eq!(plaintext, seed().expose());

    let plain = write(directory.path(), "plain", &[8; 64]);
    let encrypt = ["pkeyutl", "-encrypt", "-inkey", &key, "-in", &plain];
    let ciphertext = openssl_succeeds(&[&encrypt[..], &OAEP[..]].concat());
    document.shares[0].encrypted_seed = ciphertext.expect("ran before");
    let share = decrypt_share(&document, owner_pem()).expect("decrypts");
    assert_eq!(share.expose(), [8; 64]);
}

#[test]
fn owner_keys_are_read_in_each_form_that_openssl_writes() {
    let directory = tempfile::tempdir().expect("directory");
    let own = SeedShareOwnerKey::from_pem(owner_pem()).expect("public half");
    let key = write(directory.path(), "key.pem", owner_pem().as_bytes());
    let text = |arguments: &[&str]| {
        let text = openssl_succeeds(arguments)?;
        Some(String::from_utf8(text).expect("UTF-8"))
    };
    let Some(pkcs8) = text(&["pkcs8", "-topk8", "-nocrypt", "-in", &key]) else {
        return;
    };
    assert!(pkcs8.starts_with("-----BEGIN PRIVATE KEY-----"));
    let share = decrypt_share(&document(), &pkcs8).expect("decrypts");
    assert_eq!(share.expose(), seed().expose());
    let spki = text(&["pkey", "-in", &key, "-pubout"]).expect("ran before");
    for pem in [&pkcs8, &spki] {
        assert_eq!(SeedShareOwnerKey::from_pem(pem).expect("reads"), own);
    }

    let bits = "rsa_keygen_bits:1024";
    let short = text(&["genpkey", "-algorithm", "RSA", "-pkeyopt", bits]).expect("ran before");
    let error = SeedShareOwnerKey::from_pem(&short).expect_err("too short");
    assert!(matches!(
        error,
        SharesError::ModulusTooShort { found: 1024 }
    ));
    let curve = "ec_paramgen_curve:P-384";
    let other = text(&["genpkey", "-algorithm", "EC", "-pkeyopt", curve]).expect("ran before");
    assert!(SeedShareOwnerKey::from_pem(&other).is_err());
    assert!(matches!(
        decrypt_share(&document(), &other),
        Err(SharesError::PrivateKey)
    ));
}

#[test]
fn public_key_in_sloppy_der_is_refused() {
    let own = SeedShareOwnerKey::from_pem(owner_pem()).expect("public half");
    let longer = [own.as_der(), &[0]].concat();
    assert!(matches!(
        SeedShareOwnerKey::from_der(&longer),
        Err(SharesError::PublicKey)
    ));
}

proptest! {
    #[test]
    fn document_survives_its_json(
        salt in proptest::collection::vec(any::<u8>(), 0..40),
        threshold in any::<u32>(),
        shares in proptest::collection::vec((
            proptest::collection::vec(any::<u8>(), 0..600),
            proptest::collection::vec(any::<u8>(), 0..600),
        ), 0..4),
    ) {
        let shares = shares
            .into_iter()
            .map(|(public_key, encrypted_seed)| EncryptedShare { public_key, encrypted_seed, digest: Vec::new() })
            .collect();
        let document = SeedSharesDocument { salt, threshold, set: Vec::new(), shares };
        let json = document.to_json().expect("serializes");
        let again = SeedSharesDocument::from_json(json.as_bytes()).expect("parses");
        prop_assert_eq!(again, document);
    }

    #[test]
    fn no_bytes_make_the_readers_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        text in ".{0,200}",
    ) {
        prop_assert!(SeedSharesDocument::from_json(&bytes).is_err());
        prop_assert!(SeedSharesDocument::from_json(text.as_bytes()).is_err());
        prop_assert!(SeedShareOwnerKey::from_der(&bytes).is_err());
        for label in [PKCS1_PEM, PKCS8_PEM, SPKI_PEM] {
            let pem = pem::encode(&pem::Pem::new(label, bytes.clone()));
            prop_assert!(SeedShareOwnerKey::from_pem(&pem).is_err());
            prop_assert!(decrypt_share(&document_without_shares(), &pem).is_err());
        }
    }

    #[test]
    fn no_change_of_a_share_goes_unnoticed(at in 0_usize..512, mask in 1_u8..) {
        let mut document = shared_document().clone();
        document.shares[0].encrypted_seed[at] ^= mask;
        prop_assert!(matches!(
            decrypt_share(&document, owner_pem()),
            Err(SharesError::Decrypt)
        ));
    }
}

fn shared_document() -> &'static SeedSharesDocument {
    static DOCUMENT: OnceLock<SeedSharesDocument> = OnceLock::new();
    DOCUMENT.get_or_init(document)
}

fn document_without_shares() -> SeedSharesDocument {
    SeedSharesDocument {
        salt: vec![0; 32],
        threshold: 1,
        set: Vec::new(),
        shares: Vec::new(),
    }
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
    let share = SeedShare::from_bytes(vec![1; 63]);
    let error = Collector::new(document())
        .add(share)
        .expect_err("too short");
    assert_eq!(error.to_string(), "the seed has 63 bytes, expected 64");
}

#[test]
fn thresholds_that_nobody_or_not_everybody_can_meet_are_refused() {
    let owner = || SeedShareOwnerKey::from_pem(owner_pem()).expect("public half");
    let refused = |owners: &[SeedShareOwnerKey], threshold| {
        encrypt_seed(&seed(), &salt(), owners, threshold, &SystemEntropy).expect_err("refused")
    };
    assert!(matches!(refused(&[], 1), SharesError::NoOwner));
    for (owners, threshold) in [(1, 0), (1, 2), (3, 4), (3, 300)] {
        let error = refused(&vec![owner(); owners], threshold);
        assert!(matches!(error, SharesError::Threshold { .. }), "{error}");
    }
}

#[test]
fn public_key_that_is_none_is_refused() {
    assert!(SeedShareOwnerKey::from_der(&[0x30, 0x00]).is_err());
    assert!(SeedShareOwnerKey::from_pem("junk").is_err());
}

#[test]
fn debug_hides_the_share() {
    assert_eq!(
        format!("{:?}", SeedShare::from_bytes(vec![1])),
        "SeedShare(hidden)"
    );
}

mod several;
mod x25519;
