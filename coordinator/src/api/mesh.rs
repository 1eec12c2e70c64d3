use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use contrast_atls::Peer;
use contrast_attestation::VerifiedEvidence;
use contrast_audit::Kind;
use contrast_collateral::Collateral;
use contrast_manifest::CertificateKeyDigest;
use contrast_pki::{MeshAnswer, ReleasedSecret};
use contrast_proto::mesh::{
    AdvanceVolumeRequest, GetVolumeRequest, NewMeshCertRequest, NewMeshCertResponse, SealedSecret,
    Volume, WaitForTransitionRequest, WaitForTransitionResponse, mesh_api_server::MeshApi,
};
use contrast_telemetry::{drain::Watcher, exposure::PUBLIC};
use futures::future::BoxFuture;
use tokio::{sync::Semaphore, task::spawn_blocking};
use tonic::{Request, Response, Status};

use super::{
    handler::{answer, decide},
    status::ApiError,
    volume::VolumeRates,
    wire,
};
use crate::{
    audit::{Recorder, Refusing, subject},
    issue::{Authority, admit, issue, release, workload_secret},
    ops::Metrics,
    replica::Hosted,
    state::{Active, KeysError, StateError},
};

/// Longest time for which a caller waits for a transition: below the time that any request may take.
const TRANSITION_WAIT: Duration = Duration::from_secs(30);

/// The mesh API: see `proto/contrast/v1/mesh.proto`.
#[derive(Debug, Clone)]
pub(crate) struct MeshService {
    pub(crate) replica: Hosted,
    pub(crate) collateral: Arc<Collateral>,
    pub(crate) metrics: Arc<Metrics>,
    /// Hears of every decision.
    pub(crate) audit: Arc<Recorder>,
    /// Certificates that are issued at the same time. Those who wait for a transition hold none of its permits: there may be one of
    /// them for each pod.
    pub(crate) issuing: Arc<Semaphore>,
    /// How often workloads ask about their volumes.
    pub(crate) volumes: Arc<VolumeRates>,
    /// Ends the wait for transitions.
    pub(crate) drain: Watcher,
}

#[tonic::async_trait]
impl MeshApi for MeshService {
    async fn new_mesh_cert(
        &self,
        request: Request<NewMeshCertRequest>,
    ) -> Result<Response<NewMeshCertResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let refusing = self.refusing(Kind::Certificate, peer.as_ref());
        let service = self.clone();
        let work = async move {
            let peer = peer.ok_or(ApiError::NotAttested)?;
            let nonce = wire::nonce(request.into_inner())?;
            // Nobody closes the semaphore.
            let _permit = Arc::clone(&service.issuing).acquire_owned().await;
            // Before anything is computed: a state that no quorum confirms must cost nothing.
            let active = service.replica.confirmed_for_issuing().await?;
            let issue = move || service.issue(&active, &peer, &nonce);
            spawn_blocking(issue)
                .await
                .map_err(|_| ApiError::Panicked)?
        };
        decide(&self.metrics, "NewMeshCert", refusing, work).await
    }

    async fn wait_for_transition(
        &self,
        request: Request<WaitForTransitionRequest>,
    ) -> Result<Response<WaitForTransitionResponse>, Status> {
        let work = async {
            let known = wire::known_transition(request.get_ref())?;
            let next: BoxFuture<'_, _> =
                Box::pin(self.replica.next_transition(known, TRANSITION_WAIT));
            let transition = tokio::select! {
                next = next => next?,
                () = self.drain.draining() => {
                    return Err(StateError::Stopped("it is told to stop".to_owned()).into());
                }
            };
            Ok(WaitForTransitionResponse {
                transition: wire::transition_bytes(transition),
            })
        };
        answer(&self.metrics, "WaitForTransition", work).await
    }

    async fn get_volume(
        &self,
        request: Request<GetVolumeRequest>,
    ) -> Result<Response<Volume>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let refusing = self.refusing(Kind::Volume, peer.as_ref());
        let work = async {
            let question = wire::get_volume(request.into_inner())?;
            self.volume(peer, question).await
        };
        decide(&self.metrics, "GetVolume", refusing, work).await
    }

    async fn advance_volume(
        &self,
        request: Request<AdvanceVolumeRequest>,
    ) -> Result<Response<Volume>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let refusing = self.refusing(Kind::Volume, peer.as_ref());
        let work = async {
            let question = wire::advance_volume(request.into_inner())?;
            self.volume(peer, question).await
        };
        decide(&self.metrics, "AdvanceVolume", refusing, work).await
    }
}

impl MeshService {
    fn refusing(&self, kind: Kind, peer: Option<&Peer>) -> Refusing<'_> {
        Refusing {
            recorder: &self.audit,
            kind,
            subject: subject::peer(peer),
        }
    }

    /// What the peer proves, judged under the manifest of `active`. The connection may be older than the manifest, and evidence can
    /// expire: what counts is the manifest now.
    pub(super) fn verify(
        &self,
        active: &Active,
        peer: &Peer,
        now: SystemTime,
    ) -> Result<VerifiedEvidence, ApiError> {
        let attested = peer.attested.as_deref().ok_or(ApiError::NotAttested)?;
        contrast_collateral::verify(
            active.verifier(),
            &self.collateral,
            &attested.evidence,
            &attested.report_data,
            now,
        )
        .map_err(|error| {
            self.metrics.attestation_failed();
            ApiError::Evidence(error)
        })
    }

    /// Everything about one certificate, under one confirmed state.
    fn issue(
        &self,
        active: &Active,
        peer: &Peer,
        nonce: &[u8],
    ) -> Result<NewMeshCertResponse, ApiError> {
        let guard = self.replica.guard();
        let now = guard.clock().now();
        let verified = self.verify(active, peer, now)?;
        let key = CertificateKeyDigest::of(&peer.spki);
        let admission = admit(active.manifest(), &verified, key)?;
        let peer_ip = peer.address.map(|address| address.ip().to_canonical());
        let entropy = guard.entropy();
        let authority = Authority {
            mesh_ca: active.mesh_ca(),
            trust_domain: active.trust_domain(),
            lifetime: active.manifest().mesh_cert_lifetime(),
        };
        let leaf = issue(authority, admission, &peer.spki, peer_ip, entropy, now)?;
        let secret =
            workload_secret(active.keys().derivation(), admission).map_err(KeysError::Derive)?;
        let key_of_sealed = active.keys().deployment().sealing_key();
        let released = release(active.manifest(), admission.entry, key_of_sealed);
        let released = released.map_err(|(name, source)| ApiError::Sealed { name, source })?;
        let policy = verified.policy_hash();
        let name = admission.entry.sans.first().map_or("", String::as_str);
        if verified.is_insecure() {
            self.metrics.insecure_evidence_accepted();
            tracing::warn!(%policy, name, %key, exposure = PUBLIC, "INSECURE: issued a certificate for evidence of a software TEE");
        } else {
            tracing::info!(%policy, name, %key, reference = verified.reference(), exposure = PUBLIC, "issued a certificate");
        }
        let previous = active.previous_mesh_ca(now);
        let (previous_mesh_ca, trusted_for) = previous.unwrap_or_default();
        let mut response = NewMeshCertResponse {
            mesh_ca: active.mesh_ca().self_signed_pem(),
            certificate_chain: leaf.chain_pem,
            root_ca: active.keys().root().certificate_pem(),
            workload_secret: secret
                .map(|secret| Bytes::copy_from_slice(secret.expose()))
                .unwrap_or_default(),
            transition: wire::transition_bytes(active.transition()),
            previous_mesh_ca: previous_mesh_ca.to_owned(),
            previous_mesh_ca_trusted_ms: wire::millis(trusted_for),
            signature: Bytes::new(),
            sealed_secrets: released
                .iter()
                .map(|secret| SealedSecret {
                    kind: secret.kind.as_str().to_owned(),
                    name: secret.name.to_owned(),
                    content: Bytes::copy_from_slice(&secret.content),
                })
                .collect(),
        };
        let sealed: Vec<_> = released
            .iter()
            .map(|secret| ReleasedSecret {
                kind: secret.kind.as_str(),
                name: secret.name,
                content: &secret.content,
            })
            .collect();
        let answer = MeshAnswer {
            nonce,
            public_key_spki: &peer.spki,
            mesh_ca: &response.mesh_ca,
            certificate_chain: &response.certificate_chain,
            root_ca: &response.root_ca,
            workload_secret: &response.workload_secret,
            transition: &response.transition,
            previous_mesh_ca: &response.previous_mesh_ca,
            previous_mesh_ca_trusted_ms: response.previous_mesh_ca_trusted_ms,
            sealed_secrets: &sealed,
        };
        let signature = answer.message().sign(active.keys().root());
        response.signature = signature.map_err(KeysError::from)?.into();
        self.metrics.certificate_issued();
        let workload = subject::workload(&verified, admission.entry, key);
        if !released.is_empty() {
            let names = released.iter().map(|secret| secret.name);
            self.audit.record(subject::sealed(workload.clone(), names));
        }
        let issued = subject::issued(workload, &leaf.serial, leaf.not_after);
        self.audit.record(issued);
        Ok(response)
    }
}
