//! The outcome of a verification as data: what `contrast verify` shows, for programs in other languages and for pages.

use std::time::SystemTime;

use contrast_attest_document::{DocumentError, Nonce};
use contrast_manifest::Manifest;
use der::DateTime;
use serde::Serialize;

use crate::{
    facts::{Allowed, Authorities, EvidenceFacts},
    history::Memory,
    rows::{Rows, Verdict},
    transition::TransitionHash,
    verify::{AnswerError, verify_answer},
};

/// Everything that one answer of the attest API shows. Its JSON form has these fields by these names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The one answer.
    pub verdict: Verdict,
    /// Whether the manifest accepts a software TEE, so that the verdict proves nothing about hardware.
    pub insecure: bool,
    /// The time that the caller gave, RFC 3339; empty when it is before 1970 or after 9999.
    pub verified_at: String,
    /// SHA-256 of the given manifest, hex; none when it is not valid.
    pub manifest_sha256: Option<String>,
    /// What the given manifest allows; none when it is not valid.
    pub allowed: Option<Allowed>,
    /// Every check.
    pub checks: Rows,
    /// What else holds; none when the verdict is `refused`, so that nobody uses it by mistake.
    pub proven: Option<Proven>,
}

/// What an answer proves when every check passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Proven {
    /// The evidence.
    pub evidence: EvidenceFacts,
    /// Hash of every transition, oldest first.
    pub transitions: Vec<TransitionHash>,
    /// Whether the initdata documents were left out, and not checked.
    pub policies_omitted: bool,
    /// The CA certificates in words.
    pub authorities: Authorities,
    /// Root CA certificate, PEM.
    pub root_ca: String,
    /// Mesh CA certificate, PEM.
    pub mesh_ca: String,
}

impl Report {
    /// Judges an answer as [`verify_answer`] does. A refusal is a report, too.
    ///
    /// # Errors
    /// When the bytes are no answer to `nonce`.
    pub fn of_answer(
        answer: &[u8],
        nonce: &Nonce,
        manifest: &[u8],
        memory: &Memory,
        now: SystemTime,
    ) -> Result<Self, DocumentError> {
        let (checks, insecure, proven) = match verify_answer(answer, nonce, manifest, memory, now) {
            Ok((verified, statement)) => {
                let proven = Proven {
                    evidence: EvidenceFacts::of(&verified.evidence),
                    transitions: verified.transitions,
                    policies_omitted: statement.policies_omitted,
                    authorities: Authorities::of(&verified.root_ca, &verified.mesh_ca),
                    root_ca: verified.root_ca,
                    mesh_ca: verified.mesh_ca,
                };
                (verified.checks, verified.insecure, Some(proven))
            }
            Err(AnswerError::Refused(refused)) => (refused.checks, refused.insecure, None),
            Err(AnswerError::Document(error)) => return Err(error),
        };
        let manifest = Manifest::parse(manifest).ok();
        let time = DateTime::from_system_time(now);
        Ok(Self {
            verdict: checks.verdict(),
            insecure,
            verified_at: time.map_or_else(|_| String::new(), |time| time.to_string()),
            manifest_sha256: manifest.as_ref().map(|valid| valid.hash().to_string()),
            allowed: manifest.as_ref().map(Allowed::of),
            checks,
            proven,
        })
    }
}
