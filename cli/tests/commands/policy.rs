//! `contrast policy`: what people can ask about the policies of their pods.

use std::{fs, path::Path};

use crate::{context::Context, generate::APPLICATION};

const GENERATE: [&str; 5] = [
    "generate",
    "--reference-values",
    "metal-qemu-snp",
    "application.yml",
    "--disable-updates",
];

fn generated() -> Context {
    let context = Context::new();
    context.file("application.yml", APPLICATION);
    let shown = context.run(&GENERATE);
    assert!(shown.contains("exit code: 0"), "{shown}");
    context
}

#[test]
fn show_says_what_a_pod_may_be() {
    let context = generated();
    let shown = context.run(&["policy", "show", "Deployment/web", "application.yml"]);
    for expected in [
        "Deployment/web",
        "streams     closed to the host",
        "web\n  runs        after all init containers\n  image       registry.example/web@sha256:2222",
        "  arguments   /web\n",
        "contrast-initializer\n  runs        sidecar",
    ] {
        assert!(shown.contains(expected), "no {expected} in\n{shown}");
    }
    let rego = context.run(&["policy", "show", "web", "application.yml", "--rego"]);
    assert!(rego.contains("package agent_policy\n"), "{rego}");
    let unknown = context.run(&["policy", "show", "wbe", "application.yml"]);
    let expected =
        "expected a pod with a policy named `wbe`, found StatefulSet/coordinator, Deployment/web";
    assert!(
        unknown.contains(expected) && unknown.contains("exit code: 2"),
        "{unknown}"
    );
}

#[test]
fn explain_judges_requests_in_order_and_says_why_not() {
    let context = generated();
    let lines = concat!(
        r#"{"kind": "CreateSandboxRequest", "request": {"sandbox_pidns": false}}"#,
        "\n",
        r#"{"kind": "ExecProcessRequest", "request": {"container_id": "x", "process": {"Args": ["sh"]}}}"#,
        "\n",
        r#"{"kind": "SetPolicyRequest", "request": {}}"#,
    );
    context.file("requests.jsonl", lines);
    let ask = [
        "policy",
        "explain",
        "--pod",
        "web",
        "--request",
        "requests.jsonl",
        "application.yml",
    ];
    let shown = context.run(&ask);
    for expected in [
        "1 CreateSandboxRequest: allowed",
        "2 ExecProcessRequest: refused\n    E00 no container has the id x",
        "3 SetPolicyRequest: refused\n    requests of this kind are never allowed",
        "error: the policy refuses 2 of 3 requests",
        "exit code: 1",
    ] {
        assert!(shown.contains(expected), "no {expected} in\n{shown}");
    }
    context.file("requests.jsonl", "not JSON");
    let shown = context.run(&ask);
    assert!(
        shown.contains("`requests.jsonl` holds no requests") && shown.contains("exit code: 2"),
        "{shown}"
    );
}

#[test]
fn diff_says_what_became_allowed_and_what_forbidden() {
    let old = generated();
    let before = fs::read_to_string(old.path("application.yml")).expect("read");
    old.file("old.yml", &before);
    old.file(
        "application.yml",
        &APPLICATION.replace("[/web]", "[/web, --debug]"),
    );
    old.run(&GENERATE);
    let shown = old.run(&["policy", "diff", "old.yml", "application.yml"]);
    let expected = r#"web: arguments: was ["/web"], is ["/web","--debug"]"#;
    assert!(
        shown.contains(expected) && !shown.contains("coordinator"),
        "{shown}"
    );
    let same = old.run(&["policy", "diff", "old.yml", "old.yml"]);
    assert!(same.contains("no differences in 2 policies"), "{same}");
}

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
    - name: web
      image: web:1
";
const CACHE: &str = r#"{
    "Version": 1,
    "Images": {"sha256:2222222222222222222222222222222222222222222222222222222222222222": {"Entrypoint": ["/web"]}},
    "References": {"docker.io/library/web:1": "sha256:2222222222222222222222222222222222222222222222222222222222222222"}
}"#;

fn cases(allowed: bool) -> String {
    format!(
        r#"[{{"description": "no process namespace", "kind": "CreateSandboxRequest", "request": {{"sandbox_pidns": false}}, "allowed": true}},
            {{"description": "kernel module", "kind": "CreateSandboxRequest", "request": {{"kernel_modules": [{{"name": "evil"}}]}}, "allowed": {allowed}}}]"#
    )
}

fn folder(context: &Context, name: &str, cases: &str) {
    fs::create_dir_all(context.path(name)).expect("directory");
    context.file(&format!("{name}/pod.yaml"), POD);
    context.file(&format!("{name}/testcases.json"), cases);
}

#[test]
fn test_runs_folders_of_recorded_requests() {
    let context = Context::new();
    context.file("images.json", CACHE);
    folder(&context, "cases/sandbox", &cases(false));
    let run = ["policy", "test", "cases", "--images", "images.json"];
    let shown = context.run(&run);
    assert!(
        shown.contains("2 passed, 0 failed") && shown.contains("exit code: 0"),
        "{shown}"
    );
    assert!(
        shown.contains("kernel module: refused\n       B02 kernel_modules"),
        "{shown}"
    );

    folder(&context, "cases/wrong", &cases(true));
    let shown = context.run(&run);
    for expected in [
        "FAIL kernel module: refused\n       expected it to be allowed",
        "1 of 4 cases",
        "exit code: 1",
    ] {
        assert!(shown.contains(expected), "no {expected} in\n{shown}");
    }
}

#[test]
fn test_refuses_folders_that_it_cannot_run() {
    let context = Context::new();
    fs::create_dir_all(context.path("empty")).expect("directory");
    let shown = context.run(&["policy", "test", "empty"]);
    assert!(
        shown.contains("no folder with a `testcases.json` in `empty`")
            && shown.contains("exit code: 2"),
        "{shown}"
    );
    folder(&context, "cases", &cases(false));
    let shown = context.run(&["policy", "test", "cases"]);
    assert!(
        shown.contains("image `web:1` has no digest") && shown.contains("exit code: 2"),
        "{shown}"
    );
    fs::create_dir_all(context.path("others/good")).expect("directory");
    context.file(
        "others/good/pod.yaml",
        &POD.replace(
            "web:1",
            "web@sha256:2222222222222222222222222222222222222222222222222222222222222222",
        ),
    );
    context.file("others/good/testcases.json", &cases(false));
    context.file("images.json", CACHE);
    let shown = context.run(&[
        "policy",
        "test",
        "cases",
        "others",
        "--images",
        "images.json",
    ]);
    assert!(shown.contains("4 passed, 0 failed"), "{shown}");
    context.file("cases/testcases.json", "{}");
    let shown = context.run(&[
        "policy",
        "test",
        "cases",
        "others",
        "--images",
        "images.json",
    ]);
    assert!(
        shown.contains("2 passed, 0 failed") && shown.contains("cannot be run: "),
        "{shown}"
    );
    let shown = context.run(&["policy", "test", "cases"]);
    assert!(
        shown.contains("is no list of") && shown.contains("exit code: 2"),
        "{shown}"
    );
}

/// The recorded requests that are shared between implementations: each verdict as recorded, but for those that
/// `docs/reference/policy-coverage.md` argues.
#[test]
fn shared_cases_differ_only_where_the_reference_argues_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/policy-cases");
    if !root.is_dir() {
        return;
    }
    let context = Context::new();
    let images =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/policy/tests/recorded-images.json");
    let root = root.to_str().expect("UTF-8");
    let shown = context.run(&[
        "policy",
        "test",
        root,
        "--images",
        images.to_str().expect("UTF-8"),
    ]);
    assert!(shown.contains("46 passed, 6 failed"), "{shown}");
}
