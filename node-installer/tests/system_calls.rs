//! What the kernel is asked for, and what it refuses in the middle.
//!
//! Skipped, with a message, without `strace`.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says when it skips"
)]

mod common;

use std::{
    fs,
    process::{Command, Output},
};

use common::{FakeNode, V2};
use serde_json::json;

/// Applies under `strace`; `None`: skipped.
fn traced(node: &FakeNode, expressions: &[&str]) -> Option<(Output, String)> {
    let mut document = node.document();
    document["containerd"] = json!({"units": []});
    let log = node.directory.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-o"]).arg(&log);
    for expression in expressions {
        command.args(["-e", expression]);
    }
    let output = command
        .arg(env!("CARGO_BIN_EXE_node-installer"))
        .args(["apply", "--host-root"])
        .arg(node.root())
        .arg("--config")
        .arg(node.config_file(&document))
        .output();
    let trace = fs::read_to_string(log).unwrap_or_default();
    match output {
        Ok(output) if trace.contains("exited with") => Some((output, trace)),
        _ => {
            println!("skipped: no `strace` that may trace");
            None
        }
    }
}

/// A node whose containerd is not asked anything.
fn quiet_node() -> FakeNode {
    let node = FakeNode::bare();
    node.write("etc/containerd/config.toml", V2);
    node
}

/// What a record names must be there after the power fails, and a file is only as durable as the directories above it.
#[test]
fn directories_reach_the_disk_before_anything_else_happens() {
    let node = quiet_node();
    let calls = "trace=mkdir,mkdirat,fsync,renameat";
    let Some((output, trace)) = traced(&node, &[calls]) else {
        return;
    };
    assert!(output.status.success(), "{trace}");
    let lines: Vec<&str> = trace.lines().collect();
    let made: Vec<usize> = (0..lines.len())
        .filter(|index| {
            lines
                .get(*index)
                .is_some_and(|line| line.contains("mkdirat("))
        })
        .collect();
    assert!(made.len() > 3, "{trace}");
    for index in made {
        // `PID mkdirat(5</opt>, "name", 0755) = 0`
        let directory = |index: usize, call: &str| -> Option<String> {
            let (_, rest) = lines.get(index)?.split_once(call)?;
            let (_, rest) = rest.split_once('<')?;
            Some(rest.split_once('>')?.0.to_owned())
        };
        let parent = directory(index, "mkdirat(").expect("a directory");
        assert_eq!(directory(index + 1, "fsync("), Some(parent), "{trace}");
    }
}

/// A file system may become read-only while files are copied; then exit code 3 would be a lie.
#[test]
fn a_file_system_that_becomes_read_only_has_another_exit_code() {
    let node = quiet_node();
    // The first name that is taken is that of the record.
    let inject = "inject=renameat:error=EROFS:when=2+";
    let Some((output, trace)) = traced(&node, &["trace=renameat", inject]) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("is on a read-only file system"),
        "{text}\n{trace}"
    );
    assert_eq!(output.status.code(), Some(4), "{text}");
}
