//! Signatures of a history that is long enough for several threads.

use std::collections::BTreeMap;

use bytes::Bytes;
use contrast_clock::SeededEntropy;
use contrast_manifest::ManifestHash;
use contrast_pki::{SigningKey, shares::SeedSharesDocument};

use crate::state::{History, HistoryError, Transition, TransitionHash};

const LENGTH: usize = 200;

/// A history in which the signatures at the places `forged` are another key's.
fn history(key: &SigningKey, forged: &[usize]) -> History {
    let forger = SigningKey::generate(&SeededEntropy::new(2)).expect("key");
    let (manifest, none) = (Bytes::from_static(b"manifest"), BTreeMap::new());
    let sign = |at: usize, previous| {
        let key = if forged.contains(&at) { &forger } else { key };
        let mesh_ca = at.to_string();
        Transition::sign(
            ManifestHash::of(&manifest),
            previous,
            mesh_ca.as_bytes(),
            [0; 32],
            key,
        )
        .expect("signs")
    };
    let shares = SeedSharesDocument {
        salt: vec![1; 32],
        threshold: 1,
        set: Vec::new(),
        shares: Vec::new(),
    };
    let first = sign(0, TransitionHash::NONE);
    let first = History::found(first, &manifest, none.clone(), shares, b"root");
    (1..LENGTH).fold(first, |history, at| {
        history.extended(sign(at, history.head().hash), &manifest, &none)
    })
}

#[test]
fn forged_signature_is_found_wherever_it_is_and_the_first_one_is_named() {
    let key = SigningKey::generate(&SeededEntropy::new(1)).expect("key");
    let spki = key.public_key_spki();
    history(&key, &[]).verify(spki).expect("all are right");
    for forged in [
        &[1][..],
        &[31],
        &[32],
        &[LENGTH / 2 - 1],
        &[LENGTH / 2],
        &[LENGTH - 1],
        &[40, 70, LENGTH - 2],
        &[150, 199],
    ] {
        let history = history(&key, forged);
        let error = history.verify(spki).expect_err("forged");
        let expected = history.links_from(forged[0])[0].hash;
        assert!(
            matches!(error, HistoryError::Forged { name } if name == expected),
            "{forged:?}: {error}"
        );
    }
    let error = history(&key, &[0, 100]).verify(spki).expect_err("forged");
    assert!(matches!(error, HistoryError::WrongSeed), "{error}");
}
