//! Evidence through a virtual TPM: files as TPM tools write them, a manifest with `VTPM`.

use std::fs;

use contrast_attestation::{
    Evidence, Issuer as _, PolicyHash, ReportData, Tee, VtpmEvidence, VtpmHardware,
    software::{SoftwareTee, VtpmGuest},
};
use contrast_manifest::{
    Manifest, ManifestDocument, ReferenceValues, SnpReferenceValue, VtpmDocument,
};

use crate::{
    attestation::{outcome, software::insecure_deployment},
    context::Context,
};

const DATA: ReportData = ReportData([5; 64]);

/// A directory with a software TEE and a manifest that pins it, for guests with a virtual TPM whose PCR 4 has the software guest's value.
fn context() -> (Context, VtpmGuest) {
    let context = insecure_deployment();
    let bytes = fs::read(context.path("manifest.json")).expect("manifest");
    let mut document = ManifestDocument::from_json(&bytes).expect("manifest");
    let tee = SoftwareTee::open(&context.path("tee")).expect("software TEE");
    let policy = *Manifest::parse(&bytes)
        .expect("valid")
        .coordinators()
        .first()
        .expect("one");
    let guest = tee.vtpm_guest(Tee::Snp, policy).expect("guest");
    let snp = document.reference_values.insecure[0].snp.as_mut();
    snp.expect("SNP").vtpm = Some(VtpmDocument {
        pcrs: [("4".to_owned(), hex::encode(guest.pcrs[&4]))].into(),
    });
    context.file("manifest.json", &document.to_json());
    (context, guest)
}

/// Writes every part of evidence into a file of its own.
fn write_parts(context: &Context, evidence: &VtpmEvidence) {
    let write = |name: &str, bytes: &[u8]| fs::write(context.path(name), bytes).expect("written");
    write("hcl", &evidence.hcl_report);
    write("quote", &evidence.tpm_quote);
    // TPMT_SIGNATURE: RSASSA, SHA-256, size.
    let signature = [
        &[0x00, 0x14, 0x00, 0x0B, 0x01, 0x00],
        evidence.tpm_signature.as_slice(),
    ];
    write("signature", &signature.concat());
    let VtpmHardware::Snp(certificates) = &evidence.hardware else {
        panic!("SNP");
    };
    let pem = |der: &Vec<u8>| pem::encode(&pem::Pem::new("CERTIFICATE", der.clone()));
    let thim = serde_json::json!({
        "vcekCert": pem(&certificates.vek),
        "tcbm": "0",
        "certificateChain": pem(&certificates.ask) + &pem(&certificates.ark),
        "cacheControl": "86400",
    });
    write("thim.json", thim.to_string().as_bytes());
}

fn pcrs(values: &[(u8, [u8; 32])]) -> String {
    let lines = values
        .iter()
        .map(|(index, value)| format!("    {index:<2}: 0x{}\n", hex::encode_upper(value)));
    format!(
        "  sha1:\n    4 : 0x{}\n  sha256:\n{}",
        "00".repeat(20),
        lines.collect::<String>()
    )
}

fn issue(guest: &VtpmGuest) -> VtpmEvidence {
    match guest.issue(&DATA).expect("issues") {
        Evidence::Vtpm(evidence) => evidence,
        _ => panic!("vTPM evidence"),
    }
}

#[test]
fn files_of_tpm_tools_meet_a_manifest_and_other_pcr_values_do_not() {
    let (context, guest) = context();
    write_parts(&context, &issue(&guest));
    let (boot, policy) = (guest.pcrs[&4], guest.pcrs[&8]);
    context.file("pcrs", &pcrs(&[(0, [0; 32]), (4, boot), (8, policy)]));
    let data = hex::encode(DATA.0);
    let verify = [
        "attestation",
        "verify",
        "--azure",
        "hcl",
        "--vek",
        "thim.json",
        "--chain",
        "thim.json",
        "--tpm-quote",
        "quote",
        "--tpm-signature",
        "signature",
        "--tpm-pcrs",
        "pcrs",
    ];
    let with_manifest = [verify.as_slice(), &["--manifest", "manifest.json"]].concat();
    let (code, stdout, stderr) = outcome(&context, &with_manifest);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("INSECURE"), "{stdout}");
    let bound = [with_manifest.as_slice(), &["--report-data", &data]].concat();
    assert_eq!(outcome(&context, &bound).0, 0);
    let other = "06".repeat(64);
    let unbound = [with_manifest.as_slice(), &["--report-data", &other]].concat();
    let (code, _, stderr) = outcome(&context, &unbound);
    assert_eq!(code, 3);
    assert!(
        stderr.contains("not verified: TPM quote extraData"),
        "{stderr}"
    );
    // Only the root is not AMD's.
    let (code, stdout, stderr) = outcome(&context, &verify);
    assert_eq!(code, 3);
    assert!(stderr.contains("not verified: ARK"), "{stderr}");
    assert!(stdout.contains("TPM quote pcrDigest"), "{stdout}");

    context.file("pcrs", &pcrs(&[(4, [0; 32]), (8, policy)]));
    let (code, _, stderr) = outcome(&context, &with_manifest);
    assert_eq!(code, 3);
    assert!(stderr.contains("TPM quote pcrDigest, PCR 4"), "{stderr}");

    context.file("pcrs", &pcrs(&[(4, boot)]));
    let (code, _, stderr) = outcome(&context, &with_manifest);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("the quote covers PCR 8, and --tpm-pcrs has no"),
        "{stderr}"
    );
}

#[test]
fn a_manifest_needs_the_pcrs_and_the_error_says_so() {
    let (context, guest) = context();
    write_parts(&context, &issue(&guest));
    let verify = [
        "attestation",
        "verify",
        "--azure",
        "hcl",
        "--vek",
        "thim.json",
        "--manifest",
        "manifest.json",
    ];
    let (code, _, stderr) = outcome(&context, &verify);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("expected --tpm-quote, --tpm-signature and --tpm-pcrs beside --azure"),
        "{stderr}"
    );
}

#[test]
fn an_evidence_file_is_shown_and_verified() {
    let (context, guest) = context();
    let evidence = Evidence::Vtpm(issue(&guest));
    fs::write(context.path("evidence"), evidence.encode()).expect("written");
    let (code, stdout, stderr) = outcome(&context, &["attestation", "inspect", "evidence"]);
    assert_eq!(code, 0, "{stderr}");
    for expected in [
        "kind: SEV-SNP evidence through a virtual TPM",
        "kind: SEV-SNP attestation report",
        "quoted_pcrs: 4, 8",
        &format!("4: {}", hex::encode(guest.pcrs[&4])),
        "pcr_digest_fits_values: true",
    ] {
        assert!(stdout.contains(expected), "{expected} in\n{stdout}");
    }
    let verify = [
        "attestation",
        "verify",
        "evidence",
        "--manifest",
        "manifest.json",
    ];
    let (code, stdout, stderr) = outcome(&context, &verify);
    assert_eq!(code, 0, "{stdout}{stderr}");
}

#[test]
fn fill_proposes_pcrs_and_leaves_entries_for_direct_evidence_alone() {
    let (context, mut guest) = context();
    guest.pcrs.insert(11, [7; 32]);
    let evidence = Evidence::Vtpm(issue(&guest));
    fs::write(context.path("evidence"), evidence.encode()).expect("written");
    let direct = SnpReferenceValue {
        product_name: "Milan".into(),
        trusted_measurement: Some("11".repeat(48)),
        ..SnpReferenceValue::default()
    };
    let through = SnpReferenceValue {
        product_name: "Milan".into(),
        vtpm: Some(VtpmDocument {
            pcrs: [("11".to_owned(), String::new())].into(),
        }),
        ..SnpReferenceValue::default()
    };
    let document = ManifestDocument {
        reference_values: ReferenceValues {
            snp: vec![direct.clone(), through],
            ..ReferenceValues::default()
        },
        ..ManifestDocument::default()
    };
    context.file("manifest.json", &document.to_json());
    let (code, stdout, stderr) = outcome(&context, &["manifest", "fill", "evidence"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("snp[1] VTPM.PCRs.4: "), "{stdout}");
    let bytes = fs::read(context.path("manifest.json")).expect("manifest");
    let filled = ManifestDocument::from_json(&bytes).expect("manifest");
    let [first, second] = filled.reference_values.snp.as_slice() else {
        panic!("two entries");
    };
    assert_eq!(*first, direct);
    let pcrs = &second.vtpm.as_ref().expect("VTPM").pcrs;
    assert_eq!(
        pcrs.iter().collect::<Vec<_>>(),
        [
            (&"11".to_owned(), &"07".repeat(32)),
            (&"4".to_owned(), &hex::encode(guest.pcrs[&4])),
        ]
    );
    assert!(second.trusted_measurement.is_some());

    // Direct evidence does not fill an entry for virtual TPMs.
    let only = ManifestDocument {
        reference_values: ReferenceValues {
            snp: vec![second.clone()],
            ..ReferenceValues::default()
        },
        ..ManifestDocument::default()
    };
    context.file("manifest.json", &only.to_json());
    let tee = SoftwareTee::open(&context.path("tee")).expect("software TEE");
    let direct = tee
        .snp_guest(PolicyHash([1; 32]))
        .issue(&DATA)
        .expect("issues");
    fs::write(context.path("evidence"), direct.encode()).expect("written");
    let (code, _, stderr) = outcome(&context, &["manifest", "fill", "evidence"]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("has no reference value for SEV-SNP on Milan"),
        "{stderr}"
    );
}
