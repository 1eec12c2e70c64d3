//! How many vCPUs pods have: in the YAML and in the manifest.

use std::{collections::BTreeMap, fs};

use contrast_manifest::{Manifest, ManifestDocument};
use contrast_testbed::{Ovmf, efi_kernel};
use serde_json::Value;

use crate::{context::Context, generate::APPLICATION};

const ANNOTATION: &str = "io.katacontainers.config.hypervisor.default_vcpus";
const GENERATE: [&str; 6] = [
    "generate",
    "--reference-values",
    "metal-qemu-snp",
    "application.yml",
    "--format",
    "json",
];

/// The application, whose workload has these resources.
fn application(resources: &str) -> String {
    format!("{APPLICATION}          resources: {resources}\n")
}

struct Generated {
    outcome: Value,
    yaml: String,
    manifest: ManifestDocument,
    said: String,
}

/// Generates twice; the second run must change nothing.
fn generate(context: &Context) -> Generated {
    let run = || {
        let output = context.output(&GENERATE);
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{said}");
        let outcome: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (outcome, said)
    };
    let files = || {
        let read = |name| fs::read_to_string(context.path(name)).expect("reads");
        (read("application.yml"), read("manifest.json"))
    };
    let (outcome, said) = run();
    let (yaml, manifest) = files();
    assert_eq!(run().0["written"], serde_json::json!([]));
    assert_eq!(files(), (yaml.clone(), manifest.clone()));
    Generated {
        outcome,
        yaml,
        manifest: ManifestDocument::from_json(manifest.as_bytes()).expect("a manifest"),
        said,
    }
}

impl Generated {
    /// `VCPUs` in the manifest by the workload's name; the outcome has to agree.
    fn vcpus(&self) -> BTreeMap<String, i64> {
        let workloads = self.outcome["workloads"].as_array().expect("workloads");
        let vcpus = workloads.iter().map(|workload| {
            let policy = workload["policy"].as_str().expect("policy");
            let vcpus = self.manifest.policies[policy].vcpus.expect("VCPUs");
            assert_eq!(workload["vcpus"], vcpus);
            let name = workload["name"].as_str().expect("name");
            (name.to_owned(), vcpus)
        });
        vcpus.collect()
    }

    /// Lines of the annotation.
    fn annotations(&self) -> Vec<&str> {
        let lines = self.yaml.lines().map(str::trim);
        lines.filter(|line| line.starts_with(ANNOTATION)).collect()
    }
}

fn expected(web: i64) -> BTreeMap<String, i64> {
    [("coordinator".to_owned(), 1), ("web".to_owned(), web)].into()
}

#[test]
fn the_manifest_says_how_many_vcpus_a_policy_has() {
    for (resources, vcpus) in [
        ("{}", 1),
        ("{limits: {cpu: 100m}}", 2),
        ("{limits: {cpu: 2500m}, requests: {cpu: 1}}", 4),
        ("{limits: {cpu: 219}}", 220),
        ("{limits: {cpu: 1, nvidia.com/pgpu: 2}}", 2),
    ] {
        let context = Context::new();
        context.file("application.yml", &application(resources));
        let generated = generate(&context);
        assert_eq!(generated.vcpus(), expected(vcpus), "{resources}");
        // Kata comes to the same result by itself.
        assert_eq!(generated.annotations(), [""; 0], "{resources}");
    }
}

#[test]
fn an_annotation_makes_up_for_requests_that_kata_does_not_know() {
    let context = Context::new();
    context.file(
        "application.yml",
        &application("{limits: {cpu: 1}, requests: {cpu: 3}}"),
    );
    let generated = generate(&context);
    assert_eq!(generated.vcpus(), expected(4));
    // Kata adds the limit to it.
    assert_eq!(generated.annotations(), [format!("{ANNOTATION}: \"3\"")]);
    let notice = format!(
        "Deployment `web` in namespace `default`: needs 4 vCPUs, of which Kata knows 2, so it has the annotation `{ANNOTATION}: \"3\"`; "
    );
    assert!(generated.said.contains(&notice), "{}", generated.said);

    // It follows the resources.
    let before = "{limits: {cpu: 1}, requests: {cpu: 3}}";
    let yaml = generated.yaml.replace(before, "{limits: {cpu: 4}}");
    assert_ne!(yaml, generated.yaml);
    context.file("application.yml", &yaml);
    let output = context.output(&GENERATE);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        said.contains(&format!("`{ANNOTATION}` was \"3\", is \"1\"")),
        "{said}"
    );
    let generated = generate(&context);
    assert_eq!(generated.vcpus(), expected(5));
    assert_eq!(generated.annotations(), [format!("{ANNOTATION}: \"1\"")]);
}

#[test]
fn what_kata_counts_twice_counts() {
    let yaml = application("{limits: {cpu: 2}}")
        + "      initContainers:\n        - name: log\n          restartPolicy: Always\n          resources: {limits: {cpu: 1}}\n          \
           image: registry.example/web@sha256:2222222222222222222222222222222222222222222222222222222222222222\n          command: [/log]\n        \
           - name: migrate\n          resources: {limits: {cpu: 3}}\n          \
           image: registry.example/web@sha256:2222222222222222222222222222222222222222222222222222222222222222\n          command: [/migrate]\n";
    let context = Context::new();
    context.file("application.yml", &yaml);
    let generated = generate(&context);
    assert_eq!(generated.vcpus(), expected(5));
    assert_eq!(generated.annotations(), [""; 0]);
    let notice =
        "its VM has 5 vCPUs where 4 would do, since sidecars run beside later init containers";
    assert!(generated.said.contains(notice), "{}", generated.said);
}

#[test]
fn pods_that_no_vm_can_hold_are_refused() {
    let refused = |resources: &str| {
        let context = Context::new();
        let yaml = application(resources);
        let path = context.file("application.yml", &yaml);
        let shown = context.run(&GENERATE[..4]);
        assert_eq!(fs::read_to_string(path).expect("reads"), yaml);
        shown
    };
    insta::assert_snapshot!("too_many", refused("{limits: {cpu: 219001m}}"));
    insta::assert_snapshot!(
        "more_gpus",
        refused("{limits: {cpu: 1500m, nvidia.com/pgpu: 4}}")
    );
    insta::assert_snapshot!("no_quantity", refused("{limits: {cpu: many}}"));
}

#[test]
fn what_measure_prints_fills_the_gaps_that_generate_names() {
    let context = Context::new();
    context.file("application.yml", &application("{limits: {cpu: 2500m}}"));
    let mut manifest = generate(&context).manifest;
    let snp = &mut manifest.reference_values.snp[0];
    snp.trusted_measurement = None;
    snp.trusted_measurements = [("1".to_owned(), String::new())].into();
    let tcb = &mut snp.minimum_tcb;
    for part in [
        &mut tcb.bootloader,
        &mut tcb.tee,
        &mut tcb.snp,
        &mut tcb.microcode,
    ] {
        *part = Some(1);
    }
    context.file("manifest.json", &manifest.to_json());
    let generated = generate(&context);
    let gaps: Vec<&str> = generated.outcome["fill_in"]
        .as_array()
        .expect("gaps")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let [first, second] = gaps.as_slice() else {
        panic!("{gaps:?}");
    };
    for (gap, vcpus) in [(first, 1), (second, 4)] {
        let start =
            format!("$.ReferenceValues.snp[0].TrustedMeasurements[\"{vcpus}\"]: missing; policy ");
        let end = format!("fill in what `contrast measure snp ... --vcpus {vcpus}` prints");
        assert!(gap.starts_with(&start) && gap.ends_with(&end), "{gap}");
    }

    fs::write(context.path("OVMF.fd"), Ovmf::amd_sev().image()).expect("writes");
    fs::write(context.path("vmlinuz"), efi_kernel(b"kernel")).expect("writes");
    let measured = context.output(&[
        "measure",
        "snp",
        "--ovmf",
        "OVMF.fd",
        "--kernel",
        "vmlinuz",
        "--vcpu-type",
        "EPYC-Genoa",
        "--vcpus",
        "1,4",
        "--format",
        "json",
    ]);
    let measured: Value = serde_json::from_slice(&measured.stdout).expect("JSON");
    let digests = measured["digests"].as_array().expect("digests").iter();
    let mut manifest = generated.manifest;
    manifest.reference_values.snp[0].trusted_measurements = digests
        .map(|launch| {
            let digest = launch["launch_digest"].as_str().expect("digest");
            (launch["vcpus"].to_string(), digest.to_owned())
        })
        .collect();
    context.file("manifest.json", &manifest.to_json());
    assert_eq!(generate(&context).outcome["fill_in"], serde_json::json!([]));
    let bytes = fs::read(context.path("manifest.json")).expect("reads");
    Manifest::parse(&bytes).expect("complete");
}
