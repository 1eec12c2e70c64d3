//! `contrast set` as far as it gets without a Coordinator.

use std::{net::TcpListener, time::Instant};

use crate::context::Context;

const MANIFEST: &str = include_str!("../data/manifest.json");
const DEPLOYMENT: &str = include_str!("../data/deployment.yml");

/// A workspace in which everything fits together, but no Coordinator runs.
fn prepared() -> Context {
    let context = Context::new();
    context.file("manifest.json", MANIFEST);
    context.file("resources/deployment.yml", DEPLOYMENT);
    context
}

fn closed_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").to_string()
}

#[test]
fn missing_yaml_is_named() {
    let context = prepared();
    insta::assert_snapshot!(context.run(&["set", "-c", "localhost", "other.yml"]));
}

#[test]
fn directory_without_yaml_is_named() {
    let context = prepared();
    context.file("empty/README.md", "nothing here");
    insta::assert_snapshot!(context.run(&["set", "-c", "localhost", "empty"]));
}

#[test]
fn yaml_that_generate_never_saw_is_refused() {
    let context = prepared();
    let plain: String = DEPLOYMENT
        .lines()
        .filter(|line| !line.contains("cc_init_data"))
        .fold(String::new(), |text, line| text + line + "\n");
    context.file(
        "plain.yml",
        &plain.replace("annotations:", "annotations: {}"),
    );
    insta::assert_snapshot!(context.run(&["set", "-c", "localhost", "plain.yml"]));
}

#[test]
fn yaml_that_is_not_kubernetes_is_refused() {
    let context = prepared();
    context.file("shopping.yml", "- milk\n- eggs\n");
    insta::assert_snapshot!(context.run(&["set", "-c", "localhost", "shopping.yml"]));
}

#[test]
fn text_that_is_not_yaml_is_refused() {
    let context = prepared();
    context.file("broken.yml", "kind: Pod\nmetadata: [unclosed\n");
    insta::assert_snapshot!(context.run(&["set", "-c", "localhost", "broken.yml"]));
}

#[test]
fn damaged_initdata_is_refused() {
    let context = prepared();
    context.file(
        "damaged.yml",
        &DEPLOYMENT.replace("cc_init_data: H4sI", "cc_init_data: H4sJ"),
    );
    let output = context.output(&["set", "-c", "localhost", "damaged.yml"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        stderr.contains("damaged.yml") && stderr.contains("coordinator"),
        "{stderr}"
    );
}

#[test]
fn every_missing_and_extra_policy_is_named() {
    let context = prepared();
    let documents: Vec<&str> = DEPLOYMENT.split("---\n").collect();
    context.file("coordinator.yml", documents[0]);
    insta::assert_snapshot!(
        "missing",
        context.run(&["set", "-c", "localhost", "coordinator.yml"])
    );

    let other = MANIFEST.replace(&hash_of(include_str!("../data/web.toml")), &"5a".repeat(32));
    context.file("manifest.json", &other);
    insta::assert_snapshot!(
        "missing_and_extra",
        context.run(&["set", "-c", "localhost", "resources"])
    );
}

#[test]
fn explicit_owner_key_must_exist() {
    let arguments = [
        "set",
        "-c",
        "localhost",
        "resources",
        "--workload-owner-key",
        "gone.pem",
    ];
    insta::assert_snapshot!(prepared().run(&arguments));
}

#[test]
fn unreachable_coordinator_is_tried_until_the_timeout() {
    let context = prepared();
    let address = closed_address();
    let start = Instant::now();
    let shown = context.run(&["set", "-c", &address, "resources", "--timeout", "2"]);
    assert!(start.elapsed().as_secs() >= 1, "gave up at once");
    assert!(start.elapsed().as_secs() < 30, "did not give up");
    insta::assert_snapshot!(shown.replace(&address, "[ADDRESS]"));
    assert!(!context.path("mesh-ca.pem").exists());
}

#[test]
fn manifest_without_owners_is_warned_about() {
    let context = prepared();
    let mut manifest: serde_json::Value = serde_json::from_str(MANIFEST).expect("JSON");
    manifest["WorkloadOwnerPubKeys"] = serde_json::json!([]);
    context.file("manifest.json", &manifest.to_string());
    let address = closed_address();
    let shown = context.run(&["set", "-c", &address, "resources", "--timeout", "0"]);
    insta::assert_snapshot!(shown.replace(&address, "[ADDRESS]"));
}

#[test]
fn lock_out_is_warned_about() {
    use contrast_clock::SystemEntropy;
    let context = prepared();
    let key = contrast_pki::WorkloadOwnerKey::generate(&SystemEntropy).expect("key");
    context.file("workload-owner.pem", &key.to_pem().expect("PEM"));
    let address = closed_address();
    let shown = context.run(&["set", "-c", &address, "resources", "--timeout", "0"]);
    insta::assert_snapshot!(shown.replace(&address, "[ADDRESS]"));
}

fn hash_of(document: &str) -> String {
    hex::encode(contrast_cli::transition::sha256(document.as_bytes()))
}
