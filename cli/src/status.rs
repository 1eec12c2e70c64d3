//! What `contrast status` shows: a Coordinator's answer, made fit for people and programs.
//!
//! The Coordinator that answers is attested; the text that it repeats (names of places, reasons) may come from others, so only
//! its printable characters are kept.

use std::time::Duration;

use contrast_manifest::ManifestHash;
use contrast_proto::user as wire;
use serde::Serialize;

use crate::transition::{TransitionHash, TransitionHashError};

mod text;

pub(crate) use text::table;

/// Longer text of others is cut, in characters.
const TEXT_CHARS_MAX: usize = 200;

/// A field of the answer that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("the Coordinator's status is malformed: {field}")]
pub struct StatusError {
    field: &'static str,
    #[source]
    source: TransitionHashError,
}

/// The result of `contrast status`. All ages are in milliseconds, all hashes 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Who was asked, `HOST:PORT`.
    pub coordinator: String,
    /// Whether the manifest accepts a software TEE, so that the answer proves nothing about hardware.
    pub insecure: bool,
    /// The asked replica's place, `HOST:PORT` of its peer API.
    pub place: String,
    /// `empty`, `waiting`, `joining`, `learner`, `follower`, `candidate` or `leader`.
    pub role: String,
    /// Whether it issues certificates and answers for its state.
    pub serving: bool,
    /// Why it does not serve; null when it does.
    pub not_serving_because: Option<String>,
    /// How its state is confirmed; null outside of a cluster.
    pub quorum: Option<Quorum>,
    /// The cluster; null outside of one.
    pub cluster: Option<Cluster>,
    /// What is set; null when no manifest ever was.
    pub active: Option<Active>,
    /// Its audit stream; null when it is of a version that has none.
    pub audit: Option<Audit>,
}

/// The latest record of a replica's audit stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Its place; the first one has 0.
    pub sequence: u64,
    /// Its hash, for `contrast audit verify --head`.
    pub hash: String,
    /// Decisions that the replica could not record since its start.
    pub lost: u64,
}

/// Whether a majority of the cluster stands behind a replica's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quorum {
    /// Whether the last confirmation is not older than the bound.
    pub confirmed: bool,
    /// Age of the last confirmation; null before the first.
    pub confirmed_ago_ms: Option<u64>,
    /// Certificates are issued while the age is at most this.
    pub bound_ms: u64,
}

/// The cluster as the asked replica sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// Id, new with every recovery.
    pub id: String,
    /// Identity of the asked replica, 16 hex digits, new with every start.
    pub node: String,
    /// Raft term.
    pub term: u64,
    /// Identity of the leader; null when it knows none.
    pub leader: Option<String>,
    /// Index of the last log entry that it knows to be committed.
    pub committed: u64,
    /// Index of the last log entry that it applied.
    pub applied: u64,
    /// All members.
    pub members: Vec<Member>,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// `HOST:PORT` of its peer API.
    pub place: String,
    /// Identity, 16 hex digits.
    pub node: String,
    /// Whether it votes; else it is a learner.
    pub voter: bool,
    /// Whether it leads, as far as the asked replica knows.
    pub leader: bool,
    /// Whether it is the asked replica.
    pub asked: bool,
    /// When the leader heard of it last; null when the asked replica does not lead or never heard of it.
    pub heard_ago_ms: Option<u64>,
    /// Committed log entries that it is not known to have; null when the asked replica does not lead.
    pub lag: Option<u64>,
    /// What it proved to the asked replica last; null when there was no connection.
    pub evidence: Option<Evidence>,
}

/// What a member proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// `SEV-SNP` or `TDX`.
    pub tee: String,
    /// Name of the reference value that it met.
    pub reference: String,
    /// Its policy.
    pub policy: String,
    /// Whether it is that of a software TEE, which protects nothing.
    pub insecure: bool,
}

/// What is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Active {
    /// SHA-256 of the manifest.
    pub manifest_sha256: String,
    /// The latest transition.
    pub transition: TransitionHash,
    /// How many transitions there are.
    pub generation: u64,
    /// How long it has been active on the asked replica.
    pub age_ms: u64,
}

impl Status {
    /// Reads the answer of `coordinator`. `insecure`: whether the manifest accepts a software TEE.
    ///
    /// # Errors
    /// When a hash does not have 32 bytes.
    pub fn read(
        coordinator: String,
        insecure: bool,
        answer: &wire::Status,
    ) -> Result<Self, StatusError> {
        let reason = printable(&answer.not_serving_because);
        let bound_ms = answer.confirmation_bound_ms;
        Ok(Self {
            coordinator,
            insecure,
            place: printable(&answer.place),
            role: printable(&answer.role),
            serving: reason.is_empty(),
            not_serving_because: Some(reason).filter(|reason| !reason.is_empty()),
            quorum: answer.cluster.as_ref().map(|_| Quorum {
                confirmed: answer.confirmed_ago_ms.is_some_and(|age| age <= bound_ms),
                confirmed_ago_ms: answer.confirmed_ago_ms,
                bound_ms,
            }),
            cluster: answer.cluster.as_ref().map(Cluster::read).transpose()?,
            active: answer.active.as_ref().map(Active::read).transpose()?,
            audit: answer.audit.as_ref().map(Audit::read).transpose()?,
        })
    }
}

impl Cluster {
    fn read(answer: &wire::ClusterStatus) -> Result<Self, StatusError> {
        let members = answer.members.iter().map(|member| {
            Ok(Member {
                place: printable(&member.place),
                node: identity(member.node),
                voter: member.voter,
                leader: answer.leader == Some(member.node),
                asked: answer.node == member.node,
                heard_ago_ms: member.heard_ago_ms,
                lag: member
                    .matched
                    .map(|matched| answer.committed.saturating_sub(matched)),
                evidence: member.evidence.as_ref().map(Evidence::read).transpose()?,
            })
        });
        Ok(Self {
            id: hash("cluster id", &answer.id)?.to_string(),
            node: identity(answer.node),
            term: answer.term,
            leader: answer.leader.map(identity),
            committed: answer.committed,
            applied: answer.applied,
            members: members.collect::<Result<_, _>>()?,
        })
    }
}

impl Evidence {
    fn read(answer: &wire::EvidenceSummary) -> Result<Self, StatusError> {
        Ok(Self {
            tee: printable(&answer.tee),
            reference: printable(&answer.reference),
            policy: hash("policy of a member", &answer.policy)?.to_string(),
            insecure: answer.insecure,
        })
    }
}

impl Audit {
    fn read(answer: &wire::AuditHead) -> Result<Self, StatusError> {
        Ok(Self {
            sequence: answer.sequence,
            hash: hash("audit stream", &answer.hash)?.to_string(),
            lost: answer.lost,
        })
    }
}

impl Active {
    fn read(answer: &wire::ActiveStatus) -> Result<Self, StatusError> {
        let manifest = hash("manifest", &answer.manifest)?;
        Ok(Self {
            manifest_sha256: ManifestHash(manifest.0).to_string(),
            transition: hash("transition", &answer.transition)?,
            generation: answer.generation,
            age_ms: answer.since_ms,
        })
    }
}

fn hash(field: &'static str, bytes: &[u8]) -> Result<TransitionHash, StatusError> {
    TransitionHash::try_from(bytes).map_err(|source| StatusError { field, source })
}

fn identity(node: u64) -> String {
    format!("{node:016x}")
}

/// Text of others: control characters, line breaks and marks that change the direction of writing become escapes, and it is cut
/// at 200 characters, so that it can neither move the cursor nor imitate other lines.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == TEXT_CHARS_MAX {
            shown.push('…');
            break;
        }
        match character {
            '"' | '\'' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

fn age(milliseconds: u64) -> String {
    let age = Duration::from_millis(milliseconds);
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", age.as_secs_f64()),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_move_the_cursor_break_lines_or_reverse_text() {
        assert_eq!(printable("coordinator-0.c:7778"), "coordinator-0.c:7778");
        assert_eq!(printable("it's \"so\""), "it's \"so\"");
        let hostile = printable("a\u{1b}[2Jb\nc\u{202e}d\u{9b}e\u{7f}");
        assert_eq!(hostile, "a\\u{1b}[2Jb\\nc\\u{202e}d\\u{9b}e\\u{7f}");
        assert!(hostile.chars().all(|c| c.is_ascii_graphic()));
        assert_eq!(printable(&"x".repeat(5000)).chars().count(), 201);
    }

    #[test]
    fn ages_have_a_unit_that_fits() {
        assert_eq!(age(40), "0.0 s");
        assert_eq!(age(59_900), "59.9 s");
        assert_eq!(age(61_000), "1 min");
        assert_eq!(age(3_600_000 * 25), "25 h 0 min");
        assert_eq!(age(86_400_000 * 9), "9 days");
    }

    #[test]
    fn hashes_of_another_length_are_refused_and_named() {
        let answer = wire::Status {
            active: Some(wire::ActiveStatus {
                manifest: vec![1; 32].into(),
                transition: vec![1; 31].into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let error = Status::read("c:1".into(), false, &answer).expect_err("malformed");
        assert_eq!(
            error.to_string(),
            "the Coordinator's status is malformed: transition"
        );
    }

    #[test]
    fn a_confirmation_older_than_the_bound_is_no_quorum() {
        let quorum = |age| {
            let answer = wire::Status {
                confirmed_ago_ms: age,
                confirmation_bound_ms: 10_000,
                cluster: Some(wire::ClusterStatus {
                    id: vec![1; 32].into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let status = Status::read("c:1".into(), false, &answer).expect("status");
            status.quorum.expect("in a cluster").confirmed
        };
        assert!(quorum(Some(10_000)));
        assert!(!quorum(Some(10_001)));
        assert!(!quorum(None));
    }
}
