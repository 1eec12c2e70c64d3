//! What a Coordinator says when it does not do what it was asked.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{diagnostic::Diagnose, exit::Exit};

/// Machine-readable reason of a Coordinator that waits for its first manifest.
pub const REASON_NO_MANIFEST: &str = "NO_MANIFEST";
/// Machine-readable reason of a Coordinator that restarted and was neither admitted by others nor recovered.
const REASON_RECOVERY_NEEDED: &str = "RECOVERY_NEEDED";
/// Machine-readable reason of an update with too few approvals.
const REASON_OWNER_SIGNATURES: &str = "OWNER_SIGNATURES";
/// Machine-readable reason of a recovery on a history that lacks the transition that the caller knows.
const REASON_ROLLED_BACK: &str = "HISTORY_ROLLED_BACK";

/// Machine-readable reason of a recovery while a member of the deployment answers that knows more.
const REASON_SURVIVOR: &str = "SURVIVOR_ANSWERS";
/// Machine-readable reason of a recovery of a Coordinator that serves.
const REASON_RECOVERED: &str = "ALREADY_RECOVERED";
/// Machine-readable reasons of a Coordinator that cannot speak for its cluster now.
const REASONS_UNCONFIRMED: [&str; 3] = ["NO_QUORUM", "NOT_CONFIRMED", "LEADER_CHANGED"];
/// Domain of all these reasons.
const DOMAIN: &str = "coordinator.contrast";

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
            .filter(|info| info.domain == DOMAIN)
            .map(|info| info.reason)
            .unwrap_or_default();
        let message = match (status.code(), status.message()) {
            (Code::Unimplemented, "") => "its version does not know this request",
            (_, message) => message,
        };
        Self::Refused {
            call,
            code: status.code(),
            reason,
            message: message.to_owned(),
        }
    }

    /// Whether the same request may succeed when it is simply sent again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code == Code::Unavailable,
            Self::Broken { .. } => true,
        }
    }

    /// Whether another Coordinator of the same deployment may well answer: this one has no part in it.
    pub fn is_of_one_replica(&self) -> bool {
        self.has_reason(REASON_RECOVERY_NEEDED) || self.has_reason(REASON_NO_MANIFEST)
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
                vec!["the Coordinator is of an earlier version than this `contrast`: update it, or use the `contrast` of its version".into()]
            }
            Self::Broken { .. } => vec!["run the same command again; repeating it is safe".into()],
            Self::Refused { reason, .. } => hints_for(reason),
        }
    }
}

/// The Coordinator's own messages say what is wrong; what this program and its flags can do about it is added.
fn hints_for(reason: &str) -> Vec<String> {
    let hints: &[&str] = match reason {
        REASON_OWNER_SIGNATURES => &[
            "name the key of each workload owner of the active manifest that has to sign with `--workload-owner-key`",
        ],
        REASON_ROLLED_BACK => &[
            "the disk of this Coordinator is older than what you know: recover a replica with a newer disk, which \
             `--coordinator` names, or have the newest disk put back",
            "a smaller `--latest-transition` gives up every manifest that was set after it: name one only when all owners \
             agree that the newer disks are lost for good",
        ],
        REASON_SURVIVOR => &[
            "a Coordinator of this deployment still runs and may know of more: if it can serve again, wait for it; else \
             recover that one, by naming it with `--coordinator`",
            "`contrast status` shows what each of them knows",
            "with `--force` what only the other one knows is lost, and it may go on to answer beside this one: give it only \
             when the other one can never serve again",
        ],
        REASON_RECOVERED => &[
            "check it with `contrast verify`; Coordinators that still wait join by themselves, as `contrast status` shows",
        ],
        reason if REASONS_UNCONFIRMED.contains(&reason) => &[
            "too few Coordinators reach each other to be sure that nothing newer was set; `contrast status` shows which ones \
             answer",
            "run the same command again, which is safe, or name further Coordinators with `--coordinator`",
        ],
        _ => &[],
    };
    hints.iter().map(|hint| (*hint).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn refused(call: &'static str, reason: &str, message: &str) -> CallError {
        let details = ErrorDetails::with_error_info(reason, DOMAIN, []);
        let status = Status::with_error_details(Code::FailedPrecondition, message, details);
        CallError::new(call, status)
    }

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
    fn request_that_the_coordinator_does_not_know_names_the_older_side() {
        let error = CallError::new("return its decisions", Status::unimplemented(""));
        assert_eq!(
            error.to_string(),
            "the Coordinator refused to return its decisions: its version does not know this request"
        );
        assert_eq!(error.exit(), Exit::Usage);
        let hints = error.hints().join("\n");
        assert!(hints.contains("earlier version"), "{hints}");
    }

    #[test]
    fn machine_readable_reason_is_kept() {
        let error = refused("return its manifests", REASON_NO_MANIFEST, "none yet");
        assert!(error.has_reason(REASON_NO_MANIFEST));
        assert!(!error.is_transient());
        assert_eq!(
            error.to_string(),
            "the Coordinator refused to return its manifests: none yet"
        );
    }

    #[test]
    fn rolled_back_history_is_a_negative_verdict() {
        let error = refused("recover", REASON_ROLLED_BACK, "old");
        assert_eq!(error.exit(), Exit::Negative);
    }

    #[test]
    fn refused_recoveries_say_what_to_do_instead() {
        for (reason, word) in [
            (REASON_ROLLED_BACK, "newer disk"),
            (REASON_SURVIVOR, "recover that one"),
            (REASON_RECOVERED, "contrast verify"),
        ] {
            let hints = refused("recover", reason, "no").hints().join("\n");
            assert!(hints.contains(word), "{reason}: {hints}");
        }
        assert!(refused("recover", "SOMETHING", "no").hints().is_empty());
    }

    #[test]
    fn reasons_of_another_domain_count_for_nothing() {
        let details = ErrorDetails::with_error_info(REASON_ROLLED_BACK, "example.com", []);
        let status = Status::with_error_details(Code::FailedPrecondition, "no", details);
        let error = CallError::new("recover", status);
        assert!(!error.has_reason(REASON_ROLLED_BACK));
        assert_eq!(error.exit(), Exit::Unavailable);
    }
}
