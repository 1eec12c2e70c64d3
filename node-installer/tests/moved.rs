//! The file that has to be changed becomes another one, because somebody adds an import or k3s goes to containerd 2.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use common::{CONFIG, FakeNode, HANDLER, K3S, V2, base};
use contrast_node_installer::{apply, chain};

const IMPORTED: &str = "etc/containerd/conf.d/50-cri.toml";
const BACKUP: &str = "etc/containerd/.config.toml.contrast-cc-metal-qemu-snp-0a1b2c3d.bak";

fn move_to_import(node: &FakeNode) {
    let text = node.read(CONFIG);
    node.write(CONFIG, &format!("imports = [\"conf.d/*.toml\"]\n{text}"));
    node.write(IMPORTED, V2);
}

fn move_to_version_3(node: &FakeNode) {
    node.write(&format!("{K3S}/config.toml"), &base(3));
}

/// A node, and what moves its file.
type Case = (&'static str, fn() -> FakeNode, fn(&FakeNode));

const CASES: [Case; 2] = [
    ("import", || FakeNode::with_containerd(V2), move_to_import),
    ("k3s", || FakeNode::with_rancher(K3S, 2), move_to_version_3),
];

fn moved(case: &Case) -> FakeNode {
    let node = case.1();
    node.applied();
    case.2(&node);
    node
}

/// The node on which nothing was ever installed.
fn untouched(case: &Case) -> BTreeMap<String, String> {
    let node = case.1();
    case.2(&node);
    node.snapshot()
}

/// Files of containerd with the runtime.
fn with_runtime(node: &FakeNode) -> Vec<String> {
    let all = node.snapshot().into_iter();
    let all = all.filter(|(path, content)| {
        !path.starts_with("opt") && !path.ends_with(".json") && content.contains(HANDLER)
    });
    all.map(|(path, _)| path).collect()
}

#[test]
fn the_runtime_goes_with_its_file_and_leaves_nothing_in_the_old_one() {
    for case in &CASES {
        let name = case.0;
        let node = moved(case);
        let config = node.config();
        let findings = node.findings(&config);
        assert!(
            findings.iter().any(|one| one.contains("another file now")),
            "{name}: {findings:?}"
        );
        if let Err(error) = node.apply(&config) {
            panic!("{name}: {}", chain(&error));
        }
        let wanted = match name {
            "import" => vec![IMPORTED.to_owned()],
            _ => vec![
                format!("{K3S}/config-v3.toml.tmpl"),
                format!("{K3S}/config.toml"),
            ],
        };
        assert_eq!(with_runtime(&node), wanted, "{name}");
        assert!(!node.path(BACKUP).exists(), "{name}");
        assert_eq!(node.findings(&config), Vec::<String>::new(), "{name}");
        let plan = node.apply(&config).expect("applies");
        assert!(plan.changes.is_empty(), "{name}: {plan:?}");
        node.uninstall(&config).expect("uninstalls");
        node.host.render();
        assert_eq!(node.snapshot(), untouched(case), "{name}");
    }
}

/// Nobody applied after the file became another one, or the power failed on the way.
#[test]
fn uninstalling_goes_through_every_file() {
    for case in &CASES {
        let mut at = 0;
        loop {
            let node = moved(case);
            let config = node.config();
            let (seen, steps) = node.node(at);
            let result = apply(&seen, &config, 1);
            let when = format!(
                "{}, after {:?}",
                case.0,
                steps.lock().expect("a lock").last()
            );
            if let Err(error) = node.uninstall(&config) {
                panic!("{when}: {}", chain(&error));
            }
            node.host.render();
            assert_eq!(node.snapshot(), untouched(case), "{when}");
            if result.is_ok() {
                break;
            }
            at += 1;
        }
        assert!(at >= 8, "{} has only {at} steps", case.0);
    }
}

#[test]
fn an_interrupted_move_is_completed() {
    for case in &CASES {
        let whole = moved(case);
        whole.applied();
        for at in 0.. {
            let node = moved(case);
            let config = node.config();
            let (seen, steps) = node.node(at);
            let result = apply(&seen, &config, 1);
            let when = format!(
                "{}, after {:?}",
                case.0,
                steps.lock().expect("a lock").last()
            );
            if let Err(error) = node.apply(&config) {
                panic!("{when}: {}", chain(&error));
            }
            assert_eq!(node.snapshot(), whole.snapshot(), "{when}");
            if result.is_ok() {
                break;
            }
        }
    }
}

/// containerd does not come up with the runtime in the other file: it stays where it was.
#[test]
fn a_move_that_fails_leaves_the_runtime_in_the_old_file() {
    let case = &CASES[0];
    let node = moved(case);
    let config = node.config();
    let before = with_runtime(&node);
    // Both files have it then.
    node.behave(|behaviour| {
        behaviour.refuses = Some(Box::new(|text| text.contains(HANDLER)));
    });
    let error = node.apply(&config).expect_err("refused");
    assert_eq!(error.exit_code(), 5, "{}", chain(&error));
    assert_eq!(with_runtime(&node), before);
    node.behave(|behaviour| behaviour.refuses = None);
    node.apply(&config).expect("applies");
    assert_eq!(with_runtime(&node), [IMPORTED]);
}

/// Earlier releases wrote down one change and no list.
#[test]
fn a_record_with_one_change_is_understood() {
    let node = FakeNode::with_containerd(V2);
    let before = node.snapshot();
    let config = node.applied();
    let record = format!("var/lib/contrast-node-installer/{HANDLER}.json");
    let text = node.read(&record);
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let one = value["containerd"][0].take();
    assert!(one.is_object(), "{text}");
    value["containerd"] = one;
    node.write(&record, &value.to_string());
    assert!(node.apply(&config).expect("applies").changes.is_empty());
    node.uninstall(&config).expect("uninstalls");
    assert_eq!(node.snapshot(), before);
}
