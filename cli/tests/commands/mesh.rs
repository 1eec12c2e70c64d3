//! `contrast mesh check`: here, and in a pod by kubectl. What is right and wrong of connections is tested in its library.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::context::Context;

/// Runs `contrast` with `kubectl` as its only program of that name.
fn with_kubectl(context: &Context, script: &str, arguments: &[&str]) -> Output {
    let kubectl = context.file("bin/kubectl", script);
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).expect("executable");
    let own = kubectl.parent().expect("parent").display().to_string();
    Command::new(env!("CARGO_BIN_EXE_contrast"))
        .args(arguments)
        .env_clear()
        .env("NO_COLOR", "1")
        .env("PATH", format!("{own}:/usr/bin:/bin"))
        .env("ARGUMENTS", context.path("arguments"))
        .output()
        .expect("contrast starts")
}

/// The sidecar's binary beside that of `contrast`. Without one, says so.
#[expect(
    clippy::print_stderr,
    reason = "a test says on standard error why it skips"
)]
fn sidecar() -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_BIN_EXE_contrast")).with_file_name("service-mesh");
    if found.is_file() {
        return Some(found);
    }
    eprintln!(
        "SKIPPED: no {}; build contrast-service-mesh",
        found.display()
    );
    None
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn help() {
    insta::assert_snapshot!(Context::new().run(&["mesh", "check", "--help"]));
}

#[test]
fn outside_a_pod_the_files_are_missing() {
    insta::assert_snapshot!(Context::new().run(&["mesh", "check", "--base-dir", "nowhere"]));
}

#[test]
fn a_target_is_an_entry_or_a_remote() {
    let entries = "api#127.0.0.1:8081#api.shop:443";
    insta::assert_snapshot!(Context::new().run(&["mesh", "check", "db", "--egress", entries]));
}

#[test]
fn json_has_the_rows_of_the_text() {
    let output = Context::new().output(&["mesh", "check", "--base-dir", "nowhere", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["verdict"], "failed");
    assert_eq!(report["checks"][0]["reason"], "files-unusable");
}

#[test]
fn names_that_kubectl_would_read_as_options_are_refused() {
    for arguments in [
        ["--pod=--all", "-n=a"],
        ["--pod=a", "-n=--b"],
        ["--pod=", "-n=a"],
    ] {
        let context = Context::new();
        let script = "#!/bin/sh\ntouch \"$ARGUMENTS\"\n";
        let all = [["mesh", "check"], arguments].concat();
        let output = with_kubectl(&context, script, &all);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!context.path("arguments").exists(), "kubectl ran");
    }
}

#[test]
fn without_kubectl_it_says_what_to_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_contrast"))
        .args(["mesh", "check", "--pod", "web-1"])
        .env_clear()
        .env("NO_COLOR", "1")
        .env("PATH", "/nonexistent")
        .output()
        .expect("contrast starts");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        text(&output.stderr).contains("install kubectl"),
        "{output:?}"
    );
}

#[test]
fn a_policy_that_denies_exec_is_named() {
    let script = "#!/bin/sh\necho 'error: Internal error occurred: error executing command in container: ExecProcessRequest is blocked by policy: ' >&2\nexit 1\n";
    let said = |target: &[&str]| {
        let arguments = [&["mesh", "check", "--pod", "web-1"], target].concat();
        let output = with_kubectl(&Context::new(), script, &arguments);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        text(&output.stderr)
    };
    insta::assert_snapshot!("a_policy_that_denies_the_check", said(&[]));
    insta::assert_snapshot!("a_policy_that_denies_the_check_of_a_target", said(&["api"]));
}

#[test]
fn an_answer_that_is_no_report_is_refused() {
    let script = "#!/bin/sh\necho '{\"verdict\": \"fine\"}'\n";
    let output = with_kubectl(
        &Context::new(),
        script,
        &["mesh", "check", "--pod", "web-1"],
    );
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(
        text(&output.stderr).contains("this version does not understand"),
        "{output:?}"
    );
}

#[test]
fn in_a_pod_the_sidecar_answers() {
    let Some(sidecar) = sidecar() else { return };
    let context = Context::new();
    // As kubectl does: options up to `--`, then the command with what follows.
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$ARGUMENTS\"\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n\
         export CONTRAST_INGRESS_MODE=explicit CONTRAST_BASE_DIR={} CONTRAST_EGRESS_PROXY_CONFIG='api#127.0.0.1:8081#127.0.0.1:1'\n\
         exec {} \"$@\"\n",
        context.path("base").display(),
        sidecar.display()
    );
    let arguments = ["mesh", "check", "--pod", "web-1", "-n", "shop", "api"];
    let output = with_kubectl(&context, &script, &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let shown = text(&output.stdout);
    assert!(shown.contains("FAIL  certificate files"), "{shown}");
    assert!(shown.contains("127.0.0.1:1 (egress entry api)"), "{shown}");
    assert!(shown.contains("FAIL  TCP"), "{shown}");
    let given = || {
        let given = fs::read_to_string(context.path("arguments")).expect("arguments");
        given.lines().collect::<Vec<_>>().join(" ")
    };
    let expected = "exec web-1 --namespace shop --container contrast-service-mesh -- /bin/service-mesh check --json -- api";
    assert_eq!(given(), expected);

    // The one command that policies allow.
    let output = with_kubectl(&context, &script, &["mesh", "check", "--pod", "web-1"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text(&output.stdout).contains("FAIL  certificate files"),
        "{output:?}"
    );
    let expected = "exec web-1 --container contrast-service-mesh -- /bin/service-mesh check --json";
    assert_eq!(given(), expected);

    let output = with_kubectl(
        &context,
        &script,
        &["mesh", "check", "--pod", "web-1", "db"],
    );
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        text(&output.stderr).contains("does not accept the request"),
        "{output:?}"
    );
}
