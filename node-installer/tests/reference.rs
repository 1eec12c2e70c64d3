//! `docs/reference` has the variables and the exit codes of the node installer.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use clap::CommandFactory as _;
use contrast_node_installer::args::Cli;
use contrast_testbed::reference::{environment, hold};

/// With `UPDATE_REFERENCE=1` this and the next test write them there.
#[test]
fn reference_has_every_variable() {
    hold(
        "environment.md",
        "node-installer",
        &environment(&Cli::command()),
    );
}

#[test]
fn reference_has_every_exit_code() {
    let program = Cli::command();
    let help = program.get_after_help().expect("exit codes").to_string();
    let mut lines = help.lines();
    assert_eq!(lines.next(), Some("Exit codes:"));
    let rows: String = lines
        .map(|line| {
            let (code, meaning) = line.trim().split_once(' ').expect("a code and its meaning");
            assert!(code.parse::<u8>().is_ok(), "{line}");
            format!("| {code} | {} |\n", meaning.trim())
        })
        .collect();
    let table = format!("| code | meaning |\n| --- | --- |\n{rows}");
    hold("errors.md", "exit codes of node-installer", &table);
}
