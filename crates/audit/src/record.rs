use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::hash::Hash;

/// Version of the format, the first member of every record.
pub const FORMAT: u32 = 1;

/// No record is longer, in bytes without its line feed; what reads records refuses longer lines unread.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// No text in a record is longer, in bytes; longer ones are cut.
pub const TEXT_BYTES_MAX: usize = 128;

/// Names of a workload, and of sealed secrets, that a record lists at most.
pub const NAMES_MAX: usize = 8;

/// Failed checks that a record lists at most.
pub const CHECKS_MAX: usize = 8;

/// How every record begins; other lines of a file are not records.
pub(crate) const PREFIX: &str = "{\"audit\":";

/// How the member begins that is not covered by the hash.
pub(crate) const HASH_MEMBER: &str = ",\"hash\":\"";

/// What was decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// The process started; the first record of every chain.
    Start,
    /// A peer of the mesh API was refused because of its evidence, before it could ask for anything.
    Attestation,
    /// A certificate was asked for.
    Certificate,
    /// Sealed secrets went to a workload, with a certificate.
    SealedSecrets,
    /// A manifest was to be set, here.
    Manifest,
    /// A transition came into force on this replica, wherever it was asked for.
    Transition,
    /// A seed share came in, or a deployment was recovered.
    Recovery,
    /// A workload reported the generation of an encrypted volume, or asked for it.
    Volume,
    /// A replica became a member of the cluster, changed between learner and voter, or left, as seen here.
    Member,
    /// Role or leader changed, as seen here.
    Leader,
    /// Records that were not made or not written.
    Lost,
    /// The process was told to stop, and did.
    Stop,
}

impl Kind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::Start,
        Self::Attestation,
        Self::Certificate,
        Self::SealedSecrets,
        Self::Manifest,
        Self::Transition,
        Self::Recovery,
        Self::Volume,
        Self::Member,
        Self::Leader,
        Self::Lost,
        Self::Stop,
    ];

    /// As in a record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Attestation => "attestation",
            Self::Certificate => "certificate",
            Self::SealedSecrets => "sealed-secrets",
            Self::Manifest => "manifest",
            Self::Transition => "transition",
            Self::Recovery => "recovery",
            Self::Volume => "volume",
            Self::Member => "member",
            Self::Leader => "leader",
            Self::Lost => "lost",
            Self::Stop => "stop",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Done,
    /// More is needed before it is done: further seed shares.
    Pending,
    /// The Coordinator said no; `reason` says why.
    Refused,
    /// The Coordinator could not; `reason` says why.
    Failed,
}

impl Outcome {
    /// As in a record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whom or what a record is about. Members are written in this order; absent ones are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Version of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Random number of this process, 16 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// SHA-256 of the policy (initdata document) in a workload's evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Hash>,
    /// DNS names and addresses of the workload, as its entry in the manifest says; the first [`NAMES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// `SEV-SNP` or `TDX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tee: Option<String>,
    /// True for evidence of a software TEE, which protects nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Name of the reference value that the evidence met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Names of the checks that the evidence did not pass; the first [`CHECKS_MAX`], of the reference value that it came closest to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
    /// SHA-256 of a public key (SubjectPublicKeyInfo DER): of the certificate, in `start` of the Coordinator's own attested TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Hash>,
    /// Serial number of the certificate, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// End of its validity, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Names of sealed secrets; the first [`NAMES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// SHA-256 of a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Hash>,
    /// Hash of a transition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition: Option<Hash>,
    /// Approvals by workload owners that the request carried, valid or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<u64>,
    /// Seed shares that are still needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<u64>,
    /// Id of an encrypted volume, 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// In `volume` the generation that was reported, in `transition` how many transitions there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Generation that was recorded before, where that is why the reported one was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<u64>,
    /// Id of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Hash>,
    /// Identity of a replica, 16 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `empty`, `waiting`, `joining`, `learner`, `follower`, `candidate` or `leader`; in `member` `voter`, `learner` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Identity of the leader, 16 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Raft term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// How many records are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// A number as 16 hex digits, for members of [`Subject`] that do not fit a JSON number.
pub fn hex64(number: u64) -> String {
    format!("{number:016x}")
}

/// A decision, before it has its place in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// About what.
    pub kind: Kind,
    /// What came of it.
    pub outcome: Outcome,
    /// Machine-readable reason; empty when there is nothing to explain.
    pub reason: Cow<'static, str>,
    /// Whom it is about.
    pub subject: Subject,
}

impl Event {
    /// Something that was done.
    pub fn done(kind: Kind, subject: Subject) -> Self {
        Self {
            kind,
            outcome: Outcome::Done,
            reason: Cow::Borrowed(""),
            subject,
        }
    }
}

/// One record, without its hash, which follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`].
    #[serde(rename = "audit")]
    pub format: u32,
    /// Place in the chain; the first one is 0.
    pub sequence: u64,
    /// Wall clock of the Coordinator, milliseconds since 1970. It may be set back, so this need not grow.
    pub time_ms: u64,
    /// About what.
    pub kind: Kind,
    /// What came of it.
    pub outcome: Outcome,
    /// Machine-readable reason; left out when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whom it is about.
    pub subject: Subject,
    /// Hash of the record before; 64 zeros in the first one.
    pub previous: Hash,
}

/// A line is no record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Not with the one spelling that a record has.
    #[error("expected a record in its only spelling: {found}")]
    Spelling {
        /// What is wrong with it.
        found: String,
    },
    /// Written by another version.
    #[error(
        "expected format {FORMAT}, found {found}; use a `contrast` of the Coordinator's version"
    )]
    Format {
        /// The version.
        found: u32,
    },
}

impl Record {
    /// The bytes that the hash covers: the record as JSON, without a hash and without a line feed.
    pub fn covered(&self) -> String {
        // Texts, numbers and lists of them: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Its hash.
    pub fn hash(&self) -> Hash {
        Hash::of(self.covered().as_bytes())
    }

    /// Its line, without the line feed.
    pub fn line(&self) -> String {
        let mut line = self.covered();
        let hash = Hash::of(line.as_bytes());
        line.pop();
        format!("{line}{HASH_MEMBER}{hash}\"}}")
    }

    /// Reads a line, and the hash that it carries, which is not checked.
    ///
    /// # Errors
    /// When the line is not exactly what [`line`](Self::line) would make of what it says, its hash apart.
    pub fn parse(line: &str) -> Result<(Self, Hash), ParseError> {
        let spelling = |found: String| ParseError::Spelling { found };
        let (covered, hash) = line
            .rsplit_once(HASH_MEMBER)
            .and_then(|(covered, rest)| Some((covered, rest.strip_suffix("\"}")?)))
            .ok_or_else(|| spelling("no hash at its end".to_owned()))?;
        let covered = format!("{covered}}}");
        let version = serde_json::from_str::<Version>(&covered);
        let version = version.map_err(|error| spelling(error.to_string()))?;
        if version.audit != FORMAT {
            return Err(ParseError::Format {
                found: version.audit,
            });
        }
        let record: Self =
            serde_json::from_str(&covered).map_err(|error| spelling(error.to_string()))?;
        let hash = hash.parse().map_err(|error| spelling(format!("{error}")))?;
        match record.covered() == covered {
            true => Ok((record, hash)),
            false => Err(spelling(
                "members in another order, or spaces, or other escapes".to_owned(),
            )),
        }
    }
}

#[derive(Deserialize)]
struct Version {
    audit: u32,
}
