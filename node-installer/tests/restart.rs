//! containerd takes the new configuration, or gets its old one back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use common::{CONFIG, FakeNode, HANDLER, K3S, V2, refused};
use contrast_node_installer::chain;
use serde_json::json;

#[test]
fn units_that_are_not_there_are_found_out_before_anything_happens() {
    let node = FakeNode::with_containerd(V2);
    node.behave(|behaviour| behaviour.units = Some(Vec::new()));
    let error = refused(&node, &node.config(), 3);
    assert!(
        error.contains("none of the units containerd.service; name the one"),
        "{error}"
    );
    let node = FakeNode::with_rancher(K3S, 3);
    node.behave(|behaviour| behaviour.units = Some(vec!["k3s-agent.service".into()]));
    node.applied();
    let commands = std::mem::take(&mut node.host.behaviour.lock().expect("a lock").commands);
    assert!(
        commands
            .iter()
            .any(|one| one == "systemctl restart k3s-agent.service"),
        "{commands:?}"
    );
    assert!(
        !commands
            .iter()
            .any(|one| one == "systemctl restart k3s.service"),
        "{commands:?}"
    );
}

#[test]
fn without_units_nothing_is_restarted() {
    let node = FakeNode::with_containerd(V2);
    let mut document = node.document();
    document["containerd"] = json!({"units": []});
    let config = node.config_of(&document);
    node.apply(&config).expect("applies");
    assert_eq!(node.restarts(), 0);
    assert!(node.apply(&config).expect("applies").changes.is_empty());
}

#[test]
fn containerd_that_refuses_the_configuration_is_not_restarted() {
    let node = FakeNode::with_containerd(V2);
    node.behave(|behaviour| behaviour.refuses = Some(Box::new(|text| text.contains(HANDLER))));
    let before = node.read(CONFIG);
    let config = node.config();
    let error = node.apply(&config).expect_err("refused");
    assert_eq!(error.exit_code(), 5);
    let text = chain(&error);
    assert!(
        text.contains("says: containerd: failed to load TOML: no"),
        "{text}"
    );
    assert_eq!((node.read(CONFIG), node.restarts()), (before, 0));
    node.behave(|behaviour| behaviour.refuses = None);
    node.apply(&config)
        .expect("applies when containerd takes it");
    assert_eq!(node.findings(&config), Vec::<String>::new());
}

#[test]
fn an_import_that_containerd_refuses_is_put_back() {
    let node = FakeNode::with_containerd(&format!("imports = [\"conf.d/*.toml\"]\n{V2}"));
    node.write("etc/containerd/conf.d/a.toml", V2);
    node.behave(|behaviour| behaviour.refuses = Some(Box::new(|text| text.contains(HANDLER))));
    let before = node.read("etc/containerd/conf.d/a.toml");
    let error = node.apply(&node.config()).expect_err("refused");
    assert_eq!((error.exit_code(), node.restarts()), (5, 0));
    assert_eq!(node.read("etc/containerd/conf.d/a.toml"), before);
}

#[test]
fn containerd_that_does_not_come_up_gets_its_old_configuration_back() {
    for (name, crash_loops) in [("fails", false), ("crashes over and over", true)] {
        let node = FakeNode::with_containerd(V2);
        fs::set_permissions(node.path(CONFIG), fs::Permissions::from_mode(0o600)).expect("a mode");
        node.behave(|behaviour| {
            behaviour.crash_loops = crash_loops;
            behaviour.comes_up = Some(Box::new(move |text| crash_loops || !text.contains(HANDLER)));
        });
        let before = fs::metadata(node.path(CONFIG)).expect("metadata").mode();
        let config = node.config();
        let error = node.apply(&config).expect_err(name);
        assert_eq!(error.exit_code(), 5, "{}", chain(&error));
        let text = chain(&error);
        let wanted = match crash_loops {
            false => {
                "containerd runs with it: `systemctl restart containerd.service` says: Job for"
            }
            true => "does not come up either",
        };
        assert!(text.contains(wanted), "{text}");
        assert_eq!(node.read(CONFIG), V2);
        assert_eq!(
            fs::metadata(node.path(CONFIG)).expect("metadata").mode(),
            before
        );
        assert_eq!(
            node.restarts(),
            2,
            "once with the new one, once with the old one"
        );
        node.behave(|behaviour| {
            behaviour.comes_up = None;
            behaviour.crash_loops = false;
        });
        node.apply(&config)
            .expect("applies when containerd comes up");
    }
}

#[test]
fn containerd_that_does_not_come_up_without_the_runtime_keeps_it() {
    let node = FakeNode::with_containerd(V2);
    let config = node.applied();
    let installed = node.read(CONFIG);
    node.behave(|behaviour| {
        behaviour.comes_up = Some(Box::new(|text| text.contains(HANDLER)));
    });
    let error = node.uninstall(&config).expect_err("does not come up");
    assert_eq!(error.exit_code(), 5, "{}", chain(&error));
    assert_eq!(node.read(CONFIG), installed);
    node.behave(|behaviour| behaviour.comes_up = None);
    node.uninstall(&config).expect("uninstalls");
    assert_eq!(node.read(CONFIG), V2);
}

#[test]
fn k3s_that_renders_no_such_runtime_gets_its_template_back() {
    let node = FakeNode::with_rancher(K3S, 3);
    node.behave(|behaviour| behaviour.renders_nothing = true);
    let error = node.apply(&node.config()).expect_err("not rendered");
    assert_eq!(error.exit_code(), 5);
    assert!(
        chain(&error).contains("does not know the runtime"),
        "{}",
        chain(&error)
    );
    assert!(!node.path(&format!("{K3S}/config-v3.toml.tmpl")).exists());
}

/// Installed in January, changed by the administrator since.
#[test]
fn going_back_never_restores_what_the_administrator_had_long_ago() {
    let node = FakeNode::with_containerd(V2);
    let config = node.applied();
    let edited = format!("# of the administrator\n{}", node.read(CONFIG));
    node.write(CONFIG, &edited);
    node.behave(|behaviour| {
        behaviour.comes_up = Some(Box::new(|text| text.contains(HANDLER)));
    });
    let error = node.uninstall(&config).expect_err("does not come up");
    assert_eq!(error.exit_code(), 5, "{}", chain(&error));
    assert_eq!(node.read(CONFIG), edited);
    // containerd runs with what is there, so nothing is left to do but to say that it is installed.
    let restarts = node.restarts();
    node.apply(&config).expect("applies");
    assert_eq!((node.restarts(), node.read(CONFIG)), (restarts, edited));
}

/// The power failed before the record said that everything is as it was.
#[test]
fn a_restart_that_is_still_to_come_goes_back_to_the_present_and_not_to_the_backup() {
    for lost in [false, true] {
        let node = FakeNode::with_containerd(V2);
        let config = node.applied();
        let edited = format!("# of the administrator\n{}", node.read(CONFIG));
        if lost {
            let backup = format!("etc/containerd/.config.toml.{HANDLER}.bak");
            fs::remove_file(node.path(&backup)).expect("a backup");
        } else {
            node.write(CONFIG, &edited);
        }
        let record = format!("var/lib/contrast-node-installer/{HANDLER}.json");
        let text = node.read(&record);
        assert!(text.contains("\"restart\": false"), "{text}");
        node.write(
            &record,
            &text.replace("\"restart\": false", "\"restart\": true"),
        );
        node.behave(|behaviour| {
            behaviour.comes_up = Some(Box::new(|text| !text.contains(HANDLER)));
        });
        let error = node.apply(&config).expect_err("does not come up");
        assert_eq!(error.exit_code(), 5, "{}", chain(&error));
        let wanted = match lost {
            false => format!("# of the administrator\n{V2}"),
            true => V2.to_owned(),
        };
        assert_eq!(node.read(CONFIG), wanted, "without a backup: {lost}");
    }
}

#[test]
fn a_unit_that_is_gone_is_found_out_before_anything_is_written_down() {
    let node = FakeNode::with_containerd(V2);
    let config = node.applied();
    let before = node.snapshot();
    node.behave(|behaviour| behaviour.units = Some(Vec::new()));
    let error = node.uninstall(&config).expect_err("no unit");
    assert_eq!(error.exit_code(), 3, "{}", chain(&error));
    assert_eq!(node.snapshot(), before);
}
