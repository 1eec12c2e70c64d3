#![allow(clippy::expect_used, reason = "a test stops at the unexpected")]

use contrast_proto::user::{GetManifestsResponse, Transition};
use proptest::prelude::*;

use super::*;

// Computed with Python's hashlib from the text of docs/reference/attest-api.md.
const VECTOR: &str = "6c4d2b8ea23d74eec7f330082ec4f0980ea75a805756b4694c0dc2cab0959b74e87f5a313a52a0fe4663aa25d8442739f28e261ff45e2e3669d43f3f6bcd8475";

fn nonce() -> Nonce {
    Nonce(std::array::from_fn(|i| i as u8))
}

fn history() -> GetManifestsResponse {
    GetManifestsResponse {
        transitions: vec![Transition {
            manifest_hash: vec![1; 32].into(),
            previous: vec![0; 32].into(),
            mesh_ca_public_key: vec![2; 120].into(),
            signature: vec![3; 100].into(),
            signing_public_key: vec![4; 120].into(),
            seed_shares_digest: vec![5; 32].into(),
        }],
        manifests: vec![b"{}".to_vec().into()],
        policies: vec![b"policy".to_vec().into()],
        root_ca: "root".to_owned(),
        mesh_ca: "mesh".to_owned(),
    }
}

fn answer(omit: bool) -> Answer {
    let statement = Statement::new(&nonce(), "2026-01-02T03:04:05Z".into(), history(), omit);
    Answer::new(b"evidence".to_vec(), statement.to_json().expect("JSON"))
}

#[test]
fn report_data_is_that_of_the_reference() {
    assert_eq!(
        hex::encode(report_data(&nonce(), b"example statement")),
        VECTOR
    );
    assert!(include_str!("../../../docs/reference/attest-api.md").contains(VECTOR));
}

#[test]
fn an_answer_comes_back_as_it_was_made() {
    let json = answer(false).to_json().expect("small");
    let read = Answer::parse(&json).expect("own answer");
    assert_eq!(read, answer(false));
    let statement = read.statement(&nonce()).expect("own nonce");
    assert!(!statement.policies_omitted);
    assert_eq!(statement.into_history(), history());
}

#[test]
fn omitted_policies_are_named_as_omitted() {
    let statement = answer(true).statement(&nonce()).expect("statement");
    assert!(statement.policies_omitted);
    assert!(statement.into_history().policies.is_empty());
}

#[test]
fn every_bit_of_the_statement_and_the_nonce_is_covered() {
    let mut altered = answer(false);
    let covered = altered.report_data(&nonce());
    let mut other = nonce();
    other.0[31] ^= 1;
    assert_ne!(altered.report_data(&other), covered);
    assert!(matches!(
        altered.statement(&other),
        Err(DocumentError::OtherNonce)
    ));
    altered.statement.0[40] ^= 1;
    assert_ne!(altered.report_data(&nonce()), covered);
}

#[test]
fn other_versions_are_refused_and_unknown_fields_ignored() {
    let error = Answer::parse(br#"{"version":2,"proof":1}"#).expect_err("version 2");
    assert_eq!(
        error.to_string(),
        "the answer has version 2, this program reads version 1; update it"
    );
    let answer = br#"{"version":1,"evidence":"","statement":"eA==","later":[]}"#;
    assert_eq!(Answer::parse(answer).expect("reads").statement.0, b"x");
    let unpadded = br#"{"version":1,"evidence":"","statement":"eA"}"#;
    assert!(matches!(
        Answer::parse(unpadded),
        Err(DocumentError::Json { .. })
    ));
}

#[test]
fn a_nonce_has_32_bytes() {
    let text = nonce().to_base64url();
    assert_eq!(Nonce::parse(&text).expect("own text"), nonce());
    assert_eq!(
        Nonce::parse("AAEC").expect_err("short").to_string(),
        "the nonce must be 32 bytes in base64 (or base64url without padding), found 3 bytes"
    );
    assert!(Nonce::parse("?").is_err());
}

proptest! {
    #[test]
    fn reading_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..2000,
        put in any::<u8>(),
    ) {
        let _ = Request::parse(&bytes);
        let _ = Answer::parse(&bytes);
        let _ = Statement::parse(&bytes);
        let mut json = answer(false).to_json().expect("small");
        let place = cut % json.len();
        json[place] = put;
        if let Ok(read) = Answer::parse(&json) {
            let _ = read.statement(&nonce());
        }
    }
}

#[test]
fn queries_are_read_as_they_are() {
    let read = |query: &str| {
        let request = Request::from_query(query).expect(query);
        (request.nonce.clone(), request.omits_policies())
    };
    for (query, nonce, omits) in [
        ("nonce=AA", "AA", false),
        ("nonce=", "", false),
        ("nonce=AA&policies=omit", "AA", true),
        ("policies=omit&nonce=AA&nonce=BB", "AA", true),
        ("nonce=AA&policies=all&policies=omit", "AA", false),
        ("other&nonce=A%3D=&", "A%3D=", false),
    ] {
        assert_eq!(read(query), (nonce.to_owned(), omits), "{query}");
    }
    for query in ["", "nonce", "Nonce=AA", "policies=omit", "xnonce=AA"] {
        let error = Request::from_query(query).expect_err(query);
        assert!(matches!(error, DocumentError::NoNonce), "{query}");
    }
}
