//! A node whose runtime is uninstalled goes on serving pods.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{CONFIG, FakeNode, HANDLER, V2};
use contrast_node_installer::chain;

/// `V2` with a socket, at which containerd is asked whether it serves.
const WITH_SOCKET: &str = "version = 2\n[grpc]\naddress = \"/run/c.sock\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n";

#[test]
fn containerd_that_does_not_serve_without_the_runtime_keeps_it() {
    let node = FakeNode::with_containerd(WITH_SOCKET);
    node.write("usr/bin/ctr", "");
    let config = node.applied();
    let (installed, restarts) = (node.read(CONFIG), node.restarts());
    node.behave(|behaviour| {
        behaviour.serves = Some(Box::new(|text| text.contains(HANDLER)));
    });
    let error = node.uninstall(&config).expect_err("does not serve");
    assert_eq!(error.exit_code(), 5, "{}", chain(&error));
    assert!(
        chain(&error).contains("does not serve the kubelet"),
        "{}",
        chain(&error)
    );
    assert_eq!(
        (node.read(CONFIG), node.restarts()),
        (installed, restarts + 2)
    );
    // What does not serve with the runtime either is not held against its removal.
    node.behave(|behaviour| behaviour.serves = Some(Box::new(|_| false)));
    node.uninstall(&config).expect("uninstalls");
    assert_eq!(node.read(CONFIG), WITH_SOCKET);
}

#[test]
fn a_runtime_that_is_the_default_is_not_taken_out() {
    for imports in [false, true] {
        let default = format!(
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"{HANDLER}\"\n"
        );
        let (node, file) = match imports {
            false => (FakeNode::with_containerd(V2), CONFIG),
            true => {
                let text = format!("imports = [\"conf.d/*.toml\"]\n{V2}");
                let node = FakeNode::with_containerd(&text);
                node.write("etc/containerd/conf.d/a.toml", V2);
                (node, "etc/containerd/conf.d/a.toml")
            }
        };
        let config = node.applied();
        let installed = format!("{}{default}", node.read(file));
        node.write(file, &installed);
        let restarts = node.restarts();
        let error = node.uninstall(&config).expect_err("is the default");
        assert_eq!(error.exit_code(), 5, "{}", chain(&error));
        let text = chain(&error);
        assert!(
            text.contains(&format!("default runtime `{HANDLER}`")),
            "{text}"
        );
        assert_eq!((node.read(file), node.restarts()), (installed, restarts));
        // It is still installed, and nothing is left to be done.
        assert!(
            node.apply(&config)
                .is_ok_and(|plan| plan.changes.len() == 1),
            "completed"
        );
        assert_eq!(node.restarts(), restarts);
        node.write(file, &node.read(file).replace(&default, ""));
        node.uninstall(&config).expect("uninstalls");
        assert_eq!(node.read(file), V2);
    }
}

/// containerd 1 has no built-in `runc` beside another runtime, and the entry for it came with ours.
#[test]
fn runc_stays_for_runtimes_that_were_added_since() {
    for end in ["", "\n"] {
        let node = FakeNode::with_containerd(&format!("version = 2{end}"));
        let config = node.applied();
        let other = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia]\nruntime_type = \"io.containerd.runc.v2\"\n";
        node.write(CONFIG, &format!("{}{other}", node.read(CONFIG)));
        node.apply(&config)
            .expect("what was added stands on a line of its own");
        if let Err(error) = node.uninstall(&config) {
            panic!("{}", chain(&error));
        }
        let runc = other.replace("nvidia", "runc");
        assert_eq!(node.read(CONFIG), format!("version = 2\n{runc}{other}"));
        let config = node.applied();
        node.uninstall(&config).expect("uninstalls");
        assert_eq!(node.read(CONFIG), format!("version = 2\n{runc}{other}"));
    }
}

/// Without a configuration containerd has its own, which says where it listens.
#[test]
fn a_node_without_a_configuration_is_asked_as_well() {
    let node = FakeNode::bare();
    for program in ["usr/bin/containerd", "usr/bin/ctr"] {
        node.write(program, "");
    }
    node.behave(|behaviour| behaviour.version = Some("1.7.2".into()));
    let config = node.applied();
    let installed = node.read(CONFIG);
    node.behave(|behaviour| {
        behaviour.serves = Some(Box::new(|text| text.contains(HANDLER)));
    });
    let error = node.uninstall(&config).expect_err("does not serve");
    assert_eq!(error.exit_code(), 5, "{}", chain(&error));
    assert_eq!(node.read(CONFIG), installed);
    node.behave(|behaviour| behaviour.serves = None);
    node.uninstall(&config).expect("uninstalls");
    assert!(!node.path(CONFIG).exists());
}
