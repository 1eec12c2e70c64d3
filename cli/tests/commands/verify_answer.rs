//! `contrast verify` with answers of the attest API, as far as it gets without a Coordinator.

#[path = "../../../crates/sdk/tests/support/mod.rs"]
mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use contrast_attest_document::Answer;
use contrast_attestation::Tee;
use support::{COORDINATOR, Deployment, NONCE, WEB, latest};

use crate::context::Context;

/// A workspace with the manifest of `deployment`, and an answer in `answer.json`.
fn workspace(deployment: &Deployment, answer: &Answer) -> Context {
    let context = Context::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    context.file("manifest.json", &text(&deployment.manifest));
    let answer = answer.to_json().expect("answer");
    context.file("answer.json", &text(&answer));
    context
}

/// Verifies the answer, and returns exit code, standard output and standard error.
fn verify(context: &Context, nonce: &str) -> (Option<i32>, String, String) {
    let output = context.output(&["verify", "--answer", "answer.json", "--nonce", nonce]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn answer_in_a_file_is_verified_and_remembered() {
    let deployment = Deployment::new(Tee::Tdx);
    let context = workspace(&deployment, &deployment.answer(COORDINATOR, true));
    let nonce = NONCE.to_base64url();
    let (code, stdout, stderr) = verify(&context, &nonce);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("verified (INSECURE)"), "{stdout}");
    let noted = std::fs::read_to_string(context.path("verify/latest-transition"));
    let wanted = format!("{}\n", latest(&deployment.history));
    assert_eq!(noted.expect("noted"), wanted);

    context.file("verify/latest-transition", &"0".repeat(64));
    let (code, _, stderr) = verify(&context, &nonce);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("rolled back or forked"), "{stderr}");
}

#[test]
fn answer_that_proves_nothing_is_refused() {
    let deployment = Deployment::new(Tee::Snp);
    let good = deployment.answer(COORDINATOR, false);
    let nonce = NONCE.to_base64url();
    let mut altered = good.clone();
    altered.statement.0.push(b' ');
    let mut without = good;
    without.evidence.0 = b"noise".to_vec();
    for (answer, says) in [
        (altered, "REPORT_DATA"),
        (without, "no evidence from the Coordinator of `answer.json`"),
        (deployment.answer(WEB, false), "HOSTDATA"),
    ] {
        let context = workspace(&deployment, &answer);
        let (code, stdout, stderr) = verify(&context, &nonce);
        assert_eq!(code, Some(1), "{stdout}{stderr}");
        assert!(stdout.contains("refused: "), "{stdout}");
        assert!(stderr.contains(says), "{stderr}");
        assert!(!context.path("verify").exists());
    }
}

#[test]
fn answer_to_another_nonce_or_none_at_all_is_explained() {
    let deployment = Deployment::new(Tee::Snp);
    let context = workspace(&deployment, &deployment.answer(COORDINATOR, true));
    let arguments = |nonce| ["verify", "--answer", "answer.json", "--nonce", nonce];
    let other = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg";
    insta::assert_snapshot!(context.run(&arguments(other)));
    insta::assert_snapshot!(context.run(&arguments("CAgI")));
    insta::assert_snapshot!(context.run(&["verify", "--answer", "answer.json"]));
    context.file("answer.json", "<html>");
    insta::assert_snapshot!(context.run(&arguments(other)));
}

#[test]
fn only_one_source_is_taken() {
    let context = Context::new();
    insta::assert_snapshot!(context.run(&["verify", "-c", "host", "--attest-api", "host"]));
    insta::assert_snapshot!(context.run(&["verify", "--attest-api", "ftp://host"]));
}

#[test]
fn attest_api_that_gives_no_proof_is_explained() {
    let deployment = Deployment::new(Tee::Snp);
    let context = workspace(&deployment, &deployment.answer(COORDINATOR, true));
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("address").to_string();
    let old = deployment.answer(COORDINATOR, true).to_json();
    let old = String::from_utf8(old.expect("answer")).expect("UTF-8");
    let error = r#"{"error":{"code":"RECOVERY_NEEDED","message":"waits\u001b[2J"}}"#;
    let answers = [
        (503, error.to_owned(), 4, "RECOVERY_NEEDED: waits\\u{1b}"),
        (301, "elsewhere".to_owned(), 4, "is it an attest API?"),
        (200, "hello".to_owned(), 4, "no answer to this nonce"),
        (200, old, 1, "another nonce than the one asked with"),
    ];
    for (status, body, code, says) in answers {
        let server = std::thread::scope(|scope| {
            let answering = scope.spawn(|| {
                let (mut peer, _) = listener.accept().expect("accepts");
                let mut question = [0; 4096];
                let length = peer.read(&mut question).expect("reads");
                let head = format!(
                    "HTTP/1.1 {status} Said\r\nLocation: /other\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                peer.write_all(head.as_bytes()).expect("writes");
                peer.write_all(body.as_bytes()).expect("writes");
                String::from_utf8_lossy(&question[..length]).into_owned()
            });
            let output = context.output(&["verify", "--attest-api", &address]);
            let stderr = String::from_utf8(output.stderr).expect("UTF-8");
            assert_eq!(output.status.code(), Some(code), "{stderr}");
            assert!(stderr.contains(says), "{stderr}");
            answering.join().expect("served")
        });
        assert!(server.starts_with("GET /v1/attest?nonce="), "{server}");
    }
    drop(listener);
    let output = context.output(&["verify", "--attest-api", &address]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}
