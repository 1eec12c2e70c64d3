//! The audit stream: every decision of this process, as records that form a chain (`docs/reference/audit.md`).
//!
//! | part | what it does |
//! | --- | --- |
//! | `subject` | from verified evidence, errors and requests to what a record says; pure |
//! | `journal` | the chain, the latest records, and what could not be recorded; pure, bounded |
//! | [`Recorder`] | the one entry: takes the time, bounds floods, hands lines to the writer |
//! | `writer` | a thread that writes lines; the only I/O |
//! | `watch` | what changes without a request: members, leader, transitions |
//!
//! A decision never waits for a disk or a reader: lines go through a queue of [`QUEUE_LINES_MAX`]. What does not fit is counted, and the
//! next record that fits is preceded by one that says how many are missing, so that the chain in the file is whole and honest.

mod journal;
mod options;
mod recorder;
pub(crate) mod subject;
mod watch;
mod writer;

pub(crate) use journal::{Position, Recent};
pub use options::{AuditError, AuditLog};
pub(crate) use recorder::{Recorder, Refusing};
pub(crate) use watch::watch;
pub(crate) use writer::Queue;

/// Latest records of each sort in memory, for `GetRecentDecisions`.
pub(crate) const RECENT_MAX: usize = 256;

/// Bytes of them, of each sort; with three sorts an answer stays below the 4 MiB that gRPC clients take.
pub(crate) const RECENT_BYTES_MAX: usize = 1 << 20;

/// Lines that wait for the writer. At the longest, they take 32 MiB.
pub(crate) const QUEUE_LINES_MAX: usize = 2048;
