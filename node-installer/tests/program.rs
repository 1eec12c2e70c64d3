//! The program itself: its commands, what it prints, and how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and says when it skips"
)]

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::{FakeNode, HANDLER, V2};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_node-installer");

/// A node whose containerd is restarted by somebody else, and cannot be asked anything.
fn quiet_node() -> (FakeNode, Value) {
    let node = FakeNode::bare();
    node.write("etc/containerd/config.toml", V2);
    let mut document = node.document();
    document["containerd"] = json!({"units": []});
    (node, document)
}

fn command(node: &FakeNode, document: &Value, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .arg("--host-root")
        .arg(node.root())
        .arg("--config")
        .arg(node.config_file(document))
        .env_remove("CONTRAST_LOG_LEVEL");
    command
}

fn run(node: &FakeNode, document: &Value, arguments: &[&str]) -> Output {
    command(node, document, arguments).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn plan_apply_check_and_uninstall_say_what_they_do() {
    let (node, document) = quiet_node();
    let before = node.snapshot();

    let planned = run(&node, &document, &["plan"]);
    assert_eq!(planned.status.code(), Some(0), "{}", text(&planned.stderr));
    let shown = text(&planned.stdout);
    for line in [
        &format!("{HANDLER}:"),
        "  make directory /opt/edgeless",
        &format!(
            "  put file /opt/edgeless/{HANDLER}/bin/shim (7 bytes, sha256 27b8160734d2..., mode 0755): is not there"
        ),
        "  edit /etc/containerd/config.toml",
        "    + runtime_type = \"io.containerd.contrast-cc.v2\"",
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} is not in\n{shown}"
        );
    }
    assert!(!shown.contains("    - "), "nothing is taken away:\n{shown}");
    assert_eq!(node.snapshot(), before);

    let checked = run(&node, &document, &["check"]);
    assert_eq!(checked.status.code(), Some(1), "{}", text(&checked.stderr));
    assert!(
        text(&checked.stdout).contains("/etc/containerd/config.toml does not have the runtime")
    );

    let applied = run(&node, &document, &["apply", "--format", "json"]);
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied.stderr));
    let json: Value = serde_json::from_slice(&applied.stdout).expect("JSON");
    assert_eq!(json["handler"], HANDLER);
    let changes = json["changes"].as_array().expect("changes");
    let put = changes.iter().find(|change| change["action"] == "put-file");
    let put = put.expect("a file");
    assert_eq!(
        (&put["mode"], &put["why"]),
        (&json!("0755"), &json!("missing"))
    );

    for arguments in [&["check"][..], &["check", "--quick"]] {
        let checked = run(&node, &document, arguments);
        assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stdout));
    }
    let again = run(&node, &document, &["apply"]);
    assert_eq!(
        text(&again.stdout),
        format!("{HANDLER}: nothing to change\n")
    );

    let uninstalled = run(&node, &document, &["uninstall", "--format", "json"]);
    assert_eq!(
        uninstalled.status.code(),
        Some(0),
        "{}",
        text(&uninstalled.stderr)
    );
    let json: Value = serde_json::from_slice(&uninstalled.stdout).expect("JSON");
    let removed = json["removed"].as_array().expect("removed");
    assert!(
        removed.contains(&json!("the runtime in /etc/containerd/config.toml")),
        "{removed:?}"
    );
    assert_eq!(node.snapshot(), before);
    let nothing = run(&node, &document, &["uninstall"]);
    assert_eq!(
        text(&nothing.stdout),
        format!("{HANDLER}: nothing was installed\n")
    );
}

#[test]
fn errors_are_one_sentence_and_an_exit_code() {
    let (node, document) = quiet_node();
    let mut wrong = document.clone();
    wrong["handler"] = json!("kata");
    let output = run(&node, &wrong, &["apply"]);
    assert_eq!(output.status.code(), Some(2));
    let shown = text(&output.stderr);
    assert!(
        shown.starts_with("error: ") && shown.lines().count() == 1,
        "{shown}"
    );
    assert!(
        shown.contains("at `handler`: `kata` is of no known platform"),
        "{shown}"
    );

    fs::remove_dir_all(node.path("sys")).expect("removes");
    let output = run(&node, &document, &["plan"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("needs AMD SEV-SNP"));

    let output = command(&node, &document, &["check"])
        .args(["--host-root", "/nowhere"])
        .output()
        .expect("runs");
    // Named twice is refused by the command line.
    assert_eq!(output.status.code(), Some(2));
    let output = Command::new(PROGRAM)
        .args(["check", "--host-root", "/nowhere", "--config"])
        .arg(node.config_file(&document))
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("cannot open /nowhere as the root of the host"));
}

#[test]
fn help_lists_every_exit_code() {
    let output = Command::new(PROGRAM).arg("--help").output().expect("runs");
    let shown = text(&output.stdout);
    for code in 0..=5 {
        let line = format!("\n  {code}   ");
        assert!(shown.contains(&line), "{code} is missing from:\n{shown}");
    }
    assert!(!shown.contains("host-exec"), "it is of no use to people");
}

/// `run` says when the node changes, and ends at SIGTERM without taking anything back.
#[test]
fn run_stays_until_it_is_told_to_end() {
    let (node, document) = quiet_node();
    let mut child = command(&node, &document, &["run", "--interval-seconds", "1"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let start = Instant::now();
    let mut wait_for = |wanted: &str| {
        while start.elapsed() < Duration::from_secs(60) {
            let line = lines.next().expect("a line").expect("text");
            if line.contains(wanted) {
                return line;
            }
        }
        panic!("{wanted} does not come");
    };
    wait_for("the node is as wanted");
    fs::remove_file(node.path(&format!("opt/edgeless/{HANDLER}/bin/shim"))).expect("removes");
    let line = wait_for("not as wanted any more");
    assert!(line.contains("bin/shim"), "{line}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signals");
    wait_for("what is installed stays");
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    assert!(node.read("etc/containerd/config.toml").contains(HANDLER));
}

/// Programs of the host see the host's files and not those of the installer.
#[test]
fn host_exec_enters_the_mounts_of_another_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display();
    let script = format!(
        "mount -t tmpfs none {path} && echo inside > {path}/marker && echo ready && exec sleep 60"
    );
    let spawned = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: no `unshare`");
        return;
    };
    let mut ready = String::new();
    BufReader::new(child.stdout.take().expect("a pipe"))
        .read_line(&mut ready)
        .expect("reads");
    if ready.is_empty() {
        child.wait().expect("ends");
        println!("skipped: mounting needs root");
        return;
    }
    let marker = format!("{path}/marker");
    let pid = child.id().to_string();
    let enter = |program: &[&str]| {
        Command::new(PROGRAM)
            .args(["host-exec", "--pid", &pid, "--"])
            .args(program)
            .output()
            .expect("runs")
    };
    let output = enter(&["cat", &marker]);
    assert_eq!(text(&output.stdout), "inside\n", "{}", text(&output.stderr));
    assert_eq!(enter(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    let output = enter(&["no-such-program"]);
    assert_eq!(output.status.code(), Some(126));
    assert!(text(&output.stderr).contains("cannot run `no-such-program` on the host"));
    assert!(!directory.path().join("marker").exists());
    child.kill().expect("ends");
    child.wait().expect("ends");
}
