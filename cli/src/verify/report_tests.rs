use contrast_manifest::Manifest;

use super::*;
use crate::verify::meaning::Kind;

#[test]
fn text_and_json_come_from_the_same_rows() {
    let manifest = Manifest::parse(include_bytes!("../../tests/data/manifest.json"));
    let mut checks = Rows::default();
    checks.equal(Kind::RootCa, "root CA public key", "aa", "aa");
    checks.equal(Kind::NewestManifest, "newest manifest", "01", "02");
    let report = Report {
        insecure: true,
        latest_transition: Some(TransitionHash([7; 32])),
        files: vec!["verify/manifest.0.json".into()],
        ..Report::new(
            "coordinator:1313".into(),
            &manifest.expect("valid"),
            SystemTime::UNIX_EPOCH,
            checks,
        )
    };
    assert_eq!(report.verdict, Verdict::Refused);
    let mut text = Vec::new();
    report.text(&mut text, Paint::Plain).expect("text");
    insta::assert_snapshot!("report_text", String::from_utf8(text).expect("UTF-8"));
    insta::assert_snapshot!(
        "report_json",
        serde_json::to_string_pretty(&report).expect("JSON")
    );
}
