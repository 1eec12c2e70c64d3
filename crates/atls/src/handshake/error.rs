use std::{error::Error, fmt, io, time::Duration};

use contrast_attestation::{EvidenceFormatError, IssueError, VerifyError};
use rustls::AlertDescription;

use crate::ALPN;

/// A connection did not become an [`AtlsStream`](crate::AtlsStream).
///
/// The variants say whose fault it was. `Display` gives one level; [`causes`](Self::causes) gives the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AtlsError {
    /// The peer did what the protocol forbids: a bug on its side, or an attack.
    #[error("the peer broke the attested TLS protocol")]
    PeerMisbehaved(#[source] Misbehaviour),
    /// The peer is well-behaved, but the two sides cannot work together.
    #[error("the peer does not speak attested TLS the way this side needs it")]
    PeerIncompatible(#[source] Incompatibility),
    /// The peer looked at this side and refused it.
    #[error("the peer refused this side: {reason}")]
    RefusedByPeer {
        /// What the peer says: the failed checks, or the TLS alert. Control characters other than newline are replaced,
        /// so it can be printed; it is as trustworthy as the peer.
        reason: String,
    },
    /// This side looked at the peer's evidence and refused it. The peer was told why.
    #[error("the peer's evidence was refused")]
    RefusedPeer(#[source] VerifyError),
    /// The peer requires evidence and this side has no TEE to ask.
    #[error(
        "the peer requires evidence, but this side has no TEE that could issue it; run it in a confidential VM \
         (or with the software TEE, for development)"
    )]
    NoIssuer,
    /// This side's TEE failed.
    #[error("this side could not show evidence")]
    IssuerFailed(#[source] IssueError),
    /// This side's evidence is larger than any peer accepts.
    #[error(
        "this side's evidence does not fit in a frame of {limit} bytes; its collateral is unusually large"
    )]
    EvidenceTooLarge {
        /// Largest frame body, in bytes.
        limit: u32,
    },
    /// The network failed.
    #[error("the network failed during {phase}")]
    Io {
        /// What was going on.
        phase: Phase,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The peer closed the connection between two frames.
    #[error("the peer closed the connection during {phase}; {}", phase.hint_when_closed())]
    PeerClosed {
        /// What was going on.
        phase: Phase,
    },
    /// The handshake took too long.
    #[error("the handshake was not complete after {limit:?}; it hung at {phase}")]
    Deadline {
        /// The configured limit.
        limit: Duration,
        /// What was going on.
        phase: Phase,
    },
    /// This side's TLS library failed for a local reason.
    #[error("this side's TLS library failed")]
    LocalTls(#[source] rustls::Error),
    /// The code that ran in `phase` panicked. The connection was refused; please report it.
    #[error(
        "internal error: the code for {phase} panicked; the connection was refused, please report this"
    )]
    Panicked {
        /// What was going on.
        phase: Phase,
    },
}

/// A step of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Opening the transport.
    Dial,
    /// The TLS handshake.
    Tls,
    /// Exchange of `Hello`.
    Hello,
    /// Waiting for this side's TEE.
    Issue,
    /// Transfer of evidence.
    Evidence,
    /// Appraisal of the peer's evidence.
    Appraise,
    /// Transfer of a verdict.
    Verdict,
}

impl Phase {
    fn hint_when_closed(self) -> &'static str {
        match self {
            Self::Hello => {
                "the peer's log says why; a network policy or a wrong port can do that, too"
            }
            Self::Evidence => "the peer's log says why; a peer without a TEE cannot send evidence",
            _ => "the peer's log says why",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "dialling",
            Self::Tls => "the TLS handshake",
            Self::Hello => "the exchange of Hello",
            Self::Issue => "issuing evidence",
            Self::Evidence => "the transfer of evidence",
            Self::Appraise => "the appraisal of evidence",
            Self::Verdict => "the transfer of the verdict",
        })
    }
}

/// How a peer broke the protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// Another frame, or no frame at all (application bytes), where one kind was due.
    #[error("expected a {expected} frame (kind {expected_kind}), found kind {found_kind:#04x}")]
    UnexpectedFrame {
        /// Name of the frame that was due.
        expected: &'static str,
        /// Its kind byte.
        expected_kind: u8,
        /// The kind byte that came.
        found_kind: u8,
    },
    /// A frame announced a body above the limit. None of it was read.
    #[error("{frame} announces {found} bytes, expected at most {limit}")]
    FrameTooLarge {
        /// Name of the frame.
        frame: &'static str,
        /// Limit of its body, in bytes.
        limit: u32,
        /// Announced size of its body, in bytes.
        found: u32,
    },
    /// The connection ended inside a frame.
    #[error("{frame} ends early: {missing} more bytes were due")]
    TruncatedFrame {
        /// Name of the frame.
        frame: &'static str,
        /// Bytes of header or body that did not come.
        missing: usize,
    },
    /// A frame's body is no protobuf message of its kind.
    #[error("{frame} is not valid protobuf: {detail}")]
    NotProtobuf {
        /// Name of the frame.
        frame: &'static str,
        /// What the decoder says.
        detail: String,
    },
    /// An `EvidenceFrame` without evidence.
    #[error("the EvidenceFrame is empty")]
    EvidenceMissing,
    /// An `EvidenceFrame` whose evidence cannot be read.
    #[error("the evidence cannot be read")]
    EvidenceFormat(#[source] EvidenceFormatError),
    /// A client whose evidence is required presented no certificate, so there is no key to bind.
    #[error("the client presented no certificate; one that must prove itself needs a TLS key")]
    NoCertificate,
    /// The TLS layer caught it.
    #[error("TLS failed")]
    Tls(#[source] rustls::Error),
}

/// Why two well-behaved peers cannot work together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Incompatibility {
    /// Another version of the protocol.
    #[error("expected protocol version {expected}, found {found}; upgrade the older side")]
    Version {
        /// Version of this side.
        expected: u32,
        /// Version of the peer.
        found: u32,
    },
    /// The peer speaks TLS, but not this protocol: most likely the wrong port.
    #[error(
        "the peer does not offer the TLS application protocol {}; is this the right port?",
        String::from_utf8_lossy(ALPN)
    )]
    ApplicationProtocol,
    /// Neither side requires evidence, so nobody would be attested.
    #[error("neither side requires evidence; configure a verifier on at least one of them")]
    NobodyRequiresEvidence,
    /// No common TLS version, cipher suite or key exchange.
    #[error(
        "no common TLS parameters; this side speaks TLS 1.3 only, with X25519MLKEM768 or P-256"
    )]
    Tls(#[source] rustls::Error),
}

impl AtlsError {
    /// Stable name of the variant for metrics and logs, in `snake_case`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::PeerMisbehaved(_) => "peer_misbehaved",
            Self::PeerIncompatible(_) => "peer_incompatible",
            Self::RefusedByPeer { .. } => "refused_by_peer",
            Self::RefusedPeer(_) => "refused_peer",
            Self::NoIssuer => "no_issuer",
            Self::IssuerFailed(_) => "issuer_failed",
            Self::EvidenceTooLarge { .. } => "evidence_too_large",
            Self::Io { .. } => "io",
            Self::PeerClosed { .. } => "peer_closed",
            Self::Deadline { .. } => "deadline",
            Self::LocalTls(_) => "local_tls",
            Self::Panicked { .. } => "panicked",
        }
    }

    /// Whether the peer failed to prove itself: its evidence was refused, unreadable or missing. What metrics count as an
    /// attestation failure.
    pub fn is_attestation_failure(&self) -> bool {
        matches!(
            self,
            Self::RefusedPeer(_)
                | Self::PeerMisbehaved(
                    Misbehaviour::EvidenceMissing
                        | Misbehaviour::EvidenceFormat(_)
                        | Misbehaviour::NoCertificate
                )
                | Self::PeerClosed {
                    phase: Phase::Evidence
                }
        )
    }

    /// This error's message and those of all its causes, joined by `: `.
    pub fn causes(&self) -> Causes<'_> {
        Causes(self)
    }

    /// Sorts an error of the TLS stream: tokio-rustls wraps those of rustls.
    pub(crate) fn from_stream(phase: Phase, error: io::Error) -> Self {
        let wrapped = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match wrapped {
            Some(tls) => Self::from_tls(tls.clone()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::PeerClosed { phase },
            None => Self::Io {
                phase,
                source: error,
            },
        }
    }

    fn from_tls(error: rustls::Error) -> Self {
        use rustls::Error as Tls;
        match error {
            Tls::NoApplicationProtocol
            | Tls::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                Self::PeerIncompatible(Incompatibility::ApplicationProtocol)
            }
            Tls::PeerIncompatible(_)
            | Tls::AlertReceived(
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
            ) => Self::PeerIncompatible(Incompatibility::Tls(error)),
            Tls::AlertReceived(alert) => Self::RefusedByPeer {
                reason: format!("TLS alert {alert:?}"),
            },
            Tls::NoCertificatesPresented => Self::PeerMisbehaved(Misbehaviour::NoCertificate),
            Tls::InappropriateMessage { .. }
            | Tls::InappropriateHandshakeMessage { .. }
            | Tls::InvalidMessage(_)
            | Tls::DecryptError
            | Tls::PeerMisbehaved(_)
            | Tls::InvalidCertificate(_)
            | Tls::PeerSentOversizedRecord => Self::PeerMisbehaved(Misbehaviour::Tls(error)),
            _ => Self::LocalTls(error),
        }
    }
}

impl From<Misbehaviour> for AtlsError {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::PeerMisbehaved(misbehaviour)
    }
}

/// Prints an error and all its causes on one line (as far as they have no line breaks of their own).
#[derive(Debug, Clone, Copy)]
pub struct Causes<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
