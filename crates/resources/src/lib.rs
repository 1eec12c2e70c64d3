//! Kubernetes YAML: read, patch, write.
//!
//! A [`YamlFile`] keeps the user's text. Reading goes through a parser that knows where every node stands; a patch replaces
//! just the characters it has to, so that comments, order, quoting and anchors stay. After every patch the text is parsed
//! again and must say what was intended, or the patch is an error.
//!
//! Documents of kinds that this crate does not know are never touched.
//!
//! Scalars are read as Kubernetes reads them (YAML 1.1 for booleans: `yes`, `no`, `on`, `off` count).

mod emit;
mod error;
mod file;
mod kinds;
mod node;
mod parse;
mod patch;

pub use error::ResourceError;
pub use file::{Document, YamlFile};
pub use kinds::{WorkloadKind, pod_template_path};
pub use patch::Step;
