//! What the chart renders (`deploy/manifests`), through `lint`, `generate` and Helm's post-renderer.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::context::Context;

const DIGEST: &str = "@sha256:7d2c4b0f4f6a0b0d3cf1f5b6a3c49a8cf80ad7a0a0a0f6f5b5a54f4c3f9d1e01";

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(name)
}

/// A Coordinator's manifest; its image has the digest that a registry would give for the tag.
fn coordinator(replicas: u32) -> String {
    let path = deploy(&format!("manifests/coordinator-{replicas}.yaml"));
    let text = fs::read_to_string(path).expect("a manifest of the chart");
    let tag = format!("/coordinator:{}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text.matches(&tag).count(), 1, "one image");
    text.replace(&tag, &format!("{}{DIGEST}\n", tag.trim_end()))
}

fn policies(context: &Context, manifest: &str) -> Vec<String> {
    let text = fs::read(context.path(manifest)).expect("the manifest");
    let manifest: Value = serde_json::from_slice(&text).expect("JSON");
    let policies = manifest["Policies"].as_object().expect("policies");
    policies.keys().cloned().collect()
}

#[test]
fn manifests_of_the_chart_are_clean_before_and_after_generate() {
    for replicas in [1, 3, 5] {
        let context = Context::new();
        context.file("coordinator.yaml", &coordinator(replicas));
        let runtime = fs::read_to_string(deploy("manifests/runtime-metal-qemu-snp.yaml"));
        context.file("runtime.yaml", &runtime.expect("a manifest of the chart"));
        let files = ["coordinator.yaml", "runtime.yaml"];
        let clean = || {
            let shown = context.run(&[&["lint", "--deny-warnings"][..], &files].concat());
            assert!(shown.contains("exit code: 0"), "{shown}");
            let clean = "0 errors, 0 warnings, 0 pieces of advice in 1 confidential workload";
            assert!(shown.contains(clean), "{shown}");
        };
        clean();
        let generate = ["generate", "--reference-values", "metal-qemu-snp"];
        let shown = context.run(&[&generate[..], &files].concat());
        assert!(
            shown.contains("exit code: 0")
                && shown.contains("StatefulSet contrast/coordinator (coordinator): policy"),
            "{shown}"
        );
        clean();
        let again = context.run(&[&["generate", "--check"][..], &files].concat());
        assert!(again.contains("exit code: 0"), "{again}");
    }
}

#[test]
fn scaling_changes_one_line_and_no_policy() {
    let context = Context::new();
    let mut seen = Vec::new();
    for replicas in [1, 3, 5] {
        context.file("coordinator.yaml", &coordinator(replicas));
        let manifest = format!("{replicas}.json");
        let shown = context.run(&[
            "generate",
            "--reference-values",
            "metal-qemu-snp",
            "--manifest",
            &manifest,
            "coordinator.yaml",
        ]);
        assert!(shown.contains("exit code: 0"), "{shown}");
        seen.push(policies(&context, &manifest));
    }
    assert_eq!(seen[0].len(), 1);
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
    let lines = |replicas: u32| {
        context.file("coordinator.yaml", &coordinator(replicas));
        let arguments = [
            "generate",
            "--reference-values",
            "metal-qemu-snp",
            "-m",
            "1.json",
        ];
        context.run(&[&arguments[..], &["coordinator.yaml"]].concat());
        let text = fs::read_to_string(context.path("coordinator.yaml")).expect("the resources");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (before, after) = (lines(1), lines(3));
    let changed: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    assert_eq!(before.len(), after.len());
    assert_eq!(
        changed,
        [(&"  replicas: 1".to_owned(), &"  replicas: 3".to_owned())]
    );

    let other = coordinator(1).replace("value: \"25\"", "value: \"20\"");
    context.file("coordinator.yaml", &other);
    context.run(&["generate", "-m", "1.json", "coordinator.yaml"]);
    assert_ne!(policies(&context, "1.json"), seen[0]);
}

#[cfg(unix)]
#[test]
fn post_renderer_gives_helm_what_generate_writes() {
    let context = Context::new();
    let rendered = coordinator(3);
    let workload = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: of-the-application\n";
    context.file("resources/app.yaml", workload);
    context.file("coordinator.yaml", &rendered);
    let options = ["--reference-values", "metal-qemu-snp"];
    let expected = context.output(
        &[
            &["generate"][..],
            &options,
            &["--output", "-", "resources", "coordinator.yaml"],
        ]
        .concat(),
    );
    assert!(expected.status.success());

    let contrast = Path::new(env!("CARGO_BIN_EXE_contrast"));
    let path = std::env::var("PATH").unwrap_or_default();
    let directory = contrast.parent().expect("a directory").display();
    let post_render = |input: &str| {
        let mut child = Command::new(deploy("helm-plugin/post-render.sh"))
            .args(options)
            .arg("resources")
            .current_dir(context.path(""))
            .env("PATH", format!("{directory}:{path}"))
            .env("CONTRAST_OFFLINE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the script starts");
        let mut stdin = child.stdin.take().expect("standard input");
        stdin.write_all(input.as_bytes()).expect("is read");
        drop(stdin);
        child.wait_with_output().expect("ends")
    };
    let output = post_render(&rendered);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (found, expected) = (text(&output.stdout), text(&expected.stdout));
    let sorted = |text: &str| {
        let mut documents: Vec<String> = text
            .split("---\n")
            .map(|one| one.trim().to_owned())
            .collect();
        documents.sort();
        documents
    };
    assert_eq!(sorted(&found), sorted(&expected));
    assert!(
        found.contains("cc_init_data: ") && found.contains("of-the-application"),
        "{found}"
    );

    let refused = post_render("kind: [");
    assert!(!refused.status.success());
    assert!(refused.stdout.is_empty(), "{}", text(&refused.stdout));
}
