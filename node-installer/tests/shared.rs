//! Two handlers have a file at the same place.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{FakeNode, HANDLER, V2, kata};
use contrast_node_installer::{Error, InTheWay, chain, config::Config};
use serde_json::{Value, json};

const SHIM: &str = "opt/shared/shim";

fn document(node: &FakeNode, version: &str, shares: bool) -> Value {
    let handler = format!("contrast-cc-metal-qemu-snp-{version}");
    let text = kata("/opt/edgeless").replace(HANDLER, &handler);
    node.payload("etc/kata.toml", &text, 0o644);
    let mut document = node.document();
    document["handler"] = json!(handler);
    if shares {
        document["files"][0]["path"] = json!(format!("/{SHIM}"));
        document["runtime"]["shim"] = json!(format!("/{SHIM}"));
    }
    document
}

/// Applies, which must work.
fn applied(node: &FakeNode, version: &str, shares: bool) -> Config {
    let config = node.config_of(&document(node, version, shares));
    if let Err(error) = node.apply(&config) {
        panic!("{}", chain(&error));
    }
    config
}

#[test]
fn a_file_stays_until_the_last_handler_goes() {
    for first_goes in [true, false] {
        let node = FakeNode::with_containerd(V2);
        let before = node.snapshot();
        let mut configs = ["0000000a", "0000000b"].map(|version| applied(&node, version, true));
        if !first_goes {
            configs.reverse();
        }
        let [one, other] = configs;
        node.uninstall(&one).expect("uninstalls");
        assert_eq!(node.read(SHIM), "#!shim\n", "first goes: {first_goes}");
        node.uninstall(&other).expect("uninstalls");
        assert_eq!(node.snapshot(), before, "first goes: {first_goes}");
    }
}

#[test]
fn a_file_that_one_handler_wants_no_more_stays_for_the_other() {
    let node = FakeNode::with_containerd(V2);
    let before = node.snapshot();
    applied(&node, "0000000a", true);
    let other = applied(&node, "0000000b", true);
    let one = applied(&node, "0000000a", false);
    assert_eq!(node.read(SHIM), "#!shim\n");
    node.uninstall(&other).expect("uninstalls");
    assert!(!node.path(SHIM).exists(), "nobody uses it");
    node.uninstall(&one).expect("uninstalls");
    assert_eq!(node.snapshot(), before);
}

#[test]
fn a_file_is_not_replaced_under_the_other_handler() {
    let node = FakeNode::with_containerd(V2);
    let one = applied(&node, "0000000a", true);
    applied(&node, "0000000b", true);
    let before = node.snapshot();
    node.payload("bin/shim", "#!newer\n", 0o755);
    let config = node.config_of(&document(&node, "0000000b", true));
    let error = node.apply(&config).expect_err("shared");
    assert!(
        matches!(error, Error::InTheWay(InTheWay::Shared { .. })),
        "{error:?}"
    );
    assert_eq!(error.exit_code(), 3);
    assert!(
        error.to_string().contains("0000000a` uses as well"),
        "{error}"
    );
    assert_eq!(node.snapshot(), before);
    node.uninstall(&one).expect("uninstalls");
    applied(&node, "0000000b", true);
    assert_eq!(node.read(SHIM), "#!newer\n");
}
