//! What records say about whom. Only what is public: no address, no workload secret id, no text of a peer.

use std::time::{SystemTime, UNIX_EPOCH};

use contrast_atls::Peer;
use contrast_attestation::{PolicyHash, VerifiedEvidence, VerifyError};
use contrast_audit::{Event, Hash, Kind, Outcome, Subject, hex64};
use contrast_manifest::{CertificateKeyDigest, MAX_MANIFEST_BYTES, PolicyEntry};
use contrast_proto::user::SetManifestRequest;
use tonic_types::StatusExt as _;

use crate::{
    api::{ApiError, classify},
    replica::peers::EvidenceSummary,
    state::{Advance, StateError, TransitionHash},
};

/// Checks that tell the policy of a guest.
const POLICY_CHECKS: [&str; 2] = ["HOSTDATA", "MRCONFIGID"];

/// A process that starts.
pub(crate) fn started(key: &[u8], boot: u64) -> Event {
    Event::done(
        Kind::Start,
        Subject {
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            boot: Some(hex64(boot)),
            key: Some(Hash(CertificateKeyDigest::of(key).0)),
            ..Subject::default()
        },
    )
}

/// A process that ends, and whether it was asked to.
pub(crate) fn stopped(graceful: bool) -> Event {
    Event {
        kind: Kind::Stop,
        outcome: match graceful {
            true => Outcome::Done,
            false => Outcome::Failed,
        },
        reason: match graceful {
            true => "ASKED",
            false => "PART_FAILED",
        }
        .into(),
        subject: Subject::default(),
    }
}

/// Whoever asks, as they proved when they connected.
pub(crate) fn peer(peer: Option<&Peer>) -> Subject {
    let Some(peer) = peer else {
        return Subject::default();
    };
    let mut subject = match &peer.attested {
        Some(attested) => evidence(&attested.verified),
        None => Subject::default(),
    };
    subject.key = Some(Hash(CertificateKeyDigest::of(&peer.spki).0));
    subject
}

/// A workload of the manifest.
pub(crate) fn workload(
    verified: &VerifiedEvidence,
    entry: &PolicyEntry,
    key: CertificateKeyDigest,
) -> Subject {
    Subject {
        names: entry.sans.clone(),
        key: Some(Hash(key.0)),
        ..evidence(verified)
    }
}

fn evidence(verified: &VerifiedEvidence) -> Subject {
    Subject {
        policy: Some(policy(verified.policy_hash())),
        tee: Some(verified.tee().to_string()),
        insecure: verified.is_insecure(),
        reference: Some(verified.reference().to_owned()),
        ..Subject::default()
    }
}

/// What another replica proved.
pub(super) fn replica(summary: Option<&EvidenceSummary>) -> Subject {
    let Some(summary) = summary else {
        return Subject::default();
    };
    Subject {
        policy: Some(policy(summary.policy)),
        tee: Some(summary.tee.clone()),
        insecure: summary.insecure,
        reference: Some(summary.reference.clone()),
        ..Subject::default()
    }
}

fn policy(hash: PolicyHash) -> Hash {
    Hash(hash.0)
}

/// A certificate for that workload.
pub(crate) fn issued(mut subject: Subject, serial: &[u8], not_after: SystemTime) -> Event {
    let expires = not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
    subject.serial = Some(hex::encode(serial));
    subject.expires_ms = Some(u64::try_from(expires.as_millis()).unwrap_or(u64::MAX));
    Event::done(Kind::Certificate, subject)
}

/// Sealed secrets with these names went to that workload.
pub(crate) fn sealed<'a>(subject: Subject, names: impl Iterator<Item = &'a str>) -> Event {
    let secrets = names.map(str::to_owned).collect();
    Event::done(Kind::SealedSecrets, Subject { secrets, ..subject })
}

/// A manifest that somebody wants to set.
pub(crate) fn update(request: &SetManifestRequest) -> Subject {
    let hashed = request.manifest.len() <= MAX_MANIFEST_BYTES;
    Subject {
        manifest: hashed.then(|| Hash::of(&request.manifest)),
        approvals: u64::try_from(request.signatures.len()).ok(),
        ..Subject::default()
    }
}

/// Something that made this transition.
pub(crate) fn transition(kind: Kind, subject: Subject, transition: TransitionHash) -> Event {
    let transition = Some(Hash(transition.0));
    Event::done(
        kind,
        Subject {
            transition,
            ..subject
        },
    )
}

/// A seed share came in, and more are needed.
pub(crate) fn share(missing: u32) -> Event {
    Event {
        kind: Kind::Recovery,
        outcome: Outcome::Pending,
        reason: "SHARES_MISSING".into(),
        subject: Subject {
            missing: Some(missing.into()),
            ..Subject::default()
        },
    }
}

/// A volume's generation came in; `recorded` is the one that keeps it from being accepted.
pub(crate) fn volume(subject: Subject, advance: &Advance, recorded: Option<u64>) -> Event {
    let subject = Subject {
        volume: Some(advance.volume.to_string()),
        generation: Some(advance.generation.number),
        recorded,
        ..subject
    };
    match recorded {
        None => Event::done(Kind::Volume, subject),
        Some(_) => Event {
            kind: Kind::Volume,
            outcome: Outcome::Refused,
            reason: "VOLUME_BEHIND".into(),
            subject,
        },
    }
}

/// A peer whose evidence was refused when it connected.
pub(crate) fn refused_evidence(error: &VerifyError) -> Event {
    Event {
        kind: Kind::Attestation,
        outcome: Outcome::Refused,
        reason: "EVIDENCE_REFUSED".into(),
        subject: with_checks(Subject::default(), error),
    }
}

/// A request that was refused, or that failed.
pub(crate) fn refusal(kind: Kind, subject: Subject, error: &ApiError) -> Event {
    let (code, reason) = classify(error);
    let reason = match error {
        ApiError::State(StateError::Forwarded(failure)) => {
            let status = tonic::Status::with_details(code, "", failure.details.clone());
            match status.get_details_error_info() {
                Some(info) => info.reason.into(),
                None => reason.into(),
            }
        }
        _ => reason.into(),
    };
    let failed = matches!(
        code,
        tonic::Code::Internal | tonic::Code::DataLoss | tonic::Code::Unavailable
    );
    Event {
        kind,
        outcome: match failed {
            true => Outcome::Failed,
            false => Outcome::Refused,
        },
        reason,
        subject: match error {
            ApiError::Evidence(error) => with_checks(subject, error),
            _ => subject,
        },
    }
}

/// Of the reference value that the evidence came closest to: what it failed, and the policy that it names.
fn with_checks(mut subject: Subject, error: &VerifyError) -> Subject {
    match error {
        VerifyError::Refused(report) => {
            let checks = report.sets.first().map(|set| set.checks.checks());
            let checks = checks.unwrap_or_default();
            let failed = checks.iter().filter(|check| !check.passed);
            subject.checks = failed.map(|check| check.field.clone()).collect();
            let named = checks
                .iter()
                .find(|check| POLICY_CHECKS.contains(&check.field.as_str()));
            let named = named.and_then(|check| check.found.get(..64)?.parse().ok());
            subject.policy = named.or(subject.policy);
        }
        VerifyError::NoReferenceValue { found, .. } => {
            subject.tee = Some(found.to_string());
            subject.checks = vec!["reference value".to_owned()];
        }
        _ => {}
    }
    subject
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use contrast_attestation::{AppraisalReport, CheckList, SetReport};

    use super::*;
    use crate::api::{owner_failure, status};

    #[test]
    fn refused_evidence_names_the_failed_checks_and_the_policy() {
        let mut checks = CheckList::default();
        checks.equal("VMPL", &0, &0);
        checks.fail("HOSTDATA", "one of 2 policies", "ab".repeat(32));
        checks.fail("MEASUREMENT", "00", "ff");
        let set = SetReport {
            name: "snp[0]".to_owned(),
            checks,
        };
        let error = VerifyError::Refused(AppraisalReport {
            sets: vec![set],
            ..AppraisalReport::default()
        });
        let event = refused_evidence(&error);
        assert_eq!(event.subject.checks, ["HOSTDATA", "MEASUREMENT"]);
        assert_eq!(event.subject.policy, Some(Hash([0xab; 32])));
    }

    #[test]
    fn reason_of_another_replica_is_kept() {
        let failure = owner_failure(StateError::NotEmpty);
        let error = ApiError::State(StateError::Forwarded(failure));
        let event = refusal(Kind::Manifest, Subject::default(), &error);
        assert_eq!(
            (event.outcome, &*event.reason),
            (Outcome::Refused, "NOT_EMPTY")
        );
        assert_eq!(
            status("SetManifest", &error).code(),
            tonic::Code::FailedPrecondition
        );
    }

    #[test]
    fn what_the_coordinator_could_not_do_is_no_refusal() {
        let error = ApiError::State(StateError::NoQuorum("2 of 3".to_owned()));
        let event = refusal(Kind::Certificate, Subject::default(), &error);
        assert_eq!(
            (event.outcome, &*event.reason),
            (Outcome::Failed, "NO_QUORUM")
        );
    }

    #[test]
    fn manifest_that_is_too_large_is_not_hashed() {
        let request = SetManifestRequest {
            manifest: Bytes::from(vec![0; MAX_MANIFEST_BYTES + 1]),
            ..SetManifestRequest::default()
        };
        assert_eq!(update(&request).manifest, None);
    }
}
