//! What `contrast generate` refuses, and that nothing is left behind then.

use std::fs;

use crate::context::Context;

/// A Coordinator and a workload, as a user writes them.
pub(crate) const APPLICATION: &str = "\
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: coordinator
spec:
  template:
    metadata:
      annotations:
        contrast.edgeless.systems/pod-role: coordinator
    spec:
      runtimeClassName: contrast-cc
      containers:
        - name: coordinator
          image: registry.example/coordinator@sha256:1111111111111111111111111111111111111111111111111111111111111111
          command: [/coordinator]
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  template:
    spec:
      runtimeClassName: contrast-cc
      containers:
        - name: web
          image: registry.example/web@sha256:2222222222222222222222222222222222222222222222222222222222222222
          command: [/web]
";

/// Runs `generate` on one file and checks that it changed nothing.
fn refused(yaml: &str) -> String {
    let context = Context::new();
    let path = context.file("application.yml", yaml);
    let shown = context.run(&[
        "generate",
        "--reference-values",
        "metal-qemu-snp",
        "application.yml",
    ]);
    assert_eq!(
        fs::read_to_string(path).expect("read"),
        yaml,
        "the input was changed"
    );
    let left = fs::read_dir(context.path("")).expect("list").count();
    assert_eq!(left, 1, "files were left behind");
    shown
}

#[test]
fn image_without_digest_is_refused() {
    let unpinned = APPLICATION.replace(
        "web@sha256:2222222222222222222222222222222222222222222222222222222222222222",
        "web:latest",
    );
    assert_ne!(unpinned, APPLICATION);
    insta::assert_snapshot!(refused(&unpinned));
}

#[test]
fn yaml_that_is_not_kubernetes_is_refused() {
    insta::assert_snapshot!(refused("- milk\n- eggs\n"));
}

#[test]
fn yaml_without_confidential_pods_is_refused() {
    insta::assert_snapshot!(refused(&APPLICATION.replace("contrast-cc", "runc")));
}

#[test]
fn missing_coordinator_is_refused() {
    insta::assert_snapshot!(refused(
        APPLICATION.split_once("---\n").expect("two documents").1
    ));
}

#[test]
fn insecure_platform_needs_a_software_tee() {
    let context = Context::new();
    context.file("application.yml", APPLICATION);
    let arguments = [
        "generate",
        "--reference-values",
        "insecure-snp",
        "application.yml",
    ];
    insta::assert_snapshot!(context.run(&arguments));
}

#[test]
fn disabling_updates_excludes_owner_keys() {
    let arguments = ["generate", "application.yml", "-d", "-w", "key.pem"];
    insta::assert_snapshot!(Context::new().run(&arguments));
}

#[cfg(feature = "software-tee")]
#[test]
fn insecure_manifest_comes_with_a_warning_on_standard_error() {
    let context = Context::new();
    context.file("application.yml", APPLICATION);
    assert!(
        context
            .output(&["insecure-tee", "init", "tee"])
            .status
            .success()
    );
    let arguments = [
        "generate",
        "--reference-values",
        "insecure-snp",
        "--insecure-software-tee",
        "tee",
        "application.yml",
        "--format",
        "json",
    ];
    let output = context.output(&arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(stderr.contains("warning: INSECURE"), "{stderr}");
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let manifest = fs::read(context.path("manifest.json")).expect("manifest");
    let hash = hex::encode(contrast_cli::transition::sha256(&manifest));
    assert_eq!(outcome["manifest_hash"], hash.as_str());
}

/// The policies of `manifest.json` with role `coordinator`.
fn coordinators(context: &Context) -> Vec<String> {
    let manifest = fs::read(context.path("manifest.json")).expect("manifest");
    let document = contrast_manifest::ManifestDocument::from_json(&manifest).expect("document");
    let policies = document.policies.into_iter();
    policies
        .filter(|(_, entry)| entry.role == "coordinator")
        .map(|(hash, _)| hash)
        .collect()
}

#[test]
fn earlier_coordinator_stays_in_the_manifest_only_when_asked_for() {
    let context = Context::new();
    let generate = |more: &[&str]| {
        let mut arguments = vec!["generate", "application.yml"];
        arguments.extend(more);
        let output = context.output(&arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    context.file("application.yml", APPLICATION);
    generate(&["--reference-values", "metal-qemu-snp"]);
    let old = coordinators(&context);
    let upgraded = APPLICATION.replace("coordinator@sha256:11", "coordinator@sha256:33");
    assert_ne!(upgraded, APPLICATION);
    context.file("application.yml", &upgraded);

    let shown = generate(&["--keep-coordinator"]);
    assert!(
        shown.contains(&format!("kept Coordinator policy {}", old[0])),
        "{shown}"
    );
    let both = coordinators(&context);
    assert!(both.len() == 2 && both.contains(&old[0]), "{both:?}");
    generate(&["--keep-coordinator"]);
    assert_eq!(
        coordinators(&context),
        both,
        "running it again changed something"
    );

    let shown = generate(&[]);
    assert!(!shown.contains("kept"), "{shown}");
    let new = coordinators(&context);
    assert!(new.len() == 1 && !new.contains(&old[0]), "{new:?}");
}

const CACHE: &str = r#"{
    "Version": 1,
    "Images": {"sha256:2222222222222222222222222222222222222222222222222222222222222222": {"Entrypoint": ["/web"], "User": "1000"}},
    "References": {"docker.io/library/web:1": "sha256:2222222222222222222222222222222222222222222222222222222222222222"}
}"#;

#[test]
fn tag_is_pinned_to_the_digest_of_the_image_cache_or_refused() {
    let context = Context::new();
    let digest = "@sha256:2222222222222222222222222222222222222222222222222222222222222222";
    let tagged = APPLICATION.replace(&format!("registry.example/web{digest}"), "web:1");
    context.file("application.yml", &tagged);
    context.file("image-cache.json", CACHE);
    let arguments = [
        "generate",
        "--reference-values",
        "metal-qemu-snp",
        "application.yml",
    ];
    let strict = context.run(&[&arguments[..], &["--require-digests"]].concat());
    assert!(
        strict.contains("image `web:1` has no digest") && strict.contains("exit code: 2"),
        "{strict}"
    );
    let shown = context.run(&arguments);
    assert!(
        shown.contains(&format!(
            "pinned `web:1` to `web:1{digest}`, as the image cache says"
        )),
        "{shown}"
    );
    let written = fs::read_to_string(context.path("application.yml")).expect("read");
    assert!(
        written.contains(&format!("web:1{digest}")),
        "the tag is not pinned"
    );
    let policy = context.run(&["policy", "show", "web", "application.yml"]);
    assert!(policy.contains("user        1000:0"), "{policy}");
}

#[test]
fn names_are_not_inherited_through_a_shared_secret() {
    let context = Context::new();
    let shared = "    metadata:\n      annotations:\n        contrast.edgeless.systems/workload-secret-id: shared\n";
    let (coordinator, web) = APPLICATION.split_once("---\n").expect("two objects");
    let web = web.replace("  template:\n", &format!("  template:\n{shared}"));
    let other = web
        .replace("name: web", "name: db")
        .replace("/web]", "/db]");
    context.file("application.yml", &format!("{coordinator}---\n{web}"));
    let arguments = [
        "generate",
        "--reference-values",
        "metal-qemu-snp",
        "application.yml",
    ];
    assert!(context.output(&arguments).status.success());
    let manifest = || fs::read_to_string(context.path("manifest.json")).expect("reads");
    let edited = manifest().replace("\"web\"", "\"shop.example\"");
    context.file("manifest.json", &edited);
    // The names of `web` stay when it changes, as long as it alone has the secret.
    context.file(
        "application.yml",
        &format!("{coordinator}---\n{}", web.replace("/web]", "/web, serve]")),
    );
    assert!(context.output(&arguments).status.success());
    assert!(manifest().contains("shop.example"));
    context.file(
        "application.yml",
        &format!("{coordinator}---\n{web}---\n{other}"),
    );
    assert!(context.output(&arguments).status.success());
    assert!(!manifest().contains("shop.example"), "{}", manifest());
}

#[test]
fn workloads_with_the_same_policy_are_refused() {
    let context = Context::new();
    let (coordinator, web) = APPLICATION.split_once("---\n").expect("two objects");
    let daemons = web.replace("Deployment", "DaemonSet");
    let replicas = web.replace("Deployment", "ReplicaSet");
    context.file(
        "application.yml",
        &format!("{coordinator}---\n{daemons}---\n{replicas}"),
    );
    let shown = context.run(&[
        "generate",
        "--reference-values",
        "metal-qemu-snp",
        "application.yml",
    ]);
    assert!(shown.contains("exit code: 2"), "{shown}");
    assert!(
        shown.contains(
            "ReplicaSet `web` in namespace `default` has the same policy as DaemonSet `web`"
        ),
        "{shown}"
    );
}

#[test]
fn owner_that_the_manifest_lists_by_digest_is_not_added_again() {
    let context = Context::new();
    context.file("application.yml", APPLICATION);
    let arguments = [
        "generate",
        "--reference-values",
        "metal-qemu-snp",
        "application.yml",
    ];
    assert!(context.output(&arguments).status.success());
    let text = fs::read_to_string(context.path("manifest.json")).expect("reads");
    let mut manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let key = manifest["WorkloadOwnerPubKeys"][0]
        .as_str()
        .expect("a key")
        .to_owned();
    let spki = hex::decode(&key).expect("hex");
    let digest = contrast_images::Digest::of(&spki).hex();
    manifest["WorkloadOwnerPubKeys"] = serde_json::json!([]);
    manifest["WorkloadOwnerKeyDigests"] = serde_json::json!([digest]);
    for (field, value) in [
        ("WorkloadOwnerKeyDigests", digest.as_str()),
        ("WorkloadOwnerPubKeys", key.as_str()),
    ] {
        let mut listed = manifest.clone();
        listed["WorkloadOwnerKeyDigests"] = serde_json::json!([]);
        listed[field] = serde_json::json!([value.to_uppercase()]);
        context.file("manifest.json", &listed.to_string());
        let output = context.output(&arguments);
        assert!(
            output.status.success(),
            "{field}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = fs::read_to_string(context.path("manifest.json")).expect("reads");
        let again: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let count = |field: &str| again[field].as_array().map_or(0, Vec::len);
        assert_eq!(
            count("WorkloadOwnerPubKeys") + count("WorkloadOwnerKeyDigests"),
            1,
            "{text}"
        );
    }
}

#[test]
fn thresholds_are_written_and_kept_and_cannot_exceed_the_owners() {
    let context = Context::new();
    context.file("application.yml", APPLICATION);
    let key = pem::Pem::new(
        "PUBLIC KEY",
        hex::decode(format!("302a300506032b656e032100{}", "07".repeat(32))).expect("hex"),
    );
    context.file("alice.pem", &pem::encode(&key));
    let generate = |further: &[&str]| {
        let platform = ["generate", "--reference-values", "metal-qemu-snp"];
        let output = context.output(&[&platform, further, &["application.yml"]].concat());
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), shown)
    };
    let manifest = || -> serde_json::Value {
        let text = fs::read_to_string(context.path("manifest.json")).expect("reads");
        serde_json::from_str(&text).expect("JSON")
    };
    assert!(generate(&[]).0);
    let both = [
        "--add-seedshare-owner-key",
        "alice.pem",
        "--seedshare-threshold",
        "2",
    ];
    let (done, shown) = generate(&both);
    assert!(done, "{shown}");
    assert!(generate(&[]).0);
    let kept = manifest();
    assert_eq!(kept["SeedshareThreshold"], 2);
    assert_eq!(
        kept["SeedshareOwnerPubKeys"].as_array().map(Vec::len),
        Some(2)
    );

    let (done, shown) = generate(&["--workload-owner-threshold", "2"]);
    assert!(!done);
    let reason =
        "$.WorkloadOwnerThreshold: expected a number from 1 to the number of owners (1), found 2";
    assert!(shown.contains(reason), "{shown}");
    assert_eq!(manifest(), kept);
}
