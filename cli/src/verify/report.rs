//! Every check of `contrast verify` as a row, and one verdict.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use contrast_attestation::{AppraisalReport, Check, VerifiedEvidence};
use contrast_manifest::Manifest;
use serde::Serialize;

use crate::{
    output::{Paint, Render},
    transition::TransitionHash,
};

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was compared.
    pub name: String,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
    /// Whether `found` satisfies `expected`.
    pub passed: bool,
}

/// Rows in the order in which they were made. A failed row never stops the ones after it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Rows(Vec<Row>);

impl Rows {
    /// Records a comparison.
    pub fn record(
        &mut self,
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        passed: bool,
    ) {
        let (name, expected, found) = (name.into(), expected.into(), found.into());
        self.0.push(Row {
            name,
            expected,
            found,
            passed,
        });
    }

    /// Records that two texts must be equal.
    pub fn equal(
        &mut self,
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        let (expected, found) = (expected.into(), found.into());
        let passed = expected == found;
        self.record(name, expected, found, passed);
    }

    /// Records evidence that was accepted.
    pub fn accepted(&mut self, manifest: &Manifest, evidence: &VerifiedEvidence) {
        let found = format!("{} ({} evidence)", evidence.reference(), evidence.tee());
        self.record(
            "Coordinator evidence",
            "meets a reference value",
            found,
            true,
        );
        let coordinators = manifest.coordinators();
        let expected: Vec<String> = coordinators.iter().map(ToString::to_string).collect();
        self.record(
            "Coordinator policy",
            expected.join(" or "),
            evidence.policy_hash().to_string(),
            coordinators.contains(&evidence.policy_hash()),
        );
    }

    /// Records evidence that was refused, with every check of every reference value.
    pub fn refused(&mut self, report: &AppraisalReport) {
        for set in &report.sets {
            for Check {
                field,
                expected,
                found,
                passed,
            } in set.checks.checks()
            {
                let name = format!("{}: {field}", set.name);
                self.record(name, expected.clone(), found.clone(), *passed);
            }
        }
    }

    /// All rows.
    pub fn all(&self) -> &[Row] {
        &self.0
    }

    /// The rows that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(|row| !row.passed)
    }

    /// Whether there are rows and none failed.
    pub fn passed(&self) -> bool {
        !self.0.is_empty() && self.failed().next().is_none()
    }

    /// Appends the rows of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// What `verify` concludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every check passed.
    Verified,
    /// At least one check failed.
    Refused,
}

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
            verdict: if checks.passed() {
                Verdict::Verified
            } else {
                Verdict::Refused
            },
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
    fn nothing_checked_is_not_verified() {
        assert!(!Rows::default().passed());
    }

    #[test]
    fn one_failed_row_decides() {
        let mut rows = Rows::default();
        rows.equal("a", "1", "1");
        assert!(rows.passed());
        rows.equal("b", "1", "2");
        rows.equal("c", "3", "3");
        assert!(!rows.passed());
        assert_eq!(
            rows.failed()
                .map(|row| row.name.as_str())
                .collect::<Vec<_>>(),
            ["b"]
        );
    }

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
