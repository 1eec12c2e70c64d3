//! Every check of a verification as a row with its meaning, and one verdict.

use contrast_attestation::{
    AppraisalReport, Check, VerifiedEvidence, printable, specification::rule_of,
};
use contrast_manifest::Manifest;
use serde::Serialize;

use crate::meaning::Kind;

/// One comparison. None of its texts holds a character that [`printable`] replaces: manifests and evidence are quoted in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Which kind of comparison this is.
    pub kind: Kind,
    /// What was compared.
    pub name: String,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
    /// Whether `found` satisfies `expected`.
    pub passed: bool,
    /// What the comparison is for, and what it means when it fails.
    pub meaning: &'static str,
    /// Most likely cause and remedy when it failed; empty when there is none to give.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hint: &'static str,
}

/// Rows in the order in which they were made. A failed row never stops the ones after it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Rows(Vec<Row>);

impl Rows {
    /// Records a comparison.
    pub fn record(
        &mut self,
        kind: Kind,
        name: impl AsRef<str>,
        expected: impl AsRef<str>,
        found: impl AsRef<str>,
        passed: bool,
    ) {
        self.0.push(Row {
            kind,
            name: printable(name.as_ref()).into_owned(),
            expected: printable(expected.as_ref()).into_owned(),
            found: printable(found.as_ref()).into_owned(),
            passed,
            meaning: kind.meaning(),
            hint: "",
        });
    }

    /// Records that two texts must be equal.
    pub fn equal(
        &mut self,
        kind: Kind,
        name: impl AsRef<str>,
        expected: impl AsRef<str>,
        found: impl AsRef<str>,
    ) {
        let (expected, found) = (expected.as_ref(), found.as_ref());
        self.record(kind, name, expected, found, expected == found);
    }

    /// Records evidence that was accepted.
    pub fn accepted(&mut self, manifest: &Manifest, evidence: &VerifiedEvidence) {
        let found = format!("{} ({} evidence)", evidence.reference(), evidence.tee());
        let expected = "meets a reference value";
        self.record(
            Kind::Evidence,
            "Coordinator evidence",
            expected,
            found,
            true,
        );
        let coordinators = manifest.coordinators();
        let expected: Vec<String> = coordinators.iter().map(ToString::to_string).collect();
        self.record(
            Kind::Policy,
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
                self.record(Kind::of_field(field), name, expected, found, *passed);
                if let (false, Some(rule), Some(row)) = (passed, rule_of(field), self.0.last_mut())
                {
                    row.hint = rule.hint;
                }
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
        rows.equal(Kind::Link, "a", "1", "1");
        assert!(rows.passed());
        rows.equal(Kind::Link, "b", "1", "2");
        rows.equal(Kind::Link, "c", "3", "3");
        assert!(!rows.passed());
        let failed: Vec<_> = rows.failed().map(|row| row.name.as_str()).collect();
        assert_eq!(failed, ["b"]);
    }

    #[test]
    fn quoted_text_cannot_forge_a_row() {
        let mut rows = Rows::default();
        rows.record(Kind::Memory, "a\nok", "\u{1b}[2J", "\u{202e}", false);
        let row = &rows.all()[0];
        let found = [&row.name, &row.expected, &row.found];
        assert_eq!(found, ["a\\u{a}ok", "\\u{1b}[2J", "\\u{202e}"]);
    }
}
