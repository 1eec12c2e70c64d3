//! The result of `contrast verify`, for the terminal and as JSON.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::SystemTime,
};

use contrast_attestation::printable;
use contrast_manifest::Manifest;
use serde::Serialize;

use super::{
    facts::{Allowed, Authorities, EvidenceFacts, shown_time},
    rows::{Row, Rows},
    steps::{Changes, Event, Step},
};
use crate::{
    output::{Paint, Render},
    transition::TransitionHash,
};

pub use super::rows::Verdict;

/// The result of `contrast verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The one answer.
    pub verdict: Verdict,
    /// Whether the manifest accepts a software TEE, so that the verdict proves nothing about hardware.
    pub insecure: bool,
    /// When the checks were made, RFC 3339.
    pub verified_at: String,
    /// The Coordinator: `HOST:PORT`, the URL of its attest API, or words with the file that its answer was in.
    pub coordinator: String,
    /// SHA-256 of the given manifest, hex.
    pub manifest_sha256: String,
    /// The Coordinator's latest transition; none when it did not get that far.
    pub latest_transition: Option<TransitionHash>,
    /// The evidence; none when it was refused.
    pub evidence: Option<EvidenceFacts>,
    /// The CA certificates; none when it did not get that far.
    pub authorities: Option<Authorities>,
    /// What the given manifest allows.
    pub allowed: Allowed,
    /// How the manifest in force (after) differs from the given one (before); none when they are the same, or it did not get that far.
    pub difference: Option<Changes>,
    /// The history, oldest first; empty when it did not get that far.
    pub history: Vec<Step>,
    /// Every check.
    pub checks: Rows,
    /// Files that were written.
    pub files: Vec<PathBuf>,
}

impl Report {
    /// Concludes from the rows.
    pub fn new(
        coordinator: String,
        manifest: &Manifest,
        verified_at: SystemTime,
        checks: Rows,
    ) -> Self {
        Self {
            verdict: checks.verdict(),
            insecure: manifest.accepts_insecure_evidence(),
            verified_at: shown_time(verified_at),
            coordinator,
            manifest_sha256: manifest.hash().to_string(),
            latest_transition: None,
            evidence: None,
            authorities: None,
            allowed: Allowed::of(manifest),
            difference: None,
            history: Vec::new(),
            checks,
            files: Vec::new(),
        }
    }

    /// The history in one line, for example `3 transitions: 1 first manifest, 1 update, 1 recovery`.
    pub fn history_in_short(&self) -> String {
        let plural = |count: usize, one: &str, more: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {more}"),
        };
        let count = |event| {
            let steps = self.history.iter();
            steps.filter(|step| step.event == event).count()
        };
        let parts = [
            (Event::First, "first manifest", "first manifests"),
            (Event::Update, "update", "updates"),
            (Event::Recovery, "recovery", "recoveries"),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(event, ..)| count(*event) > 0)
            .map(|(event, one, more)| plural(count(event), one, more))
            .collect();
        let total = plural(self.history.len(), "transition", "transitions");
        format!("{total}: {}", parts.join(", "))
    }
}

/// What the user must know about a deployment that accepts a software TEE, or did.
pub const INSECURE_BANNER: &str = "\
INSECURE: this manifest, or an earlier one of the deployment, accepts evidence of a software TEE.
INSECURE: whoever holds its keys can have the seed, and read and change everything. Use it for development only.";

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
                meaning,
                ..
            } = row;
            match row.passed {
                true => writeln!(out, "{}  {name}: {found}", paint.good("ok  "))?,
                false => writeln!(
                    out,
                    "{}  {name}\n        expected: {expected}\n        found:    {found}\n        meaning:  {meaning}",
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
        if !self.history.is_empty() {
            writeln!(out, "history: {}", self.history_in_short())?;
        }
        for file in &self.files {
            // Of a workspace whose name somebody else may have chosen.
            writeln!(out, "wrote {}", printable(&file.display().to_string()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
