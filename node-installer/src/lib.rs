//! Installs the runtime for confidential pods on a node, and makes containerd know it.
//!
//! It runs privileged on each node, next to the adversary: the host. Nothing that it does is trusted by anybody: a host that installs
//! something else gets VMs with other measurements, which the Coordinator refuses. What it must not do is break a node, so everything
//! here is about that.
//!
//! - [`config`]: what is wanted, one typed document.
//! - [`tree`]: the host's files, from which no link leads out; [`host`]: its programs.
//! - [`containerd`]: the configuration of somebody else, changed without touching another byte of it.
//! - [`node`] compares what is wanted with what is there, [`plan`] says what is to be changed, [`apply()`] does it and [`uninstall()`]
//!   takes it back.

mod apply;
mod check;
mod error;
mod integrity;
mod kata;
mod lock;
mod path;
mod record;
mod restart;
mod source;
mod tee;
mod uninstall;

pub mod app;
pub mod args;
pub mod config;
pub mod containerd;
pub mod host;
pub mod node;
pub mod plan;
pub mod tree;

pub use apply::apply;
pub use check::chain;
pub use error::{Error, Rejection};
pub use host::NOT_STARTED;
pub use integrity::{Content, Differs, Integrity, NotADigest};
pub use kata::KataError;
pub use lock::{Lock, LockError};
pub use path::{HostPath, NotPlain};
pub use plan::InTheWay;
pub use record::{Change as RecordedChange, Record, RecordError, RecordedFile, Stage};
pub use restart::RestartError;
pub use source::{SourceError, WantedFile};
pub use tee::TeeError;
pub use uninstall::uninstall;
