//! Attested connections to a Coordinator's user API.
//!
//! A [`Session`] is one TCP connection. It exists only after the Coordinator proved itself, and it never reconnects: what
//! is asked over it is asked of the very peer whose evidence was appraised.

use std::{fmt, future::ready, io, sync::Arc, time::Duration};

use contrast_atls::{
    AtlsError, ClientConfig, Identity, IdentityError, Limits, Misbehaviour, connect,
};
use contrast_attestation::{AppraisalReport, VerifiedEvidence, VerifyError};
use contrast_clock::WallClock;
use contrast_collateral::{Collateral, CompletingVerifier};
use contrast_manifest::Manifest;
use contrast_pki::SealingPublicKey;
use contrast_proto::user::{
    self as wire, GetManifestsRequest, GetManifestsResponse, GetRecentDecisionsRequest,
    GetSealingKeyRequest, GetSeedSharesRequest, GetStatusRequest, ImportSeedRequest,
    RecentDecisions, RecoverRequest, RecoverResponse, SeedShares, SetManifestRequest,
    SetManifestResponse, user_api_client::UserApiClient,
};
use contrast_telemetry::traces::{Traced, traced};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tonic::{
    Status,
    transport::{Endpoint, Uri},
};
use tower::service_fn;

use crate::{address::CoordinatorAddress, call::CallError, diagnostic::Diagnose, exit::Exit};

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
    #[error(
        "the Coordinator at {address} is not the one of this manifest: its evidence was refused"
    )]
    Refused {
        /// The Coordinator.
        address: CoordinatorAddress,
        /// Every failed check.
        #[source]
        source: VerifyError,
    },
    /// This side's own key could not be made.
    #[error("cannot generate a TLS key for this connection")]
    Identity(#[source] IdentityError),
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
            Self::Handshake { source, .. } => matches!(
                source,
                AtlsError::Io { .. } | AtlsError::PeerClosed { .. } | AtlsError::Deadline { .. }
            ),
            Self::Unresolved { .. } | Self::Refused { .. } | Self::Identity(_) => false,
        }
    }

    /// Every check of every reference value, when evidence was compared with reference values and refused.
    pub fn appraisal(&self) -> Option<&AppraisalReport> {
        match self {
            Self::Refused { source, .. } => appraisal(source),
            _ => None,
        }
    }
}

impl Diagnose for DialError {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused { .. } => Exit::Negative,
            Self::Identity(_) => Exit::Internal,
            Self::Handshake { source, .. } => match source {
                AtlsError::PeerMisbehaved(
                    Misbehaviour::EvidenceMissing | Misbehaviour::EvidenceFormat(_),
                ) => Exit::Negative,
                AtlsError::LocalTls(_) | AtlsError::Panicked { .. } => Exit::Internal,
                _ => Exit::Unavailable,
            },
            Self::Unreachable { .. } | Self::Unresolved { .. } | Self::Transport { .. } => {
                Exit::Unavailable
            }
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Unreachable { .. } => vec![
                "check that the Coordinator runs and that the address and port are those of its user API (1313)".into(),
            ],
            Self::Handshake { .. } if self.is_transient() => vec![
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

/// Every check of every reference value, when evidence was compared with reference values.
pub(crate) fn appraisal(error: &VerifyError) -> Option<&AppraisalReport> {
    match error {
        VerifyError::Refused(report) => Some(report),
        _ => None,
    }
}

/// What the failed checks suggest.
pub(crate) fn refusal_hints(report: &AppraisalReport) -> Vec<String> {
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
        hints.push(
            "if you are upgrading the Coordinator and the one that runs is still the old one, run `contrast generate \
             --keep-coordinator` on the manifest that is set, and `contrast set` before the new one starts"
                .into(),
        );
    }
    if failed(&["MEASUREMENT", "MRTD", "RTMR0", "RTMR1", "RTMR2", "RTMR3"]) {
        hints.push(
            "the Coordinator booted another guest image or firmware, or has another number of vCPUs, than the manifest trusts: \
             compare the version of the runtime on the node with the one that the manifest was generated for, and `VCPUs` with what \
             `contrast measure pod` says"
                .into(),
        );
    }
    hints
}

/// One attested connection.
pub struct Session {
    client: UserApiClient<Traced>,
    evidence: VerifiedEvidence,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("evidence", &self.evidence)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Connects to `address` and appraises the Coordinator's evidence against the reference values and the Coordinator
    /// policy of `manifest`, with documents of `collateral` where the evidence comes without them.
    ///
    /// # Errors
    /// When it cannot be reached or does not prove itself.
    pub async fn attest(
        address: &CoordinatorAddress,
        manifest: &Manifest,
        collateral: &Arc<Collateral>,
        clock: &Arc<dyn WallClock>,
    ) -> Result<Self, DialError> {
        let config = ClientConfig {
            identity: Arc::new(Identity::generate(clock.now()).map_err(DialError::Identity)?),
            issuer: None,
            verifier: Some(Arc::new(CompletingVerifier {
                verifier: Arc::new(manifest.coordinator_verifier()),
                collateral: Arc::clone(collateral),
            })),
            clock: Arc::clone(clock),
            limits: Limits::client(),
        };
        let tcp = open(address).await?;
        let failed = |source| DialError::Handshake {
            address: address.clone(),
            source,
        };
        let stream = connect(tcp, &config).await.map_err(|error| match error {
            AtlsError::RefusedPeer(source) => DialError::Refused {
                address: address.clone(),
                source,
            },
            other => failed(other),
        })?;
        // A stream exists only after the verifier above accepted the peer, so this never fails.
        let attested = stream
            .peer()
            .attested
            .clone()
            .ok_or_else(|| failed(AtlsError::PeerMisbehaved(Misbehaviour::EvidenceMissing)))?;
        tracing::info!(%address, reference = attested.verified.reference(), "Coordinator attested");

        // The connection is handed to gRPC once. When it breaks, calls fail instead of dialling somebody else.
        let mut stream = Some(stream);
        let connector = service_fn(move |_: Uri| {
            let gone = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
            ready(stream.take().map(TokioIo::new).ok_or_else(gone))
        });
        // The address was used already; gRPC only needs something to put into `:authority`.
        let channel = Endpoint::from_static("http://coordinator")
            .timeout(CALL_TIMEOUT)
            .connect_with_connector(connector)
            .await
            .map_err(|source| DialError::Transport {
                address: address.clone(),
                source,
            })?;
        Ok(Self {
            client: UserApiClient::new(traced(channel)).max_decoding_message_size(ANSWER_BYTES_MAX),
            evidence: attested.verified.clone(),
        })
    }

    /// What the Coordinator proved.
    pub fn evidence(&self) -> &VerifiedEvidence {
        &self.evidence
    }

    /// The whole history.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn manifests(&mut self) -> Result<GetManifestsResponse, CallError> {
        let answer = self.client.get_manifests(GetManifestsRequest {}).await;
        answered("return its manifests", answer)
    }

    /// Sets a manifest.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn set_manifest(
        &mut self,
        request: SetManifestRequest,
    ) -> Result<SetManifestResponse, CallError> {
        answered("set the manifest", self.client.set_manifest(request).await)
    }

    /// Sets the first manifest of a deployment that has a seed.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn import_seed(
        &mut self,
        request: ImportSeedRequest,
    ) -> Result<SetManifestResponse, CallError> {
        answered("import the seed", self.client.import_seed(request).await)
    }

    /// Hands over a seed share.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn recover(&mut self, request: RecoverRequest) -> Result<RecoverResponse, CallError> {
        answered("recover", self.client.recover(request).await)
    }

    /// What the Coordinator says about itself and its cluster.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn status(&mut self) -> Result<wire::Status, CallError> {
        let answer = self.client.get_status(GetStatusRequest {}).await;
        answered("return its status", answer)
    }

    /// What the Coordinator decided last.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn recent_decisions(&mut self) -> Result<RecentDecisions, CallError> {
        let request = GetRecentDecisionsRequest {};
        let answer = self.client.get_recent_decisions(request).await;
        answered("return its decisions", answer)
    }

    /// The key to which secrets are sealed for this deployment, PEM; `None` when the Coordinator is of a version that has none, or names no
    /// key.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn sealing_key(&mut self) -> Result<Option<String>, CallError> {
        let answer = match self.client.get_sealing_key(GetSealingKeyRequest {}).await {
            Err(status) if status.code() == tonic::Code::Unimplemented => return Ok(None),
            answer => answered("return the sealing key", answer)?,
        };
        let key = SealingPublicKey::from_spki(&answer.public_key);
        Ok(key.and_then(|key| key.to_pem()).ok())
    }

    /// The encrypted seed shares.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn seed_shares(&mut self) -> Result<SeedShares, CallError> {
        let answer = self.client.get_seed_shares(GetSeedSharesRequest {}).await;
        answered("return the seed shares", answer)
    }
}

fn answered<T>(
    call: &'static str,
    answer: Result<tonic::Response<T>, Status>,
) -> Result<T, CallError> {
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| CallError::new(call, status))
}

/// Tries the host's addresses one after the other.
async fn open(address: &CoordinatorAddress) -> Result<TcpStream, DialError> {
    let targets = lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|source| DialError::Unresolved {
            host: address.host.clone(),
            source,
        })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for target in targets {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await {
            Ok(Ok(tcp)) => {
                // Only latency suffers without it.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Ok(Err(error)) => last = error,
            Err(_) => {
                let reason = format!("no answer from {target} within {CONNECT_TIMEOUT:?}");
                last = io::Error::new(io::ErrorKind::TimedOut, reason);
            }
        }
    }
    Err(DialError::Unreachable {
        address: address.clone(),
        source: last,
    })
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
