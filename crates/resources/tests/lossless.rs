//! Whatever the user wrote stays byte for byte, in every style, except what an edit has to change.

#![allow(clippy::expect_used, reason = "a test may panic")]

use std::process::Command;

use contrast_resources::{CustomTemplate, ResourceError, Step, YamlFile, pod_template_path};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Does to every pod what `generate` does: a class, an annotation, containers in front and behind, a volume, a mount each.
fn generate(file: &mut YamlFile) {
    for document in file.documents().expect("documents") {
        let rollout: CustomTemplate = "argoproj.io/Rollout=.spec.template".parse().expect("path");
        let below = pod_template_path(&document.object).or_else(|| rollout.path(&document.object));
        let Some(below) = below else { continue };
        let base: Vec<Step> = document.path.into_iter().chain(below).collect();
        let path = |keys: &[&str]| -> Vec<Step> {
            let keys = keys.iter().map(|key| match key.parse() {
                Ok(index) => Step::Index(index),
                Err(_) => Step::key(key),
            });
            base.iter().cloned().chain(keys).collect()
        };
        let index = document.index;
        let has = |file: &YamlFile, list: &str, name: &str| {
            let items = file.get(index, &path(&["spec", list]));
            let items = items.and_then(Value::as_array).cloned().unwrap_or_default();
            items.iter().any(|item| item["name"] == name)
        };
        if !has(file, "initContainers", "first") {
            let first = json!({"name": "first", "env": [{"name": "A", "value": "1"}]});
            file.insert(index, &path(&["spec", "initContainers"]), 0, &first)
                .expect("inserts");
            let last = json!({"name": "last", "command": ["/bin/x"]});
            file.insert(index, &path(&["spec", "initContainers"]), 99, &last)
                .expect("inserts");
            let volume = json!({"name": "secrets", "emptyDir": {"medium": "Memory"}});
            file.insert(index, &path(&["spec", "volumes"]), 99, &volume)
                .expect("inserts");
            let mount = json!({"name": "secrets", "mountPath": "/contrast"});
            file.insert(
                index,
                &path(&["spec", "containers", "0", "volumeMounts"]),
                99,
                &mount,
            )
            .expect("inserts");
        }
        file.set(
            index,
            &path(&["spec", "runtimeClassName"]),
            &json!("contrast-cc"),
        )
        .expect("sets");
        file.set(
            index,
            &path(&["metadata", "annotations", "example.com/policy"]),
            &json!("H4sI+/="),
        )
        .expect("sets");
    }
}

fn diff(before: &str, after: &str) -> String {
    similar::TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(1)
        .to_string()
}

/// The diff that `generate` makes, after checks that hold for every input.
fn generated(text: &str) -> String {
    let mut file = YamlFile::parse(text.to_owned()).expect("parses");
    assert_eq!(
        file.text().expect("writes"),
        text,
        "reading alone changed something"
    );
    generate(&mut file);
    let once = file.text().expect("writes");
    let mut again = YamlFile::parse(once.clone()).expect("the result parses");
    assert_eq!(
        again.documents().expect("documents"),
        file.documents().expect("documents"),
        "the text does not say what was intended"
    );
    generate(&mut again);
    assert_eq!(
        again.text().expect("writes"),
        once,
        "the second run changed something"
    );
    for line in diff(text, &once)
        .lines()
        .filter(|line| line.starts_with('-'))
    {
        let of_json = line.contains(['{', '}', '[', ']', '"']);
        assert!(
            of_json || line.contains("runtimeClassName"),
            "a line is gone: {line}"
        );
    }
    diff(text, &once)
}

macro_rules! golden {
    ($($name:ident: $file:literal,)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(generated(include_str!(concat!("data/", $file))));
        }
    )*};
}

golden! {
    helm_output_keeps_its_source_comments: "helm.yaml",
    kustomize_output_keeps_its_lists_at_the_column_of_their_keys: "kustomize.yaml",
    list_is_changed_in_its_members: "list.yaml",
    json_stays_json_with_its_indentation: "pod.json",
    stateful_set_with_claims_gets_only_additions: "statefulset.yaml",
    cron_job_is_changed_four_levels_down: "cronjob.yaml",
    flow_style_and_anchors_stay: "styles.yaml",
    custom_resource_is_changed_where_its_template_is: "rollout.yaml",
}

const GOLDEN: [(&str, &str); 8] = [
    ("helm.yaml", include_str!("data/helm.yaml")),
    ("kustomize.yaml", include_str!("data/kustomize.yaml")),
    ("list.yaml", include_str!("data/list.yaml")),
    ("pod.json", include_str!("data/pod.json")),
    ("statefulset.yaml", include_str!("data/statefulset.yaml")),
    ("cronjob.yaml", include_str!("data/cronjob.yaml")),
    ("styles.yaml", include_str!("data/styles.yaml")),
    ("rollout.yaml", include_str!("data/rollout.yaml")),
];

fn output(text: &str) -> YamlFile {
    let mut file = YamlFile::parse(text.to_owned()).expect("parses");
    generate(&mut file);
    file
}

#[test]
fn kubectl_reads_every_output_as_this_crate_does() {
    if Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .is_err()
    {
        eprintln!("skipped: there is no `kubectl`");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    for (name, text) in GOLDEN {
        let file = output(text);
        let path = directory.path().join(name);
        std::fs::write(&path, file.text().expect("writes")).expect("writes");
        let run = Command::new("kubectl")
            .args(["annotate", "--local", "--output", "json", "--filename"])
            .arg(&path)
            .arg("example.com/read=yes")
            .env("KUBECONFIG", directory.path().join("none"))
            .output()
            .expect("kubectl runs");
        assert!(
            run.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&run.stderr)
        );
        let objects = serde_json::Deserializer::from_slice(&run.stdout).into_iter::<Value>();
        let objects: Vec<Value> = objects.map(|object| object.expect("JSON")).collect();
        let documents = file.documents().expect("documents");
        assert_eq!(objects.len(), documents.len(), "{name}");
        for (document, object) in documents.iter().zip(&objects) {
            assert_kept(&document.object, object, name);
        }
    }
}

#[test]
fn kubernetes_types_lose_no_field_of_any_output() {
    use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core};
    fn typed<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
        let typed: T = serde_json::from_value(object.clone()).expect("typed");
        serde_json::to_value(typed).expect("JSON")
    }
    let mut seen = 0;
    for (name, text) in GOLDEN {
        for document in output(text).documents().expect("documents") {
            let object = &document.object;
            let typed = match object["kind"].as_str().expect("kind") {
                "ServiceAccount" => typed::<core::ServiceAccount>(object),
                "ConfigMap" => typed::<core::ConfigMap>(object),
                "Service" => typed::<core::Service>(object),
                "Pod" => typed::<core::Pod>(object),
                "Deployment" => typed::<apps::Deployment>(object),
                "StatefulSet" => typed::<apps::StatefulSet>(object),
                "Job" => typed::<batch::Job>(object),
                "CronJob" => typed::<batch::CronJob>(object),
                "Rollout" => continue,
                other => unreachable!("no type for {other}"),
            };
            assert_kept(object, &typed, name);
            seen += 1;
        }
    }
    assert_eq!(seen, 14);
}

/// Everything that `ours` says stands in `theirs`; absent, null and empty are the same.
fn assert_kept(ours: &Value, theirs: &Value, place: &str) {
    match (ours, theirs) {
        (Value::Null, _) => {}
        (Value::Object(ours), _) => {
            for (key, value) in ours {
                assert_kept(value, &theirs[key], &format!("{place}.{key}"));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{place}");
            for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                assert_kept(ours, theirs, &format!("{place}[{at}]"));
            }
        }
        (Value::Array(ours), Value::Null) => assert!(ours.is_empty(), "{place} is gone"),
        _ => assert_eq!(ours, theirs, "{place}"),
    }
}

#[test]
fn line_ends_byte_order_mark_and_missing_last_newline_stay() {
    let unix = include_str!("data/statefulset.yaml");
    let mut file = YamlFile::parse(unix.to_owned()).expect("parses");
    generate(&mut file);
    let expected = file.text().expect("writes");
    for (input, output) in [
        (unix.replace('\n', "\r\n"), expected.replace('\n', "\r\n")),
        (format!("\u{feff}{unix}"), format!("\u{feff}{expected}")),
        (unix.trim_end().to_owned(), expected.trim_end().to_owned()),
    ] {
        let mut file = YamlFile::parse(input).expect("parses");
        generate(&mut file);
        assert_eq!(file.text().expect("writes"), output);
    }
}

const SHARED: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
    - name: a
      volumeMounts: &mounts
        - {name: x, mountPath: /x}
    - name: b
      volumeMounts: *mounts
";

fn mount(file: &mut YamlFile, container: usize) {
    let path = [
        Step::key("spec"),
        Step::key("containers"),
        Step::Index(container),
        Step::key("volumeMounts"),
    ];
    let mount = json!({"name": "z", "mountPath": "/z"});
    file.insert(0, &path, 99, &mount).expect("collects");
}

#[test]
fn anchor_is_changed_when_everyone_who_uses_it_is_to_change() {
    let mut file = YamlFile::parse(SHARED.to_owned()).expect("parses");
    mount(&mut file, 0);
    mount(&mut file, 1);
    let text = file.text().expect("writes");
    assert_eq!(
        text,
        SHARED.replace("/x}\n", "/x}\n        - name: z\n          mountPath: /z\n")
    );
}

#[test]
fn anchor_is_not_changed_for_one_of_its_users() {
    for container in [0, 1] {
        let mut file = YamlFile::parse(SHARED.to_owned()).expect("parses");
        mount(&mut file, container);
        let error = file.text().expect_err("shared").to_string();
        assert!(
            error.starts_with(
                "cannot change `spec.containers[1].volumeMounts` (line 10): it is an alias"
            ) && error.ends_with("write the value out instead of the alias"),
            "{error}"
        );
    }
}

#[test]
fn merged_value_is_overridden_by_an_entry_of_its_own() {
    let text = "apiVersion: v1\nkind: ConfigMap\nbase: &base {x: 1}\nuse:\n  <<: *base\n  y: 2\n";
    let mut file = YamlFile::parse(text.to_owned()).expect("parses");
    file.set(0, &[Step::key("use"), Step::key("x")], &json!(3))
        .expect("sets");
    assert_eq!(file.text().expect("writes"), format!("{text}  x: 3\n"));
}

#[test]
fn typed_list_names_the_kind_of_its_members() {
    let text = "apiVersion: apps/v1\nkind: DeploymentList\nitems:\n- metadata: {name: a}\n";
    let documents = YamlFile::parse(text.to_owned())
        .expect("parses")
        .documents()
        .expect("reads");
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0].object["kind"], "Deployment");
    assert_eq!(documents[0].object["apiVersion"], "apps/v1");
}

fn refused(text: &str) -> String {
    YamlFile::parse(text.to_owned())
        .expect_err("refused")
        .to_string()
}

#[test]
fn bad_yaml_is_refused_with_its_place_and_its_line() {
    let head = "apiVersion: v1\nkind: ConfigMap\n";
    let tab = refused(&format!("{head}---\n{head}data:\n\ta: 1\n"));
    assert!(
        tab.starts_with("line 7, column") && tab.contains("indent with spaces"),
        "{tab}"
    );
    let colon = refused(&format!("{head}data: a: b\n"));
    assert!(
        colon.contains("line 3, column") && colon.ends_with("\n  3 | data: a: b"),
        "{colon}"
    );
    assert_eq!(
        refused(&format!("{head}---\n{head}data:\n  a: 1\n  b: 2\n  a: 3\n")),
        "line 9, column 3: the key `a` stands here for the second time; remove one of the two"
    );
    let helm = refused(&format!(
        "{head}metadata:\n  name: {{{{ .Release.Name }}}}\n"
    ));
    assert!(
        helm.starts_with("line 4 is a template (`{{`)") && helm.contains("helm template"),
        "{helm}"
    );
    let helm = refused(&format!("{{{{- if .Values.x }}}}\n{head}{{{{- end }}}}\n"));
    assert!(helm.starts_with("line 1 is a template"), "{helm}");
    let deep = |levels| refused(&format!("{head}data: {}", "[".repeat(levels)));
    assert_eq!(
        deep(130),
        "line 3, column 135: nested deeper than 128 levels"
    );
    assert!(deep(100_000).contains("recursion limit exceeded"));
}

#[test]
fn braces_in_quotes_and_block_scalars_are_no_template() {
    let text = "apiVersion: v1\nkind: ConfigMap\ndata:\n  a: \"{{x}}\"\n  b: |\n    {{ range }}\n    k: {{ x }}\n";
    assert_eq!(
        YamlFile::parse(text.to_owned())
            .expect("parses")
            .text()
            .expect("writes"),
        text
    );
}

#[test]
fn huge_file_is_refused_before_it_is_parsed() {
    let error = YamlFile::parse("#".repeat(50_000_000)).expect_err("huge");
    assert!(
        matches!(
            error,
            ResourceError::TooLarge {
                found: 50_000_000,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn every_document_keeps_its_number_markers_and_directives() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n";
    let text = format!("# top\n%YAML 1.2\n---\n{pod}...\n%YAML 1.2\n--- # empty\n---\n{pod}---\n");
    let mut file = YamlFile::parse(text.clone()).expect("parses");
    let numbers: Vec<usize> = file
        .documents()
        .expect("reads")
        .iter()
        .map(|found| found.index)
        .collect();
    assert_eq!(numbers, [0, 2]);
    file.set(2, &[Step::key("metadata"), Step::key("name")], &json!("q"))
        .expect("sets");
    let at = text.rfind("name: p").expect("there");
    assert_eq!(
        file.text().expect("writes"),
        format!("{}name: q{}", &text[..at], &text[at + 7..])
    );
}

/// A pod in a style that somebody might choose.
fn pod() -> impl Strategy<Value = String> {
    let key = prop_oneof![Just("app"), Just("a.b/c"), Just("\"q r\""), Just("'it''s'")];
    let value = prop_oneof![
        Just("x"),
        Just("'single'"),
        Just("\"dou\\\"ble\""),
        Just("|\n{i}  block\n{i}  # text\n"),
        Just(">-\n{i}  fold\n\n"),
        Just(""),
        Just("~"),
        Just("yes # note"),
        Just("0644"),
        Just("{a: [1, 2], b: {}}"),
        Just("multi\n{i}  line"),
        Just("[]"),
    ];
    let entry = (key, value);
    let entries = prop::collection::vec(entry, 0..4);
    let containers = prop::collection::vec((entries.clone(), any::<bool>(), any::<bool>()), 1..4);
    (
        entries,
        containers,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        0..3_usize,
    )
        .prop_map(|(extra, containers, indented, comments, list, blank)| {
            let dash = if indented { "    " } else { "  " };
            let mut text = String::from("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n");
            text.push_str(&mapping(&extra, ""));
            text.push_str("spec:\n");
            text.push_str("  containers:\n");
            for (number, (extra, flow, mounts)) in containers.iter().enumerate() {
                if comments {
                    text.push_str(&format!("{dash}# number {number}\n"));
                }
                if *flow {
                    text.push_str(&format!("{dash}- {{name: c{number}, image: 'i'}} # flow\n"));
                    continue;
                }
                text.push_str(&format!("{dash}- name: c{number}\n"));
                if *mounts {
                    text.push_str(&format!(
                        "{dash}  volumeMounts:\n{dash}  - {{name: v, mountPath: /v}}\n"
                    ));
                }
                text.push_str(&mapping(extra, &format!("{dash}  ")));
                text.push_str(&"\n".repeat(blank));
            }
            if list {
                let items = text.replace('\n', "\n    ");
                let items = items.trim_end_matches(' ');
                text = format!("apiVersion: v1\nkind: List\nitems:\n  - {items}");
            }
            text
        })
}

fn mapping(entries: &[(&str, &str)], indent: &str) -> String {
    let mut seen = Vec::new();
    let mut text = String::new();
    for (key, value) in entries {
        if !seen.contains(key) {
            seen.push(*key);
            text.push_str(&format!("{indent}{key}: {}", value.replace("{i}", indent)));
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
    }
    text
}

proptest! {
    #[test]
    fn generating_twice_is_generating_once(pods in prop::collection::vec(pod(), 1..4), crlf: bool) {
        let mut text = pods.join("---\n");
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        generated(&text);
    }
}
