//! Kubernetes YAML: read, patch, write.
//!
//! A [`YamlFile`] keeps the user's text. Reading goes through a parser that knows where every node stands; writing compares
//! what a document says with what it is to say and replaces just the characters it has to, so that comments, order, quoting,
//! anchors, line ends, a byte order mark and a missing last newline stay. JSON stays JSON. What was written is parsed again
//! and must say what was intended, everywhere in the document, or the edit is an error: so a value that is shared through an
//! alias never changes behind the user's back.
//!
//! Documents of kinds that this crate does not know are never touched.
//!
//! Scalars are read as Kubernetes reads them (YAML 1.1 for booleans: `yes`, `no`, `on`, `off` count). A key that stands twice
//! in a mapping, nesting deeper than 128 levels, more than a million nodes (aliases counted as often as they are used) and
//! files above [`FILE_MAX`] are refused.

mod align;
mod emit;
mod error;
mod file;
mod flow;
mod kinds;
mod node;
mod parse;
mod position;
mod split;
mod step;
mod text;
mod update;
mod work;

pub use error::ResourceError;
pub use file::{Document, FILE_MAX, YamlFile};
pub use kinds::{CustomTemplate, CustomTemplateError, WorkloadKind, pod_template_path};
pub use position::{Position, Positions};
pub use step::{Step, show};
