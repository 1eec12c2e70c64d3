//! Patches change what they must and nothing else.

#![allow(clippy::expect_used, reason = "a test may panic")]

use contrast_resources::{ResourceError, Step, WorkloadKind, YamlFile, pod_template_path};
use proptest::prelude::*;
use serde_json::json;

const DEPLOYMENT: &str = r#"# A comment on top.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: "web"   # quoted for a reason
spec:
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web # the one and only
        image: web@sha256:00
        ports: []

      # a comment at the end of the list
  replicas: 1
---
apiVersion: v1
kind: Service
metadata:
    name:   web
"#;

fn file(text: &str) -> YamlFile {
    YamlFile::parse(text.to_owned()).expect("parses")
}

fn text(file: &YamlFile) -> String {
    file.text().expect("writes")
}

fn path(text: &str) -> Vec<Step> {
    text.split('.')
        .map(|step| match step.parse() {
            Ok(index) => Step::Index(index),
            Err(_) => Step::key(step),
        })
        .collect()
}

/// The lines that a patch removed and added.
fn changed(before: &str, after: &YamlFile) -> String {
    let written = text(after);
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), written.lines().collect());
    let same = before
        .iter()
        .zip(&after)
        .take_while(|(a, b)| a == b)
        .count();
    let tail = before[same..].iter().rev().zip(after[same..].iter().rev());
    let tail = tail.take_while(|(a, b)| a == b).count();
    let removed = before[same..before.len() - tail]
        .iter()
        .map(|line| format!("-{line}\n"));
    let added = after[same..after.len() - tail]
        .iter()
        .map(|line| format!("+{line}\n"));
    removed.chain(added).collect()
}

#[test]
fn new_entry_goes_behind_the_last_one_of_its_mapping() {
    let mut file = file(DEPLOYMENT);
    file.set(
        0,
        &path("spec.template.spec.runtimeClassName"),
        &json!("contrast-cc"),
    )
    .expect("sets");
    assert_eq!(
        changed(DEPLOYMENT, &file),
        "+      runtimeClassName: contrast-cc\n"
    );
    file.set(
        0,
        &path("spec.template.metadata.annotations.a/b"),
        &json!("true"),
    )
    .expect("sets");
    assert!(
        text(&file).contains("      annotations:\n        a/b: \"true\"\n"),
        "{}",
        text(&file)
    );
}

#[test]
fn existing_scalar_is_replaced_and_its_comment_stays() {
    let mut file = file(DEPLOYMENT);
    file.set(0, &path("metadata.name"), &json!("api"))
        .expect("sets");
    assert_eq!(
        changed(DEPLOYMENT, &file),
        "-  name: \"web\"   # quoted for a reason\n+  name: \"api\"   # quoted for a reason\n"
    );
}

#[test]
fn setting_what_is_there_changes_no_byte() {
    let mut file = file(DEPLOYMENT);
    file.set(0, &path("metadata.name"), &json!("web"))
        .expect("sets");
    file.set(1, &path("metadata.name"), &json!("web"))
        .expect("sets");
    assert_eq!(text(&file), DEPLOYMENT);
}

#[test]
fn items_are_inserted_in_front_at_the_end_and_into_nothing() {
    let containers = path("spec.template.spec.containers");
    let mut file = file(DEPLOYMENT);
    file.insert(
        0,
        &containers,
        0,
        &json!({"name": "first", "env": [{"name": "A", "value": "1"}]}),
    )
    .expect("inserts");
    assert_eq!(
        changed(DEPLOYMENT, &file),
        "+      - name: first\n+        env:\n+          - name: A\n+            value: \"1\"\n"
    );
    file.insert(0, &containers, 99, &json!({"name": "last"}))
        .expect("inserts");
    file.insert(
        0,
        &path("spec.template.spec.volumes"),
        0,
        &json!({"name": "v", "emptyDir": {}}),
    )
    .expect("inserts");
    file.insert(
        0,
        &path("spec.template.spec.containers.1.ports"),
        0,
        &json!({"containerPort": 80}),
    )
    .expect("inserts into an empty flow list");
    let object = &file.documents().expect("parses")[0].object;
    let spec = &object["spec"]["template"]["spec"];
    let names: Vec<_> = spec["containers"]
        .as_array()
        .expect("list")
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(names, ["first", "web", "last"]);
    assert_eq!(spec["volumes"], json!([{"name": "v", "emptyDir": {}}]));
    assert_eq!(
        spec["containers"][1]["ports"],
        json!([{"containerPort": 80}])
    );
    assert!(text(&file).contains("# the one and only"));
}

#[test]
fn item_is_replaced_alone() {
    let mut file = file(DEPLOYMENT);
    let containers = path("spec.template.spec.containers");
    file.insert(0, &containers, 0, &json!({"name": "first", "x": 1}))
        .expect("inserts");
    let before = text(&file);
    file.replace(0, &containers, 0, &json!({"name": "first", "x": 2}))
        .expect("replaces");
    assert_eq!(changed(&before, &file), "-        x: 1\n+        x: 2\n");
    let again = text(&file);
    file.replace(0, &containers, 0, &json!({"name": "first", "x": 2}))
        .expect("replaces");
    assert_eq!(text(&file), again);
}

#[test]
fn json_and_lists_are_files_too() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}}]}"#;
    let mut file = file(text);
    let document = file.documents().expect("parses").remove(0);
    assert_eq!(WorkloadKind::of(&document.object), Some(WorkloadKind::Pod));
    let mut runtime = document.path;
    runtime.extend(path("spec.runtimeClassName"));
    file.set(0, &runtime, &json!("contrast-cc")).expect("sets");
    let object = &file.documents().expect("parses")[0].object;
    assert_eq!(object["spec"]["runtimeClassName"], "contrast-cc");
}

#[test]
fn pod_template_is_found_in_every_kind() {
    let at = |version: &str, kind: &str| {
        pod_template_path(&json!({"apiVersion": version, "kind": kind})).map(|path| path.len())
    };
    assert_eq!(at("v1", "Pod"), Some(0));
    assert_eq!(at("apps/v1", "StatefulSet"), Some(2));
    assert_eq!(at("batch/v1", "CronJob"), Some(4));
    assert_eq!(at("v1", "ConfigMap"), None);
    assert_eq!(at("example.com/v1", "Deployment"), None);
}

#[test]
fn scalars_are_read_as_kubernetes_reads_them() {
    let text = "apiVersion: v1\nkind: ConfigMap\na: yes\nb: 0644\nc: 1.5\nd: 'yes'\ne: 2026-01-01\nf: ~\ng: 10\nh: 1e3\n";
    let object = file(text).documents().expect("parses").remove(0).object;
    assert_eq!(object["a"], true);
    assert_eq!(object["b"], 0o644);
    assert_eq!(object["c"], 1.5);
    assert_eq!(object["d"], "yes");
    assert_eq!(object["e"], "2026-01-01");
    assert!(object["f"].is_null());
    assert_eq!(object["g"], 10);
    assert_eq!(object["h"], 1000.0);
}

#[test]
fn anchors_are_resolved_for_reading_and_kept_in_the_text() {
    let yaml = "apiVersion: v1\nkind: ConfigMap\nbase: &base {x: 1}\nuse: *base\nmerged:\n  <<: *base\n  y: 2\n";
    let mut file = file(yaml);
    assert_eq!(text(&file), yaml);
    let object = file.documents().expect("parses").remove(0).object;
    assert_eq!(object["use"], json!({"x": 1}));
    assert_eq!(object["merged"], json!({"x": 1, "y": 2}));
    file.set(0, &path("use.z"), &json!(1)).expect("collects");
    let error = file.text().expect_err("alias");
    assert_eq!(
        error.to_string(),
        "cannot change `use.z` (line 4): it is an alias, and a change here would change every other place that uses the same \
         anchor; write the value out instead of the alias"
    );
}

#[test]
fn what_is_not_kubernetes_is_named_with_its_place() {
    let error =
        YamlFile::parse("apiVersion: v1\nkind: Pod\n---\nfoo: bar\n".into()).expect_err("no");
    assert_eq!(
        error.to_string(),
        "document 2 (line 4) is not a Kubernetes object: it has no `apiVersion` and no `kind`"
    );
    let error = YamlFile::parse("a: [1, 2\nb: }".into()).expect_err("not YAML");
    assert!(matches!(error, ResourceError::NotYaml { .. }), "{error}");
}

#[test]
fn alias_bomb_is_refused() {
    let mut text =
        "apiVersion: v1\nkind: ConfigMap\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let error = YamlFile::parse(text).expect_err("bomb").to_string();
    assert!(error.contains("more than 1000000 nodes"), "{error}");
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "[ -~\n]{0,200}") {
        let _ = YamlFile::parse(text);
    }

    #[test]
    fn any_string_survives_being_set(value in "\\PC{0,40}") {
        let mut file = file(DEPLOYMENT);
        file.set(0, &path("metadata.labels.x"), &json!(value)).expect("sets");
        let object = &file.documents().expect("parses")[0].object;
        prop_assert_eq!(object["metadata"]["labels"]["x"].as_str(), Some(value.as_str()));
    }
}

#[test]
fn positions_are_those_of_keys_and_items_in_the_file() {
    let file = file(DEPLOYMENT);
    let place = |index, text: &str| {
        let position = file.positions(index).expect("a document").of(&path(text));
        (position.line, position.column)
    };
    assert_eq!(place(0, "kind"), (3, 1));
    assert_eq!(place(0, "metadata.name"), (5, 3));
    assert_eq!(place(0, "spec.template.metadata.labels.app"), (9, 16));
    assert_eq!(place(0, "spec.template.spec.containers.0"), (12, 9));
    assert_eq!(place(0, "spec.template.spec.containers.0.image"), (13, 9));
    assert_eq!(
        place(0, "spec.template.spec.containers.0.command"),
        (12, 9),
        "its container"
    );
    assert_eq!(place(1, "metadata.name"), (22, 5));
    file.positions(2).expect_err("no such document");
}
