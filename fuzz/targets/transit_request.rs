//! Any path and body is a request to the transit engine or refused as the caller's fault; what it encrypts, it decrypts. The path is the
//! first line, the body the rest.
#![no_main]

use std::sync::LazyLock;

use contrast_clock::SeededEntropy;
use contrast_coordinator::answer_any;
use contrast_pki::{Derivation, Salt, Seed};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const OWN: &str = "a/b";

static DERIVATION: LazyLock<Derivation> = LazyLock::new(|| {
    let (seed, salt) = (Seed::from_slice(&[1; 64]), Salt::from_slice(&[2; 32]));
    match (seed, salt) {
        (Ok(seed), Ok(salt)) => Derivation::new(&seed, &salt),
        _ => unreachable!("both have their size"),
    }
});

fn ask(path: &str, body: &[u8]) -> (u16, Option<Value>) {
    answer_any((path, body), OWN, &DERIVATION, &SeededEntropy::new(3))
}

fn decrypts(ciphertext: &Value, plaintext: &Value, associated_data: &Value) {
    let mut body = json!({ "ciphertext": ciphertext });
    if !associated_data.is_null() {
        body["associated_data"] = associated_data.clone();
    }
    let (status, data) = ask("/v1/transit/decrypt/a/b", body.to_string().as_bytes());
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        data.map(|data| data["plaintext"].clone()).as_ref(),
        Some(plaintext)
    );
}

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (path, body) = bytes.split_at(end.unwrap_or(bytes.len()));
    let (Ok(path), body) = (std::str::from_utf8(path), body.get(1..).unwrap_or_default()) else {
        return;
    };
    let (status, data) = ask(path, body);
    assert!((200..600).contains(&status), "{status}");
    let Some(data) = data else {
        assert!(matches!(status, 400 | 403 | 404), "{status}");
        return;
    };
    let fields: Value = serde_json::from_slice(body).unwrap_or_default();
    if path == "/v1/transit/encrypt/a/b" && !data["ciphertext"].is_null() {
        decrypts(
            &data["ciphertext"],
            &fields["plaintext"],
            &fields["associated_data"],
        );
    }
});
