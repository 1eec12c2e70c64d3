//! Answers of the attest API: asked for over HTTP, or out of a file.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use contrast_attest_document::{Answer, DocumentError};
use contrast_attestation::{
    AppraisalReport, Evidence, EvidenceFormatError, EvidenceVerifier, ReportData, VerifiedEvidence,
    VerifyError, printable,
};
use contrast_clock::{Entropy as _, EntropyError, SystemEntropy};
use contrast_sdk::{
    Nonce, Statement,
    network::{AttestUrl, FetchError, Policies, fetch},
};
use tokio::task::block_in_place;

use crate::{
    diagnostic::{Diagnose, Failure},
    dial::{appraisal, refusal_hints},
    exit::Exit,
    output::Output,
    workspace,
};

/// Longer than a Coordinator takes whose TEE is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an answer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The attest API.
    Url(AttestUrl),
    /// A file.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "{url}"),
            Self::File(path) => write!(
                f,
                "the Coordinator of `{}`",
                printable(&path.display().to_string())
            ),
        }
    }
}

/// An answer, not verified, with the nonce that it must be to.
#[derive(Debug)]
pub struct Given {
    /// Where it comes from.
    pub source: Source,
    bytes: Vec<u8>,
    nonce: Nonce,
}

/// An answer that proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// No nonce could be drawn.
    #[error("cannot draw a nonce")]
    Entropy(#[from] EntropyError),
    /// Nobody answered, or with an error.
    #[error("the attest API cannot be asked")]
    Fetch(#[from] FetchError),
    /// The bytes are no answer, or one to another nonce.
    #[error("no answer to this nonce from {answer}")]
    Document {
        /// Where it comes from.
        answer: Source,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// There is no evidence in it.
    #[error("no evidence from {answer}")]
    Evidence {
        /// Where it comes from.
        answer: Source,
        /// Why.
        #[source]
        source: EvidenceFormatError,
    },
    /// The evidence does not meet the manifest.
    #[error("{answer} is not the Coordinator of this manifest: its evidence was refused")]
    Refused {
        /// Where it comes from.
        answer: Source,
        /// Every failed check.
        #[source]
        source: VerifyError,
    },
}

impl AnswerError {
    /// Every check of every reference value, when evidence was compared with reference values and refused.
    pub fn appraisal(&self) -> Option<&AppraisalReport> {
        match self {
            Self::Refused { source, .. } => appraisal(source),
            _ => None,
        }
    }
}

impl Diagnose for AnswerError {
    fn exit(&self) -> Exit {
        match self {
            Self::Entropy(_) => Exit::Internal,
            Self::Fetch(_) => Exit::Unavailable,
            Self::Evidence { .. }
            | Self::Refused { .. }
            | Self::Document {
                source: DocumentError::OtherNonce,
                ..
            } => Exit::Negative,
            Self::Document { answer, .. } => match answer {
                Source::Url(_) => Exit::Unavailable,
                Source::File(_) => Exit::Usage,
            },
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Fetch(FetchError::NoAnswer { .. }) => vec![
                "check that the Coordinator runs and that the address and port are those of its attest API (1314)".into(),
            ],
            Self::Fetch(FetchError::Status { code, .. }) => match code.as_str() {
                "NO_MANIFEST" => vec!["run `contrast set` first".into()],
                "RECOVERY_NEEDED" => vec!["an owner has to run `contrast recover` first".into()],
                "TOO_MANY_REQUESTS" => {
                    vec!["many ask at the same time; try again, or ask the user API with `-c`".into()]
                }
                "ANSWER_TOO_LARGE" => vec![
                    "ask with `policies=omit`, keep the answer in a file, and verify it with `--answer`".into(),
                ],
                _ => Vec::new(),
            },
            Self::Document {
                answer: Source::File(_),
                source: DocumentError::OtherNonce,
            } => vec![
                "give the nonce that you drew and asked with; an answer to a nonce of somebody else may be old".into(),
            ],
            Self::Document {
                source: DocumentError::OtherNonce,
                ..
            } => vec!["somebody in between sends an answer to another question: do not trust it".into()],
            Self::Refused { source, .. } => {
                appraisal(source).map(refusal_hints).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}

/// Asks an attest API with a nonce of its own.
///
/// # Errors
/// When there is no answer.
pub fn ask(url: &AttestUrl, output: &Output) -> Result<Given, Failure> {
    let mut nonce = Nonce([0; 32]);
    SystemEntropy
        .fill(&mut nonce.0)
        .map_err(AnswerError::from)?;
    let _spinner = output.spinner(&format!("asking {url}"));
    let bytes = block_in_place(|| fetch(url, &nonce, Policies::Included, PATIENCE));
    Ok(Given {
        source: Source::Url(url.clone()),
        bytes: bytes.map_err(AnswerError::from)?,
        nonce,
    })
}

/// Reads an answer to `nonce`.
///
/// # Errors
/// When the file cannot be read.
pub fn read(file: &Path, nonce: Nonce) -> Result<Given, Failure> {
    let hint = "ask an attest API, and keep the body of its answer in that file";
    Ok(Given {
        source: Source::File(file.to_owned()),
        bytes: workspace::read("answer", file, hint)?,
        nonce,
    })
}

impl Given {
    /// Has the evidence judged. What the Coordinator says in the statement is then its own.
    ///
    /// # Errors
    /// When it is no answer to the nonce, or the evidence was refused.
    pub fn verify(
        self,
        verifier: &dyn EvidenceVerifier,
        now: SystemTime,
    ) -> Result<(VerifiedEvidence, Statement), AnswerError> {
        let Self {
            source,
            bytes,
            nonce,
        } = self;
        let document = |error| AnswerError::Document {
            answer: source.clone(),
            source: error,
        };
        let answer = Answer::parse(&bytes).map_err(document)?;
        let statement = answer.statement(&nonce).map_err(document)?;
        let bound = ReportData(answer.report_data(&nonce));
        let evidence = match Evidence::decode(&answer.evidence.0) {
            Ok(evidence) => evidence,
            Err(error) => {
                return Err(AnswerError::Evidence {
                    answer: source,
                    source: error,
                });
            }
        };
        match verifier.verify(&evidence, &bound, now) {
            Ok(verified) => Ok((verified, statement)),
            Err(error) => Err(AnswerError::Refused {
                answer: source,
                source: error,
            }),
        }
    }
}
