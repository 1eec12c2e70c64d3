//! Every check of a verification as a row, and one verdict.

use contrast_attestation::{AppraisalReport, Check, VerifiedEvidence};
use contrast_manifest::Manifest;
use serde::Serialize;

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

    /// What follows from the rows.
    pub fn verdict(&self) -> Verdict {
        match self.passed() {
            true => Verdict::Verified,
            false => Verdict::Refused,
        }
    }

    /// Appends the rows of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// What a verifier concludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every check passed.
    Verified,
    /// At least one check failed.
    Refused,
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
}
