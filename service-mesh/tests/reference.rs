//! `docs/reference/service-mesh.md` says what the sidecar does.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

use clap::CommandFactory as _;
use contrast_service_mesh::{
    annotation::{Egress, Ingress},
    config::Config,
};
use contrast_testbed::reference::{environment, hold};

fn reference() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/service-mesh.md");
    fs::read_to_string(path).expect("the reference")
}

/// Lines of the block of this kind.
fn examples(kind: &str) -> Vec<String> {
    let text = reference();
    let (_, rest) = text
        .split_once(&format!("```{kind}\n"))
        .expect("the block begins");
    let (block, _) = rest.split_once("```").expect("the block ends");
    block.lines().map(str::to_owned).collect()
}

#[test]
fn examples_are_accepted_and_refused_as_it_says() {
    for example in examples("ingress") {
        let parsed = example.parse::<Ingress>();
        assert!(parsed.is_ok(), "{example}: {parsed:?}");
    }
    for example in examples("egress") {
        let parsed = example.parse::<Egress>();
        assert!(parsed.is_ok(), "{example}: {parsed:?}");
    }
    for example in examples("ingress-refused") {
        let error = example.parse::<Ingress>().expect_err(&example);
        assert!(error.to_string().contains('^'), "{example}: {error}");
    }
    for example in examples("egress-refused") {
        let error = example.parse::<Egress>().expect_err(&example);
        assert!(error.to_string().contains('^'), "{example}: {error}");
    }
}

#[test]
fn every_variable_stands_there_and_no_other() {
    let text = reference();
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `CONTRAST_"));
    let described: BTreeSet<String> = rows
        .filter_map(|row| row.split_once('`'))
        .map(|(name, _)| format!("CONTRAST_{name}"))
        .collect();
    let command = Config::command();
    let known: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with("CONTRAST_") && !name.starts_with("CONTRAST_LOG_"))
        .collect();
    assert_eq!(described, known);
}

/// With `UPDATE_REFERENCE=1` the test writes them there.
#[test]
fn every_variable_is_in_the_list_of_all_programs() {
    hold(
        "environment.md",
        "service-mesh",
        &environment(&Config::command()),
    );
}
