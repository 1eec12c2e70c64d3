use std::{fs, path::Path};

use serde_json::json;

use super::*;

fn on_template(annotations: Value) -> Vec<String> {
    let object = json!({"kind": "Deployment", "metadata": {"name": "web"}});
    told(&object, &json!({"metadata": {"annotations": annotations}}))
}

fn told(object: &Value, template: &Value) -> Vec<String> {
    let problems = problems(object, template);
    problems.iter().map(ToString::to_string).collect()
}

fn value(name: &str, value: &str) -> Option<String> {
    on_template(json!({format!("{PREFIX}{name}"): value}))
        .first()
        .cloned()
}

#[test]
fn names_are_ascending_and_each_is_there_once() {
    assert!(ANNOTATIONS.is_sorted_by(|one, other| one.name < other.name));
}

#[test]
fn capture_of_the_mesh_api_is_refused_at_its_port() {
    let told = value("servicemesh-egress", "x#transparent#coordinator:7777");
    let told = told.expect("a problem");
    for part in ["character 27", "like 127.137.0.1:7777"] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn values_have_their_form() {
    let good = [
        ("image-store-size", vec!["10Gi", "0", "1.5G"]),
        ("log-exposure", vec!["all", "public"]),
        ("mutable-volumes", vec!["a", "a,b", "a, b"]),
        ("pod-role", vec!["coordinator"]),
        ("sealed-secrets", vec!["db", "db, ghcr.io:5000"]),
        ("secure-pv", vec!["data:state"]),
        ("secure-pv-filesystem", vec!["ext4", "xfs"]),
        ("secure-pv-format", vec!["blank", "never", "discard"]),
        ("secure-pv-mount-options", vec!["noatime", "noatime,noexec"]),
        ("secure-pv-rollback", vec!["strict", "warn", "off"]),
        ("secure-pv-size", vec!["64Mi", "10Gi", "1e9"]),
        ("servicemesh-admin-interface-port", vec!["1", "65535"]),
        ("servicemesh-egress", vec!["a#127.0.0.2:80#b:80"]),
        ("servicemesh-ingress", vec!["", "DISABLED", "a#80#true"]),
        ("servicemesh-metrics-port", vec!["9100"]),
        ("skip-initializer", vec!["true", "false"]),
        ("streams", vec!["read", "read,write"]),
        (
            "traces-endpoint",
            vec!["http://otel:4317", "http://[::1]:4317/"],
        ),
        ("untrusted-volumes", vec!["a"]),
        ("workload-secret-id", vec!["", "shop/store"]),
    ];
    assert_eq!(good.len(), ANNOTATIONS.len());
    for (name, values) in good {
        for text in values {
            assert_eq!(value(name, text), None, "{name}: {text}");
        }
    }
    let bad = [
        ("sealed-secrets", vec!["", "a,", "a/b", ".a"]),
        ("image-store-size", vec!["", "ten", "10GB", "-1"]),
        ("mutable-volumes", vec!["", "a,,b"]),
        ("secure-pv-filesystem", vec!["", "btrfs", "ext4,xfs"]),
        ("secure-pv-format", vec!["", "always"]),
        ("secure-pv-mount-options", vec!["", "suid", "noatime,"]),
        ("secure-pv-rollback", vec!["", "Strict"]),
        ("secure-pv-size", vec!["", "0", "63Mi", "100M1", "16Ei"]),
        (
            "pod-role",
            vec!["", "Coordinator", "contrast-node-installer"],
        ),
        (
            "secure-pv",
            vec![
                "",
                "data",
                ":",
                "data:",
                ":state",
                "a:b:c",
                "data:/state",
                "Data:state",
            ],
        ),
        (
            "servicemesh-admin-interface-port",
            vec!["", "0", "65536", "http"],
        ),
        (
            "servicemesh-egress",
            vec!["", "a#10.0.0.1:80#b:80", "a#127.0.0.1:80"],
        ),
        (
            "servicemesh-ingress",
            vec!["web", "web#0#true", "web#80#maybe"],
        ),
        ("skip-initializer", vec!["", "yes", "True"]),
        ("servicemesh-metrics-port", vec!["", "0", "metrics"]),
        ("streams", vec!["", "all", "read;write"]),
        (
            "traces-endpoint",
            vec![
                "",
                "otel:4317",
                "http://otel",
                "https://otel:4317",
                "http://u:p@otel:4317",
                "http://otel:4317/v1",
                "http://otel:0x",
                "http://otel:0",
                "http://:4317",
                "http://$(OTEL):4317",
            ],
        ),
        ("log-exposure", vec!["", "private"]),
        ("untrusted-volumes", vec![""]),
    ];
    for (name, values) in bad {
        for text in values {
            let problem = value(name, text).unwrap_or_default();
            assert!(
                problem.contains(": expected ") && problem.contains(&format!("found `{text}")),
                "{name}: {text}: {problem}"
            );
        }
    }
}

#[test]
fn value_that_is_no_text_is_refused_because_kubernetes_does() {
    let problems = on_template(json!({"contrast.edgeless.systems/skip-initializer": true}));
    assert_eq!(
        problems,
        [
            "annotation contrast.edgeless.systems/skip-initializer: expected text, found true; put it in quotes"
        ]
    );
}

#[test]
fn unknown_names_come_with_a_proposal() {
    for (written, meant) in [
        (
            "skip-initialiser",
            "did you mean `skip-initializer` (no Init",
        ),
        (
            "service-mesh-ingress",
            "did you mean `servicemesh-ingress` (injects",
        ),
        ("secure-pvc", "did you mean `secure-pv` ("),
        ("podrole", "did you mean `pod-role` ("),
        ("xyz", "expected one of image-store-size, log-exposure, "),
    ] {
        let problem = value(written, "true").unwrap_or_default();
        assert!(problem.contains(meant), "{problem}");
    }
}

#[test]
fn keys_are_refused_where_nobody_reads_them() {
    let object = json!({"metadata": {
        "annotations": {"contrast.edgeless.systems/streams": "read", "contrast.edgeless.systems/secure-pv": "a:b", "other/streams": "x"},
        "labels": {"contrast.edgeless.systems/pod-rolle": "coordinator"},
    }});
    let template = json!({"metadata": {"labels": {
        "contrast.edgeless.systems/pod-role": "coordinator",
        "contrast.edgeless.systems/skip-initializer": "true",
        "app": "web",
    }}});
    let problems = told(&object, &template);
    let [label, workload, workload_label] = problems.as_slice() else {
        panic!("{problems:#?}");
    };
    assert!(
        label.starts_with("label contrast.edgeless.systems/skip-initializer: it is an annotation"),
        "{label}"
    );
    assert!(
        workload.starts_with("annotation contrast.edgeless.systems/streams: it is on the workload"),
        "{workload}"
    );
    assert!(
        workload_label.contains("did you mean `pod-role` ("),
        "{workload_label}"
    );
}

/// The table is the reference. With `UPDATE_REFERENCE=1` the test writes it there.
#[test]
fn reference_has_every_annotation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/annotations.md");
    let text = fs::read_to_string(&path).expect("the reference");
    let rows: String = ANNOTATIONS
        .iter()
        .map(|known| {
            format!(
                "| `{}` | {} | {} | {} | {} |\n",
                known.name,
                known.place.text(),
                known.value.text(),
                known.meaning,
                known.default
            )
        })
        .collect();
    let (before, rest) = text
        .split_once("<!-- annotations -->\n")
        .expect("a beginning");
    let (_, after) = rest
        .split_once("<!-- end of annotations -->")
        .expect("an end");
    let expected = format!(
        "{before}<!-- annotations -->\n| name | where | value | meaning | without it |\n| --- | --- | --- | --- | --- |\n\
         {rows}<!-- end of annotations -->{after}"
    );
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, &expected).expect("writes");
    } else {
        assert!(
            text == expected,
            "{} is out of date: run this test with UPDATE_REFERENCE=1",
            path.display()
        );
    }
}
