//! `contrast measure`.

use std::fs;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use contrast_measure::{
    Firmware, GuestFeatures, IdAuth, IdBlock, KernelHashes, SnpLaunch, VcpuCount, VcpuType,
};
use contrast_testbed::{Ovmf, efi_kernel};
use serde_json::Value;

use crate::{attestation::outcome, context::Context};

const PODS: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: plain
spec:
  containers:
    - name: app
      image: a
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  template:
    spec:
      initContainers:
        - name: migrate
          resources: {limits: {cpu: 900m}}
        - name: proxy
          restartPolicy: Always
          resources: {limits: {cpu: 0.25}}
      containers:
        - name: app
          resources: {limits: {cpu: 1500m, nvidia.com/pgpu: 1}, requests: {cpu: 1}}
        - name: log
          resources: {requests: {cpu: 300m}}
---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: nightly
spec:
  jobTemplate:
    spec:
      template:
        spec:
          resources: {limits: {cpu: 4}}
          containers:
            - name: app
              resources: {limits: {cpu: 1}}
";

/// A workspace with files to launch.
fn launch() -> Context {
    let context = Context::new();
    for (name, bytes) in [
        ("sev.fd", Ovmf::amd_sev().image()),
        ("tdx.fd", Ovmf::tdx().image()),
        ("kernel", efi_kernel(b"")),
        ("initrd", b"initrd".to_vec()),
        ("loader", b"loader".to_vec()),
        ("rsdp", b"rsdp".to_vec()),
        ("tables", b"tables".to_vec()),
    ] {
        fs::write(context.path(name), bytes).expect("write");
    }
    context
}

const SNP: [&str; 12] = [
    "measure",
    "snp",
    "--ovmf",
    "sev.fd",
    "--kernel",
    "kernel",
    "--initrd",
    "initrd",
    "--append",
    "console=hvc0 quiet",
    "--vcpu-type",
    "EPYC-Genoa",
];

fn with<'a>(base: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    base.iter().chain(more).copied().collect()
}

fn json(context: &Context, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = outcome(context, &with(arguments, &["--format", "json"]));
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).expect("JSON")
}

/// The library's digest for what [`SNP`] launches.
fn expected(vcpus: u32) -> [u8; 48] {
    let image = Ovmf::amd_sev().image();
    let firmware = Firmware::parse(&image).expect("firmware");
    let launch = SnpLaunch {
        firmware: &firmware,
        kernel: Some(KernelHashes::of(
            &efi_kernel(b""),
            b"initrd",
            "console=hvc0 quiet",
        )),
        vcpu_type: VcpuType::Genoa,
        guest_features: GuestFeatures::default(),
    };
    let digests = launch.measure().expect("digests");
    digests.of(VcpuCount::new(vcpus).expect("count"))
}

#[test]
fn help_texts() {
    let context = Context::new();
    for command in ["snp", "tdx", "pod"] {
        let shown = context.run(&["measure", command, "--help"]);
        insta::assert_snapshot!(format!("help_{command}"), shown);
    }
    insta::assert_snapshot!("help", context.run(&["measure", "--help"]));
}

#[test]
fn launch_digests_as_text_and_json() {
    let context = launch();
    insta::assert_snapshot!("snp_text", context.run(&with(&SNP, &["--vcpus", "1..3,8"])));
    let all = json(&context, &with(&SNP, &["--vcpus", "1..220"]));
    let digests = all["digests"].as_array().expect("list");
    assert_eq!(digests.len(), 220);
    for (digest, count) in digests.iter().zip(1..) {
        assert_eq!(digest["vcpus"], count);
        assert_eq!(digest["launch_digest"], hex::encode(expected(count)));
    }
    let without = [
        "measure",
        "snp",
        "--ovmf",
        "sev.fd",
        "--vcpu-type",
        "EPYC-v4",
    ];
    let without = json(&context, &with(&without, &["--guest-features", "0x21"]));
    assert_eq!(without["kernel"], Value::Null);
    assert_eq!(without["guest_features"], "0x21");
}

#[test]
fn id_blocks_are_what_qemu_takes() {
    let context = launch();
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("key");
    let der = key.to_pkcs8v1().expect("PKCS#8");
    context.file(
        "key.pem",
        &pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref())),
    );
    let blocks = [
        "--vcpus",
        "1,4",
        "--id-blocks",
        "out",
        "--id-key",
        "key.pem",
    ];
    let result = json(&context, &with(&SNP, &blocks));
    for vcpus in [1, 4] {
        let read = |name: &str| {
            let text = fs::read(context.path(&format!("out/{vcpus}.{name}"))).expect("read");
            STANDARD.decode(text).expect("base64")
        };
        let block = IdBlock {
            launch_digest: expected(vcpus),
            family_id: std::array::from_fn(|index| u8::from(index == 0)),
            image_id: std::array::from_fn(|index| 2 * u8::from(index == 0)),
            guest_svn: 2,
            policy: 0x3_0000,
        };
        assert_eq!(read("id-block"), block.to_bytes());
        // The signature is another one each time; keys are not.
        let random = aws_lc_rs::rand::SystemRandom::new();
        let auth = IdAuth::sign(&block, &key, None, &random).expect("signature");
        assert_eq!(read("id-auth")[0x240..], auth.as_bytes()[0x240..]);
        let digest = hex::encode(auth.id_key_digest());
        assert_eq!(
            result["digests"][usize::from(vcpus == 4)]["id_key_digest"],
            digest
        );
    }
    let (code, stdout, stderr) = outcome(&context, &with(&SNP, &["--id-blocks", "new"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("ID key digest"), "{stdout}");
    assert_eq!(stderr, "wrote 1 ID blocks to `new`\n");
    context.file("key.pem", "no key");
    insta::assert_snapshot!(context.run(&with(&SNP, &blocks)));
}

#[test]
fn registers_of_tdx() {
    let context = launch();
    let tdx = ["measure", "tdx", "--ovmf", "tdx.fd"];
    insta::assert_snapshot!("tdx_firmware_only", context.run(&tdx));
    let all = [
        "--kernel",
        "kernel",
        "--initrd",
        "initrd",
        "--append",
        "console=hvc0",
        "--memory",
        "2G",
        "--acpi-loader",
        "loader",
        "--acpi-rsdp",
        "rsdp",
        "--acpi-tables",
        "tables",
    ];
    let all = with(&tdx, &all);
    insta::assert_snapshot!("tdx_all", context.run(&all));
    let base = json(&context, &all);
    let value = |result: &Value, index: usize| result["rtmrs"][index]["value"].clone();
    for (more, register) in [
        (vec!["--td-hob", "not-measured"], Some(0)),
        (vec!["--kernel-header", "filled"], Some(1)),
        (vec!["--page-order", "section"], None),
    ] {
        let changed = json(&context, &with(&all, &more));
        assert_eq!(
            changed["mrtd"] != base["mrtd"],
            register.is_none(),
            "{more:?}"
        );
        for index in 0..4 {
            let differs = value(&changed, index) != value(&base, index);
            assert_eq!(differs, register == Some(index), "{more:?}");
        }
    }
    let fixed = [
        "--kernel-header",
        "filled",
        "--initrd-address",
        "0x80000000",
    ];
    let highest = json(&context, &with(&all, &["--kernel-header", "filled"]));
    assert_ne!(
        value(&json(&context, &with(&all, &fixed)), 1),
        value(&highest, 1)
    );
}

#[test]
fn vcpus_of_pods() {
    let context = Context::new();
    context.file("pods.yml", PODS);
    insta::assert_snapshot!("pod_text", context.run(&["measure", "pod", "pods.yml"]));
    let pods = json(&context, &["measure", "pod", "."]);
    let counts: Vec<_> = pods
        .as_array()
        .expect("list")
        .iter()
        .map(|pod| {
            (
                pod["pod"].as_str(),
                pod["vcpus"].as_u64(),
                pod["vcpus_by_kata"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        counts,
        [
            (Some("Pod/plain"), Some(1), Some(1)),
            (Some("Deployment/web"), Some(4), Some(3)),
            (Some("CronJob/nightly"), Some(5), Some(5)),
        ]
    );
    assert_eq!(pods[1]["need_millicpu"], 2050);
    assert_eq!(pods[1]["containers"][1]["role"], "sidecar");
}

#[test]
fn unusable_input() {
    let context = launch();
    let pod = |cpu: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers: [{{name: c, resources: {{limits: {{cpu: {cpu}}}}}}}]\n"
        )
    };
    context.file("many.yml", &pod("220"));
    context.file("odd.yml", &pod("1 CPU"));
    context.file(
        "none.yml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
    );
    let mut truncated = Ovmf::amd_sev().image();
    let size = truncated.len();
    truncated[size - 50..size - 48].copy_from_slice(&0xffff_u16.to_le_bytes());
    fs::write(context.path("truncated.fd"), truncated).expect("write");
    context.file("kernel.txt", "not firmware");
    let mut no_tdx = Ovmf::amd_sev();
    no_tdx.tdx = vec![(0, 0, 0x1000, 0x1000, 7, 0)];
    fs::write(context.path("no-tdx.fd"), no_tdx.image()).expect("write");
    fs::write(context.path("zeros.fd"), [0; 8192]).expect("write");
    let snp = ["measure", "snp", "--vcpu-type", "EPYC-Milan", "--ovmf"];
    let tdx = ["measure", "tdx", "--ovmf"];
    for (name, arguments) in [
        ("missing_file", with(&snp, &["none.fd"])),
        ("not_an_ovmf", with(&snp, &["zeros.fd"])),
        ("odd_size", with(&snp, &["kernel.txt"])),
        ("truncated_table", with(&snp, &["truncated.fd"])),
        ("no_vcpus", with(&snp, &["sev.fd", "--vcpus", "0"])),
        ("too_many_vcpus", with(&snp, &["sev.fd", "--vcpus", "221"])),
        (
            "unknown_vcpu_type",
            vec!["measure", "snp", "--ovmf", "sev.fd", "--vcpu-type", "Xeon"],
        ),
        (
            "kernel_not_measured",
            with(&snp, &["tdx.fd", "--kernel", "kernel"]),
        ),
        (
            "append_without_kernel",
            with(&snp, &["sev.fd", "--append", "x"]),
        ),
        ("not_a_tdx_firmware", with(&tdx, &["no-tdx.fd"])),
        (
            "kernel_is_no_image",
            with(&tdx, &["tdx.fd", "--kernel", "initrd"]),
        ),
        (
            "no_initrd_address",
            with(
                &tdx,
                &[
                    "tdx.fd",
                    "--kernel",
                    "kernel",
                    "--initrd",
                    "initrd",
                    "--kernel-header",
                    "filled",
                ],
            ),
        ),
        (
            "some_acpi_files",
            with(&tdx, &["tdx.fd", "--acpi-rsdp", "rsdp"]),
        ),
        (
            "memory_without_unit",
            with(&tdx, &["tdx.fd", "--memory", "2048"]),
        ),
        (
            "pod_with_too_many_vcpus",
            vec!["measure", "pod", "many.yml"],
        ),
        ("pod_with_odd_quantity", vec!["measure", "pod", "odd.yml"]),
        ("no_pods", vec!["measure", "pod", "none.yml"]),
    ] {
        insta::assert_snapshot!(format!("refuses_{name}"), context.run(&arguments));
    }
}
