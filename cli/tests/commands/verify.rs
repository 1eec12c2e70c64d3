//! `contrast verify` and `contrast recover` as far as they get without a Coordinator.

use std::net::TcpListener;

use crate::context::Context;

const MANIFEST: &str = include_str!("../data/manifest.json");

/// An address at which nothing listens.
fn closed_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").to_string()
}

fn without_port(shown: String, address: &str) -> String {
    shown.replace(address, "[ADDRESS]")
}

#[test]
fn missing_manifest_is_named() {
    insta::assert_snapshot!(Context::new().run(&["verify", "-c", "localhost"]));
}

#[test]
fn every_problem_of_an_invalid_manifest_is_listed() {
    let context = Context::new();
    let invalid = MANIFEST
        .replace("\"SMT\": true", "\"SMT\": \"yes\"")
        .replace("\"ProductName\": \"Milan\"", "\"ProductName\": \"Rome\"")
        .replace(
            "\"Role\": \"coordinator\"",
            "\"Role\": \"\", \"Colour\": \"blue\"",
        );
    context.file("manifest.json", &invalid);
    insta::assert_snapshot!(context.run(&["verify", "-c", "localhost"]));
}

#[test]
fn unreachable_coordinator_has_its_own_exit_code() {
    let context = Context::new();
    context.file("manifest.json", MANIFEST);
    let address = closed_address();
    let shown = context.run(&["verify", "-c", &address]);
    insta::assert_snapshot!(without_port(shown, &address));
}

#[test]
fn json_format_keeps_standard_output_for_data() {
    let context = Context::new();
    context.file("manifest.json", MANIFEST);
    let output = context.output(&["verify", "-c", &closed_address(), "--format", "json"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn peer_that_speaks_no_tls_is_no_coordinator() {
    use std::io::Write as _;
    let context = Context::new();
    context.file("manifest.json", MANIFEST);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let server = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("accept");
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .expect("write");
    });
    let output = context.output(&["verify", "-c", &address]);
    server.join().expect("server");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        stderr.contains("no attested connection to the Coordinator"),
        "{stderr}"
    );
}

#[test]
fn garbage_in_the_remembered_transition_is_not_ignored() {
    let context = Context::new();
    context.file("manifest.json", MANIFEST);
    context.file("verify/latest-transition", "not a hash\n");
    insta::assert_snapshot!(context.run(&["verify", "-c", "localhost"]));
}

#[test]
fn workspace_moves_default_paths_only() {
    let context = Context::new();
    context.file("elsewhere/manifest.json", MANIFEST);
    let address = closed_address();
    let found = context.output(&["verify", "-c", &address, "--workspace-dir", "elsewhere"]);
    assert_eq!(found.status.code(), Some(4), "{found:?}");
    let arguments = [
        "verify",
        "-c",
        &address,
        "--workspace-dir",
        "elsewhere",
        "-m",
        "manifest.json",
    ];
    let explicit = context.output(&arguments);
    assert_eq!(explicit.status.code(), Some(2), "{explicit:?}");
}

#[test]
fn recover_needs_the_owner_key() {
    let context = Context::new();
    context.file("manifest.json", MANIFEST);
    insta::assert_snapshot!(context.run(&["recover", "-c", "localhost"]));
}

#[test]
fn recover_names_seed_shares_that_are_none() {
    let context = Context::new();
    context.file("manifest.json", MANIFEST);
    context.file("seedshare-owner.pem", "key");
    context.file("seed-shares.json", "{\"Salt\": 3}");
    insta::assert_snapshot!(context.run(&["recover", "-c", "localhost"]));
}
