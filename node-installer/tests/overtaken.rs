//! Somebody else writes containerd's configuration while the installer is at work.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{CONFIG, FakeNode, HANDLER, V2, refused};
use contrast_node_installer::{Error, apply, chain, uninstall};

/// While files are copied, when containerd was asked already, and before the backup.
const STEPS_OF_APPLY: [&str; 3] = ["share/qemu", "remove /etc/containerd", "HANDLER.bak"];

#[test]
fn what_is_written_while_it_is_installed_is_kept() {
    for at in STEPS_OF_APPLY {
        let node = FakeNode::with_containerd(V2);
        let config = node.config();
        let theirs = format!("# of the administrator\n{V2}");
        let at = at.replace("HANDLER", HANDLER);
        let error = apply(&node.node_of_two(&at, CONFIG, &theirs), &config, 1).expect_err(&at);
        assert!(matches!(error, Error::Overtaken { .. }), "{at}: {error:?}");
        assert_eq!(error.exit_code(), 4, "{at}");
        assert_eq!(
            (node.read(CONFIG), node.restarts()),
            (theirs.clone(), 0),
            "{at}"
        );
        node.apply(&config)
            .unwrap_or_else(|error| panic!("{at}: {}", chain(&error)));
        assert!(node.read(CONFIG).starts_with(&theirs), "{at}");
        node.uninstall(&config).expect("uninstalls");
        assert_eq!(node.read(CONFIG), theirs, "{at}");
    }
}

#[test]
fn what_is_written_while_it_is_uninstalled_is_kept() {
    let node = FakeNode::with_containerd(V2);
    let config = node.applied();
    let (installed, restarts) = (node.read(CONFIG), node.restarts());
    let theirs = format!("# of the administrator\n{installed}");
    let record = format!("rename /var/lib/contrast-node-installer/.{HANDLER}.json");
    let seen = node.node_of_two(&record, CONFIG, &theirs);
    let error = uninstall(&seen, &config, 1).expect_err("overtaken");
    assert!(matches!(error, Error::Overtaken { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 4);
    assert_eq!((node.read(CONFIG), node.restarts()), (theirs, restarts));
    node.uninstall(&config).expect("uninstalls");
    assert_eq!(node.read(CONFIG), format!("# of the administrator\n{V2}"));
}

/// A restart that is still to come must not start containerd with half of what somebody is writing.
#[test]
fn containerd_is_not_restarted_with_what_was_not_looked_at() {
    let node = FakeNode::with_containerd(V2);
    let config = node.applied();
    let record = format!("var/lib/contrast-node-installer/{HANDLER}.json");
    let text = node.read(&record);
    node.write(
        &record,
        &text.replace("\"restart\": false", "\"restart\": true"),
    );
    let (installed, restarts) = (node.read(CONFIG), node.restarts());
    let theirs = format!("# of the administrator\n{installed}");
    node.payload("share/qemu", "newer", 0o755);
    let error = apply(&node.node_of_two("share/qemu", CONFIG, &theirs), &config, 1);
    let error = error.expect_err("overtaken");
    assert!(matches!(error, Error::Overtaken { .. }), "{error:?}");
    assert_eq!(
        (node.read(CONFIG), node.restarts()),
        (theirs.clone(), restarts)
    );
    node.apply(&config).expect("applies");
    assert_eq!((node.read(CONFIG), node.restarts()), (theirs, restarts + 1));
}

/// Exit code 3 says that nothing was changed.
#[test]
fn what_is_found_out_too_late_has_another_exit_code() {
    let node = FakeNode::with_containerd(V2);
    let seen = node.node_of_two("restart containerd", CONFIG, "version = 4\n");
    let error = apply(&seen, &node.config(), 1).expect_err("refused");
    let text = chain(&error);
    assert!(text.contains("has version 4, expected 2 or 3"), "{text}");
    assert_eq!(error.exit_code(), 4, "{text}");
    let node = FakeNode::with_containerd(V2);
    node.write(CONFIG, "version = 4\n");
    let error = refused(&node, &node.config(), 3);
    assert!(error.contains("has version 4, expected 2 or 3"), "{error}");
}

#[test]
fn a_pod_that_cannot_enter_the_host_is_told_so_before_anything_is_changed() {
    let node = FakeNode::with_containerd(V2);
    node.behave(|behaviour| behaviour.outside = true);
    let error = refused(&node, &node.config(), 3);
    assert!(error.contains("needs `hostPID: true`"), "{error}");
    node.behave(|behaviour| behaviour.outside = false);
    let config = node.applied();
    let before = node.snapshot();
    node.behave(|behaviour| behaviour.outside = true);
    let error = node.uninstall(&config).expect_err("outside");
    assert_eq!(error.exit_code(), 3, "{}", chain(&error));
    assert_eq!(node.snapshot(), before);
}
