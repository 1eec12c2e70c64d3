//! `--help` of every command, and what the command line refuses.

use crate::context::Context;

#[test]
fn help_of_every_command() {
    let context = Context::new();
    #[cfg(feature = "software-tee")]
    insta::assert_snapshot!("help", context.run(&["--help"]));
    for command in [
        "generate",
        "lint",
        "set",
        "verify",
        "recover",
        "seal",
        "import",
        "sign",
        "approvals",
        "audit",
        "mesh",
        "completion",
        "version",
    ] {
        insta::assert_snapshot!(format!("help_{command}"), context.run(&[command, "--help"]));
    }
}

#[test]
fn refuses_unknown_flag() {
    insta::assert_snapshot!(Context::new().run(&["verify", "-c", "host", "--force"]));
}

#[test]
fn refuses_missing_coordinator() {
    insta::assert_snapshot!(Context::new().run(&["verify"]));
}

#[test]
fn refuses_address_that_is_a_url() {
    insta::assert_snapshot!(Context::new().run(&["verify", "-c", "https://host"]));
}

#[test]
fn refuses_latest_transition_that_is_no_hash() {
    let arguments = [
        "set",
        "a.yml",
        "-c",
        "host",
        "--atomic",
        "--latest-transition",
        "abc",
    ];
    insta::assert_snapshot!(Context::new().run(&arguments));
}

#[test]
fn refuses_workspace_that_does_not_exist() {
    insta::assert_snapshot!(Context::new().run(&["--workspace-dir", "x", "verify", "-c", "host"]));
}

#[test]
fn shows_version_as_text_and_json() {
    let context = Context::new();
    insta::assert_snapshot!("version_flag", context.run(&["--version"]));
    insta::assert_snapshot!("version_text", context.run(&["version"]));
    insta::assert_snapshot!(
        "version_json",
        context.run(&["version", "--format", "json"])
    );
    insta::assert_snapshot!("version_verbose", context.run(&["version", "--verbose"]));
}

#[test]
fn completes_for_every_shell() {
    let context = Context::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = context.output(&["completion", shell]);
        assert!(output.status.success(), "{shell}: {output:?}");
        let script = String::from_utf8(output.stdout).expect("UTF-8");
        for word in ["contrast", "verify", "reference-values"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
    }
}

#[test]
fn completion_into_a_closed_pipe_is_quiet() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_contrast"))
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn help_of_generate_fits_a_screen() {
    let lines = Context::new().run(&["generate", "--help"]).lines().count();
    assert!(lines <= 48, "{lines} lines");
}
