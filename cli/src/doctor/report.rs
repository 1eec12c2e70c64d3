//! What was found, as rows.

use std::io::{self, Write};

use serde::Serialize;

use crate::output::{Paint, Render};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Good,
    /// It works, but look at it.
    Warning,
    /// Something will not work.
    Failed,
    /// It could not be looked at, for a reason that another row gives or that was asked for.
    Skipped,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What.
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it; empty when nothing.
    pub(crate) hint: String,
}

impl Check {
    fn new(name: &str, outcome: Outcome, found: impl Into<String>, hint: &str) -> Self {
        Self {
            name: name.to_owned(),
            outcome,
            found: found.into(),
            hint: hint.to_owned(),
        }
    }

    pub(super) fn good(name: &str, found: impl Into<String>) -> Self {
        Self::new(name, Outcome::Good, found, "")
    }

    pub(super) fn warning(name: &str, found: impl Into<String>, hint: &str) -> Self {
        Self::new(name, Outcome::Warning, found, hint)
    }

    pub(super) fn failed(name: &str, found: impl Into<String>, hint: &str) -> Self {
        Self::new(name, Outcome::Failed, found, hint)
    }

    pub(super) fn skipped(name: &str, why: impl Into<String>) -> Self {
        Self::new(name, Outcome::Skipped, why, "")
    }
}

/// All of them.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) checks: Vec<Check>,
}

impl Report {
    /// How many failed.
    pub(crate) fn failed(&self) -> usize {
        let failed = self
            .checks
            .iter()
            .filter(|check| check.outcome == Outcome::Failed);
        failed.count()
    }
}

impl Render for Report {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        let names = self.checks.iter().map(|check| check.name.chars().count());
        let width = names.max().unwrap_or_default();
        for check in &self.checks {
            let outcome = match check.outcome {
                Outcome::Good => paint.good("ok     "),
                Outcome::Warning => paint.alarming("warning"),
                Outcome::Failed => paint.bad("failed "),
                Outcome::Skipped => "skipped".to_owned(),
            };
            let found = check.found.replace('\n', "\n           ");
            writeln!(out, "{outcome}  {:<width$}  {found}", check.name)?;
            if !check.hint.is_empty() {
                writeln!(out, "         {:<width$}  -> {}", "", check.hint)?;
            }
        }
        Ok(())
    }
}
