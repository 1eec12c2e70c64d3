//! What the host's file system refuses.

use std::{io, path::PathBuf};

use super::{Interrupted, TEXT_MAX};
use crate::{integrity::Differs, path::HostPath};

/// Something on the host cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The root is not there.
    #[error("cannot open {} as the root of the host; mount the host's root there, or name it with --host-root", path.display())]
    Root {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file system is read-only.
    #[error(
        "{path} is on a read-only file system of the host; mount the host writable, or choose a path on a file system that is"
    )]
    ReadOnly {
        /// What was to be written.
        path: HostPath,
    },
    /// The file system is too full.
    #[error(
        "the file system of {path} on the host has {free} bytes free, and {needed} are needed; make room, or choose a path on another one"
    )]
    NoSpace {
        /// A file that would not fit any more.
        path: HostPath,
        /// Bytes that are free.
        free: u64,
        /// Bytes that all files there need.
        needed: u64,
    },
    /// Something is no regular file.
    #[error("{path} on the host is {found}, expected a regular file; move it away")]
    NotAFile {
        /// Where it is.
        path: HostPath,
        /// What it is.
        found: &'static str,
    },
    /// Something where a directory is needed.
    #[error("{path} on the host is no directory, and one is needed there; move it away")]
    NotADirectory {
        /// Where it is.
        path: HostPath,
    },
    /// A file is too large to be what it should be.
    #[error("{path} on the host has {found} bytes, more than the {max} that a configuration may have", max = TEXT_MAX)]
    TooLarge {
        /// Where it is.
        path: HostPath,
        /// How large it is.
        found: u64,
    },
    /// What was copied is not what it must be.
    #[error("{path}: its source changed while it was copied; nothing was put there")]
    Differs {
        /// Where it was to go.
        path: HostPath,
        /// How it differs.
        #[source]
        source: Differs,
    },
    /// The kernel refuses something else.
    #[error("cannot {action} {path} on the host")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: HostPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing more may happen.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}
