//! Whatever the user wrote stays byte for byte, in every style, except what an edit has to change.

#![allow(clippy::expect_used, reason = "a test may panic")]

use contrast_resources::{ResourceError, Step, YamlFile, pod_template_path};
use serde_json::{Value, json};

/// Does to every pod what `generate` does: a class, an annotation, containers in front and behind, a volume, a mount each.
fn generate(file: &mut YamlFile) {
    for document in file.documents().expect("documents") {
        let Some(below) = pod_template_path(&document.object) else {
            continue;
        };
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
