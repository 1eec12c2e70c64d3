//! The handshake after TLS as a chain of types, without I/O, clock or task.
//!
//! Each state is consumed by the event it waits for and gives the next state and, where one is due, the frame to send.
//! There is one way from the start to [`Established`], and it leads through every proof that either side required: a state
//! after an accepted proof exists only as the output of the state that checked it.
//!
//! [`client`] and [`server`] define the order; what is the same for both is here: one side's challenge of the other
//! ([`AwaitEvidence`], [`Appraise`]) and its counterpart ([`Prove`], [`AwaitVerdict`]).

pub(crate) mod client;
pub(crate) mod error;
pub(crate) mod server;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use contrast_attestation::{Evidence, EvidenceVerifier, Issuer, ReportData};
use contrast_proto::evidence::{Hello, Verdict};
use prost::Message;

use crate::{
    AtlsError, AttestedPeer, Causes, Incompatibility, Limits, Misbehaviour, VERSION,
    frame::{self, Kind},
};

/// What this side brings to the handshake.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) issuer: Option<Arc<dyn Issuer>>,
    pub(crate) verifier: Option<Arc<dyn EvidenceVerifier>>,
    /// Whether a connection may come about on which neither side requires evidence.
    pub(crate) unattested: bool,
    pub(crate) limits: Limits,
}

/// End of the chain: everything that was required was proven and accepted, in both directions.
#[derive(Debug)]
pub(crate) struct Established {
    attested: Option<Arc<AttestedPeer>>,
}

impl Established {
    /// The peer's proof; `None` when this side required none.
    pub(crate) fn into_attested(self) -> Option<Arc<AttestedPeer>> {
        self.attested
    }
}

/// What follows the acceptance of the peer's evidence.
pub(crate) trait AfterAcceptance {
    type Next;
    fn peer_accepted(self, peer: Arc<AttestedPeer>) -> Self::Next;
}

/// This side required evidence and waits for it.
#[derive(Debug)]
pub(crate) struct AwaitEvidence<N> {
    verifier: Arc<dyn EvidenceVerifier>,
    expected: ReportData,
    limits: Limits,
    next: N,
}

impl<N: AfterAcceptance> AwaitEvidence<N> {
    /// Takes the body of an evidence frame.
    pub(crate) fn receive(self, body: &[u8]) -> Result<Appraise<N>, AtlsError> {
        let frame: EvidenceBody = decode(Kind::Evidence, body)?;
        if frame.evidence.is_empty() {
            return Err(Misbehaviour::EvidenceMissing.into());
        }
        let evidence = Evidence::decode(&frame.evidence).map_err(Misbehaviour::EvidenceFormat)?;
        Ok(Appraise {
            evidence,
            challenge: self,
        })
    }
}

/// Evidence has arrived; nothing in it is trusted yet.
#[derive(Debug)]
pub(crate) struct Appraise<N> {
    evidence: Evidence,
    challenge: AwaitEvidence<N>,
}

/// The outcome of [`Appraise::appraise`]: in both cases the peer is to be told.
#[derive(Debug)]
pub(crate) enum Judged<N> {
    Accepted { verdict: Vec<u8>, next: N },
    Refused { verdict: Vec<u8>, error: AtlsError },
}

impl<N: AfterAcceptance> Appraise<N> {
    /// Asks the verifier. Takes milliseconds when certificate chains are cold, so the driver calls it off the async
    /// threads.
    pub(crate) fn appraise(self, now: SystemTime) -> Judged<N::Next> {
        let Self {
            evidence,
            challenge,
        } = self;
        let AwaitEvidence {
            verifier,
            expected,
            limits,
            next,
        } = challenge;
        match verifier.verify(&evidence, &expected, now) {
            Ok(verified) => {
                let peer = AttestedPeer {
                    evidence,
                    report_data: expected,
                    verified,
                };
                let verdict = verdict_frame(true, String::new(), &limits);
                Judged::Accepted {
                    verdict,
                    next: next.peer_accepted(Arc::new(peer)),
                }
            }
            Err(error) => {
                let verdict = verdict_frame(false, Causes(&error).to_string(), &limits);
                Judged::Refused {
                    verdict,
                    error: AtlsError::RefusedPeer(error),
                }
            }
        }
    }
}

/// The peer required evidence; this side has not asked its TEE yet.
#[derive(Debug)]
pub(crate) struct Prove<N> {
    issuer: Arc<dyn Issuer>,
    report_data: ReportData,
    limits: Limits,
    next: N,
}

impl<N> Prove<N> {
    /// Asks the TEE; may block for as long as that takes. Returns the frame to send and the state after sending it.
    pub(crate) fn issue(self) -> Result<(Vec<u8>, AwaitVerdict<N>), AtlsError> {
        let evidence = self
            .issuer
            .issue(&self.report_data)
            .map_err(AtlsError::IssuerFailed)?;
        let body = EvidenceBody {
            evidence: evidence.encode().into(),
        };
        // Measured against the hard cap: this side's own reading limit says nothing about what the peer reads.
        let limits = Limits {
            evidence_frame_bytes: Limits::EVIDENCE_FRAME_BYTES_MAX,
            ..self.limits
        };
        let frame =
            frame::encode(Kind::Evidence, &body, &limits).ok_or(AtlsError::EvidenceTooLarge {
                limit: Limits::EVIDENCE_FRAME_BYTES_MAX,
            })?;
        Ok((frame, AwaitVerdict { next: self.next }))
    }
}

/// Evidence is sent; the peer judges it.
#[derive(Debug)]
pub(crate) struct AwaitVerdict<N> {
    next: N,
}

impl<N> AwaitVerdict<N> {
    /// Takes the body of a verdict frame.
    pub(crate) fn receive(self, body: &[u8]) -> Result<N, AtlsError> {
        let verdict: Verdict = decode(Kind::Verdict, body)?;
        match verdict.accepted {
            true => Ok(self.next),
            false => Err(AtlsError::RefusedByPeer {
                reason: printable(&verdict.reason),
            }),
        }
    }
}

/// `EvidenceFrame` with its field still encoded: on the wire a nested message and a byte string are the same, and
/// [`Evidence::decode`] is the one place that knows the inner message.
#[derive(Clone, PartialEq, Message)]
struct EvidenceBody {
    #[prost(bytes = "bytes", tag = "1")]
    evidence: Bytes,
}

fn hello_frame(terms: &Terms) -> Vec<u8> {
    let hello = Hello {
        version: VERSION,
        requires_evidence: terms.verifier.is_some(),
    };
    // A Hello has at most 8 bytes, far below its limit; were it otherwise, the peer would see the connection close.
    frame::encode(Kind::Hello, &hello, &terms.limits).unwrap_or_default()
}

/// Whether the peer requires evidence, from its Hello.
fn requirement(terms: &Terms, body: &[u8]) -> Result<bool, AtlsError> {
    let hello: Hello = decode(Kind::Hello, body)?;
    if hello.version != VERSION {
        return Err(AtlsError::PeerIncompatible(Incompatibility::Version {
            expected: VERSION,
            found: hello.version,
        }));
    }
    if !hello.requires_evidence && terms.verifier.is_none() && !terms.unattested {
        return Err(AtlsError::PeerIncompatible(
            Incompatibility::NobodyRequiresEvidence,
        ));
    }
    Ok(hello.requires_evidence)
}

fn verdict_frame(accepted: bool, mut reason: String, limits: &Limits) -> Vec<u8> {
    reason.truncate(reason.floor_char_boundary(Limits::REASON_BYTES_MAX));
    // Fits, now that the reason is cut; were it otherwise, the peer would see the connection close.
    frame::encode(Kind::Verdict, &Verdict { accepted, reason }, limits).unwrap_or_default()
}

fn decode<M: Message + Default>(kind: Kind, body: &[u8]) -> Result<M, Misbehaviour> {
    M::decode(body).map_err(|error| Misbehaviour::NotProtobuf {
        frame: kind.name(),
        detail: error.to_string(),
    })
}

/// Text of a peer that is about to be printed: escape sequences must not reach a terminal or forge log lines.
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
