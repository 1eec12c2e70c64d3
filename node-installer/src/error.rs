//! Everything that ends a run, and the exit code that says which kind it is.

use crate::{
    config::ConfigError,
    containerd::{ContainerdError, EffectiveError},
    host::HostError,
    kata::KataError,
    lock::LockError,
    path::{HostPath, NotPlain},
    plan::InTheWay,
    record::RecordError,
    restart::RestartError,
    source::SourceError,
    tee::TeeError,
    tree::{Interrupted, TreeError},
};

/// The run ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The image of the installer is not complete.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Kata's configuration cannot be used.
    #[error(transparent)]
    Kata(#[from] KataError),
    /// The node has no TEE.
    #[error(transparent)]
    Tee(#[from] TeeError),
    /// containerd's configuration cannot be used or changed.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    /// A file of somebody else is in the way.
    #[error(transparent)]
    InTheWay(#[from] InTheWay),
    /// Another installer is at work.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What earlier runs wrote down cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The host's file system refuses something.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A path is not plain.
    #[error(transparent)]
    Path(#[from] NotPlain),
    /// A program of the host did not run.
    #[error(transparent)]
    Host(#[from] HostError),
    /// There is nothing to restart.
    #[error(transparent)]
    Restart(#[from] RestartError),
    /// Somebody else changed containerd's configuration in the meantime. It is left as it is.
    #[error(
        "{file} on the host was changed by somebody else while the installer was at work, and is left as it is; run the installer again"
    )]
    Overtaken {
        /// Which.
        file: HostPath,
    },
    /// containerd does not take the new configuration. The old one is in place.
    #[error(
        "containerd refuses the changed configuration; nothing was restarted, and the old configuration is in place"
    )]
    Rejected(#[source] Rejection),
    /// containerd did not come up. The old configuration is in place.
    #[error(
        "containerd did not come up with the new configuration; the old one is back in place, and {after}"
    )]
    RolledBack {
        /// What went wrong.
        #[source]
        source: Box<Self>,
        /// Whether containerd runs with the old one.
        after: String,
    },
    /// containerd runs, but its plugin for the kubelet does not.
    #[error("containerd runs and does not serve the kubelet: {found}; see its log on the node")]
    NotServing {
        /// What is wrong.
        found: String,
    },
    /// k3s did not take the runtime over.
    #[error("the configuration that is rendered from the template has no such runtime")]
    NotRendered(#[source] EffectiveError),
    /// The node is not as wanted after everything was done.
    #[error("everything was done, and still the node is not as wanted: {}", findings.join("; "))]
    NotAsWanted {
        /// What is missing.
        findings: Vec<String>,
    },
    /// Files that were changed by somebody else.
    #[error(
        "uninstalled, except for files that somebody changed since: {}; remove them by hand", left.join(", ")
    )]
    Left {
        /// Where they are.
        left: Vec<String>,
    },
    /// Something that is refused before anything is changed, found out when something was.
    #[error(transparent)]
    Begun(Box<Self>),
    /// The answer could not be printed.
    #[error("cannot write to standard output")]
    Output(#[source] std::io::Error),
    /// The work ended by a panic.
    #[error("the work ended by a panic, which is a bug; report what is in the log")]
    Panicked(#[source] tokio::task::JoinError),
    /// Signals cannot be received.
    #[error("cannot handle signals")]
    Signals(#[source] std::io::Error),
}

/// Why containerd does not take a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It says so.
    #[error("`containerd config dump` says: {words}")]
    Dump {
        /// Its last line.
        words: String,
    },
    /// It would do something else.
    #[error(transparent)]
    Effective(#[from] EffectiveError),
}

impl From<Interrupted> for Error {
    fn from(interrupted: Interrupted) -> Self {
        Self::Tree(interrupted.into())
    }
}

/// The table that `--help` ends with.
pub(crate) const HELP: &str = "\
Exit codes:
  0   done; check: the node is as wanted
  1   check: the node is not as wanted
  2   the command line, the configuration or the installer's image is wrong
  3   the node is not fit for it; nothing was changed
  4   something failed on the way; the same command completes it
  5   containerd refused the runtime or did not come up; its old configuration is back";

/// Exit code of `check` when the node is not as wanted.
pub(crate) const NOT_AS_WANTED: u8 = 1;

/// Exit code when the node is not fit, and nothing was changed.
const NOT_FIT: u8 = 3;

impl Error {
    /// Exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotAsWanted { .. } => NOT_AS_WANTED,
            Self::Config(_) | Self::Source(_) | Self::Kata(_) | Self::Path(_) => 2,
            Self::Tee(_)
            | Self::Containerd(_)
            | Self::InTheWay(_)
            | Self::Host(HostError::Enter(_))
            | Self::Restart(
                RestartError::NoUnit { .. } | RestartError::Host(HostError::Enter(_)),
            )
            | Self::Tree(
                TreeError::ReadOnly { .. } | TreeError::NoSpace { .. } | TreeError::Root { .. },
            ) => NOT_FIT,
            Self::Rejected(_) | Self::RolledBack { .. } => 5,
            _ => 4,
        }
    }

    /// The same error, whose exit code does not promise any more that nothing was changed.
    pub(crate) fn begun(self) -> Self {
        match self.exit_code() {
            NOT_FIT => Self::Begun(Box::new(self)),
            _ => self,
        }
    }

    /// Whether this is the end of everything, after which nothing may be tried.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(
            self,
            Self::Tree(TreeError::Interrupted(_))
                | Self::Record(RecordError::Tree(TreeError::Interrupted(_)))
        )
    }
}
