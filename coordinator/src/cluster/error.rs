use std::{io, path::PathBuf};

use super::{RecordError, RecordFault};
use crate::format::Newer;

/// The Raft store could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogStoreError {
    /// A record is not what it should be.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database is damaged, or no Raft store.
    #[error(
        "the database of the Raft store is not usable: {reason}. The disk was damaged or tampered with: do not \
         resume from it, let this replica rejoin under a fresh identity with a new store"
    )]
    Database {
        /// What is wrong with it.
        reason: String,
    },
    /// A later version wrote the file.
    #[error("{} {newer}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it says.
        newer: Newer,
    },
    /// There is no store to resume.
    #[error(
        "expected a Raft store in {}, found none: it was removed; let this replica rejoin under a fresh identity",
        path.display()
    )]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// A store cannot be created over another one.
    #[error(
        "expected no Raft store in {}, found one; resume it, or move it away before this replica joins under a fresh identity",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The entries to append do not follow the log.
    #[error(
        "expected log entry {expected} to be appended, found {found}; this is a bug, report it"
    )]
    Gap {
        /// Index after the last entry.
        expected: u64,
        /// Index that was to be appended.
        found: u64,
    },
    /// Something is too long for its format.
    #[error("a payload cannot be written: {0}; this is a bug, report it")]
    Encode(&'static str),
    /// No space.
    #[error(
        "the Raft store could not be written because the disk is full; make room and restart this replica"
    )]
    Full(#[source] Box<redb::Error>),
    /// Reading or writing failed.
    #[error(
        "the Raft store could not be read or written; restart this replica when the disk works again"
    )]
    Io(#[source] Box<redb::Error>),
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// An operation before failed.
    #[error(
        "the Raft store was given up after an earlier error and what is on the disk is unknown; restart this replica"
    )]
    GivenUp,
}

impl LogStoreError {
    /// What an error of the database means: no space, a disk that fails, or content that is no Raft store.
    pub fn from_redb(error: impl Into<redb::Error>) -> Self {
        let error = error.into();
        match &error {
            redb::Error::Io(cause)
                if matches!(
                    cause.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                Self::Full(Box::new(error))
            }
            // The disk answered, and what it has ends too early or is no database.
            redb::Error::Io(cause)
                if matches!(
                    cause.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
                ) =>
            {
                Self::Database {
                    reason: cause.to_string(),
                }
            }
            redb::Error::Io(_) | redb::Error::PreviousIo => Self::Io(Box::new(error)),
            _ => Self::Database {
                reason: error.to_string(),
            },
        }
    }

    /// Whether a later version wrote it, so that it is neither of use here nor worthless.
    pub fn is_of_a_later_version(&self) -> bool {
        match self {
            Self::Newer { .. } => true,
            Self::Record(error) => matches!(error.fault, RecordFault::Later(_)),
            _ => false,
        }
    }

    /// Whether the disk's content is to blame, so that a fresh identity and a new store are the way out.
    pub fn is_evidence_of_damage(&self) -> bool {
        let later = self.is_of_a_later_version();
        !later
            && matches!(
                self,
                Self::Record(_) | Self::Database { .. } | Self::Absent { .. }
            )
    }
}

/// For openraft, which takes any storage error as fatal. The error itself stays inside.
impl From<LogStoreError> for io::Error {
    fn from(error: LogStoreError) -> Self {
        let kind = match error.is_evidence_of_damage() {
            true => io::ErrorKind::InvalidData,
            false => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
