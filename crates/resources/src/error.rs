/// A file could not be read or patched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResourceError {
    /// Not YAML.
    #[error("line {line}, column {column}: not YAML: {reason}")]
    NotYaml {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        reason: String,
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
    },
    /// An alias without its anchor, or nesting without end.
    #[error("line {line}: {reason}")]
    Structure {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
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
