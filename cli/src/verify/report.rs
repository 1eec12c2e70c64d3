//! Every check of `contrast verify` as a row, and one verdict.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use contrast_manifest::Manifest;
pub use contrast_sdk::rows::{Row, Rows, Verdict};
use serde::Serialize;

use crate::{
    output::{Paint, Render},
    transition::TransitionHash,
};

/// The result of `contrast verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The one answer.
    pub verdict: Verdict,
    /// Whether the manifest accepts a software TEE, so that the verdict proves nothing about hardware.
    pub insecure: bool,
    /// The Coordinator, `HOST:PORT`.
    pub coordinator: String,
    /// SHA-256 of the given manifest, hex.
    pub manifest_sha256: String,
    /// The Coordinator's latest transition; none when it did not get that far.
    pub latest_transition: Option<TransitionHash>,
    /// Every check.
    pub checks: Rows,
    /// Files that were written.
    pub files: Vec<PathBuf>,
}

impl Report {
    /// Concludes from the rows.
    pub fn new(coordinator: String, manifest: &Manifest, checks: Rows) -> Self {
        Self {
            verdict: checks.verdict(),
            insecure: manifest.accepts_insecure_evidence(),
            coordinator,
            manifest_sha256: manifest.hash().to_string(),
            latest_transition: None,
            checks,
            files: Vec::new(),
        }
    }
}

/// What the user must know about a manifest that accepts a software TEE.
pub const INSECURE_BANNER: &str = "\
INSECURE: this manifest accepts evidence of a software TEE.
INSECURE: whoever holds its keys can read and change everything. Use it for development only.";

impl Render for Report {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        if self.insecure {
            writeln!(out, "{}\n", paint.alarming(INSECURE_BANNER))?;
        }
        for row in self.checks.all() {
            let Row {
                name,
                expected,
                found,
                ..
            } = row;
            match row.passed {
                true => writeln!(out, "{}  {name}: {found}", paint.good("ok  "))?,
                false => writeln!(
                    out,
                    "{}  {name}\n        expected: {expected}\n        found:    {found}",
                    paint.bad("FAIL")
                )?,
            }
        }
        writeln!(out)?;
        let (total, failed) = (self.checks.all().len(), self.checks.failed().count());
        match self.verdict {
            Verdict::Verified => {
                let qualifier = if self.insecure { " (INSECURE)" } else { "" };
                let word = paint.good(&format!("verified{qualifier}"));
                writeln!(
                    out,
                    "{word}: {} enforces exactly this manifest, all {total} checks passed",
                    self.coordinator
                )?;
            }
            Verdict::Refused => {
                let word = paint.bad("refused");
                writeln!(out, "{word}: {failed} of {total} checks failed")?;
            }
        }
        if let Some(transition) = self.latest_transition {
            writeln!(out, "latest transition: {transition}")?;
        }
        for file in &self.files {
            writeln!(out, "wrote {}", file.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_come_from_the_same_rows() {
        let mut checks = Rows::default();
        checks.equal("root CA public key", "aa", "aa");
        checks.equal("newest manifest", "01", "02");
        let report = Report {
            verdict: Verdict::Refused,
            insecure: true,
            coordinator: "coordinator:1313".into(),
            manifest_sha256: "01".into(),
            latest_transition: Some(TransitionHash([7; 32])),
            checks,
            files: vec!["verify/manifest.0.json".into()],
        };
        let mut text = Vec::new();
        report.text(&mut text, Paint::Plain).expect("text");
        insta::assert_snapshot!("report_text", String::from_utf8(text).expect("UTF-8"));
        insta::assert_snapshot!(
            "report_json",
            serde_json::to_string_pretty(&report).expect("JSON")
        );
    }
}
