use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use contrast_attestation::PolicyHash;
use contrast_pki::SealingError;
use contrast_telemetry::exposure::PUBLIC;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::wire::RequestError;
use crate::{
    causes::causes,
    cluster::LogStoreError,
    issue::{AdmitError, IssueError},
    replica::peers::OwnerFailure,
    state::{ApprovalError, HistoryError, KeysError, StateError, StoreError},
};

/// Domain of every machine-readable reason (google.rpc.ErrorInfo).
const DOMAIN: &str = "coordinator.contrast";

/// What the caller learns when the details are none of its business.
const INTERNAL: &str = "internal error of the Coordinator; its log says more";

/// Everything that can go wrong with a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("this connection carries no verified evidence")]
    NotAttested,
    #[error("the evidence of this connection does not match the active manifest")]
    Evidence(#[source] contrast_attestation::VerifyError),
    #[error(transparent)]
    Admit(#[from] AdmitError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("the sealing key cannot be encoded")]
    SealingKey(#[source] SealingError),
    #[error(
        "the sealed secret `{name}`, which the active manifest gives this pod, cannot be opened"
    )]
    Sealed {
        name: String,
        #[source]
        source: SealingError,
    },
    #[error(
        "policy {policy} has no workload secret id in the active manifest, and volumes belong to one; run `contrast generate` and set \
         the manifest"
    )]
    NoSecretId { policy: PolicyHash },
    #[error("this workload secret id asks too often about volumes; try again in {} ms", wait.as_millis())]
    VolumeRate { wait: Duration },
    #[error("keys could not be made")]
    Keys(#[from] KeysError),
    #[error("a request handler panicked")]
    Panicked,
}

/// The one mapping from errors to gRPC: code, machine-readable reason, and a message for people. Internal details go to the
/// log only.
pub(crate) fn status(method: &'static str, error: &ApiError) -> Status {
    if let ApiError::State(StateError::Forwarded(failure)) = error {
        // The replica that refused has logged why.
        tracing::info!(method, "request refused by the leader: {failure:?}");
        let OwnerFailure {
            code,
            message,
            details,
        } = failure.clone();
        return Status::with_details(Code::from_i32(code), message, details);
    }
    let (code, reason) = classify(error);
    let details = causes(error);
    let public = match code {
        Code::Internal | Code::DataLoss => {
            failed(method, reason, &details);
            match error {
                ApiError::State(
                    StateError::Store(_)
                    | StateError::History(_)
                    | StateError::Damaged(_)
                    | StateError::Log(_),
                ) => error.to_string(),
                _ => INTERNAL.to_owned(),
            }
        }
        Code::ResourceExhausted if !matches!(error, ApiError::VolumeRate { .. }) => {
            failed(method, reason, &details);
            error.to_string()
        }
        _ => {
            tracing::info!(method, reason, "request refused: {details}");
            details
        }
    };
    let info = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, public, info)
}

/// Two events, because the reason may leave the confidential VM and the details may not.
fn failed(method: &'static str, reason: &'static str, details: &str) {
    tracing::error!(method, reason, exposure = PUBLIC, "a request failed");
    tracing::error!(method, reason, "request failed: {details}");
}

/// What an owner is told by another replica than the one that was asked.
pub(crate) fn owner_failure(error: StateError) -> OwnerFailure {
    let status = status("Propose", &ApiError::State(error));
    OwnerFailure {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Bytes::copy_from_slice(status.details()),
    }
}

/// Code and machine-readable reason.
pub(crate) fn classify(error: &ApiError) -> (Code, &'static str) {
    match error {
        ApiError::Request(_) => (Code::InvalidArgument, "REQUEST_MALFORMED"),
        ApiError::State(error) => classify_state(error),
        ApiError::NotAttested => (Code::PermissionDenied, "NOT_ATTESTED"),
        ApiError::Evidence(_) => (Code::PermissionDenied, "EVIDENCE_REFUSED"),
        ApiError::Admit(AdmitError::Policy { .. }) => (Code::PermissionDenied, "POLICY_UNKNOWN"),
        ApiError::Admit(AdmitError::Key { .. }) => (Code::PermissionDenied, "KEY_DENIED"),
        ApiError::Sealed { .. } => (Code::FailedPrecondition, "SEALED_SECRET_UNREADABLE"),
        ApiError::SealingKey(_) => (Code::Internal, "KEYS_FAILED"),
        ApiError::NoSecretId { .. } => (Code::PermissionDenied, "NO_SECRET_ID"),
        ApiError::VolumeRate { .. } => (Code::ResourceExhausted, "VOLUME_RATE"),
        ApiError::Issue(_) => (Code::Internal, "ISSUE_FAILED"),
        ApiError::Keys(_) => (Code::Internal, "KEYS_FAILED"),
        ApiError::Panicked => (Code::Internal, "PANICKED"),
    }
}

fn classify_state(error: &StateError) -> (Code, &'static str) {
    match error {
        StateError::NoManifest => (Code::FailedPrecondition, "NO_MANIFEST"),
        StateError::RecoveryNeeded => (Code::FailedPrecondition, "RECOVERY_NEEDED"),
        StateError::SurvivorAnswers { .. } | StateError::SurvivorKnowsMore { .. } => {
            (Code::FailedPrecondition, "SURVIVOR_ANSWERS")
        }
        StateError::BeginsElsewhere { .. } => (Code::Unavailable, "BEGINS_ELSEWHERE"),
        StateError::NotAdmitted { .. } => (Code::Unavailable, "NOT_ADMITTED"),
        StateError::Volumes(_) => (Code::FailedPrecondition, "VOLUMES_UNBELIEVED"),
        StateError::TooManyVolumes => (Code::ResourceExhausted, "TOO_MANY_VOLUMES"),
        StateError::Damaged(_) => (Code::DataLoss, "HISTORY_CORRUPT"),
        StateError::Held(_) => (Code::Unavailable, "NOT_READY"),
        StateError::NoQuorum(_) => (Code::Unavailable, "NO_QUORUM"),
        StateError::Unconfirmed { .. } => (Code::Unavailable, "NOT_CONFIRMED"),
        StateError::Undecided(_) => (Code::Unavailable, "LEADER_CHANGED"),
        StateError::Stopped(_) => (Code::Unavailable, "REPLICATION_STOPPED"),
        // Passed on as it is, before this mapping.
        StateError::Forwarded(failure) => (Code::from_i32(failure.code), "FORWARDED"),
        StateError::Log(LogStoreError::Full(_)) => (Code::ResourceExhausted, "DISK_FULL"),
        StateError::Log(_) => (Code::Internal, "STORE_FAILED"),
        StateError::NothingToRecover => (Code::FailedPrecondition, "NOTHING_TO_RECOVER"),
        StateError::AlreadyRecovered => (Code::FailedPrecondition, "ALREADY_RECOVERED"),
        StateError::StaleBase { .. } => (Code::FailedPrecondition, "BASE_NOT_LATEST"),
        StateError::Manifest(_) => (Code::InvalidArgument, "MANIFEST_INVALID"),
        StateError::Sealed { .. } => (Code::InvalidArgument, "SEALED_SECRET_UNREADABLE"),
        StateError::Policies(_) => (Code::InvalidArgument, "POLICIES_MISMATCH"),
        StateError::Shares(_) => (Code::InvalidArgument, "SEED_SHARES_UNUSABLE"),
        StateError::Approval(ApprovalError::UpdatesDisabled) => {
            (Code::PermissionDenied, "UPDATES_DISABLED")
        }
        StateError::Approval(_) => (Code::PermissionDenied, "OWNER_SIGNATURES"),
        StateError::NotEmpty => (Code::FailedPrecondition, "NOT_EMPTY"),
        StateError::OtherSalt => (Code::InvalidArgument, "SEED_SHARES_UNUSABLE"),
        StateError::History(HistoryError::WrongSeed) => (Code::PermissionDenied, "WRONG_SEED"),
        StateError::History(HistoryError::RolledBack { .. }) => {
            (Code::FailedPrecondition, "HISTORY_ROLLED_BACK")
        }
        StateError::History(_) => (Code::DataLoss, "HISTORY_CORRUPT"),
        StateError::Store(StoreError::Full(_) | StoreError::NoRoom { .. }) => {
            (Code::ResourceExhausted, "DISK_FULL")
        }
        StateError::Store(_) => (Code::Internal, "STORE_FAILED"),
        StateError::Keys(_) => (Code::Internal, "KEYS_FAILED"),
        StateError::Panicked => (Code::Internal, "PANICKED"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_details_stay_inside_and_reasons_are_machine_readable() {
        let error = ApiError::Issue(IssueError::Claim(der::ErrorKind::Failed.into()));
        let status = status("NewMeshCert", &error);
        assert_eq!(
            (status.code(), status.message()),
            (Code::Internal, INTERNAL)
        );
        let info = status.get_details_error_info().expect("has a reason");
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("ISSUE_FAILED", DOMAIN)
        );
    }

    #[test]
    fn pod_hears_which_sealed_secret_does_not_open() {
        let error = ApiError::Sealed {
            name: "db".to_owned(),
            source: SealingError::Decrypt,
        };
        let status = status("NewMeshCert", &error);
        assert_eq!(status.code(), Code::FailedPrecondition);
        let expected = "the sealed secret `db`, which the active manifest gives this pod, cannot be opened: the ciphertext does not open";
        assert!(status.message().starts_with(expected), "{status}");
        let info = status.get_details_error_info().expect("has a reason");
        assert_eq!(info.reason, "SEALED_SECRET_UNREADABLE");
    }

    #[test]
    fn refusals_carry_the_whole_cause() {
        let error = ApiError::State(StateError::NoManifest);
        let status = status("GetManifests", &error);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(
            status.message(),
            "no manifest set yet; run `contrast set` first"
        );
    }
}
