//! Where `contrast generate` writes, and when it writes nothing.

use std::{fs, path::Path, process::Output};

use crate::{context::Context, generate::APPLICATION};

const PLATFORM: [&str; 3] = ["generate", "--reference-values", "metal-qemu-snp"];

fn generate(context: &Context, more: &[&str]) -> Output {
    context.output(&[&PLATFORM, more].concat())
}

fn succeeded(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn refused(context: &Context, more: &[&str]) -> String {
    let output = generate(context, more);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        !context.path("manifest.json").exists(),
        "a manifest was left behind"
    );
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("list");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn two_files(context: &Context) {
    let (coordinator, web) = APPLICATION.split_once("---\n").expect("two documents");
    fs::create_dir_all(context.path("in/sub")).expect("directory");
    fs::write(context.path("in/a.yaml"), coordinator).expect("writes");
    fs::write(context.path("in/sub/b.yml"), web).expect("writes");
    fs::write(context.path("in/values.yaml"), "replicas: 3\n").expect("writes");
}

#[test]
fn check_says_what_is_out_of_date_and_writes_nothing() {
    let context = Context::new();
    context.file("application.yml", APPLICATION);
    let output = generate(&context, &["--check", "application.yml"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    for file in ["application.yml", "manifest.json", "workload-owner.pem"] {
        assert!(
            shown
                .lines()
                .any(|line| line.starts_with("out of date: ") && line.ends_with(file)),
            "{shown}"
        );
    }
    assert_eq!(names(&context.path("")), ["application.yml"]);

    succeeded(&generate(&context, &["application.yml"]));
    succeeded(&generate(&context, &["--check", "application.yml"]));
    // A pipeline has the manifest, and not the keys.
    for key in ["workload-owner.pem", "seedshare-owner.pem"] {
        fs::remove_file(context.path(key)).expect("removes");
    }
    let shown = succeeded(&generate(&context, &["--check", "application.yml"]));
    assert!(shown.contains("everything is up to date"), "{shown}");

    let manifest = fs::read_to_string(context.path("manifest.json")).expect("reads");
    fs::write(
        context.path("manifest.json"),
        manifest.replace("\"web\"", "\"other\"") + "\n",
    )
    .expect("writes");
    let output = generate(&context, &["--check", "application.yml"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn diff_shows_what_would_change_and_writes_nothing() {
    let context = Context::new();
    context.file("application.yml", APPLICATION);
    let diff = succeeded(&generate(&context, &["--diff", "application.yml"]));
    for part in [
        "\n--- application.yml\n+++ application.yml\n",
        "+        - name: contrast-initializer",
        "--- /dev/null\n",
    ] {
        assert!(format!("\n{diff}").contains(part), "no {part:?} in {diff}");
    }
    assert!(!diff.contains("PRIVATE KEY"), "{diff}");
    assert_eq!(names(&context.path("")), ["application.yml"]);
    succeeded(&generate(&context, &["application.yml"]));
    assert_eq!(
        succeeded(&generate(&context, &["--diff", "application.yml"])),
        ""
    );
}

#[test]
fn output_directory_mirrors_the_input_and_leaves_it_as_it_was() {
    let context = Context::new();
    two_files(&context);
    let before = fs::read(context.path("in/a.yaml")).expect("reads");
    let output = generate(&context, &["in", "--output", "out/"]);
    succeeded(&output);
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        notes.contains("passed over in/values.yaml: it has no Kubernetes objects"),
        "{notes}"
    );
    assert_eq!(fs::read(context.path("in/a.yaml")).expect("reads"), before);
    assert_eq!(names(&context.path("out")), ["a.yaml", "sub"]);
    assert_eq!(names(&context.path("out/sub")), ["b.yml"]);
    succeeded(&generate(&context, &["in", "--output", "out/", "--check"]));
}

#[test]
fn standard_output_gets_the_resources_and_nothing_else() {
    let context = Context::new();
    two_files(&context);
    let piped = succeeded(&generate(&context, &["in", "--output", "-"]));
    succeeded(&generate(&context, &["in", "--output", "all.yaml"]));
    assert_eq!(
        piped,
        fs::read_to_string(context.path("all.yaml")).expect("reads")
    );
    assert_eq!(piped.matches("\n---\n").count(), 1, "{piped}");
}

#[test]
fn custom_resource_is_a_workload_when_its_template_is_named() {
    let context = Context::new();
    let rollout = APPLICATION.replace(
        "apps/v1\nkind: Deployment",
        "argoproj.io/v1alpha1\nkind: Rollout",
    );
    assert_ne!(rollout, APPLICATION);
    context.file("application.yml", &rollout);
    let without = succeeded(&generate(&context, &["application.yml"]));
    assert!(!without.contains("Rollout"), "{without}");
    let named = [
        "application.yml",
        "--pod-template-path",
        "argoproj.io/Rollout=.spec.template",
    ];
    let with = succeeded(&generate(&context, &named));
    assert!(with.contains("Rollout default/web: policy"), "{with}");
    let bad = generate(
        &context,
        &["application.yml", "--pod-template-path", "Rollout"],
    );
    let stderr = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(
        stderr.contains("expected `group/Kind=.path.to.template`"),
        "{stderr}"
    );
}

#[test]
fn input_that_cannot_be_used_is_refused_with_its_name() {
    let context = Context::new();
    context.file("broken.yaml", "apiVersion: v1\nkind: Pod\nspec: a: b\n");
    let error = refused(&context, &["broken.yaml"]);
    assert!(
        error.contains("`broken.yaml` cannot be used") && error.contains("line 3, column"),
        "{error}"
    );
    fs::write(context.path("latin.yaml"), b"apiVersion: v1 # \xe9\n").expect("writes");
    let error = refused(&context, &["latin.yaml"]);
    assert!(
        error.contains("latin.yaml is not UTF-8: byte 17"),
        "{error}"
    );
    fs::write(context.path("huge.yaml"), vec![b'#'; 50_000_000]).expect("writes");
    let error = refused(&context, &["huge.yaml"]);
    assert!(
        error.contains("it has 50000000 bytes; at most 16777216 are read"),
        "{error}"
    );
    context.file(
        "pod.yaml",
        &APPLICATION.replace("  name: web\nspec", "  generateName: web-\nspec"),
    );
    let error = refused(&context, &["pod.yaml"]);
    assert!(error.contains("it has `metadata.generateName`"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    use std::os::unix::fs::symlink;
    let context = Context::new();
    fs::create_dir_all(context.path("in/x.yaml")).expect("a directory with the name of a file");
    fs::create_dir_all(context.path("real")).expect("directory");
    fs::write(context.path("real/application.yml"), APPLICATION).expect("writes");
    symlink(
        "../../real/application.yml",
        context.path("in/x.yaml/link.yml"),
    )
    .expect("links");
    let shown = succeeded(&generate(&context, &["in"]));
    assert!(shown.contains("wrote in/x.yaml/link.yml\n"), "{shown}");
    let link = fs::symlink_metadata(context.path("in/x.yaml/link.yml")).expect("there");
    assert!(link.is_symlink(), "the link was replaced by a file");
    let changed = fs::read_to_string(context.path("real/application.yml")).expect("reads");
    assert!(changed.contains("contrast-initializer"), "{changed}");

    fs::remove_file(context.path("manifest.json")).expect("removes");
    symlink("..", context.path("in/x.yaml/loop")).expect("links");
    let error = refused(&context, &["in"]);
    assert!(
        error.contains("in/x.yaml/loop leads back to")
            && error.contains("remove the symbolic link"),
        "{error}"
    );
    fs::remove_file(context.path("in/x.yaml/loop")).expect("removes");
    symlink("nowhere", context.path("in/dangling.yaml")).expect("links");
    let error = refused(&context, &["in"]);
    assert!(error.contains("cannot read in/dangling.yaml"), "{error}");
}

#[test]
fn pods_of_several_platforms_share_a_manifest() {
    let context = Context::new();
    let gpu = "\
apiVersion: v1
kind: Pod
metadata:
  name: model
spec:
  runtimeClassName: contrast-cc
  containers:
    - name: model
      image: registry.example/model@sha256:2222222222222222222222222222222222222222222222222222222222222222
      command: [/model]
      resources:
        limits:
          cpu: 2
          nvidia.com/pgpu: 1
---
apiVersion: v1
kind: Pod
metadata:
  name: ledger
spec:
  runtimeClassName: contrast-cc-metal-qemu-tdx-0a1b2c3d
  containers:
    - name: ledger
      image: registry.example/ledger@sha256:2222222222222222222222222222222222222222222222222222222222222222
      command: [/ledger]
";
    context.file("application.yml", APPLICATION);
    context.file("more.yml", gpu);
    let arguments = [
        "generate",
        "--reference-values",
        "metal-qemu-snp",
        "application.yml",
        "more.yml",
    ];
    let shown = context.run(&arguments);
    assert!(shown.contains("exit code: 0"), "{shown}");
    let written = fs::read_to_string(context.path("more.yml")).expect("reads");
    assert!(
        written.contains("runtimeClassName: contrast-cc-metal-qemu-snp-gpu\n"),
        "{written}"
    );
    assert!(
        written.contains("runtimeClassName: contrast-cc-metal-qemu-tdx-0a1b2c3d\n"),
        "{written}"
    );
    let manifest = fs::read_to_string(context.path("manifest.json")).expect("reads");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    let platforms = |list: &str| -> Vec<String> {
        let values = manifest["ReferenceValues"][list]
            .as_array()
            .expect("a list");
        let names = values
            .iter()
            .map(|value| value["Platform"].as_str().expect("a name"));
        names.map(str::to_owned).collect()
    };
    assert_eq!(platforms("snp"), ["Metal-QEMU-SNP", "Metal-QEMU-SNP-GPU"]);
    assert_eq!(platforms("tdx"), ["Metal-QEMU-TDX"]);

    // The manifest is there already, so a further platform is the operator's to add.
    let tdx_gpu = gpu.replace("contrast-cc\n", "contrast-cc-metal-qemu-tdx-gpu\n");
    context.file("more.yml", &tdx_gpu);
    let shown = context.run(&arguments);
    assert!(
        shown.contains("warning: Pod `model` in namespace `default` runs on Metal-QEMU-TDX-GPU"),
        "{shown}"
    );

    context.file("more.yml", &gpu.replace("-tdx-0a1b2c3d", "-cca"));
    let shown = context.run(&arguments);
    assert!(
        shown.contains("exit code: 2")
            && shown.contains("is of no known platform; write `contrast-cc`"),
        "{shown}"
    );
}
