//! Configurations of containerd, k3s and RKE2 before and after, byte for byte. `UPDATE_GOLDEN=1` writes what comes out; read it then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::{fs, path::PathBuf};

use common::{FakeNode, K3S, RKE2};
use contrast_node_installer::chain;
use serde_json::json;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn before(name: &str) -> String {
    fs::read_to_string(golden(name)).expect(name)
}

/// The file after installing must be the golden one; after uninstalling everything must be as before.
fn becomes(node: &FakeNode, file: &str, name: &str, snapshotter: bool) {
    // What k3s renders without the installer.
    node.host.render();
    let untouched = node.snapshot();
    let mut document = node.document();
    if snapshotter {
        document["runtime"]["snapshotter"] =
            json!({"name": "nydus", "address": "/run/containerd-nydus/containerd-nydus-grpc.sock"});
    }
    let config = node.config_of(&document);
    node.apply(&config)
        .unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
    assert_eq!(node.restarts(), 1, "{name}");
    assert_eq!(node.findings(&config), Vec::<String>::new(), "{name}");
    let found = node.read(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(golden(name), &found).expect("writes");
    }
    assert_eq!(found, before(name), "{name}");
    node.uninstall(&config)
        .unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
    assert_eq!(node.snapshot(), untouched, "{name}");
}

#[test]
fn version_2() {
    let node = FakeNode::with_containerd(&before("v2.before.toml"));
    becomes(&node, "etc/containerd/config.toml", "v2.after.toml", true);
}

#[test]
fn version_2_of_debian_which_names_no_runtime() {
    let node = FakeNode::with_containerd(&before("debian.before.toml"));
    becomes(
        &node,
        "etc/containerd/config.toml",
        "debian.after.toml",
        false,
    );
}

#[test]
fn version_3() {
    let node = FakeNode::with_containerd(&before("v3.before.toml"));
    becomes(&node, "etc/containerd/config.toml", "v3.after.toml", true);
}

#[test]
fn no_configuration() {
    let node = FakeNode::bare();
    node.write("usr/bin/containerd", "");
    node.behave(|behaviour| behaviour.version = Some("1.6.20~ds1".into()));
    becomes(
        &node,
        "etc/containerd/config.toml",
        "none.after.toml",
        false,
    );
}

#[test]
fn the_import_that_wins() {
    let node = FakeNode::with_containerd(&format!(
        "imports = [\"/etc/containerd/conf.d/*.toml\"]\n{}",
        before("v2.before.toml")
    ));
    node.write(
        "etc/containerd/conf.d/10-nvidia.toml",
        &before("import.before.toml"),
    );
    node.write(
        "etc/containerd/conf.d/99-other.toml",
        "version = 2\n[metrics]\naddress = \"\"\n",
    );
    node.write("etc/containerd/conf.d/old.toml.bak", "no TOML [");
    becomes(
        &node,
        "etc/containerd/conf.d/10-nvidia.toml",
        "import.after.toml",
        false,
    );
}

#[test]
fn k3s_with_containerd_2() {
    let node = FakeNode::with_rancher(K3S, 3);
    // For a containerd that this k3s does not have any more.
    node.write(&format!("{K3S}/config.toml.tmpl"), "version = 2\n");
    becomes(
        &node,
        &format!("{K3S}/config-v3.toml.tmpl"),
        "k3s.after.toml.tmpl",
        true,
    );
}

#[test]
fn k3s_with_a_template() {
    let node = FakeNode::with_rancher(K3S, 2);
    node.write(
        &format!("{K3S}/config.toml.tmpl"),
        &before("template.before.toml.tmpl"),
    );
    becomes(
        &node,
        &format!("{K3S}/config.toml.tmpl"),
        "template.after.toml.tmpl",
        false,
    );
}

#[test]
fn rke2() {
    let node = FakeNode::with_rancher(RKE2, 2);
    becomes(
        &node,
        &format!("{RKE2}/config.toml.tmpl"),
        "rke2.after.toml.tmpl",
        false,
    );
}
