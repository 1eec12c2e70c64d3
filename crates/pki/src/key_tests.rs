use contrast_clock::SeededEntropy;

use super::*;

/// The P-384 vectors of C2SP det-keygen (`det-keygen/ecdsa.py` in its repository makes them): the seed is the letter B,
/// repeated; the scalar in hex.
const VECTORS: [(usize, &str); 5] = [
    (
        16,
        "3170cf870785cc87d9bb01366468347831f965608375a9a8d9c528ee64a9716c5736f77834cf36c54ea258117054e2be",
    ),
    (
        21,
        "a058bb75f3e534f7265d5987980109f2dfee3b1498dcce6bdcdd37f171f1d9bb2a1dbf000ddb93416f8fb4d29fff5567",
    ),
    (
        24,
        "ffb39382dbb54e52594fc32c35e4c79e35662ff0baa489ee39cf5769cc6c1d062ec4c4e4309ea9190ec59d57510b4b18",
    ),
    (
        36,
        "dca571f155084f2d303d0d1ec63670a7d176b478e82619c409fcc972eec38aa4bf4252b1d03027c1d71ab1a9d6419648",
    ),
    (
        48,
        "c88662d22bfd50c727add8c8a7967efb808434d07cfddc0c4bd0ccbd95c06f93ed3ce5e56032235f99f4bba742a11b8f",
    ),
];

#[test]
fn det_keygen_agrees_with_the_published_vectors() {
    for (length, scalar) in VECTORS {
        let key = SigningKey::from_det_keygen(&vec![b'B'; length]).expect("key");
        let expected = [
            SEC1_HEAD.to_vec(),
            hex::decode(scalar).expect("hex"),
            SEC1_TAIL.to_vec(),
        ];
        let expected = SigningKey::from_private_key_der(&expected.concat()).expect("key");
        assert_eq!(
            key.public_key_spki(),
            expected.public_key_spki(),
            "seed of {length} bytes"
        );
    }
}

#[test]
fn short_secret_makes_no_key() {
    let error = SigningKey::from_det_keygen(&[1; 15])
        .expect_err("too short")
        .to_string();
    assert_eq!(error, "a key needs a secret of at least 16 bytes, found 15");
}

#[test]
fn scalar_out_of_range_makes_no_key() {
    // Step 12 of det-keygen: no seed is known that leads here, so the scalars are given directly. The order of the curve is
    // from SP 800-186, section 3.2.1.4.
    let order = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let order = hex::decode(order).expect("hex");
    let mut last = order.clone();
    last[47] -= 1;
    let from_scalar = |scalar: &[u8]| {
        SigningKey::from_private_key_der(&[&SEC1_HEAD[..], scalar, &SEC1_TAIL[..]].concat())
    };
    for scalar in [vec![0; 48], order, vec![0xff; 48]] {
        assert!(matches!(
            from_scalar(&scalar),
            Err(KeyError::NotAPrivateKey { .. })
        ));
    }
    from_scalar(&last).expect("the largest scalar in range");
}

#[test]
fn only_one_encoding_of_a_public_key_is_accepted() {
    let key = SigningKey::generate(&SeededEntropy::new(5)).expect("key");
    let spki = key.public_key_spki();
    let signature = key.sign_sha384(b"x").expect("signs");
    verify_p384_sha384(spki, b"x", &signature).expect("verifies");
    let bare_point = &spki[SPKI_HEAD.len() - 1..];
    let longer = [spki, &[0]].concat();
    let mut off_the_curve = spki.to_vec();
    off_the_curve[119] ^= 1;
    for other in [bare_point, &longer, &off_the_curve, &spki[..119], &[]] {
        assert!(matches!(
            verify_p384_sha384(other, b"x", &signature),
            Err(KeyError::NotAPublicKey)
        ));
    }
}

#[test]
fn signature_verifies_only_over_its_message_and_hash() {
    let key = SigningKey::generate(&SeededEntropy::new(1)).expect("key");
    let spki = key.public_key_spki();
    let signature = key.sign_sha384(b"message").expect("signs");
    verify_p384_sha384(spki, b"message", &signature).expect("verifies");
    assert!(matches!(
        verify_p384_sha384(spki, b"massage", &signature),
        Err(KeyError::BadSignature)
    ));
    assert!(matches!(
        verify_p384_sha256(spki, b"message", &signature),
        Err(KeyError::BadSignature)
    ));
    let signature = key.sign_sha256(b"message").expect("signs");
    verify_p384_sha256(spki, b"message", &signature).expect("verifies");
    assert!(matches!(
        verify_p384_sha256(b"junk", b"message", &signature),
        Err(KeyError::NotAPublicKey)
    ));
}

#[test]
fn key_survives_pkcs8_and_debug_shows_only_the_public_half() {
    let key = SigningKey::generate(&SeededEntropy::new(2)).expect("key");
    let der = key.to_pkcs8_der().expect("encodes");
    let again = SigningKey::from_private_key_der(&der).expect("decodes");
    assert_eq!(again.public_key_spki(), key.public_key_spki());
    again
        .sign_sha256(b"x")
        .expect("a key from PKCS#8 signs too");
    let shown = format!("{key:?}");
    assert_eq!(
        shown,
        format!("SigningKey(public {})", hex::encode(key.public_key_spki()))
    );
}

#[test]
fn junk_is_no_private_key() {
    assert!(matches!(
        SigningKey::from_private_key_der(&[0x30, 0x00]),
        Err(KeyError::NotAPrivateKey { .. })
    ));
}
