//! `contrast attestation` and `contrast manifest fill` on evidence in files.

use std::{fs, path::PathBuf};

use crate::context::Context;

const WITHIN: &str = "2024-01-01T00:00:00Z";

pub(crate) fn real(name: &str) -> Option<String> {
    Some(contrast_testbed::evidence_path(name)?.display().to_string())
}

/// Exit code, standard output and standard error.
pub(crate) fn outcome(context: &Context, arguments: &[&str]) -> (i32, String, String) {
    let output = context.output(arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("no signal");
    (code, text(output.stdout), text(output.stderr))
}

fn verify_snp(report: &str, vek: &str, extra: &[&str]) -> (i32, String, String) {
    let mut arguments = vec![
        "attestation",
        "verify",
        "--snp-report",
        report,
        "--vek",
        vek,
    ];
    arguments.extend(extra);
    outcome(&Context::new(), &arguments)
}

#[test]
fn a_real_report_verifies_with_the_chain_that_came_and_with_the_built_in_one() {
    let (Some(report), Some(vek), Some(chain)) = (
        real("snp/attestation.bin"),
        real("snp/vcek.testcer"),
        real("snp/milan.testcer"),
    ) else {
        return;
    };
    for extra in [
        vec!["--at", WITHIN],
        vec!["--at", WITHIN, "--chain", &chain],
    ] {
        let (code, stdout, stderr) = verify_snp(&report, &vek, &extra);
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        assert!(
            stdout.contains("verified: SEV-SNP evidence, at 2024-01-01T00:00:00Z"),
            "{stdout}"
        );
    }
}

#[test]
fn a_real_report_is_refused_outside_its_validity_with_another_chain_and_with_another_nonce() {
    let (Some(report), Some(vek), Some(chain)) = (
        real("snp/attestation.bin"),
        real("snp/vcek.testcer"),
        real("snp/milanvlek.testcer"),
    ) else {
        return;
    };
    let nonce = "00".repeat(64);
    for (extra, failed) in [
        (
            vec!["--at", "2035-01-01T00:00:00Z"],
            "VEK certificate (SEV-VCEK) validity",
        ),
        (
            vec!["--at", "2021-01-01T00:00:00+01:00"],
            "VEK certificate (SEV-VCEK) validity",
        ),
        (vec!["--at", WITHIN, "--chain", &chain], "VEK signature"),
        (vec!["--at", WITHIN, "--report-data", &nonce], "REPORT_DATA"),
    ] {
        let (code, _, stderr) = verify_snp(&report, &vek, &extra);
        assert_eq!(code, 3, "{stderr}");
        assert_eq!(
            stderr,
            format!("error: the evidence is not verified: {failed}\n")
        );
    }
}

#[test]
fn a_damaged_report_is_refused_and_a_truncated_one_is_unusable() {
    let (Some(report), Some(vek)) = (real("snp/attestation.bin"), real("snp/vcek.testcer")) else {
        return;
    };
    let bytes = fs::read(&report).expect("readable");
    let context = Context::new();
    let damaged = context.path("damaged.bin");
    let mut changed = bytes.clone();
    changed[0x90] ^= 1;
    fs::write(&damaged, changed).expect("written");
    let (code, _, stderr) = verify_snp(&damaged.display().to_string(), &vek, &["--at", WITHIN]);
    assert_eq!(
        (code, stderr.as_str()),
        (3, "error: the evidence is not verified: SIGNATURE\n")
    );

    fs::write(&damaged, &bytes[..1000]).expect("written");
    let (code, _, stderr) = verify_snp(&damaged.display().to_string(), &vek, &[]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("an attestation report has 1184 bytes, found 1000"),
        "{stderr}"
    );
}

#[test]
fn a_real_report_is_taken_in_every_form_that_tools_write() {
    let (Some(report), Some(vek), Some(chain)) = (
        contrast_testbed::evidence("snp/attestation.bin"),
        contrast_testbed::evidence("snp/vcek.testcer"),
        contrast_testbed::evidence("snp/milan.testcer"),
    ) else {
        return;
    };
    let context = Context::new();
    let write = |name: &str, parts: &[&[u8]]| {
        fs::write(context.path(name), parts.concat()).expect("written");
    };
    let mut table = contrast_attestation::snp::encode_certificate_table(&[(
        contrast_attestation::snp::CertificateGuid::VCEK,
        &vek,
    )]);
    table.resize(4096, 0);
    write("vcek", &[&vek]);
    write("padded", &[&report, &[0; 64]]);
    let header = [&[0; 4][..], &1184_u32.to_le_bytes(), &[0; 24]].concat();
    write("response", &[&header, &report, &[0; 2784]]);
    write("extended", &[&report, &table]);
    let pem = pem::encode(&pem::Pem::new("CERTIFICATE", vek));
    write("full-chain.pem", &[pem.as_bytes(), &chain]);
    let verify = ["attestation", "verify", "--at", WITHIN, "--snp-report"];
    for arguments in [
        &["padded", "--vek", "vcek"][..],
        &["response", "--vek", "vcek"],
        &["extended"],
        &["padded", "--chain", "full-chain.pem"],
    ] {
        let (code, stdout, stderr) = outcome(&context, &[&verify, arguments].concat());
        assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        // The machine is one of its vendor's, for tests.
        assert!(
            stdout.contains("caution: the guest policy allows debugging"),
            "{stdout}"
        );
        assert!(
            stdout.contains("not checked: whether AMD revoked the ASK"),
            "{stdout}"
        );
    }
    let (_, stdout, _) = outcome(&context, &["attestation", "inspect", "extended"]);
    assert!(stdout.contains("certificate table"), "{stdout}");
    let (code, _, stderr) = outcome(&context, &["attestation", "verify", "extended"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("name it with `--snp-report`"), "{stderr}");
}

#[test]
fn a_report_whose_signer_is_not_what_it_says_is_refused_and_not_unusable() {
    let (Some(report), Some(vek), Some(chain)) = (
        real("snp/attestation.bin"),
        real("snp/vcek.testcer"),
        real("snp/milan.testcer"),
    ) else {
        return;
    };
    let bytes = fs::read(&report).expect("readable");
    let context = Context::new();
    let changed = context.path("changed.bin");
    // KEY_INFO, SIGNING_KEY: a VLEK; nobody.
    for key_info in [1 << 2, 7 << 2] {
        let mut bytes = bytes.clone();
        bytes[0x48] = key_info;
        fs::write(&changed, bytes).expect("written");
        let (code, _, stderr) = verify_snp(&changed.display().to_string(), &vek, &["--at", WITHIN]);
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains("SIGNING_KEY"), "{stderr}");
    }
    // The certificate of the key above takes the place of the VCEK's.
    let (code, _, stderr) = verify_snp(&report, &chain, &["--at", WITHIN]);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("product"), "{stderr}");
}

#[test]
fn a_real_quote_is_verified_down_to_its_tcb_level_which_intel_no_longer_listed() {
    let Some(quote) = real("tdx/tdx_prod_quote_SPR_E4.dat") else {
        return;
    };
    let directory = PathBuf::from(&quote);
    let directory = directory.parent().expect("directory").display().to_string();
    let arguments = [
        "attestation",
        "verify",
        "--tdx-quote",
        &quote,
        "--collateral",
        &directory,
        "--at",
        "2023-06-20T00:00:00Z",
    ];
    let (code, stdout, stderr) = outcome(&Context::new(), &arguments);
    assert_eq!(code, 3, "{stdout}{stderr}");
    let failed: Vec<&str> = stdout
        .lines()
        .filter(|line| line.starts_with("FAIL"))
        .collect();
    // A machine before its launch: Intel never listed its TCB, and its TD lets the host inject #VE.
    let expected = ["FAIL  TCB level", "FAIL  TD ATTRIBUTES SEPT_VE_DISABLE"];
    assert_eq!(failed, expected, "{stdout}");
}

#[test]
fn files_that_are_no_evidence_are_unusable() {
    let context = Context::new();
    context.file("noise", "not evidence");
    insta::assert_snapshot!(context.run(&["attestation", "inspect", "noise"]));
    insta::assert_snapshot!(context.run(&["attestation", "verify", "noise"]));
    insta::assert_snapshot!(context.run(&[
        "attestation",
        "verify",
        "--snp-report",
        "noise",
        "--vek",
        "noise"
    ]));
    insta::assert_snapshot!(context.run(&["attestation", "verify", "--tdx-quote", "noise"]));
}

#[test]
fn no_part_of_the_evidence_is_ignored() {
    let context = Context::new();
    let sources = [
        vec!["--snp-report", "report", "--vek", "vek"],
        vec!["evidence"],
    ];
    for source in sources {
        let ignored = ["--tpm-quote", "quote", "--tpm-signature", "signature"];
        let arguments = [&["attestation", "verify"], source.as_slice(), &ignored].concat();
        let (code, _, stderr) = outcome(&context, &arguments);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("cannot be used with"), "{stderr}");
    }
}

#[test]
fn a_certificate_table_is_shown_entry_by_entry() {
    let context = Context::new();
    let chain =
        contrast_attestation::snp::vendor_chain(contrast_attestation::appraisal::SnpProduct::Genoa);
    let mut table = Vec::new();
    // GUID of the ARK, offset 48, length; then the entry of zeros.
    table.extend(hex::decode("c0b406a4a803495297433fb6014cd0ae").expect("hex"));
    table.extend(48_u32.to_le_bytes());
    table.extend(u32::try_from(chain.ark.len()).expect("small").to_le_bytes());
    table.resize(48, 0);
    table.extend(chain.ark);
    fs::write(context.path("table"), table).expect("written");
    insta::assert_snapshot!(context.run(&["attestation", "inspect", "table"]));
}

#[test]
fn an_hcl_report_cannot_forge_or_hide_a_line() {
    let context = Context::new();
    let json = br#"{"keys":[],"user-data":"\u001b[2J\nverified: all","\u001b[8mname":"\r"}"#;
    let mut report = b"HCLA".to_vec();
    report.resize(32 + 1184, 0);
    for word in [105, 1, 2, 1, u32::try_from(json.len()).expect("small")] {
        report.extend(word.to_le_bytes());
    }
    report.extend(json);
    fs::write(context.path("hcl"), report).expect("written");
    let (code, stdout, _) = outcome(&context, &["attestation", "inspect", "hcl"]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains(r"user-data: \u{1b}[2J\u{a}verified: all"),
        "{stdout}"
    );
    assert!(stdout.contains(r"\u{1b}[8mname: \u{d}"), "{stdout}");
    let deceptive = |c: char| c.is_control() && c != '\n';
    assert!(!stdout.contains(deceptive), "{stdout:?}");
}

#[cfg(feature = "software-tee")]
pub(crate) mod software {
    use contrast_attestation::{Issuer as _, PolicyHash, ReportData, Tee, software::SoftwareTee};
    use contrast_manifest::{
        InsecureReferenceValue, ManifestDocument, PolicyDocument, ReferenceValues,
        SnpReferenceValue,
    };
    use std::time::SystemTime;

    use super::*;
    use crate::generate::APPLICATION;

    /// A directory with a software TEE and a manifest that pins it.
    pub(crate) fn insecure_deployment() -> Context {
        let context = Context::new();
        context.file("application.yml", APPLICATION);
        let (code, _, stderr) = outcome(&context, &["insecure-tee", "init", "tee"]);
        assert_eq!(code, 0, "{stderr}");
        let generate = [
            "generate",
            "--reference-values",
            "insecure-snp",
            "--insecure-software-tee",
            "tee",
            "--skip-initializer",
            "--skip-service-mesh",
            "application.yml",
        ];
        let (code, _, stderr) = outcome(&context, &generate);
        assert_eq!(code, 0, "{stderr}");
        context
    }

    #[test]
    fn software_evidence_meets_the_manifest_that_pins_it_and_no_other_nonce() {
        let context = insecure_deployment();
        let manifest = fs::read(context.path("manifest.json")).expect("manifest");
        let manifest = contrast_manifest::Manifest::parse(&manifest).expect("valid");

        let tee = SoftwareTee::open(&context.path("tee")).expect("software TEE");
        let coordinator = *manifest.coordinators().first().expect("one");
        let evidence = tee.snp_guest(coordinator).issue(&ReportData([5; 64]));
        fs::write(
            context.path("evidence"),
            evidence.expect("evidence").encode(),
        )
        .expect("written");

        let (code, stdout, _) = outcome(&context, &["attestation", "inspect", "evidence"]);
        assert_eq!(code, 0);
        assert!(stdout.contains(&coordinator.to_string()), "{stdout}");
        let verify = [
            "attestation",
            "verify",
            "evidence",
            "--manifest",
            "manifest.json",
        ];
        let (code, stdout, stderr) = outcome(&context, &verify);
        assert_eq!(code, 0, "{stdout}{stderr}");
        assert!(stdout.contains("INSECURE"), "{stdout}");
        let other = "06".repeat(64);
        let (code, _, stderr) = outcome(
            &context,
            &[verify.as_slice(), &["--report-data", &other]].concat(),
        );
        assert_eq!(code, 3);
        assert!(stderr.contains("not verified: REPORT_DATA"), "{stderr}");
        let (code, ..) = outcome(&context, &["attestation", "verify", "evidence"]);
        assert_eq!(code, 3, "without a manifest only the vendors' roots count");
    }

    #[test]
    fn fill_puts_a_measurement_under_the_number_of_the_reports_policy() {
        let context = Context::new();
        let tee = SoftwareTee::generate(
            SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000),
        );
        let guest = tee.expect("software TEE").snp_guest(PolicyHash([1; 32]));
        let evidence = guest.issue(&ReportData([5; 64])).expect("evidence");
        fs::write(context.path("evidence"), evidence.encode()).expect("written");
        let old = "33".repeat(48);
        let fill = |policy: &str, vcpus: Option<i64>| {
            let document = ManifestDocument {
                policies: [(
                    policy.to_owned(),
                    PolicyDocument {
                        vcpus,
                        ..PolicyDocument::default()
                    },
                )]
                .into(),
                reference_values: ReferenceValues {
                    snp: vec![SnpReferenceValue {
                        product_name: "Milan".into(),
                        trusted_measurements: [("3".to_owned(), old.clone())].into(),
                        ..SnpReferenceValue::default()
                    }],
                    ..ReferenceValues::default()
                },
                ..ManifestDocument::default()
            };
            context.file("manifest.json", &document.to_json());
            let (code, stdout, stderr) = outcome(&context, &["manifest", "fill", "evidence"]);
            assert_eq!(code, 0, "{stdout}{stderr}");
            let bytes = fs::read(context.path("manifest.json")).expect("manifest");
            let mut filled = ManifestDocument::from_json(&bytes).expect("manifest");
            let snp = filled.reference_values.snp.remove(0);
            assert_eq!(snp.trusted_measurement, None);
            snp.trusted_measurements.into_iter().collect::<Vec<_>>()
        };
        let (hash, three) = ("01".repeat(32), ("3".to_owned(), old.clone()));
        let unchanged = vec![three.clone()];
        let twelve = ("12".to_owned(), hex::encode(guest.measurement));
        assert_eq!(fill(&hash, Some(12)), [twelve, three]);
        // What is there stays, and where the number is not known nothing is filled in.
        assert_eq!(fill(&hash, Some(3)), unchanged);
        assert_eq!(fill(&hash, None), unchanged);
        assert_eq!(fill(&"02".repeat(32), Some(12)), unchanged);
    }

    #[test]
    fn fill_writes_only_into_gaps() {
        let context = Context::new();
        let tee = SoftwareTee::generate(
            SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000),
        );
        let guest = tee.expect("software TEE").snp_guest(PolicyHash([1; 32]));
        let evidence = guest.issue(&ReportData([5; 64])).expect("evidence");
        assert_eq!(evidence.tee(), Tee::Snp);
        fs::write(context.path("evidence"), evidence.encode()).expect("written");
        let mut reference = SnpReferenceValue {
            product_name: "Milan".into(),
            ..SnpReferenceValue::default()
        };
        reference.minimum_tcb.snp = Some(255);
        let document = ManifestDocument {
            reference_values: ReferenceValues {
                snp: vec![reference],
                insecure: Vec::<InsecureReferenceValue>::new(),
                ..ReferenceValues::default()
            },
            ..ManifestDocument::default()
        };
        context.file("manifest.json", &document.to_json());
        let (code, stdout, stderr) = outcome(&context, &["manifest", "fill", "evidence"]);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("observed, not trusted"), "{stdout}");
        let bytes = fs::read(context.path("manifest.json")).expect("manifest");
        let filled = ManifestDocument::from_json(&bytes)
            .expect("manifest")
            .reference_values
            .snp
            .remove(0);
        assert_eq!(
            filled.trusted_measurement,
            Some(hex::encode(guest.measurement))
        );
        assert_eq!(
            filled.minimum_tcb.microcode,
            Some(guest.committed_tcb.microcode.into())
        );
        assert_eq!(filled.minimum_tcb.snp, Some(255), "a value that was there");
    }
}
