//! From verified evidence and the active manifest to what a pod receives. No I/O, no `async`, no clock: time and randomness
//! are parameters.

mod admit;
mod certificate;
mod sealed;
mod secret;

pub(crate) use admit::{Admission, AdmitError, admit};
pub(crate) use certificate::{Authority, IssueError, issue};
pub(crate) use sealed::release;
pub(crate) use secret::workload_secret;
