//! ID blocks and their signatures.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
    },
};
use contrast_measure::{IdAuth, IdAuthError, IdBlock};

/// Keys of the `sev` crate's test of ID blocks (`tests/measurement`, Apache-2.0): made for tests, they protect nothing.
const ID_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDDPZQkU2FP1ii90R+e7
/ShQ/rzUzsS8X7kVJ0nJAxcrS1oMD8nKjfsKKfBWJ8nbCyqhZANiAAT2dj5NJgnP
GyzyLyzIuMpM9V1HDDwjVSyTsWiHQ5Ddlcs/3uhH3fef8p77uIA8bR/M16jQR7nN
wcdQsRkKvm0drTeo3ssUMnt2Zhn3EmB8/Q04hTxQ2pvNCAs1OJyTvj4=
-----END PRIVATE KEY-----
";
const AUTHOR_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDAyp3rzsOsAMVIVbtmS
QEU83YC5r0EOWZfSX3wwiBQytEjoVsXDBPTpvvyzM2aZ27ChZANiAARicMeL1pBM
0TNimaJbmHNqcc6S/vB0lNcssosHPIMPn1ZK96XBxv/Fo0lz1dpFhoyGPHkwosmE
SKd6EAiBAuKpX5MIzT5WtVm3/TrMiLPMKhl3Q0j+ovLJAxGR4HGHrPU=
-----END PRIVATE KEY-----
";

fn published_key(pem: &str) -> EcdsaKeyPair {
    let der = pem::parse(pem).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der.contents()).unwrap()
}

fn block() -> IdBlock {
    IdBlock {
        launch_digest: std::array::from_fn(|index| index as u8),
        family_id: [1; 16],
        image_id: [2; 16],
        guest_svn: 0x0102_0304,
        policy: 0x3_0000,
    }
}

/// The verifier that AMD's firmware is: reads keys and signatures at the offsets of its tables.
fn verify(auth: &[u8], key_at: usize, signature_at: usize, message: &[u8]) -> bool {
    let number = |at: usize| {
        assert!(auth[at + 48..at + 72].iter().all(|byte| *byte == 0));
        auth[at..at + 48].iter().rev().copied().collect::<Vec<_>>()
    };
    assert_eq!(auth[key_at..key_at + 4], [2, 0, 0, 0]);
    let point = [vec![4], number(key_at + 4), number(key_at + 4 + 72)].concat();
    let signature = [number(signature_at), number(signature_at + 72)].concat();
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
        .verify(message, &signature)
        .is_ok()
}

#[test]
fn block_has_the_layout_of_the_table() {
    let bytes = block().to_bytes();
    assert_eq!(bytes[47], 47);
    assert_eq!(bytes[48..64], [1; 16]);
    assert_eq!(bytes[64..80], [2; 16]);
    assert_eq!(
        bytes[80..],
        [1, 0, 0, 0, 4, 3, 2, 1, 0, 0, 3, 0, 0, 0, 0, 0]
    );
}

/// Published by virtee with the `sev` crate (`tests/id-block.rs`).
#[test]
fn published_block_and_key_digests() {
    let mut launch_digest = [0; 48];
    hex::decode_to_slice(
        "a14d638341e5674628fe1e02fbedebe5e5ab4faf1dd72d8966068e615bb99efd13d214b35c231715b38e263dc6059745",
        &mut launch_digest,
    )
    .unwrap();
    let block = IdBlock {
        launch_digest,
        family_id: [0; 16],
        image_id: [0; 16],
        guest_svn: 0,
        policy: 0x3_0000,
    };
    assert_eq!(
        hex::encode(&block.to_bytes()[48..]),
        "0000000000000000000000000000000000000000000000000000000000000000010000000000000000000300\
         00000000"
    );
    let auth = IdAuth::sign(
        &block,
        &published_key(ID_KEY),
        Some(&published_key(AUTHOR_KEY)),
        &SystemRandom::new(),
    )
    .unwrap();
    assert_eq!(
        hex::encode(auth.id_key_digest()),
        "59fb2c686dfa4fef49f38339aa775c90051c28d57383ddc3baf3b5eb4b1496df3b0dbbdcbae5fe27677a644820773fe2"
    );
    assert_eq!(
        hex::encode(auth.author_key_digest()),
        "eed81169fb0cb5e0ec34794f128fd4e0c4a46f67c65a1adfa81fcb24bcc088c272369b7ffc3eb2b6af6a4284a1b36c5f"
    );
    assert_eq!(auth.as_bytes()[..8], [1, 0, 0, 0, 1, 0, 0, 0]);
    assert!(verify(auth.as_bytes(), 0x240, 0x40, &block.to_bytes()));
    let id_key = &auth.as_bytes()[0x240..0x644];
    assert!(verify(auth.as_bytes(), 0x880, 0x680, id_key));
}

#[test]
fn without_an_author_its_fields_are_zero() {
    let random = SystemRandom::new();
    for _ in 0..8 {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let auth = IdAuth::sign(&block(), &key, None, &random).unwrap();
        let bytes = auth.as_bytes();
        assert_eq!(bytes[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(verify(bytes, 0x240, 0x40, &block().to_bytes()));
        let mut other = block().to_bytes();
        other[0] ^= 1;
        assert!(!verify(bytes, 0x240, 0x40, &other));
        assert!(bytes[0x644..].iter().all(|byte| *byte == 0));
        assert_eq!(auth.author_key_digest(), [0; 48]);
    }
}

#[test]
fn keys_of_another_kind_are_refused() {
    let random = SystemRandom::new();
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let refused = IdAuth::sign(&block(), &p256, None, &random).unwrap_err();
    assert!(matches!(refused, IdAuthError::Key { found: 64, .. }));
    let asn1 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
    let refused = IdAuth::sign(&block(), &asn1, None, &random).unwrap_err();
    assert!(matches!(
        refused,
        IdAuthError::Key {
            what: "signature",
            ..
        }
    ));
}
