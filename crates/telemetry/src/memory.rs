//! Keeps the memory of a process, and the secrets in it, out of files.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// There might be core dumps.
#[derive(Debug, thiserror::Error)]
#[error(
    "the system does not let this process do without core dumps, which would write its secrets to a disk"
)]
pub struct CoreDumpError(#[source] io::Error);

/// From now on a crash of this process writes no core dump: not into a directory, nor to a handler that
/// `/proc/sys/kernel/core_pattern` names. The processes that it starts have a limit of zero bytes for theirs.
///
/// Call first thing in `main`, before there are secrets.
///
/// # Errors
/// When the system refuses, which it does to nobody.
pub fn forbid_core_dumps() -> Result<(), CoreDumpError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // A limit does not keep the memory from a handler (core(5)), and being dumpable does not outlive exec (PR_SET_DUMPABLE in prctl(2)).
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| CoreDumpError(error.into()))
}
