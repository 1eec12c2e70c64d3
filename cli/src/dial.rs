//! Attested connections to a Coordinator's user API.
//!
//! A [`Session`] is one TCP connection. It exists only after the Coordinator proved itself, and it never reconnects: what
//! is asked over it is asked of the very peer whose evidence was appraised.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contrast_atls::{AtlsError, ClientConfig, Identity, Limits};
use contrast_attestation::{AppraisalReport, VerifiedEvidence, VerifyError};
use contrast_clock::WallClock;
use contrast_manifest::Manifest;
use contrast_proto::user::{
    self as wire, GetManifestsRequest, GetManifestsResponse, GetSeedSharesRequest, RecoverRequest,
    RecoverResponse, SeedShares, SetManifestRequest, SetManifestResponse,
    user_api_client::UserApiClient,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};
use tonic_types::StatusExt as _;

use crate::{address::CoordinatorAddress, diagnostic::Diagnose, exit::Exit};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A history holds every manifest and initdata document there ever was.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// No attested connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nothing listens, or the network does not reach it.
    #[error("cannot reach the Coordinator at {address}")]
    Unreachable {
        /// Where it was looked for.
        address: CoordinatorAddress,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host name has no address.
    #[error("cannot resolve the Coordinator's host `{host}`")]
    Unresolved {
        /// The host name.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection ended, or the peer does not speak attested TLS.
    #[error("no attested connection to the Coordinator at {address}")]
    Handshake {
        /// The Coordinator.
        address: CoordinatorAddress,
        /// Why.
        #[source]
        source: AtlsError,
    },
    /// The Coordinator's evidence does not meet the manifest.
    #[error("the Coordinator at {address} is not the one of this manifest: its evidence was refused")]
    Refused {
        /// The Coordinator.
        address: CoordinatorAddress,
        /// Every failed check.
        #[source]
        source: VerifyError,
    },
    /// This side's own key could not be made.
    #[error("cannot generate a TLS key for this connection")]
    Identity(#[source] AtlsError),
    /// The attested connection could not carry gRPC.
    #[error("the attested connection to {address} does not carry gRPC")]
    Transport {
        /// The Coordinator.
        address: CoordinatorAddress,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

impl DialError {
    /// Whether the Coordinator may just not be up yet.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Transport { .. } => true,
            Self::Handshake { source, .. } => source.is_io(),
            Self::Unresolved { .. } | Self::Refused { .. } | Self::Identity(_) => false,
        }
    }

    /// Every check of every reference value, when evidence was compared with reference values and refused.
    pub fn appraisal(&self) -> Option<&AppraisalReport> {
        match self {
            Self::Refused { source: VerifyError::Refused(report), .. } => Some(report),
            _ => None,
        }
    }
}

impl Diagnose for DialError {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused { .. } => Exit::Negative,
            Self::Identity(_) => Exit::Internal,
            Self::Unreachable { .. }
            | Self::Unresolved { .. }
            | Self::Handshake { .. }
            | Self::Transport { .. } => Exit::Unavailable,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Unreachable { .. } => vec![
                "check that the Coordinator runs and that the address and port are those of its user API (1313)".into(),
            ],
            Self::Handshake { source, .. } if source.is_io() => vec![
                "check that the address is that of a Coordinator's user API (1313) and that nothing in between ends TLS"
                    .into(),
            ],
            Self::Refused { source: VerifyError::Refused(report), .. } => refusal_hints(report),
            Self::Refused { .. } => vec![
                "add a reference value for this kind of machine to the manifest, or deploy on the kind that it names"
                    .into(),
            ],
            _ => Vec::new(),
        }
    }
}

/// What the failed checks suggest.
fn refusal_hints(report: &AppraisalReport) -> Vec<String> {
    let failed = |fields: &[&str]| {
        report
            .sets
            .iter()
            .flat_map(|set| set.checks.checks())
            .any(|check| !check.passed && fields.contains(&check.field.as_str()))
    };
    let mut hints = Vec::new();
    if failed(&["HOSTDATA", "MRCONFIGID"]) {
        hints.push(
            "the Coordinator was started with another policy: its YAML changed after `contrast generate`, the changed \
             YAML was not applied, or it was generated by another version of `contrast`"
                .into(),
        );
    }
    if failed(&["MEASUREMENT", "MRTD", "RTMR0", "RTMR1", "RTMR2", "RTMR3"]) {
        hints.push(
            "the Coordinator booted another guest image or firmware than the manifest trusts: compare the version of the \
             runtime on the node with the one that the manifest was generated for"
                .into(),
        );
    }
    hints
}

/// A call over an attested connection failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The Coordinator refused.
    #[error("the Coordinator refused to {call}: {message}")]
    Refused {
        /// What was asked, for example `set the manifest`.
        call: &'static str,
        /// gRPC status code.
        code: Code,
        /// Machine-readable reason; empty when the Coordinator gave none.
        reason: String,
        /// What the Coordinator says.
        message: String,
    },
    /// The connection broke, so that the outcome is unknown.
    #[error("the connection to the Coordinator broke while it was asked to {call}")]
    Broken {
        /// What was asked.
        call: &'static str,
        /// Why.
        #[source]
        source: Box<Status>,
    },
}

impl CallError {
    fn new(call: &'static str, status: Status) -> Self {
        if std::error::Error::source(&status).is_some() {
            return Self::Broken { call, source: Box::new(status) };
        }
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        Self::Refused { call, code: status.code(), reason, message: status.message().to_owned() }
    }

    /// Whether the same request may succeed when it is simply sent again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code == Code::Unavailable,
            Self::Broken { .. } => true,
        }
    }

    /// Whether the Coordinator gave this machine-readable reason.
    pub fn has_reason(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == wanted)
    }
}

impl Diagnose for CallError {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused { code, .. } => match code {
                Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented => Exit::Usage,
                _ => Exit::Unavailable,
            },
            Self::Broken { .. } => Exit::Unavailable,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Refused { code: Code::Unimplemented, .. } => {
                vec!["the Coordinator is of another version than this `contrast`".into()]
            }
            Self::Broken { .. } => vec!["run the same command again; repeating it is safe".into()],
            Self::Refused { .. } => Vec::new(),
        }
    }
}

/// One attested connection.
#[derive(Debug)]
pub struct Session {
    client: UserApiClient<Channel>,
    evidence: VerifiedEvidence,
}

impl Session {
    /// Connects to `address` and appraises the Coordinator's evidence against the reference values and the Coordinator
    /// policy of `manifest`.
    ///
    /// # Errors
    /// When it cannot be reached or does not prove itself.
    pub async fn attest(
        address: &CoordinatorAddress,
        manifest: &Manifest,
        clock: &Arc<dyn WallClock>,
    ) -> Result<Self, DialError> {
        let tcp = connect_tcp(address).await?;
        let config = ClientConfig {
            identity: Arc::new(Identity::generate(clock.now()).map_err(DialError::Identity)?),
            issuer: None,
            verifier: Some(Arc::new(manifest.coordinator_verifier())),
            clock: Arc::clone(clock),
            limits: Limits::default(),
        };
        todo_connect()
    }
}
