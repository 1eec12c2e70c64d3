//! Findings, and how they look.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
};

use serde::Serialize;

use super::rules::Severity;
use crate::output::{Paint, Render};

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `C` and three digits.
    pub code: &'static str,
    /// The code in words.
    pub name: &'static str,
    /// How bad.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Kubernetes kind of the resource.
    pub kind: String,
    /// Its namespace; `default` if it names none.
    pub namespace: String,
    /// Its name.
    pub resource: String,
    /// The container, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What was found.
    pub found: String,
    /// What to write instead.
    pub advice: String,
    /// Where the code is described.
    pub reference: String,
}

impl Finding {
    fn place(&self) -> String {
        let container = match &self.container {
            Some(container) => format!(", container `{container}`"),
            None => String::new(),
        };
        format!(
            "{} {}/{}{container}",
            self.kind, self.namespace, self.resource
        )
    }
}

/// One line.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            line,
            column,
            found,
            advice,
            ..
        } = self;
        write!(
            f,
            "{}:{line}:{column}: {code} {}: {found}; {advice}",
            self.file.display(),
            self.place()
        )
    }
}

/// The result of `contrast lint`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was found and is not allowed.
    pub findings: Vec<Finding>,
    /// Workloads with a runtime class of Contrast.
    pub workloads: usize,
    /// Findings of severity error.
    pub errors: usize,
    /// Findings of severity warning.
    pub warnings: usize,
    /// Findings of severity advice.
    pub advice: usize,
}

impl Report {
    /// Counts.
    pub fn new(findings: Vec<Finding>, workloads: usize) -> Self {
        let count = |severity| {
            findings
                .iter()
                .filter(|finding| finding.severity == severity)
                .count()
        };
        let (errors, warnings, advice) = (
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Advice),
        );
        Self {
            findings,
            workloads,
            errors,
            warnings,
            advice,
        }
    }

    /// `1 error, 2 warnings, 0 pieces of advice in 3 confidential workloads`.
    pub fn summary(&self) -> String {
        let many = |count: usize, one: &str, several: &str| {
            format!("{count} {}", if count == 1 { one } else { several })
        };
        format!(
            "{}, {}, {} in {}",
            many(self.errors, "error", "errors"),
            many(self.warnings, "warning", "warnings"),
            many(self.advice, "piece of advice", "pieces of advice"),
            many(
                self.workloads,
                "confidential workload",
                "confidential workloads"
            ),
        )
    }
}

impl Render for Report {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        for finding in &self.findings {
            let head = format!("{}[{}]", finding.severity.word(), finding.code);
            let head = match finding.severity {
                Severity::Error => paint.bad(&head),
                Severity::Warning => paint.alarming(&head),
                Severity::Advice => paint.strong(&head),
            };
            writeln!(
                out,
                "{head} {}: {}:{}:{}",
                finding.name,
                finding.file.display(),
                finding.line,
                finding.column
            )?;
            writeln!(out, "  {}: {}", finding.place(), finding.found)?;
            writeln!(out, "  {}", finding.advice)?;
            writeln!(out, "  see {}", finding.reference)?;
        }
        writeln!(out, "{}", self.summary())
    }
}
