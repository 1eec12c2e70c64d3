//! Operations without a network. Expected values were computed with Python's `hmac` and the package `cryptography`.

use std::sync::Arc;

use axum::http::StatusCode;
use contrast_clock::SystemEntropy;
use contrast_pki::{Derivation, Salt, Seed};
use serde_json::{Value, json};

use super::{
    failure::Failure, fields::Input, keys::Keys, operation::Operation, operation::describe,
    usage::Usage,
};
use crate::ops::Metrics;

struct Engine {
    derivation: Derivation,
    usage: Usage,
}

impl Engine {
    fn new() -> Self {
        let seed: Vec<u8> = (0..64).collect();
        let salt: Vec<u8> = (100..132).collect();
        Self {
            derivation: Derivation::new(
                &Seed::from_slice(&seed).expect("seed"),
                &Salt::from_slice(&salt).expect("salt"),
            ),
            usage: Usage::new(Arc::new(Metrics::new(std::time::SystemTime::UNIX_EPOCH))),
        }
    }

    fn keys<'a>(&'a self, name: &'a str) -> Keys<'a> {
        Keys::new(&self.derivation, &SystemEntropy, (&self.usage, name))
    }

    fn run(&self, operation: &Operation, body: &Value) -> Result<(StatusCode, Value), Failure> {
        let fields = Input::read(body.to_string().as_bytes())?;
        operation.run(&self.keys("vault"), &fields, None)
    }

    fn data(&self, operation: &Operation, body: &Value) -> Value {
        let (status, data) = self.run(operation, body).expect("runs");
        assert_eq!(status, StatusCode::OK, "{data}");
        data
    }

    fn refusal(&self, operation: &Operation, body: &Value) -> String {
        match self.run(operation, body) {
            Err(failure @ Failure::Bad(_)) => failure.to_string(),
            other => panic!("expected a refusal, found {other:?}"),
        }
    }
}

/// "unseal me" under the key of "vault", version 1, associated data "aad", nonce 00 to 0b.
const CIPHERTEXT: &str = "vault:v1:AAECAwQFBgcICQoLV8yEbJQUHslSzGrWp9/7qpsGxkQTXPV2Xg==";

#[test]
fn decrypts_what_another_implementation_encrypted() {
    let engine = Engine::new();
    let body = json!({ "ciphertext": CIPHERTEXT, "associated_data": "YWFk" });
    let data = engine.data(&Operation::Decrypt, &body);
    assert_eq!(data, json!({ "plaintext": "dW5zZWFsIG1l" }));
    let body = json!({ "input": "bWVzc2FnZQ==" });
    let data = engine.data(&Operation::Hmac, &body);
    let hmac = "vault:v1:ic0saZ3lGhOg+cP4Xo1MRBsJEmlC4ClnMyz2ePVmKDY=";
    assert_eq!(data, json!({ "hmac": hmac }));
}

#[test]
fn only_the_same_key_version_and_data_decrypt() {
    let engine = Engine::new();
    let fields = json!({ "plaintext": "AAEC", "associated_data": "YWFk", "key_version": 7 });
    let made = engine.data(&Operation::Encrypt, &fields);
    assert_eq!(made["key_version"], 7);
    let text = made["ciphertext"].as_str().expect("text");
    assert!(text.starts_with("vault:v7:"), "{text}");
    let right = json!({ "ciphertext": text, "associated_data": "YWFk" });
    assert_eq!(
        engine.data(&Operation::Decrypt, &right)["plaintext"],
        "AAEC"
    );

    let mut flipped = text.to_owned();
    let last = flipped.len() - 6;
    let other = if flipped.as_bytes()[last] == b'A' {
        "B"
    } else {
        "A"
    };
    flipped.replace_range(last..=last, other);
    for wrong in [
        json!({ "ciphertext": text }),
        json!({ "ciphertext": text.replace(":v7:", ":v6:"), "associated_data": "YWFk" }),
        json!({ "ciphertext": flipped, "associated_data": "YWFk" }),
    ] {
        let error = engine.refusal(&Operation::Decrypt, &wrong);
        assert!(error.contains("not made with this key"), "{error}");
    }
    let fields = Input::read(right.to_string().as_bytes()).expect("fields");
    let other = Operation::Decrypt.run(&engine.keys("other"), &fields, None);
    assert!(matches!(other, Err(Failure::Bad(_))), "{other:?}");
}

#[test]
fn nonces_differ() {
    let engine = Engine::new();
    let encrypt = || engine.data(&Operation::Encrypt, &json!({ "plaintext": "" }));
    assert_ne!(encrypt(), encrypt());
}

#[test]
fn bad_input_is_named() {
    let engine = Engine::new();
    let (encrypt, decrypt) = (&Operation::Encrypt, &Operation::Decrypt);
    for (operation, body, expected) in [
        (encrypt, json!({}), "plaintext: missing"),
        (
            encrypt,
            json!({ "plaintext": "%" }),
            "plaintext: expected standard base64",
        ),
        (
            encrypt,
            json!({ "plaintext": "", "context": "AA==" }),
            "context: keys",
        ),
        (
            encrypt,
            json!({ "plaintext": "", "nonce": "AA==" }),
            "nonce: this engine",
        ),
        (
            encrypt,
            json!({ "plaintext": "", "key_version": 1025 }),
            "at most 1024, found 1025",
        ),
        (
            encrypt,
            json!({ "plaintext": "", "associated_data": "?" }),
            "associated_data: expected",
        ),
        (decrypt, json!({}), "ciphertext: missing"),
        (
            decrypt,
            json!({ "ciphertext": "vault:v1:AAAA" }),
            "at least 28 bytes (nonce and tag), found 3",
        ),
        (
            decrypt,
            json!({ "ciphertext": "bao:v1:AAAA" }),
            "found no prefix",
        ),
        (
            &Operation::DataKey { wrapped: true },
            json!({ "bits": 192 }),
            "128, 256 or 512",
        ),
        (
            &Operation::Hmac,
            json!({ "input": "", "algorithm": "md5" }),
            "expected one of sha2-224",
        ),
        (
            &Operation::Sign,
            json!({ "input": "", "prehashed": true }),
            "prehashed: not offered",
        ),
        (
            &Operation::Verify,
            json!({ "input": "" }),
            "expected one of",
        ),
    ] {
        let error = engine.refusal(operation, &body);
        assert!(error.contains(expected), "{body}: {error}");
    }
}

#[test]
fn rewrap_moves_to_another_version() {
    let engine = Engine::new();
    let body = json!({ "ciphertext": CIPHERTEXT, "associated_data": "YWFk", "key_version": 2 });
    let data = engine.data(&Operation::Rewrap, &body);
    assert_eq!(data["key_version"], 2);
    assert!(data.get("plaintext").is_none(), "{data}");
    let body = json!({ "ciphertext": data["ciphertext"], "associated_data": "YWFk" });
    let data = engine.data(&Operation::Decrypt, &body);
    assert_eq!(data["plaintext"], "dW5zZWFsIG1l");
}

#[test]
fn data_keys_are_wrapped_and_shown_only_if_asked() {
    let engine = Engine::new();
    let wrapped = Operation::DataKey { wrapped: true };
    let data = engine.data(&wrapped, &json!({}));
    assert!(data.get("plaintext").is_none(), "{data}");
    let plain = Operation::DataKey { wrapped: false };
    let data = engine.data(&plain, &json!({ "bits": 512 }));
    let opened = engine.data(
        &Operation::Decrypt,
        &json!({ "ciphertext": data["ciphertext"] }),
    );
    assert_eq!(opened["plaintext"], data["plaintext"]);
    assert_eq!(data["plaintext"].as_str().map(str::len), Some(88));
}

#[test]
fn hmacs_and_signatures_verify_and_nothing_else_does() {
    let engine = Engine::new();
    let input = "bWVzc2FnZQ==";
    for hash in ["sha2-256", "sha2-384"] {
        let body = json!({ "input": input, "hash_algorithm": hash, "key_version": 3 });
        let hmac = engine.data(&Operation::Hmac, &body)["hmac"].clone();
        let signature = engine.data(&Operation::Sign, &body)["signature"].clone();
        let valid = |field: &str, value: &Value, input: &str| {
            let body = json!({ "input": input, "hash_algorithm": hash, field: value });
            engine.data(&Operation::Verify, &body)["valid"].clone()
        };
        for (field, value) in [("hmac", &hmac), ("signature", &signature)] {
            assert_eq!(valid(field, value, input), true, "{field}");
            assert_eq!(valid(field, value, "b3RoZXI="), false, "{field}");
            let older = value.as_str().expect("text").replace(":v3:", ":v2:");
            assert_eq!(valid(field, &older.into(), input), false, "{field}");
        }
        assert_eq!(valid("signature", &hmac, input), false);
    }
}

#[test]
fn batch_has_a_result_for_each_item_and_the_status_of_the_worst() {
    let engine = Engine::new();
    let good = json!({ "plaintext": "AAEC", "reference": "first" });
    let bad = json!({ "plaintext": "%", "reference": "second" });
    let batch = |items: &[&Value], code: u32| {
        let body = json!({ "batch_input": items, "partial_failure_response_code": code });
        let (status, data) = engine.run(&Operation::Encrypt, &body).expect("runs");
        let results = data["batch_results"].as_array().expect("results").clone();
        (status.as_u16(), results)
    };
    let (status, results) = batch(&[&good, &good], 0);
    assert_eq!((status, results.len()), (200, 2));
    let (status, results) = batch(&[&good, &bad], 0);
    assert_eq!(status, 400);
    assert_eq!(results[0]["reference"], "first");
    assert!(results[0]["ciphertext"].is_string(), "{results:?}");
    assert_eq!(results[1]["reference"], "second");
    assert!(results[1]["error"].is_string(), "{results:?}");
    assert_eq!(batch(&[&good, &bad], 207).0, 207);
    assert_eq!(batch(&[&bad], 207).0, 400);
}

#[test]
fn description_shows_no_key() {
    let engine = Engine::new();
    let data = describe(&engine.keys("vault")).expect("describes");
    assert_eq!(data["latest_version"], 1);
    assert_eq!(data["keys"], json!({ "1": 0 }));
}
