//! The engine does what its OpenAPI document says, and nothing in the document is left out here.

use contrast_testbed::OpenApi;
use serde_json::{Value, json};

use crate::{
    support::{Deployment, transit::Connection},
    world::{METHODS, Made, NAME, ask, document, fetch, set, system_clock},
};

/// Every operation with a key, and every other with a body: alone, as a batch, wrong, and too large.
async fn ask_with_bodies(api: &mut OpenApi, connection: &mut Connection, made: &Made) {
    let large = format!("\"{}\"", "x".repeat(1024 * 1024));
    for method in METHODS {
        for (path, item) in made.batches(NAME) {
            let bad = json!({ "plaintext": "%", "ciphertext": "vault:v1:AAAA", "input": "%" });
            let mut item_with_reference = item.clone();
            item_with_reference["reference"] = "first".into();
            for (body, expected) in [
                (item.clone(), 200),
                (json!({ "batch_input": [item_with_reference, item] }), 200),
                (json!({ "batch_input": [item, bad] }), 400),
                (
                    json!({ "batch_input": [item, bad], "partial_failure_response_code": 207 }),
                    207,
                ),
                (json!([item]), 400),
            ] {
                let answer = ask(api, connection, (method, &path, &body.to_string())).await;
                assert_eq!(answer.status, expected, "{path} {body}");
                let results = answer.json()["data"]["batch_results"].clone();
                if expected != 400
                    && let Some(first) = results.get(0)
                {
                    assert!(first.get("error").is_none(), "{path}: {first}");
                }
            }
        }
        for (path, body) in made.others(NAME) {
            let answer = ask(api, connection, (method, &path, &body.to_string())).await;
            assert_eq!(answer.status, 200, "{path} {body}");
            let answer = ask(api, connection, (method, &path, "[]")).await;
            assert_eq!(answer.status, 400, "{path}");
        }
        let both = made.batches(NAME).into_iter().chain(made.others(NAME));
        for (path, _) in both {
            let answer = ask(api, connection, (method, &path, &large)).await;
            assert_eq!(answer.status, 413, "{path}");
        }
        let renew = ("/v1/auth/token/renew-self", r#"{"increment": "1h"}"#);
        let answer = ask(api, connection, (method, renew.0, renew.1)).await;
        assert_eq!(answer.status, 400);
    }
}

/// Everything that has no body.
async fn ask_without_bodies(api: &mut OpenApi, connection: &mut Connection) {
    let key = format!("/v1/transit/keys/{NAME}");
    for (method, target, expected) in [
        ("GET", key.as_str(), 200),
        ("GET", "/v1/sys/health?standbyok=true&perfstandbyok=1", 200),
        ("GET", "/v1/sys/health?activecode=299", 299),
        ("GET", "/v1/sys/health?activecode=99", 400),
        ("HEAD", "/v1/sys/health", 200),
        ("HEAD", "/v1/sys/health?activecode=299", 299),
        ("HEAD", "/v1/sys/health?activecode=x", 400),
        ("GET", "/v1/sys/seal-status", 200),
        ("GET", "/v1/auth/token/lookup-self", 200),
        ("GET", "/openapi.json", 200),
        // What is not in the document.
        ("GET", "/", 404),
        ("GET", "/v1/secret/data/a", 404),
        ("POST", "/v1/transit/export/encryption-key/a", 404),
        ("DELETE", key.as_str(), 405),
        ("POST", "/v1/sys/health", 405),
        ("GET", "/v1/transit/random", 405),
        ("POST", "/openapi.json", 405),
    ] {
        let answer = ask(api, connection, (method, target, "")).await;
        assert_eq!(answer.status, expected, "{method} {target}");
        if expected == 405 {
            answer.header("allow").expect("says what is allowed");
        }
    }
}

#[tokio::test]
async fn every_operation_answers_as_the_document_says() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let place = (&deployment, &coordinator);
    let manifest = deployment.manifest("web");
    let transition = set(place, &manifest, &[], &[]).await;
    let credentials = fetch(place, &manifest).await;
    let address = coordinator.addresses.transit_api;
    let connection = Connection::open(address, &credentials, &system_clock()).await;
    let mut connection = connection.expect("connects");

    let mut api = document();
    let served = ask(&mut api, &mut connection, ("GET", "/openapi.json", "")).await;
    let written = include_str!("../../../docs/reference/transit.openapi.json");
    assert_eq!(served.body, written.as_bytes());

    let made = Made::with(&mut api, &mut connection).await;
    ask_with_bodies(&mut api, &mut connection, &made).await;
    ask_without_bodies(&mut api, &mut connection).await;

    // The certificate is of the mesh CA before, on a connection that was accepted then. It is closed soon, so it is a new one.
    let connection_before = Connection::open(address, &credentials, &system_clock()).await;
    connection = connection_before.expect("connects");
    set(place, &deployment.manifest("web2"), &transition, &[]).await;
    for method in METHODS {
        let both = made.batches(NAME).into_iter().chain(made.others(NAME));
        let renew = ("/v1/auth/token/renew-self".to_owned(), Value::Null);
        for (path, body) in both.chain([renew]) {
            let request = (method, path.as_str(), &*body.to_string());
            let answer = ask(&mut api, &mut connection, request).await;
            assert_eq!(answer.status, 403, "{path}");
        }
    }
    for target in [
        format!("/v1/transit/keys/{NAME}"),
        "/v1/auth/token/lookup-self".to_owned(),
    ] {
        let answer = ask(&mut api, &mut connection, ("GET", &target, "")).await;
        assert_eq!(answer.status, 403, "{target}");
    }

    assert_eq!(api.uncalled(), []);
    // What only faults, patience, or a lost quorum bring about; the test of the quorum sees all of the last.
    let unseen = api.unseen().into_iter();
    let unseen: Vec<_> = unseen
        .filter(|(_, _, status)| !["408", "500", "503"].contains(&status.as_str()))
        .collect();
    assert_eq!(unseen, []);
    drop(connection);
    coordinator.stop().await.expect("stops");
}

/// What the engine refuses, and what of it the document's schemas tell already.
#[tokio::test]
async fn bad_input_is_refused_with_what_was_expected() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let place = (&deployment, &coordinator);
    let manifest = deployment.manifest("web");
    set(place, &manifest, &[], &[]).await;
    let credentials = fetch(place, &manifest).await;
    let address = coordinator.addresses.transit_api;
    let connection = Connection::open(address, &credentials, &system_clock()).await;
    let mut connection = connection.expect("connects");
    let mut api = document();
    let made = Made::with(&mut api, &mut connection).await;
    let text = made.ciphertext.as_str().expect("text");

    let encrypt = |body: Value| ("encrypt", body);
    let decrypt = |text: &str| ("decrypt", json!({ "ciphertext": text }));
    for ((operation, body), expected, schema_tells) in [
        (
            decrypt("vault:v1:AAAA"),
            "at least 28 bytes (nonce and tag), found 3",
            false,
        ),
        (decrypt("vault:v1:"), "found 0", false),
        (
            decrypt(&text.replace(":v1:", ":v2:")),
            "not made with this key",
            false,
        ),
        (decrypt(&text.replace("vault:", "bao:")), "no prefix", true),
        (decrypt(&text.replace(":v1:", ":1:")), "no prefix", true),
        (decrypt(&text.replace(":v1:", ":v01:")), "no number", true),
        (decrypt(&text.replace(":v1:", ":vx:")), "no number", true),
        (
            decrypt(&text.replace(":v1:", ":v4294967296:")),
            "no number from 0 to 4294967295",
            false,
        ),
        (decrypt("vault:v1"), "a colon", true),
        (decrypt("vault:v1:%%%%"), "standard base64", true),
        (decrypt("vault:v1:AA-_"), "standard base64", true),
        (decrypt("vault:v1:AAA"), "standard base64", true),
        (encrypt(json!({})), "plaintext: missing", true),
        (
            encrypt(json!({ "plaintext": "%" })),
            "plaintext: expected standard base64",
            true,
        ),
        (
            encrypt(json!({ "plaintext": 7 })),
            "another type than the documented one",
            true,
        ),
        (
            encrypt(json!({ "plaintext": "", "key_version": 1025 })),
            "at most 1024",
            true,
        ),
        (
            encrypt(json!({ "plaintext": "", "associated_data": "?" })),
            "associated_data: expected",
            true,
        ),
        (
            encrypt(json!({ "plaintext": "", "context": "AA==" })),
            "context:",
            true,
        ),
        (
            encrypt(json!({ "plaintext": "", "nonce": "AA==" })),
            "nonce:",
            true,
        ),
        (
            encrypt(json!({ "batch_input": [] })),
            "at least one item",
            true,
        ),
        (
            encrypt(json!({ "batch_input": vec![json!({ "plaintext": "" }); 1001] })),
            "at most 1000 items",
            true,
        ),
        (
            ("datakey/wrapped", json!({ "bits": 192 })),
            "128, 256",
            true,
        ),
        (
            ("sign", json!({ "input": "", "prehashed": true })),
            "prehashed",
            true,
        ),
        (
            ("sign", json!({ "input": "", "hash_algorithm": "sha2-512" })),
            "sha2-256 and sha2-384",
            true,
        ),
        (
            ("hmac", json!({ "input": "", "algorithm": "md5" })),
            "expected one of sha2-224",
            true,
        ),
        (("verify", json!({ "input": "" })), "expected one of", true),
    ] {
        let target = format!("/v1/transit/{operation}/{NAME}");
        let body = body.to_string();
        let told = api.check_request(("POST", &target), body.as_bytes());
        assert_eq!(told.is_err(), schema_tells, "{target} {body}: {told:?}");
        let answer = ask(&mut api, &mut connection, ("POST", &target, &body)).await;
        assert_eq!(answer.status, 400, "{target} {body}");
        let errors = answer.json()["errors"].clone();
        let error = errors[0].as_str().expect("text");
        assert!(error.contains(expected), "{target} {body}: {error}");
    }
    let target = format!("/v1/transit/encrypt/{NAME}");
    for body in ["{", "null", "plaintext", "\u{0}"] {
        let answer = ask(&mut api, &mut connection, ("POST", &target, body)).await;
        assert_eq!(answer.status, 400, "{body}");
    }
    drop(connection);
    coordinator.stop().await.expect("stops");
}
