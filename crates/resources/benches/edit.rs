//! Edits of two hundred pods in one file, of separate documents and of one list.

#![allow(clippy::expect_used, reason = "a bench may panic")]

use contrast_resources::{Step, YamlFile, pod_template_path};
use serde_json::json;

/// Bytes of an annotation with a policy.
const POLICY: usize = 6000;

fn main() {
    divan::main();
}

fn deployments(separator: &str, indent: &str) -> String {
    let one = |number| {
        let text = include_str!("../tests/data/statefulset.yaml")
            .replace("mysql", &format!("mysql-{number}"));
        let lines: Vec<String> = text
            .lines()
            .map(|line| format!("{indent}{line}\n"))
            .collect();
        let text = lines.concat();
        format!(
            "{separator}{}",
            text.get(separator.trim_start_matches("---\n").len()..)
                .unwrap_or_default()
        )
    };
    (0..200).map(one).collect()
}

fn edit(text: &str) -> String {
    let mut file = YamlFile::parse(text.to_owned()).expect("parses");
    let policy = json!("x".repeat(POLICY));
    for document in file.documents().expect("documents") {
        let Some(below) = pod_template_path(&document.object) else {
            continue;
        };
        let template: Vec<Step> = document.path.iter().cloned().chain(below).collect();
        let path = |keys: &[&str]| -> Vec<Step> {
            template
                .iter()
                .cloned()
                .chain(keys.iter().map(|key| Step::key(key)))
                .collect()
        };
        let container = json!({"name": "first", "command": ["/bin/first"], "env": [{"name": "A", "value": "1"}]});
        file.insert(
            document.index,
            &path(&["spec", "initContainers"]),
            0,
            &container,
        )
        .expect("inserts");
        let volume = json!({"name": "secrets", "emptyDir": {"medium": "Memory"}});
        file.insert(document.index, &path(&["spec", "volumes"]), 99, &volume)
            .expect("inserts");
        file.set(
            document.index,
            &path(&["metadata", "annotations", "policy"]),
            &policy,
        )
        .expect("sets");
    }
    file.text().expect("writes")
}

#[divan::bench]
fn documents(bencher: divan::Bencher<'_, '_>) {
    let text = deployments("---\n", "");
    bencher.bench(|| edit(&text));
}

#[divan::bench]
fn list(bencher: divan::Bencher<'_, '_>) {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n{}",
        deployments("  - ", "    ")
    );
    bencher.bench(|| edit(&text));
}

/// One line of JSON; time must grow with its length.
#[divan::bench(args = [1, 2, 4, 8], sample_count = 3, sample_size = 1)]
fn megabytes_on_one_line(bencher: divan::Bencher<'_, '_>, megabytes: usize) {
    let pod = |number| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{number}")},
            "spec": {"containers": [{"name": "web", "image": "web", "args": ["x".repeat(300)]}], "volumes": []},
        })
    };
    let one = pod(0).to_string().len();
    let items: Vec<_> = (0..megabytes * 1_000_000 / one).map(pod).collect();
    let text = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    bencher.bench(|| edit(&text));
}

#[divan::bench]
fn again(bencher: divan::Bencher<'_, '_>) {
    let text = edit(&deployments("---\n", ""));
    bencher.bench(|| {
        YamlFile::parse(text.clone())
            .expect("parses")
            .documents()
            .expect("documents")
    });
}
