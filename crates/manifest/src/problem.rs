use std::fmt;

use crate::JsonPath;

/// What kind of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// Something that is there is wrong.
    Malformed,
    /// A reference value is missing that only the operator can know, for example a minimum TCB. `generate` writes manifests
    /// with such gaps; nobody accepts them.
    FillIn,
}

/// One thing that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, for example `$.Policies["ab…"].SANs[0]`.
    pub path: JsonPath,
    /// What was expected, what was found, what to do.
    pub message: String,
    /// Wrong or missing.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// A manifest was refused; lists every problem: first of shape (duplicate, mistyped, unknown fields), then of meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    problems: Vec<Problem>,
}

impl ManifestError {
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    pub(crate) fn single(path: JsonPath, message: String) -> Self {
        Self::new(vec![Problem {
            path,
            message,
            kind: ProblemKind::Malformed,
        }])
    }

    /// All problems.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether all that is wrong are reference values that the operator still has to fill in.
    pub fn only_gaps(&self) -> bool {
        self.problems
            .iter()
            .all(|problem| problem.kind == ProblemKind::FillIn)
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(f, "the manifest is not valid: {problem}"),
            problems => {
                write!(f, "the manifest has {} problems:", problems.len())?;
                problems
                    .iter()
                    .try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ManifestError {}

/// Collects problems while a document is checked.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<Problem>,
    /// Nodes whose problem is known; what they lack in consequence is not reported again.
    settled: Vec<JsonPath>,
}

impl Problems {
    pub(crate) fn new(found: Vec<Problem>, settled: Vec<JsonPath>) -> Self {
        Self { found, settled }
    }

    pub(crate) fn malformed(&mut self, path: &JsonPath, message: impl Into<String>) {
        self.add(path, message.into(), ProblemKind::Malformed);
    }

    pub(crate) fn fill_in(&mut self, path: &JsonPath, message: impl Into<String>) {
        self.add(path, message.into(), ProblemKind::FillIn);
    }

    fn add(&mut self, path: &JsonPath, message: String, kind: ProblemKind) {
        if !self.settled.iter().any(|settled| path.starts_with(settled)) {
            self.found.push(Problem {
                path: path.clone(),
                message,
                kind,
            });
        }
    }

    pub(crate) fn into_found(self) -> Vec<Problem> {
        self.found
    }
}
