//! Paths into a document.

use std::fmt::Write as _;

use serde_json::Value;

/// One step of a path into a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Entry of a mapping.
    Key(String),
    /// Item of a sequence, from 0.
    Index(usize),
}

impl Step {
    /// Entry `key` of a mapping.
    pub fn key(key: &str) -> Self {
        Self::Key(key.to_owned())
    }

    /// The value behind this step, if there is one.
    pub fn of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Key(key) => value.get(key),
            Self::Index(index) => value.get(index),
        }
    }
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::key(key)
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A path as people write it: `spec.containers[0].name`; the empty one as `the document`.
pub fn show(path: &[Step]) -> String {
    if path.is_empty() {
        return "the document".to_owned();
    }
    let mut text = String::new();
    for step in path {
        // Writing to a `String` cannot fail.
        let _ = match step {
            Step::Key(key) if text.is_empty() => write!(text, "{key}"),
            Step::Key(key) => write!(text, ".{key}"),
            Step::Index(index) => write!(text, "[{index}]"),
        };
    }
    text
}
