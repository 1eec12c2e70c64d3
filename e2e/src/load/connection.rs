use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use contrast_atls::{ClientConfig, Connector, Identity, Limits};
use contrast_attestation::{EvidenceVerifier, Issuer};
use contrast_clock::{SystemWallClock, WallClock};
use contrast_proto::{
    mesh::{NewMeshCertRequest, NewMeshCertResponse, mesh_api_client::MeshApiClient},
    user::{
        GetManifestsRequest, GetManifestsResponse, GetStatusRequest, SetManifestRequest,
        SetManifestResponse, Status as ReplicaStatus, user_api_client::UserApiClient,
    },
};
use tokio::time::timeout;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

/// A replica that does not answer within this is given up.
const DEADLINE: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// No connection came about, so the question never left.
    #[error("no connection: {0}")]
    NoConnection(String),
    /// The replica's evidence was refused.
    #[error("evidence refused: {0}")]
    Evidence(String),
    /// The connection broke or nothing came back in time; the question may have arrived.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The replica answers with an error.
    #[error("{code:?} {reason}: {message}")]
    Status {
        /// gRPC status code.
        code: Code,
        /// Machine-readable reason.
        reason: String,
        /// Message for people.
        message: String,
    },
}

impl Refusal {
    fn of(status: &Status) -> Self {
        // An error that has a source was made on this side.
        if std::error::Error::source(status).is_some() || status.code() == Code::Cancelled {
            return Self::NoAnswer(status.to_string());
        }
        let reason = status
            .get_details_error_info()
            .map(|info| info.reason)
            .unwrap_or_default();
        Self::Status {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
        }
    }

    /// Whether it is an error of the replica with this machine-readable reason.
    pub fn has_reason(&self, wanted: &str) -> bool {
        matches!(self, Self::Status { reason, .. } if reason == wanted)
    }
}

/// Attested connections to one replica; made when they are needed, and again after they broke.
pub struct Connection {
    user: Lazy,
    mesh: Lazy,
}

struct Lazy {
    address: SocketAddr,
    coordinators: Arc<dyn EvidenceVerifier>,
    issuer: Option<Arc<dyn Issuer>>,
    channel: Option<Channel>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.user.address)
    }
}

impl Connection {
    /// To the replica with these APIs, whose evidence `coordinators` must accept; `workload` proves this side to the mesh API.
    pub fn new(
        (user, mesh): (SocketAddr, SocketAddr),
        coordinators: &Arc<dyn EvidenceVerifier>,
        workload: &Arc<dyn Issuer>,
    ) -> Self {
        let lazy = |address, issuer| Lazy {
            address,
            coordinators: Arc::clone(coordinators),
            issuer,
            channel: None,
        };
        Self {
            user: lazy(user, None),
            mesh: lazy(mesh, Some(Arc::clone(workload))),
        }
    }

    /// From somebody who proves nothing.
    pub fn without_evidence(
        (user, mesh): (SocketAddr, SocketAddr),
        coordinators: &Arc<dyn EvidenceVerifier>,
    ) -> Self {
        let lazy = |address| Lazy {
            address,
            coordinators: Arc::clone(coordinators),
            issuer: None,
            channel: None,
        };
        Self {
            user: lazy(user),
            mesh: lazy(mesh),
        }
    }

    /// Drops the connections, so that the next question makes new ones.
    pub fn reset(&mut self) {
        self.user.channel = None;
        self.mesh.channel = None;
    }

    /// `GetManifests`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn manifests(&mut self) -> Result<GetManifestsResponse, Refusal> {
        self.user
            .ask(|channel| async move {
                let mut client =
                    UserApiClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
                client.get_manifests(GetManifestsRequest {}).await
            })
            .await
    }

    /// `SetManifest`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn set(
        &mut self,
        request: SetManifestRequest,
    ) -> Result<SetManifestResponse, Refusal> {
        self.user
            .ask(|channel| async move { UserApiClient::new(channel).set_manifest(request).await })
            .await
    }

    /// `GetStatus`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn status(&mut self) -> Result<ReplicaStatus, Refusal> {
        self.user
            .ask(|channel| async move {
                let mut client = UserApiClient::new(channel);
                client.get_status(GetStatusRequest {}).await
            })
            .await
    }

    /// `NewMeshCert`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn certificate(&mut self) -> Result<NewMeshCertResponse, Refusal> {
        self.mesh
            .ask(|channel| async move {
                let mut client = MeshApiClient::new(channel);
                client.new_mesh_cert(NewMeshCertRequest::default()).await
            })
            .await
    }
}

impl Lazy {
    async fn ask<T, F>(&mut self, call: impl FnOnce(Channel) -> F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let late = |_| Refusal::NoConnection("no handshake in time".to_owned());
                let channel = timeout(DEADLINE, self.connect()).await.map_err(late)??;
                self.channel.insert(channel).clone()
            }
        };
        let answer = match timeout(DEADLINE, call(channel)).await {
            Ok(answer) => answer.map_err(|status| Refusal::of(&status)),
            Err(_) => Err(Refusal::NoAnswer(format!("nothing within {DEADLINE:?}"))),
        };
        if matches!(answer, Err(Refusal::NoAnswer(_))) {
            self.channel = None;
        }
        answer.map(Response::into_inner)
    }

    async fn connect(&self) -> Result<Channel, Refusal> {
        let failed = |error: &dyn fmt::Display| Refusal::NoConnection(error.to_string());
        let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
        let identity = Identity::generate(clock.now()).map_err(|error| failed(&error))?;
        let connector = Connector::new(ClientConfig {
            identity: Arc::new(identity),
            issuer: self.issuer.clone(),
            verifier: Some(Arc::clone(&self.coordinators)),
            clock,
            limits: Limits::client(),
        });
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let endpoint = endpoint.map_err(|error| failed(&error))?;
        let dialed = endpoint.connect_with_connector(connector.clone()).await;
        dialed.map_err(|error| match connector.last_failure().as_deref() {
            Some(contrast_atls::AtlsError::RefusedPeer(error)) => {
                Refusal::Evidence(error.to_string())
            }
            Some(error) => failed(&error.causes()),
            None => failed(&error),
        })
    }
}
