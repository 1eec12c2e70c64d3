use std::{fmt, time::SystemTime};

use contrast_attest_document::{Answer, DocumentError, Nonce, Statement};
use contrast_attestation::{
    Evidence, EvidenceVerifier as _, ReportData, VerifiedEvidence, VerifyError,
};
use contrast_manifest::{Manifest, ManifestHash};
use contrast_proto::user::GetManifestsResponse;

use crate::{
    history::{History, Memory, newest_manifest},
    meaning::Kind,
    rows::Rows,
    transition::TransitionHash,
};

/// What a Coordinator showed, not verified.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// Its evidence: message `Evidence` of `evidence.proto`, encoded.
    pub evidence: &'a [u8],
    /// What the evidence must be bound to. It must cover `history` and something that the caller drew at random, else old evidence or a
    /// foreign history passes: in attested TLS the connection that the history was read from.
    pub report_data: ReportData,
    /// The history that it answered with.
    pub history: &'a GetManifestsResponse,
    /// Whether it was asked to leave out the initdata documents.
    pub initdata_omitted: bool,
}

/// What holds when every check passed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verified {
    /// The Coordinator's evidence: which reference value it met, measurement, hardware.
    pub evidence: VerifiedEvidence,
    /// Whether the manifest, or an earlier one of the deployment, accepts a software TEE. Then all of this proves nothing about hardware.
    pub insecure: bool,
    /// Every check; all of them passed.
    pub checks: Rows,
    /// Hash of every transition, oldest first. Remember the last one, and give it as [`Memory`] next time.
    pub transitions: Vec<TransitionHash>,
    /// Root CA certificate, PEM. The same for the deployment's whole life.
    pub root_ca: String,
    /// Mesh CA certificate, PEM: trust it to reach workloads of exactly this manifest.
    pub mesh_ca: String,
}

/// At least one check failed. Shown as the failed ones, one line each.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub struct Refused {
    /// Every check that was made, the ones that passed as well.
    pub checks: Rows,
    /// Whether the manifest, or an earlier one of the deployment, accepts a software TEE.
    pub insecure: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the Coordinator was refused; do not trust this deployment:")?;
        for row in self.checks.failed() {
            write!(
                f,
                "\n  {}: expected {}, found {}",
                row.name, row.expected, row.found
            )?;
        }
        Ok(())
    }
}

/// An answer of the attest API that proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// It is no answer, of another version, or to another question.
    #[error("the Coordinator's answer cannot be read: {0}")]
    Document(#[from] DocumentError),
    /// A check failed.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Judges an answer of the attest API, as [`verify`] does. `answer` are the bytes of the body, and `nonce` what the caller drew at random for this
/// very request: with a nonce that was used before, an old answer passes.
///
/// Returns what holds, and the statement that the evidence covers.
///
/// # Errors
/// When the bytes are no answer to `nonce`, or a check failed.
pub fn verify_answer(
    answer: &[u8],
    nonce: &Nonce,
    manifest: &[u8],
    memory: &Memory,
    now: SystemTime,
) -> Result<(Verified, Statement), AnswerError> {
    let answer = Answer::parse(answer)?;
    let statement = answer.statement(nonce)?;
    let presented = Presented {
        evidence: &answer.evidence.0,
        report_data: ReportData(answer.report_data(nonce)),
        history: &statement.clone().into_history(),
        initdata_omitted: statement.policies_omitted,
    };
    let verified = verify(&presented, manifest, memory, now)?;
    Ok((verified, statement))
}

/// Judges a Coordinator: that its evidence meets a reference value of `manifest` and is bound to the report data, that its history is
/// consistent and holds what `memory` says, and that it enforces exactly `manifest` (the bytes of the JSON file).
///
/// `now` decides about the validity of certificates and collateral. Nothing is fetched: TDX evidence must carry its collateral, and evidence of
/// SEV-SNP its certificates, as a Coordinator's does.
///
/// # Errors
/// When a check failed; the error holds all of them. Evidence that was refused ends the verification: nothing else that its sender says counts.
pub fn verify(
    presented: &Presented<'_>,
    manifest: &[u8],
    memory: &Memory,
    now: SystemTime,
) -> Result<Verified, Refused> {
    let mut checks = Rows::default();
    let manifest = match Manifest::parse(manifest) {
        Ok(manifest) => manifest,
        Err(error) => {
            let found = error.to_string();
            let expected = "a valid manifest";
            checks.record(Kind::ManifestForm, "given manifest", expected, found, false);
            let insecure = false;
            return Err(Refused { checks, insecure });
        }
    };
    let insecure = manifest.accepts_insecure_evidence();
    let Some(evidence) = appraise(presented, &manifest, now, &mut checks) else {
        return Err(Refused { checks, insecure });
    };
    let history = match presented.initdata_omitted {
        true => History::check_without_initdata(presented.history, memory),
        false => History::check(presented.history, memory),
    };
    let insecure = insecure || history.was_insecure();
    checks.extend(history.consistent);
    checks.extend(history.remembered);
    let newest = newest_manifest(presented.history).unwrap_or_default();
    checks.equal(
        Kind::NewestManifest,
        "newest manifest SHA-256",
        manifest.hash().to_string(),
        ManifestHash::of(newest).to_string(),
    );
    match checks.passed() {
        true => Ok(Verified {
            evidence,
            insecure,
            checks,
            transitions: history.chain,
            root_ca: presented.history.root_ca.clone(),
            mesh_ca: presented.history.mesh_ca.clone(),
        }),
        false => Err(Refused { checks, insecure }),
    }
}

fn appraise(
    presented: &Presented<'_>,
    manifest: &Manifest,
    now: SystemTime,
    checks: &mut Rows,
) -> Option<VerifiedEvidence> {
    const NAME: &str = "Coordinator evidence";
    const EXPECTED: &str = "meets a reference value";
    let evidence = match Evidence::decode(presented.evidence) {
        Ok(evidence) => evidence,
        Err(error) => {
            let expected = "evidence as it is encoded";
            checks.record(
                Kind::EvidenceFormat,
                NAME,
                expected,
                error.to_string(),
                false,
            );
            return None;
        }
    };
    let verifier = manifest.coordinator_verifier();
    match verifier.verify(&evidence, &presented.report_data, now) {
        Ok(evidence) => {
            checks.accepted(manifest, &evidence);
            Some(evidence)
        }
        Err(VerifyError::Refused(report)) => {
            checks.refused(&report);
            None
        }
        Err(error) => {
            checks.record(Kind::Evidence, NAME, EXPECTED, error.to_string(), false);
            None
        }
    }
}
