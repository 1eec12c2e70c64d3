//! What `contrast generate` writes for the service mesh: into pods, and into the manifest.

use std::fs;

use serde_json::{Value, json};

use crate::{
    context::Context,
    generate::APPLICATION,
    generate_injection::{GENERATE, images_of},
};

const SERVICES: &str = "\
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  selector: {app: web}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: shop}
spec:
  selector: {app: web}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec:
  selector: {app: web, tier: back}
---
apiVersion: v1
kind: Service
metadata: {name: external}
spec: {type: ExternalName, externalName: example.com, selector: {app: web}}
---
apiVersion: v1
kind: Service
metadata: {name: all}
spec: {}
";

/// The application, its workload with the label `app: web` and a line among its annotations.
fn application(annotation: &str) -> String {
    let from = "  name: web\nspec:\n  template:\n    spec:\n";
    let to = format!(
        "  name: web\nspec:\n  template:\n    metadata:\n      labels: {{app: web}}\n      annotations: {{{annotation}}}\n    spec:\n"
    );
    let text = APPLICATION.replace(from, &to);
    assert_ne!(text, APPLICATION);
    format!("{text}{SERVICES}")
}

fn generate(context: &Context, yaml: &str, more: &[&str]) -> String {
    context.file("application.yml", yaml);
    context.file("image-cache.json", &images_of(yaml));
    let output = context.output(&[&GENERATE, more].concat());
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

fn manifest(context: &Context) -> Value {
    let text = fs::read(context.path("manifest.json")).expect("reads");
    serde_json::from_slice(&text).expect("JSON")
}

/// The manifest's entry of the workload.
fn entry(context: &Context) -> Value {
    let manifest = manifest(context);
    let policies = manifest["Policies"].as_object().expect("policies");
    let mut workloads = policies
        .values()
        .filter(|entry| entry["Role"] != "coordinator");
    let entry = workloads.next().expect("a workload").clone();
    assert!(workloads.next().is_none());
    entry
}

/// Container `name` of the workload, of the generated file.
fn container(context: &Context, name: &str) -> Value {
    let text = fs::read_to_string(context.path("application.yml")).expect("reads");
    let file = contrast_resources::YamlFile::parse(text).expect("parses");
    let documents = file.documents().expect("objects");
    let web = documents
        .iter()
        .find(|one| one.object["kind"] == "Deployment")
        .expect("the workload");
    let containers = web.object["spec"]["template"]["spec"]["initContainers"].as_array();
    let mut containers = containers.expect("init containers").iter();
    let found = containers.find(|container| container["name"] == name);
    found.cloned().unwrap_or_default()
}

const NAMES: [&str; 9] = [
    "web.default",
    "web.default.svc",
    "web.default.svc.cluster.local",
    "front",
    "front.default",
    "front.default.svc",
    "front.default.svc.cluster.local",
    "web",
    "*",
];

#[test]
fn manifest_has_names_of_services_and_spiffe_paths() {
    let context = Context::new();
    generate(&context, &application(""), &[]);
    let new = entry(&context);
    assert_eq!(new["SPIFFEPath"], "ns/default/deployment/web");
    let mut expected = vec!["web", "*"];
    expected.extend(NAMES.iter().take(7));
    assert_eq!(new["SANs"], json!(expected));
    assert_eq!(manifest(&context)["MeshCAOverlap"], "10m");
    let document = manifest(&context);
    let policies = document["Policies"].as_object().expect("policies");
    let coordinator = policies
        .values()
        .find(|entry| entry["Role"] == "coordinator")
        .expect("a Coordinator");
    assert_eq!(coordinator.get("SPIFFEPath"), None);

    // What people wrote stays; names that are missing come behind it.
    let text = fs::read_to_string(context.path("manifest.json")).expect("reads");
    let edited = text
        .replace("\"10m\"", "\"90s\"")
        .replace("\"web.default\",", "\"web.example.com\",");
    context.file("manifest.json", &edited);
    generate(&context, &application(""), &[]);
    assert_eq!(manifest(&context)["MeshCAOverlap"], "90s");
    let sans = entry(&context)["SANs"].clone();
    let sans = sans.as_array().expect("a list");
    assert_eq!(sans.get(2), Some(&json!("web.example.com")));
    assert_eq!(sans.last(), Some(&json!("web.default")));
    assert_eq!(sans.len(), NAMES.len() + 1);
}

#[test]
fn uri_that_somebody_wrote_excludes_the_spiffe_id() {
    let context = Context::new();
    generate(&context, &application(""), &[]);
    let text = fs::read_to_string(context.path("manifest.json")).expect("reads");
    let edited = text.replace("\"*\"", "\"spiffe://example.com/web\"");
    let mut value: Value = serde_json::from_str(&edited).expect("JSON");
    for entry in value["Policies"]
        .as_object_mut()
        .expect("policies")
        .values_mut()
    {
        entry
            .as_object_mut()
            .expect("an entry")
            .remove("SPIFFEPath");
    }
    context.file("manifest.json", &value.to_string());
    let said = generate(&context, &application(""), &[]);
    assert!(said.contains("gets no SPIFFE ID"), "{said}");
    assert_eq!(entry(&context).get("SPIFFEPath"), None);
}

#[test]
fn sidecar_may_redirect_and_the_initializer_leaves_it_to_that() {
    let context = Context::new();
    let metrics = "contrast.edgeless.systems/servicemesh-metrics-port: \"9100\"";
    generate(&context, &application(metrics), &[]);
    let mesh = container(&context, "contrast-service-mesh");
    assert_eq!(
        mesh["env"],
        json!([
            {"name": "CONTRAST_NAMESPACE", "value": "default"},
            {"name": "CONTRAST_METRICS_PORT", "value": "9100"},
        ])
    );
    assert_eq!(
        mesh["securityContext"],
        json!({"runAsUser": 0, "runAsGroup": 0, "capabilities": {"add": ["NET_ADMIN"]}})
    );
    let initializer = container(&context, "contrast-initializer");
    assert_eq!(
        initializer["securityContext"],
        json!({"runAsUser": 0, "runAsGroup": 0})
    );
    let text = initializer["env"].to_string();
    assert!(!text.contains("CONTRAST_SERVICE_MESH_DISABLED"), "{text}");
    let policy = context.run(&["policy", "show", "web", "application.yml"]);
    assert!(policy.contains("CAP_NET_ADMIN"), "{policy}");
}

#[test]
fn host_may_run_the_check_in_the_sidecar_and_nowhere_else() {
    let show = |annotation: &str| {
        let context = Context::new();
        generate(&context, &application(annotation), &[]);
        let shown = context.run(&["policy", "show", "web", "application.yml"]);
        let of_check = |line: &&str| line.contains("check --json") || line.contains("  readable ");
        // What stands before it is the name of its container.
        let mut container = "";
        let mut found = Vec::new();
        for line in shown.lines() {
            match line.starts_with(' ') {
                false if !line.is_empty() => container = line,
                _ => found.extend(Some(line).filter(of_check).map(|line| (container, line))),
            }
        }
        let found = found.into_iter();
        let found = found.map(|(container, line)| format!("{container}: {}", line.trim()));
        found.collect::<Vec<_>>()
    };
    let expected = [
        "contrast-service-mesh: may execute /bin/service-mesh check --json",
        "contrast-service-mesh: readable    what these commands print, not what the container prints",
    ];
    let ingress = "contrast.edgeless.systems/servicemesh-ingress: \"\"";
    assert_eq!(show(ingress), expected);
    assert_eq!(show(""), Vec::<String>::new());
}

#[test]
fn initializer_opens_pods_without_mesh() {
    let ingress = "contrast.edgeless.systems/servicemesh-ingress: \"\"";
    for (annotation, more) in [("", vec![]), (ingress, vec!["--skip-service-mesh"])] {
        let context = Context::new();
        generate(&context, &application(annotation), &more);
        assert_eq!(container(&context, "contrast-service-mesh"), Value::Null);
        let initializer = container(&context, "contrast-initializer");
        let disabled = json!({"name": "CONTRAST_SERVICE_MESH_DISABLED", "value": "true"});
        let env = initializer["env"].as_array().expect("variables");
        assert!(env.contains(&disabled), "{initializer}");
        assert_eq!(
            initializer["securityContext"],
            json!({"runAsUser": 0, "runAsGroup": 0, "capabilities": {"add": ["NET_ADMIN"]}})
        );
    }
}

/// The Initializer is root all the same, and gives key and secret to them.
#[test]
fn users_of_the_pod_get_their_files() {
    let owner = |context: &Context| {
        let env = container(context, "contrast-initializer")["env"].clone();
        let env = env.as_array().expect("variables").clone();
        let mut found = env
            .into_iter()
            .filter(|variable| variable["name"] == "CONTRAST_FILES_OWNER");
        found.next().map(|variable| variable["value"].clone())
    };
    let secure = |annotation: &str| {
        application(annotation).replacen(
            "    spec:\n      runtimeClassName",
            "    spec:\n      securityContext: {runAsUser: 1000, runAsNonRoot: true}\n      runtimeClassName",
            2,
        )
    };
    let ingress = "contrast.edgeless.systems/servicemesh-ingress: \"\"";
    for annotation in [ingress, ""] {
        let context = Context::new();
        generate(&context, &secure(annotation), &[]);
        for name in ["contrast-initializer", "contrast-service-mesh"] {
            let security = &container(&context, name)["securityContext"];
            if !security.is_null() {
                assert_eq!(security["runAsUser"], 0, "{name}");
                assert_eq!(security["runAsNonRoot"], false, "{name}");
            }
        }
        assert_eq!(owner(&context), Some(json!("1000")));
    }
    let context = Context::new();
    generate(&context, &application(""), &[]);
    assert_eq!(owner(&context), None);
}

/// They would speak around the mesh.
#[test]
fn mesh_starts_before_the_init_containers_of_the_pod() {
    let ingress = "contrast.edgeless.systems/servicemesh-ingress: \"\"";
    let own = "      initContainers:\n        - name: setup\n          image: registry.example/web@sha256:2222222222222222222222222222222222222222222222222222222222222222\n          command: [/setup]\n      containers:\n        - name: web\n";
    let yaml = application(ingress).replacen("      containers:\n        - name: web\n", own, 1);
    let context = Context::new();
    for _ in 0..2 {
        generate(&context, &yaml, &[]);
        let text = fs::read_to_string(context.path("application.yml")).expect("reads");
        let places = ["contrast-initializer", "contrast-service-mesh", "setup"]
            .map(|name| text.find(&format!("name: {name}\n")).expect("is there"));
        assert!(places.is_sorted(), "{text}");
    }
}

const OPEN: &str = r#"contrast.edgeless.systems/servicemesh-ingress: """#;

#[test]
fn nothing_in_a_pod_with_a_mesh_runs_as_the_user_of_envoy() {
    for (security, says) in [
        ("runAsUser: 15006", "the container `web` runs as"),
        (
            "runAsUser: 7, runAsGroup: 15006",
            "the container `web` runs as",
        ),
        (
            "runAsUser: 7, supplementalGroups: [1, 15006]",
            "the container `web` runs as",
        ),
        ("fsGroup: 15006", "15006"),
    ] {
        let secured = |annotation: &str| {
            let from = "      containers:\n        - name: web\n";
            let to = format!("      securityContext: {{{security}}}\n{from}");
            let text = application(annotation).replace(from, &to);
            assert!(text.contains(security), "{text}");
            let context = Context::new();
            context.file("application.yml", &text);
            context.file("image-cache.json", &images_of(&text));
            context.output(&GENERATE)
        };
        let with = secured(OPEN);
        let stderr = String::from_utf8_lossy(&with.stderr);
        assert_eq!(with.status.code(), Some(2), "{security}: {stderr}");
        assert!(
            stderr.contains(says) && stderr.contains("of the service mesh's Envoy"),
            "{security}: {stderr}"
        );
        let without = secured("a: b");
        assert!(without.status.success(), "{security}: {without:?}");
    }
}

#[test]
fn a_sidecar_that_no_annotation_asks_for_any_more_is_refused() {
    let context = Context::new();
    generate(&context, &application(OPEN), &[]);
    let text = fs::read_to_string(context.path("application.yml")).expect("reads");
    let line = text
        .lines()
        .find(|line| line.contains("servicemesh-ingress"))
        .expect("annotation");
    let without = text.replace(OPEN, "a: b");
    assert_ne!(text, without, "{line}");
    context.file("application.yml", &without);
    let refused = context.output(&GENERATE);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("the init container `contrast-service-mesh` is still there"),
        "{stderr}"
    );
    assert_eq!(
        fs::read_to_string(context.path("application.yml")).expect("reads"),
        without
    );
    let kept = context.output(&[&GENERATE[..], &["--skip-service-mesh"]].concat());
    assert!(kept.status.success(), "{kept:?}");
    // Else the Initializer would let everybody in before Envoy is ready.
    let text = fs::read_to_string(context.path("application.yml")).expect("reads");
    assert!(!text.contains("CONTRAST_SERVICE_MESH_DISABLED"), "{text}");
}
