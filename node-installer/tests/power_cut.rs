//! The power fails after every single step, and the next run completes what was begun.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{FakeNode, K3S};
use contrast_node_installer::{apply, chain, uninstall};

const V2: &str = "version = 2 # mine\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n";

/// A new node at every call.
type MakeNode = fn() -> FakeNode;

/// Nodes of different kinds.
const NODES: [(&str, MakeNode); 4] = [
    ("containerd", || FakeNode::with_containerd(V2)),
    ("no configuration", || {
        let node = FakeNode::bare();
        node.write("usr/bin/containerd", "");
        node.behave(|behaviour| behaviour.version = Some("1.7.2".into()));
        node
    }),
    ("k3s without a template", || FakeNode::with_rancher(K3S, 3)),
    ("imports", || {
        let node = FakeNode::with_containerd(&format!("imports = [\"conf.d/*.toml\"]\n{V2}"));
        node.write("etc/containerd/conf.d/10-cri.toml", V2);
        node
    }),
];

/// The work whose interruption is tested.
fn interrupted_everywhere(
    name: &str,
    make: impl Fn() -> FakeNode,
    work: impl Fn(&FakeNode, usize) -> Option<Vec<String>>,
    after: impl Fn(&FakeNode, &str),
) {
    let mut at = 0;
    loop {
        let node = make();
        let steps = work(&node, at);
        let done = steps.is_none();
        let step = steps.and_then(|steps| steps.last().cloned());
        after(&node, &format!("{name}, after step {at} ({step:?})"));
        if done {
            break;
        }
        at += 1;
    }
    assert!(at > 8, "{name} has only {at} steps");
}

/// Applies until the power fails; `None`: it did not.
fn apply_until(node: &FakeNode, at: usize) -> Option<Vec<String>> {
    let (cut, steps) = node.node(at);
    match apply(&cut, &node.config(), 1) {
        Ok(_) => None,
        Err(error) => {
            let text = chain(&error);
            assert!(text.contains("interrupted"), "{text}");
            Some(steps.lock().expect("a lock").clone())
        }
    }
}

fn uninstall_until(node: &FakeNode, at: usize) -> Option<Vec<String>> {
    let (cut, steps) = node.node(at);
    match uninstall(&cut, &node.config(), 1) {
        Ok(_) => None,
        Err(error) => {
            let text = chain(&error);
            assert!(text.contains("interrupted"), "{text}");
            Some(steps.lock().expect("a lock").clone())
        }
    }
}

fn same(a: &FakeNode, b: &FakeNode, when: &str) {
    let (a, b) = (a.snapshot(), b.snapshot());
    for (path, found) in &a {
        assert_eq!(Some(found), b.get(path), "{when}: {path} differs");
    }
    for path in b.keys() {
        assert!(a.contains_key(path), "{when}: {path} is missing");
    }
}

#[test]
fn an_interrupted_apply_is_completed_by_the_next() {
    for (name, make) in NODES {
        let whole = make();
        whole.applied();
        interrupted_everywhere(name, make, apply_until, |node, when| {
            let config = node.applied();
            assert_eq!(node.findings(&config), Vec::<String>::new(), "{when}");
            assert!(node.restarts() >= 1, "{when}: not restarted");
            // The backup of a configuration that was written anew does not exist in either.
            same(node, &whole, when);
            let restarts = node.restarts();
            assert!(
                node.apply(&config).expect("applies").changes.is_empty(),
                "{when}"
            );
            assert_eq!(node.restarts(), restarts, "{when}: restarted again");
        });
    }
}

#[test]
fn an_interrupted_apply_is_taken_back_to_the_byte() {
    for (name, make) in NODES {
        let original = make();
        interrupted_everywhere(name, make, apply_until, |node, when| {
            if let Err(error) = node.uninstall(&node.config()) {
                panic!("{when}: {}", chain(&error));
            }
            // k3s renders when it starts, and an interrupted run may not have come so far.
            node.host.render();
            same(node, &original, when);
        });
    }
}

#[test]
fn an_interrupted_uninstall_is_completed_by_the_next() {
    for (name, make) in NODES {
        let original = make();
        let installed = || {
            let node = make();
            node.applied();
            node
        };
        interrupted_everywhere(name, installed, uninstall_until, |node, when| {
            if let Err(error) = node.uninstall(&node.config()) {
                panic!("{when}: {}", chain(&error));
            }
            // k3s renders when it starts, and an interrupted run may not have come so far.
            node.host.render();
            same(node, &original, when);
        });
    }
}

#[test]
fn an_interrupted_uninstall_is_installed_again() {
    for (name, make) in NODES {
        let whole = make();
        whole.applied();
        let installed = || {
            let node = make();
            node.applied();
            node
        };
        interrupted_everywhere(name, installed, uninstall_until, |node, when| {
            let config = node.applied();
            assert_eq!(node.findings(&config), Vec::<String>::new(), "{when}");
            same(node, &whole, when);
        });
    }
}
