//! The attest API over real connections.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use contrast_attest_document::{Answer, DocumentError, Nonce};
use contrast_attestation::{Evidence, EvidenceVerifier, ReportData};
use contrast_proto::user::GetManifestsRequest;
use contrast_testbed::OpenApi;
use serde_json::Value;
use support::{Deployment, get, now, user_client};

const NONCE: Nonce = Nonce([7; 32]);

/// The document that the Coordinator serves.
fn openapi(address: SocketAddr) -> OpenApi {
    let (status, _, body) = ask(address, &with_method("GET", "/openapi.json", ""));
    assert_eq!(status, 200);
    let served = String::from_utf8(body).expect("UTF-8");
    let written = include_str!("../../docs/reference/attest.openapi.json");
    assert_eq!(served, written);
    OpenApi::parse(&served).expect("an OpenAPI document")
}

/// Asks, and compares the answer with the document.
fn ask_as_documented(
    api: &mut OpenApi,
    address: SocketAddr,
    (method, target, body): (&str, &str, &str),
) -> u16 {
    let (status, head, answer) = ask(address, &with_method(method, target, body));
    let header = |name: &str| {
        let name = format!("{}:", name.to_lowercase());
        let mut lines = head.lines();
        let found = lines.find_map(|line| line.strip_prefix(&name).map(str::trim));
        // The helper lowers the head; these two values are compared as they are written.
        found.map(|value| match value {
            "get, post" => "GET, POST".to_owned(),
            "content-type" => "Content-Type".to_owned(),
            other => other.to_owned(),
        })
    };
    let path = target.split('?').next().unwrap_or(target);
    api.check((method, path, status), header, &answer)
        .expect("as documented");
    status
}

/// Sends bytes, and returns status, head in lower case, and body.
fn ask(address: SocketAddr, request: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("connects");
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).expect("sets");
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("receives");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.expect("a head") + 4);
    let head = String::from_utf8_lossy(head).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("status"), head, body.to_vec())
}

fn with_method(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: c\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn question(nonce: &Nonce, more: &str) -> String {
    let target = format!("/v1/attest?nonce={}{more}", nonce.to_base64url());
    with_method("GET", &target, "")
}

/// The code of an error.
fn code(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).expect("JSON");
    assert!(body["error"]["message"].is_string(), "{body}");
    body["error"]["code"].as_str().expect("a code").to_owned()
}

#[tokio::test]
async fn answers_prove_coordinator_nonce_history_and_cas() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let address = coordinator.addresses.attest_api;

    let (status, _, body) = ask(address, &question(&NONCE, ""));
    assert_eq!((status, code(&body).as_str()), (503, "NO_MANIFEST"));

    let mut client = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = client.set_manifest(deployment.request(&manifest, &[]));
    set.await.expect("sets");
    let history = client.get_manifests(GetManifestsRequest {}).await;
    let history = history.expect("history").into_inner();

    let (status, head, body) = ask(address, &question(&NONCE, ""));
    assert_eq!(status, 200, "{head}");
    for header in [
        "access-control-allow-origin: *",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "content-type: application/json",
    ] {
        assert!(head.lines().any(|line| line == header), "{header}: {head}");
    }
    let mut answer = Answer::parse(&body).expect("an answer");
    let evidence = Evidence::decode(&answer.evidence.0).expect("evidence");
    let verifier = manifest.coordinator_verifier();
    let verify = |report_data| verifier.verify(&evidence, &ReportData(report_data), now());
    verify(answer.report_data(&NONCE)).expect("meets the manifest");
    let statement = answer.statement(&NONCE).expect("a statement");
    assert!(!statement.policies_omitted);
    assert_eq!(statement.into_history(), history);

    let other = Nonce([8; 32]);
    assert!(matches!(
        answer.statement(&other),
        Err(DocumentError::OtherNonce)
    ));
    verify(answer.report_data(&other)).expect_err("another nonce");
    let place = answer.statement.0.len() / 2;
    answer.statement.0[place] ^= 1;
    verify(answer.report_data(&NONCE)).expect_err("an altered statement");

    let body =
        r#"{"nonce":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","policies":"omit","later":1}"#;
    let (status, _, body) = ask(address, &with_method("POST", "/v1/attest", body));
    assert_eq!(status, 200);
    let answer = Answer::parse(&body).expect("an answer");
    let statement = answer.statement(&NONCE).expect("a statement");
    assert!(statement.policies_omitted && statement.policies.is_empty());

    let refused = (0..200).find_map(|_| {
        let (status, head, body) = ask(address, &question(&NONCE, "&policies=omit"));
        (status != 200).then_some((status, head, body))
    });
    let (status, head, body) = refused.expect("a limit");
    assert_eq!((status, code(&body).as_str()), (429, "TOO_MANY_REQUESTS"));
    assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
    let metrics = get(coordinator.addresses.ops, "/metrics").1;
    for line in [
        "contrast_attestapi_answers_total{status=\"503\"} 1\n",
        "contrast_attestapi_answers_total{status=\"429\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    drop(client);
    coordinator.stop().await.expect("stops");
}

#[tokio::test]
async fn what_is_no_question_is_refused_as_json() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let address = coordinator.addresses.attest_api;
    let large = "x".repeat(4097);
    for (request, expected) in [
        (("GET", "/v1/attest", ""), (400, "BAD_REQUEST")),
        (("GET", "/v1/attest?nonce=AAEC", ""), (400, "BAD_REQUEST")),
        (("POST", "/v1/attest", "{}"), (400, "BAD_REQUEST")),
        (("POST", "/v1/attest", &large), (413, "REQUEST_TOO_LARGE")),
        (("PUT", "/v1/attest", "{}"), (405, "METHOD_NOT_ALLOWED")),
        (("GET", "/v1/manifests", ""), (404, "NOT_FOUND")),
    ] {
        let (method, target, body) = request;
        let (status, head, body) = ask(address, &with_method(method, target, body));
        assert_eq!((status, code(&body).as_str()), expected, "{head}");
        assert!(head.contains("\r\naccess-control-allow-origin: *\r\n"));
    }
    let target = format!("/v1/attest?nonce={}", NONCE.to_base64url());
    let (status, ..) = ask(address, &with_method("HEAD", &target, ""));
    assert_eq!(status, 405);

    let (status, head, _) = ask(address, &with_method("OPTIONS", "/v1/attest", ""));
    assert_eq!(status, 204);
    for header in [
        "access-control-allow-origin: *",
        "access-control-allow-methods: get, post",
        "access-control-allow-headers: content-type",
    ] {
        assert!(head.lines().any(|line| line == header), "{header}: {head}");
    }
    assert!(!head.contains("access-control-allow-credentials"), "{head}");
    coordinator.stop().await.expect("stops");
}

#[tokio::test]
async fn every_operation_answers_as_the_openapi_document_says() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let address = coordinator.addresses.attest_api;
    let mut api = openapi(address);
    let by_query = format!("/v1/attest?nonce={}", NONCE.to_base64url());
    let body = format!("{{\"nonce\": \"{}=\"}}", NONCE.to_base64url());
    let get = ("GET", by_query.as_str(), "");
    let post = ("POST", "/v1/attest", body.as_str());
    let large = "x".repeat(4097);

    assert_eq!(ask_as_documented(&mut api, address, get), 503);
    assert_eq!(ask_as_documented(&mut api, address, post), 503);
    for (request, expected) in [
        (("GET", "/v1/attest", ""), 400),
        (("POST", "/v1/attest", "{}"), 400),
        (("POST", "/v1/attest", &large), 413),
        (("OPTIONS", "/v1/attest", ""), 204),
        (("GET", "/openapi.json", ""), 200),
    ] {
        assert_eq!(ask_as_documented(&mut api, address, request), expected);
    }

    let mut client = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = client.set_manifest(deployment.request(&manifest, &[]));
    set.await.expect("sets");
    assert_eq!(ask_as_documented(&mut api, address, post), 200);
    let (_, _, answer) = ask(address, &question(&NONCE, ""));
    let answer = Answer::parse(&answer).expect("an answer");
    let statement = serde_json::from_slice(&answer.statement.0).expect("JSON");
    api.check_schema("Statement", &statement)
        .expect("as documented");
    for request in [get, post] {
        let limited = (0..200).find(|_| ask_as_documented(&mut api, address, request) == 429);
        assert!(limited.is_some(), "no limit");
    }

    // What only a fault brings about.
    let fault = |method: &str| (method.to_owned(), "/v1/attest".to_owned(), "500".to_owned());
    assert_eq!(api.unseen(), [fault("get"), fault("post")]);
    assert_eq!(api.paths(), ["/v1/attest", "/openapi.json"]);
    drop(client);
    coordinator.stop().await.expect("stops");
}
