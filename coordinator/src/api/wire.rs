//! Protobuf to domain types and back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use contrast_audit::{Kind, Outcome};
use contrast_manifest::MAX_MANIFEST_BYTES;
use contrast_pki::{
    Salt, Seed,
    shares::{SeedShare, SeedSharesDocument},
};
use contrast_proto::{mesh, user as wire};

use crate::{
    audit::{Position, Recent},
    replica::{
        message::SetReceipt,
        peers::EvidenceSummary,
        status::{ActiveStatus, ClusterStatus, MemberStatus, Status},
    },
    state::{
        Active, Approval, Link, SeedShareRequest, StateError, TransitionHash, UpdateRequest,
        VolumeId,
    },
};

/// Largest policy document, in bytes (4 MiB).
const POLICY_BYTES_MAX: usize = 4 << 20;
/// No seed share is longer, in bytes.
const SHARE_BYTES_MAX: usize = 128;
/// More owner signatures than this are refused unread.
const SIGNATURES_MAX: usize = 256;

/// Bytes of the nonce in a request for a certificate.
const NONCE_BYTES: usize = 32;

/// A field of a request is malformed.
#[derive(Debug, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub(crate) struct RequestError {
    field: &'static str,
    expected: String,
    found: String,
}

fn limit(field: &'static str, found: usize, max: usize, unit: &str) -> Result<(), RequestError> {
    match found <= max {
        true => Ok(()),
        false => Err(RequestError {
            field,
            expected: format!("at most {max} {unit}"),
            found: format!("{found} {unit}"),
        }),
    }
}

fn length(field: &'static str, expected: usize, found: usize) -> RequestError {
    RequestError {
        field,
        expected: format!("{expected} bytes"),
        found: format!("{found} bytes"),
    }
}

/// Empty means none.
fn transition(field: &'static str, bytes: &[u8]) -> Result<Option<TransitionHash>, RequestError> {
    match bytes {
        [] => Ok(None),
        bytes => match bytes.try_into() {
            Ok(hash) => Ok(Some(TransitionHash(hash))),
            Err(_) => Err(length(field, 32, bytes.len())),
        },
    }
}

pub(crate) fn update_request(
    request: wire::SetManifestRequest,
) -> Result<UpdateRequest, RequestError> {
    limit(
        "manifest",
        request.manifest.len(),
        MAX_MANIFEST_BYTES,
        "bytes",
    )?;
    for policy in &request.policies {
        limit("policies", policy.len(), POLICY_BYTES_MAX, "bytes")?;
    }
    limit(
        "signatures",
        request.signatures.len(),
        SIGNATURES_MAX,
        "signatures",
    )?;
    let base = transition("base_transition", &request.base_transition)?;
    let approvals = request.signatures.into_iter().map(|approval| Approval {
        public_key: approval.public_key,
        signature: approval.signature,
    });
    Ok(UpdateRequest {
        manifest: detached(&request.manifest),
        policies: request.policies.iter().map(detached).collect(),
        base: base.unwrap_or(TransitionHash::NONE),
        approvals: approvals.collect(),
    })
}

/// A copy of its own: what goes into the history must not keep the whole request's buffer alive.
fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A first manifest with the seed that it continues.
pub(crate) struct ImportRequest {
    pub(crate) first: UpdateRequest,
    pub(crate) seed: Arc<Seed>,
    pub(crate) salt: Arc<Salt>,
}

pub(crate) fn import_request(
    request: wire::ImportSeedRequest,
) -> Result<ImportRequest, RequestError> {
    let wire::ImportSeedRequest { first, seed, salt } = request;
    let first = update_request(first.unwrap_or_default())?;
    if first.base != TransitionHash::NONE {
        return Err(RequestError {
            field: "first.base_transition",
            expected: "none".to_owned(),
            found: first.base.to_string(),
        });
    }
    let parsed = Seed::from_slice(&seed).map_err(|_| length("seed", 64, seed.len()))?;
    let salt = Salt::from_slice(&salt).map_err(|_| length("salt", 32, salt.len()))?;
    Ok(ImportRequest {
        first,
        seed: Arc::new(parsed),
        salt: Arc::new(salt),
    })
}

pub(crate) fn seed_share_request(
    request: &wire::RecoverRequest,
) -> Result<SeedShareRequest, RequestError> {
    let share = &request.seed_share;
    limit("seed_share", share.len(), SHARE_BYTES_MAX, "bytes")?;
    let salt = &request.salt;
    Ok(SeedShareRequest {
        share: SeedShare::from_bytes(share.to_vec()),
        salt: Salt::from_slice(salt).map_err(|_| length("salt", 32, salt.len()))?,
        known: transition("known_transition", &request.known_transition)?,
        force: request.force,
        forget_volumes: request.forget_volumes,
    })
}

/// What a pod asks about a volume.
pub(crate) struct VolumeQuestion {
    pub(crate) nonce: Bytes,
    pub(crate) volume: VolumeId,
    /// The generation that it reports; `None` when it only asks.
    pub(crate) reported: Option<u64>,
}

pub(crate) fn get_volume(request: mesh::GetVolumeRequest) -> Result<VolumeQuestion, RequestError> {
    volume_question(request.nonce, &request.volume_id, None)
}

pub(crate) fn advance_volume(
    request: mesh::AdvanceVolumeRequest,
) -> Result<VolumeQuestion, RequestError> {
    match request.generation {
        0 => Err(RequestError {
            field: "generation",
            expected: "at least 1".to_owned(),
            found: "0".to_owned(),
        }),
        generation => volume_question(request.nonce, &request.volume_id, Some(generation)),
    }
}

fn volume_question(
    nonce: Bytes,
    id: &[u8],
    reported: Option<u64>,
) -> Result<VolumeQuestion, RequestError> {
    if nonce.len() != NONCE_BYTES {
        return Err(length("nonce", NONCE_BYTES, nonce.len()));
    }
    let volume = id
        .try_into()
        .map_err(|_| length("volume_id", 16, id.len()))?;
    Ok(VolumeQuestion {
        nonce,
        volume: VolumeId(volume),
        reported,
    })
}

/// Of a request for a certificate.
pub(crate) fn nonce(request: mesh::NewMeshCertRequest) -> Result<Bytes, RequestError> {
    match request.nonce.len() {
        0 | NONCE_BYTES => Ok(request.nonce),
        found => Err(length("nonce", NONCE_BYTES, found)),
    }
}

pub(crate) fn known_transition(
    request: &mesh::WaitForTransitionRequest,
) -> Result<Option<TransitionHash>, RequestError> {
    transition("known", &request.known)
}

pub(crate) fn set_manifest_response(
    receipt: SetReceipt,
) -> Result<wire::SetManifestResponse, StateError> {
    let shares = receipt.seed_shares.as_deref();
    let shares = shares.map(|json| SeedSharesDocument::from_json(json.as_bytes()));
    let shares = shares.transpose()?;
    Ok(wire::SetManifestResponse {
        root_ca: receipt.root_ca,
        mesh_ca: receipt.mesh_ca,
        transition: transition_bytes(receipt.transition),
        seed_shares: shares.as_ref().map(seed_shares),
    })
}

pub(crate) fn manifests_response(active: &Active) -> wire::GetManifestsResponse {
    let history = active.history();
    wire::GetManifestsResponse {
        transitions: history.links().map(link).collect(),
        manifests: history.manifests(),
        policies: history.policies(),
        root_ca: active.keys().root().certificate_pem(),
        mesh_ca: active.mesh_ca().self_signed_pem(),
    }
}

fn link(link: &Link) -> wire::Transition {
    let transition = &link.transition;
    wire::Transition {
        manifest_hash: Bytes::copy_from_slice(&transition.manifest_hash.0),
        previous: transition_bytes(transition.previous),
        mesh_ca_public_key: transition.mesh_ca_public_key.clone(),
        signature: transition.signature.clone(),
        signing_public_key: transition.signing_public_key.clone(),
        seed_shares_digest: Bytes::copy_from_slice(&transition.seed_shares),
    }
}

pub(crate) fn seed_shares(document: &SeedSharesDocument) -> wire::SeedShares {
    let shares = document.shares.iter().map(|share| wire::SeedShare {
        public_key: Bytes::copy_from_slice(&share.public_key),
        encrypted_seed: Bytes::copy_from_slice(&share.encrypted_seed),
        digest: Bytes::copy_from_slice(&share.digest),
    });
    wire::SeedShares {
        salt: Bytes::copy_from_slice(&document.salt),
        threshold: document.threshold,
        set: Bytes::copy_from_slice(&document.set),
        shares: shares.collect(),
    }
}

pub(crate) fn transition_bytes(transition: TransitionHash) -> Bytes {
    Bytes::copy_from_slice(&transition.0)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn status_response(status: Status, head: Option<Position>) -> wire::Status {
    wire::Status {
        place: status.place.to_string(),
        role: status.role.name().to_owned(),
        not_serving_because: status.serving.err().unwrap_or_default(),
        cluster: status.cluster.map(cluster_status),
        active: status.active.map(active_status),
        confirmed_ago_ms: status.confirmed_ago.map(millis),
        confirmation_bound_ms: millis(status.confirmation_bound),
        audit: head.map(audit_head),
    }
}

pub(crate) fn recent_decisions(recent: &Recent, head: Option<Position>) -> wire::RecentDecisions {
    let lines = |lines: &[Arc<str>]| lines.iter().map(|line| line.to_string()).collect();
    wire::RecentDecisions {
        issued: lines(&recent.issued),
        refused: lines(&recent.refused),
        other: lines(&recent.other),
        head: head.map(audit_head),
        counts: recent.counts.iter().map(decision_count).collect(),
        since_ms: recent.since_ms,
    }
}

fn decision_count(((kind, outcome), count): (&(Kind, Outcome), &u64)) -> wire::DecisionCount {
    wire::DecisionCount {
        kind: kind.name().to_owned(),
        outcome: outcome.name().to_owned(),
        count: *count,
    }
}

fn audit_head(head: Position) -> wire::AuditHead {
    wire::AuditHead {
        sequence: head.sequence,
        hash: Bytes::copy_from_slice(&head.hash.0),
        lost: head.lost,
    }
}

fn cluster_status(cluster: ClusterStatus) -> wire::ClusterStatus {
    wire::ClusterStatus {
        id: Bytes::copy_from_slice(&cluster.id.0),
        node: cluster.node,
        term: cluster.term,
        leader: cluster.leader,
        committed: cluster.committed,
        applied: cluster.applied,
        members: cluster.members.into_iter().map(member_status).collect(),
    }
}

fn member_status(member: MemberStatus) -> wire::MemberStatus {
    wire::MemberStatus {
        node: member.node,
        place: member.place.to_string(),
        voter: member.voter,
        heard_ago_ms: member.heard_ago.map(millis),
        matched: member.matched,
        evidence: member.evidence.map(evidence_summary),
    }
}

fn evidence_summary(summary: EvidenceSummary) -> wire::EvidenceSummary {
    wire::EvidenceSummary {
        tee: summary.tee,
        reference: summary.reference,
        policy: Bytes::copy_from_slice(&summary.policy.0),
        insecure: summary.insecure,
    }
}

fn active_status(active: ActiveStatus) -> wire::ActiveStatus {
    wire::ActiveStatus {
        manifest: Bytes::copy_from_slice(&active.manifest.0),
        transition: transition_bytes(active.transition),
        generation: active.generation,
        since_ms: millis(active.since),
    }
}
