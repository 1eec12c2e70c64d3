//! What a Coordinator says when it does not do what it was asked.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{diagnostic::Diagnose, exit::Exit};

/// Machine-readable reason of a Coordinator that waits for its first manifest.
pub const REASON_NO_MANIFEST: &str = "NO_MANIFEST";
/// Machine-readable reason of an update with too few approvals.
const REASON_OWNER_SIGNATURES: &str = "OWNER_SIGNATURES";
/// Machine-readable reason of a recovery on a history that lacks the transition that the caller knows.
const REASON_ROLLED_BACK: &str = "HISTORY_ROLLED_BACK";

/// A call over an attested connection failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The Coordinator refused.
    #[error("the Coordinator refused to {call}: {message}")]
    Refused {
        /// What was asked, for example `set the manifest`.
        call: &'static str,
        /// gRPC status code.
        code: Code,
        /// Machine-readable reason; empty when the Coordinator gave none.
        reason: String,
        /// What the Coordinator says.
        message: String,
    },
    /// The connection broke, so that the outcome is unknown.
    #[error("the connection to the Coordinator broke while it was asked to {call}")]
    Broken {
        /// What was asked.
        call: &'static str,
        /// Why.
        #[source]
        source: Box<Status>,
    },
}

impl CallError {
    pub(crate) fn new(call: &'static str, status: Status) -> Self {
        if std::error::Error::source(&status).is_some() {
            return Self::Broken {
                call,
                source: Box::new(status),
            };
        }
        let reason = status
            .get_details_error_info()
            .map(|info| info.reason)
            .unwrap_or_default();
        Self::Refused {
            call,
            code: status.code(),
            reason,
            message: status.message().to_owned(),
        }
    }

    /// Whether the same request may succeed when it is simply sent again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code == Code::Unavailable,
            Self::Broken { .. } => true,
        }
    }

    /// Whether the Coordinator gave this machine-readable reason.
    pub fn has_reason(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == wanted)
    }
}

impl Diagnose for CallError {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused { reason, .. } if reason == REASON_ROLLED_BACK => Exit::Negative,
            Self::Refused { code, .. } => match code {
                Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented => Exit::Usage,
                _ => Exit::Unavailable,
            },
            Self::Broken { .. } => Exit::Unavailable,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Refused {
                code: Code::Unimplemented,
                ..
            } => {
                vec!["the Coordinator is of another version than this `contrast`".into()]
            }
            Self::Broken { .. } => vec!["run the same command again; repeating it is safe".into()],
            // The Coordinator's own messages say what to do; only flags of this program are added.
            Self::Refused { reason, .. } if reason == REASON_OWNER_SIGNATURES => vec![
                "name the key of each workload owner of the active manifest that has to sign with \
                 `--workload-owner-key`"
                    .into(),
            ],
            Self::Refused { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_become_exit_codes() {
        let exit = |code| CallError::new("x", Status::new(code, "no")).exit();
        assert_eq!(exit(Code::InvalidArgument), Exit::Usage);
        assert_eq!(exit(Code::PermissionDenied), Exit::Usage);
        assert_eq!(exit(Code::FailedPrecondition), Exit::Unavailable);
        assert_eq!(exit(Code::Unavailable), Exit::Unavailable);
        assert_eq!(exit(Code::Internal), Exit::Unavailable);
    }

    #[test]
    fn machine_readable_reason_is_kept() {
        let details =
            tonic_types::ErrorDetails::with_error_info(REASON_NO_MANIFEST, "contrast", []);
        let status = Status::with_error_details(Code::FailedPrecondition, "none yet", details);
        let error = CallError::new("return its manifests", status);
        assert!(error.has_reason(REASON_NO_MANIFEST));
        assert!(!error.is_transient());
        assert_eq!(
            error.to_string(),
            "the Coordinator refused to return its manifests: none yet"
        );
    }

    #[test]
    fn rolled_back_history_is_a_negative_verdict() {
        let details =
            tonic_types::ErrorDetails::with_error_info(REASON_ROLLED_BACK, "contrast", []);
        let status = Status::with_error_details(Code::FailedPrecondition, "old", details);
        assert_eq!(CallError::new("recover", status).exit(), Exit::Negative);
    }
}
