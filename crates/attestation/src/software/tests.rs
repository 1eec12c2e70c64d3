use std::{fs, path::Path, time::SystemTime};

use aws_lc_rs::digest::{SHA256, digest};

use super::{
    SoftwareTee, SoftwareTeeError,
    fixture::{now, software_tee},
};
use crate::{
    EvidenceVerifier, Issuer, IssuerConfig, PlatformError, PolicyHash, ReportData, Tee, Verifier,
};

const REPORT_DATA: ReportData = ReportData([3; 64]);

#[test]
fn a_saved_tee_opens_as_the_same_tee() {
    let directory = tempfile::tempdir().expect("directory");
    let saved = software_tee();
    saved.save(directory.path()).expect("saves");
    let opened = SoftwareTee::open(directory.path()).expect("opens");
    for tee in [Tee::Snp, Tee::Tdx] {
        assert_eq!(opened.root_sha256(tee), saved.root_sha256(tee));
    }
    let policy = PolicyHash([1; 32]);
    let evidence = opened
        .snp_guest(policy)
        .issue(&REPORT_DATA)
        .expect("issues");
    let verifier = Verifier::new(vec![saved.reference_value(Tee::Snp)], [policy]);
    verifier
        .verify(&evidence, &REPORT_DATA, now())
        .expect("accepted under the saved root");
}

#[cfg(unix)]
#[test]
fn files_are_readable_by_their_owner_only_and_never_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().expect("directory");
    let directory = parent.path().join("tee");
    software_tee().save(&directory).expect("saves");
    assert_eq!(mode(&directory), 0o700);
    for entry in fs::read_dir(&directory).expect("lists") {
        assert_eq!(mode(&entry.expect("entry").path()), 0o600);
    }
    let error = software_tee().save(&directory).expect_err("refuses");
    assert!(matches!(error, SoftwareTeeError::Write { .. }), "{error}");

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    software_tee().save(directory.path()).expect("saves");
    let file = |name: &str| directory.path().join(name);
    fs::copy(file("snp-ark.key.pem"), file("snp-ask.key.pem")).expect("copies");
    let error = SoftwareTee::open(directory.path())
        .expect_err("refuses")
        .to_string();
    assert!(
        error.contains("snp-ask.crt.pem holds no certificate of the key beside it"),
        "{error}"
    );
}

#[test]
fn times_that_no_certificate_can_state_are_errors() {
    let error = SoftwareTee::generate(SystemTime::UNIX_EPOCH).expect_err("an hour before 1970");
    assert!(matches!(error, SoftwareTeeError::Time { .. }), "{error}");
}

#[test]
fn without_a_tee_the_error_names_every_interface_and_the_variable() {
    let config = IssuerConfig {
        software_tee: None,
        software_kind: Tee::Snp,
        initdata: None,
    };
    let error = config.issuer().expect_err("no TEE").to_string();
    for part in [
        "/sys/kernel/config/tsm/report: ",
        "/dev/sev-guest: ",
        "/dev/tdx_guest: ",
        "CONTRAST_INSECURE_SOFTWARE_TEE",
    ] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn missing_initdata_and_missing_files_are_told_apart() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().to_owned();
    let mut config = IssuerConfig {
        software_tee: Some(path.clone()),
        software_kind: Tee::Snp,
        initdata: None,
    };
    assert!(matches!(config.issuer(), Err(PlatformError::NoInitdata)));
    config.initdata = Some(path.join("absent"));
    let error = config.issuer().expect_err("absent").to_string();
    assert!(error.contains("CONTRAST_INSECURE_INITDATA"), "{error}");
    fs::write(path.join("absent"), "document").expect("writes");
    let error = config.issuer().expect_err("empty directory");
    assert!(
        matches!(error, PlatformError::SoftwareTee { .. }),
        "{error}"
    );
}

#[test]
fn the_policy_is_the_hash_of_the_initdata_document() {
    let directory = tempfile::tempdir().expect("directory");
    software_tee().save(directory.path()).expect("saves");
    let initdata = directory.path().join("initdata.toml");
    fs::write(&initdata, "version = \"0.1.0\"\n").expect("writes");
    let config = IssuerConfig {
        software_tee: Some(directory.path().to_owned()),
        software_kind: Tee::Snp,
        initdata: Some(initdata),
    };
    let evidence = config
        .issuer()
        .expect("configured")
        .issue(&REPORT_DATA)
        .expect("issues");

    let mut policy = PolicyHash([0; 32]);
    policy
        .0
        .copy_from_slice(digest(&SHA256, b"version = \"0.1.0\"\n").as_ref());
    let verifier = Verifier::new(vec![software_tee().reference_value(Tee::Snp)], [policy]);
    let verified = verifier
        .verify(&evidence, &REPORT_DATA, now())
        .expect("accepted");
    assert_eq!(verified.policy_hash(), policy);
}
