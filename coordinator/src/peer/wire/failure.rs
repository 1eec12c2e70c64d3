//! Errors to gRPC statuses and back.

use std::collections::HashMap;

use bytes::Bytes;
use tonic::{
    Code, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Malformed, optional_place};
use crate::replica::peers::{OwnerFailure, PeerFailure};

/// Domain of the reasons (google.rpc.ErrorInfo).
const DOMAIN: &str = "peer.coordinator.contrast";
/// Trailer that marks an error for an owner; its value is the owner's code.
const OWNER_CODE: &str = "contrast-owner-code";
/// Key of the leader's place in the metadata of `NOT_LEADER`.
const LEADER: &str = "leader";
/// Longest message, in bytes. Messages travel in HTTP/2 headers, which are bounded.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Largest details of an owner's error, in bytes.
const DETAILS_BYTES_MAX: usize = 16 << 10;

const NOT_COORDINATOR: &str = "NOT_COORDINATOR";
const OTHER_IDENTITY: &str = "OTHER_IDENTITY";
const NOT_LEADER: &str = "NOT_LEADER";
const UNAVAILABLE: &str = "UNAVAILABLE";
const MALFORMED: &str = "MALFORMED";
const PANICKED: &str = "PANICKED";

/// The status for an error.
pub(crate) fn status(failure: &PeerFailure) -> Status {
    match failure {
        PeerFailure::NotCoordinator(reason) => {
            with_reason(Code::PermissionDenied, NOT_COORDINATOR, reason, None)
        }
        PeerFailure::OtherIdentity => with_reason(
            Code::FailedPrecondition,
            OTHER_IDENTITY,
            &failure.to_string(),
            None,
        ),
        PeerFailure::NotLeader { leader } => with_reason(
            Code::FailedPrecondition,
            NOT_LEADER,
            &failure.to_string(),
            leader.as_ref().map(|place| (LEADER, place.as_str())),
        ),
        PeerFailure::Unavailable(reason) => {
            with_reason(Code::Unavailable, UNAVAILABLE, reason, None)
        }
        PeerFailure::Unreadable(reason) => {
            with_reason(Code::InvalidArgument, MALFORMED, reason, None)
        }
        PeerFailure::Owner(failure) => owner_status(failure),
    }
}

/// The status for a question that cannot be read.
pub(crate) fn status_of_malformed(malformed: &Malformed) -> Status {
    status(&PeerFailure::Unreadable(malformed.to_string()))
}

/// The status for an answer that could not be made; `why` says in which way.
pub(crate) fn panicked(why: &str) -> Status {
    with_reason(Code::Internal, PANICKED, why, None)
}

fn with_reason(code: Code, reason: &str, message: &str, metadata: Option<(&str, &str)>) -> Status {
    let metadata = metadata.into_iter();
    let metadata: HashMap<_, _> = metadata
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let info = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(code, cut(message), info)
}

fn owner_status(failure: &OwnerFailure) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(OWNER_CODE, MetadataValue::<Ascii>::from(failure.code));
    let code = match Code::from_i32(failure.code) {
        // An error whose code says that there is none would arrive as an answer.
        Code::Ok => Code::Internal,
        code => code,
    };
    let details = match failure.details.len() <= DETAILS_BYTES_MAX {
        true => failure.details.clone(),
        false => Bytes::new(),
    };
    Status::with_details_and_metadata(code, cut(&failure.message), details, metadata)
}

/// The error that another replica answered with; `None` when the status says nothing of the kind, because something between
/// the replicas failed.
pub(crate) fn failure(status: &Status) -> Option<PeerFailure> {
    if let Some(code) = status.metadata().get(OWNER_CODE) {
        let code = code.to_str().ok()?.parse().ok()?;
        return Some(PeerFailure::Owner(OwnerFailure {
            code,
            message: cut(status.message()),
            details: Bytes::copy_from_slice(status.details()),
        }));
    }
    let info = status.get_details_error_info()?;
    if info.domain != DOMAIN {
        return None;
    }
    let message = printable(&cut(status.message()));
    Some(match info.reason.as_str() {
        NOT_COORDINATOR => PeerFailure::NotCoordinator(message),
        OTHER_IDENTITY => PeerFailure::OtherIdentity,
        NOT_LEADER => {
            let leader = info.metadata.get(LEADER).map_or("", String::as_str);
            // A place that cannot be one is of no use; that the replica does not lead is.
            let leader = optional_place(LEADER, leader).unwrap_or_default();
            PeerFailure::NotLeader { leader }
        }
        UNAVAILABLE => PeerFailure::Unavailable(message),
        MALFORMED => PeerFailure::Unreadable(message),
        PANICKED => PeerFailure::Unavailable(format!("internal error there: {message}")),
        _ => return None,
    })
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(MESSAGE_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Text of a peer that is about to be printed: escape sequences must not reach a terminal.
fn printable(text: &str) -> String {
    let keep = |c: char| c == '\n' || !c.is_control();
    text.chars()
        .map(|c| {
            if keep(c) {
                c
            } else {
                char::REPLACEMENT_CHARACTER
            }
        })
        .collect()
}
