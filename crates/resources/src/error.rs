/// A file could not be read or patched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResourceError {
    /// Not YAML.
    #[error("line {line}, column {column}: not YAML: {reason}\n  {line} | {shown}")]
    NotYaml {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        reason: String,
        /// The line, or its beginning.
        shown: String,
    },
    /// A template that makes YAML.
    #[error(
        "line {line} is a template (`{{{{`), not YAML: run `helm template` or what else renders it, and use its output"
    )]
    Template {
        /// Line, from 1.
        line: usize,
    },
    /// YAML, but no Kubernetes object.
    #[error("document {index} (line {line}) is not a Kubernetes object: {reason}")]
    NotKubernetes {
        /// Number of the document in the file, from 1.
        index: usize,
        /// Line where it starts, from 1.
        line: usize,
        /// What is missing.
        reason: String,
        /// Whether the file has other documents that are objects.
        objects: bool,
    },
    /// YAML that no JSON object is like: a key twice, an alias without its anchor, nesting or aliases without end.
    #[error("line {line}, column {column}: {reason}")]
    Structure {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// More text than is read.
    #[error("it has {found} bytes; at most {limit} are read, split the file")]
    TooLarge {
        /// Bytes of the file.
        found: u64,
        /// Most bytes of a file.
        limit: u64,
    },
    /// A patch cannot be applied here.
    #[error("cannot change `{path}` (line {line}): {reason}")]
    Patch {
        /// Path in the document, for example `spec.template.spec.containers[0]`.
        path: String,
        /// Line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
}

impl ResourceError {
    /// The same error for a text that starts `lines` lines further down in a file.
    pub(crate) fn below(mut self, lines: usize) -> Self {
        match &mut self {
            Self::NotYaml { line, .. }
            | Self::Template { line }
            | Self::NotKubernetes { line, .. }
            | Self::Structure { line, .. }
            | Self::Patch { line, .. } => *line = line.saturating_add(lines),
            Self::TooLarge { .. } => {}
        }
        self
    }
}
