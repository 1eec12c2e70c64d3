//! `contrast insecure-tee init`.

use crate::context::Context;

#[test]
fn creates_a_software_tee_with_a_warning() {
    let context = Context::new();
    let output = context.output(&["insecure-tee", "init", "tee", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("warning: INSECURE"),
        "{output:?}"
    );
    let created: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(created["insecure"], true);
    assert_eq!(created["snp_root_sha256"].as_str().map(str::len), Some(64));
    assert_ne!(created["snp_root_sha256"], created["tdx_root_sha256"]);
    let tee =
        contrast_attestation::software::SoftwareTee::open(&context.path("tee")).expect("opens");
    let root = hex::encode(tee.root_sha256(contrast_attestation::Tee::Snp));
    assert_eq!(created["snp_root_sha256"], root.as_str());
}

#[test]
fn never_replaces_what_is_there() {
    let context = Context::new();
    context.file("tee/keep", "precious");
    insta::assert_snapshot!("not_empty", context.run(&["insecure-tee", "init", "tee"]));
    context.file("file", "precious");
    insta::assert_snapshot!(
        "not_a_directory",
        context.run(&["insecure-tee", "init", "file"])
    );
}

#[test]
fn help_says_that_it_is_insecure() {
    let context = Context::new();
    insta::assert_snapshot!(
        "help_insecure-tee",
        context.run(&["insecure-tee", "--help"])
    );
    let init = context.run(&["insecure-tee", "init", "--help"]);
    insta::assert_snapshot!("help_insecure-tee_init", init);
}
