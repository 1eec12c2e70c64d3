//! Serves the peer API.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use contrast_atls::{
    AcceptLimits, AtlsStream, ConfigSource, FailureObserver, Incoming, Limits, ServerConfig,
};
use contrast_attestation::EvidenceVerifier;
use contrast_proto::peer::{
    self as proto,
    discovery_server::{Discovery, DiscoveryServer},
    peer_api_server::{PeerApi, PeerApiServer},
};
use contrast_telemetry::drain::Watcher;
use futures::{FutureExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tonic::{
    Request as Rpc, Response, Status, Streaming, service::interceptor::InterceptedService,
    transport::Server,
};

use super::{
    Local,
    link::Link,
    proof::{CoordinatorVerifier, Proof},
    wire,
};
use crate::{
    cluster::SignedChain,
    replica::{
        message::{Reply, Request},
        peers::{Caller, PeerFailure, Trusted},
    },
};

/// Largest request of `Discovery`, in bytes.
const DISCOVERY_REQUEST_BYTES_MAX: usize = 4 << 10;
/// Largest request of `PeerApi`, in bytes (48 MiB): an entry with a manifest and all policy documents, which the user API limits to
/// 32 MiB.
const REQUEST_BYTES_MAX: usize = 48 << 20;
/// Longest time for one question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time for a snapshot, its transfer included.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);
/// Questions of Coordinators that are handled at the same time; further ones wait.
const QUESTIONS_MAX: usize = 64;
/// `Hello`s that are handled at the same time; further ones wait.
const HELLOS_MAX: usize = 16;
/// Snapshots in memory at the same time; further ones are refused.
const SNAPSHOTS_MAX: usize = 2;
/// Requests at the same time on one connection.
const STREAMS_PER_CONNECTION: u32 = 32;
/// A peer that answers no ping for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Life of a connection that carries no evidence: it was opened while there was no manifest and must not outlast that for long.
const UNATTESTED_LIFE: Duration = Duration::from_secs(60);
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes that a peer may send before it must wait: room for some chunks of a snapshot.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Replicas have few connections with each other; everybody else has none.
const ACCEPT_LIMITS: AcceptLimits = AcceptLimits {
    handshakes: 32,
    connections: 256,
};

/// What a handler returns.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Reply, PeerFailure>> + Send + 'a>>;

/// Answers questions of other replicas.
pub trait Handler: Send + Sync + 'static {
    /// By which manifest to judge who asks; `None` before there is one. Asked for each connection and each question: it must not
    /// block.
    fn trust(&self) -> Option<Arc<Trusted>>;

    /// Answers. `caller` has proven to be a Coordinator of [`trust`](Self::trust) unless the question is [`Request::Hello`]; it can
    /// be asked again, under another manifest too, and remembers the latest verdict. The future is dropped when the caller stops
    /// waiting.
    fn handle<'a>(&'a self, caller: &'a dyn Caller, request: Request) -> Answer<'a>;
}

/// Serves `listener` until `drain`, then lets questions under way end. Handshakes that fail are logged, and reported to `refusals`.
///
/// # Errors
/// When the listener fails.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    local: Local,
    refusals: Option<FailureObserver>,
    drain: Watcher,
) -> Result<(), tonic::transport::Error> {
    let configs = configs(Arc::clone(&handler), local.clone());
    let mut incoming = Incoming::with_configs(listener, configs, ACCEPT_LIMITS).permit_unattested();
    if let Some(refusals) = refusals {
        incoming = incoming.on_failure(refusals);
    }
    let links = incoming.map(move |accepted| accepted.map(|tls| link(&local, tls)));
    let service = Service {
        handler,
        limits: Arc::new(ServiceLimits {
            questions: Semaphore::new(QUESTIONS_MAX),
            hellos: Semaphore::new(HELLOS_MAX),
            snapshots: Semaphore::new(SNAPSHOTS_MAX),
        }),
        told_unreadable: Arc::default(),
    };
    let discovery = DiscoveryServer::new(service.clone())
        .max_decoding_message_size(DISCOVERY_REQUEST_BYTES_MAX);
    let peers = PeerApiServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX);
    Server::builder()
        .timeout(SNAPSHOT_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(discovery)
        .add_service(InterceptedService::new(peers, only_attested))
        .serve_with_incoming_shutdown(links, async move { drain.draining().await })
        .await
}

/// Evidence is required as soon as there is a manifest to judge it by.
fn configs<H: Handler>(handler: Arc<H>, local: Local) -> ConfigSource {
    Arc::new(move || {
        let verifier = handler.trust().map(|trusted| {
            let collateral = Arc::clone(&local.collateral);
            let verifier = CoordinatorVerifier {
                trusted,
                collateral,
            };
            Arc::new(verifier) as Arc<dyn EvidenceVerifier>
        });
        Arc::new(ServerConfig {
            identity: Arc::clone(&local.identity),
            issuer: Some(Arc::clone(&local.issuer)),
            verifier,
            clock: Arc::clone(&local.clock),
            limits: Limits {
                handshake: HANDSHAKE,
                ..Limits::server()
            },
        })
    })
}

fn link(local: &Local, tls: AtlsStream<TcpStream>) -> Link<TcpStream> {
    let proof = Proof::new(local, tls.peer().attested.clone());
    let attested = proof.is_attested();
    let link = Link::new(tls, proof);
    match attested {
        true => link,
        false => link.ending_after(UNATTESTED_LIFE),
    }
}

/// Refuses, before any of it is read, what comes on a connection without evidence.
fn only_attested(rpc: Rpc<()>) -> Result<Rpc<()>, Status> {
    let proof = rpc.extensions().get::<Arc<Proof>>();
    match proof.is_some_and(|proof| proof.is_attested()) {
        true => Ok(rpc),
        false => Err(wire::status(&unproven())),
    }
}

fn unproven() -> PeerFailure {
    let reason =
        "expected evidence of a Coordinator, found a connection without evidence; connect again";
    PeerFailure::NotCoordinator(reason.to_owned())
}

struct ServiceLimits {
    questions: Semaphore,
    hellos: Semaphore,
    snapshots: Semaphore,
}

struct Service<H> {
    handler: Arc<H>,
    limits: Arc<ServiceLimits>,
    told_unreadable: Arc<AtomicBool>,
}

impl<H> Clone for Service<H> {
    fn clone(&self) -> Self {
        Self {
            handler: Arc::clone(&self.handler),
            limits: Arc::clone(&self.limits),
            told_unreadable: Arc::clone(&self.told_unreadable),
        }
    }
}

impl<H> fmt::Debug for Service<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

/// How to write an answer; `None` when it does not fit the question.
type Write<A> = fn(Reply) -> Option<A>;

impl<H: Handler> Service<H> {
    /// One question of a Coordinator.
    async fn ask<Q, A>(
        &self,
        rpc: Rpc<Q>,
        read: fn(Q) -> Result<Request, wire::Malformed>,
        write: Write<A>,
    ) -> Result<Response<A>, Status> {
        let proof = proof(&rpc)?;
        let _permit = self.limits.questions.acquire().await;
        self.admit(&proof).await?;
        let request = read(rpc.into_inner()).map_err(|error| self.unreadable(&error))?;
        self.answer(&proof, request, write).await
    }

    /// A proven Coordinator asked something that this one does not understand. It asks again and again; who reads the log hears it once.
    fn unreadable(&self, error: &wire::Malformed) -> Status {
        if !self.told_unreadable.swap(true, Ordering::Relaxed) {
            tracing::error!(
                event = "peer_unreadable",
                "another replica asks what this one does not understand ({error}): it is of a later version, and what it asks waits \
                 until this one is updated"
            );
        }
        wire::status_of_malformed(error)
    }

    /// Checks that the caller is a Coordinator of the manifest that counts now.
    async fn admit(&self, proof: &Arc<Proof>) -> Result<(), Status> {
        let Some(trusted) = self.handler.trust() else {
            let reason = "this replica has no manifest yet and cannot tell who is a Coordinator; it answers Hello only";
            let failure = PeerFailure::NotCoordinator(reason.to_owned());
            return Err(wire::status(&failure));
        };
        proof.prove(&trusted).await.map_err(|reason| {
            tracing::warn!(manifest = %trusted.manifest, "a peer was refused: {reason}");
            wire::status(&PeerFailure::NotCoordinator(reason))
        })
    }

    /// Asks the handler, with a time limit. A panic in it stays here.
    async fn answer<A>(
        &self,
        proof: &Arc<Proof>,
        request: Request,
        write: Write<A>,
    ) -> Result<Response<A>, Status> {
        let question = request.name();
        let caller: &dyn Caller = proof.as_ref();
        let handled = async { self.handler.handle(caller, request).await };
        let handled = timeout(QUESTION_TIMEOUT, AssertUnwindSafe(handled).catch_unwind());
        let reply = match handled.await {
            Ok(Ok(outcome)) => outcome.map_err(|failure| wire::status(&failure))?,
            Ok(Err(_)) => {
                tracing::error!(question, "answering a peer panicked; please report this");
                return Err(wire::panicked("the code that answers panicked"));
            }
            Err(_) => {
                let reason = format!("no answer within {QUESTION_TIMEOUT:?}");
                return Err(wire::status(&PeerFailure::Unavailable(reason)));
            }
        };
        let answer = write(reply).ok_or_else(|| {
            tracing::error!(
                question,
                "the answer is to another question; please report this"
            );
            wire::panicked("the answer is to another question")
        })?;
        Ok(Response::new(answer))
    }

    /// Collects a snapshot and hands it over.
    async fn install(
        &self,
        rpc: Rpc<Streaming<proto::SnapshotPart>>,
    ) -> Result<Response<proto::SnapshotReply>, Status> {
        let proof = proof(&rpc)?;
        self.admit(&proof).await?;
        let Ok(_permit) = self.limits.snapshots.try_acquire() else {
            let reason = format!("{SNAPSHOTS_MAX} snapshots are being received already");
            return Err(wire::status(&PeerFailure::Unavailable(reason)));
        };
        let malformed = |error| self.unreadable(&error);
        let mut parts = rpc.into_inner();
        let first = parts.message().await?.unwrap_or_default();
        let header = wire::snapshot_header(first).map_err(malformed)?;
        // Grows with what arrives, not with what was announced.
        let mut chain = BytesMut::new();
        let length_error = |found: usize| {
            let expected = format!("{} bytes in chunks", header.length);
            malformed(wire::Malformed::new(
                "chunk",
                expected,
                format!("{found} bytes"),
            ))
        };
        while let Some(part) = parts.message().await? {
            let chunk: Bytes = wire::snapshot_chunk(part).map_err(malformed)?;
            let found = chain.len().saturating_add(chunk.len());
            if found > header.length {
                return Err(length_error(found));
            }
            chain.extend_from_slice(&chunk);
        }
        if chain.len() != header.length {
            return Err(length_error(chain.len()));
        }
        // Its transfer took time, in which the manifest may have changed.
        self.admit(&proof).await?;
        let request = header.with(SignedChain(chain.freeze()));
        self.answer(&proof, request, wire::put_snapshot_reply).await
    }
}

fn proof<Q>(rpc: &Rpc<Q>) -> Result<Arc<Proof>, Status> {
    let proof = rpc.extensions().get::<Arc<Proof>>().cloned();
    proof.ok_or_else(|| wire::status(&unproven()))
}

#[tonic::async_trait]
impl<H: Handler> Discovery for Service<H> {
    async fn hello(
        &self,
        rpc: Rpc<proto::HelloRequest>,
    ) -> Result<Response<proto::Welcome>, Status> {
        let proof = proof(&rpc)?;
        let _permit = self.limits.hellos.acquire().await;
        let request = wire::hello(rpc.into_inner());
        let request = request.map_err(|error| wire::status_of_malformed(&error))?;
        self.answer(&proof, request, wire::put_welcome).await
    }
}

#[tonic::async_trait]
impl<H: Handler> PeerApi for Service<H> {
    async fn fetch_secrets(
        &self,
        rpc: Rpc<proto::FetchSecretsRequest>,
    ) -> Result<Response<proto::Secrets>, Status> {
        self.ask(rpc, wire::fetch_secrets, wire::put_secrets).await
    }

    async fn join(&self, rpc: Rpc<proto::JoinRequest>) -> Result<Response<proto::Done>, Status> {
        self.ask(rpc, wire::join, wire::put_done).await
    }

    async fn append_entries(
        &self,
        rpc: Rpc<proto::AppendEntriesRequest>,
    ) -> Result<Response<proto::AppendEntriesReply>, Status> {
        self.ask(rpc, wire::append, wire::put_append_reply).await
    }

    async fn vote(&self, rpc: Rpc<proto::Ballot>) -> Result<Response<proto::VoteReply>, Status> {
        self.ask(rpc, wire::vote_request, wire::put_vote_reply)
            .await
    }

    async fn pre_vote(
        &self,
        rpc: Rpc<proto::Ballot>,
    ) -> Result<Response<proto::VoteReply>, Status> {
        self.ask(rpc, wire::pre_vote_request, wire::put_vote_reply)
            .await
    }

    async fn install_snapshot(
        &self,
        rpc: Rpc<Streaming<proto::SnapshotPart>>,
    ) -> Result<Response<proto::SnapshotReply>, Status> {
        self.install(rpc).await
    }

    async fn transfer_leader(
        &self,
        rpc: Rpc<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferReply>, Status> {
        self.ask(rpc, wire::transfer, wire::put_transfer_reply)
            .await
    }

    async fn confirm(
        &self,
        rpc: Rpc<proto::ConfirmRequest>,
    ) -> Result<Response<proto::ReadIndex>, Status> {
        self.ask(rpc, wire::confirm, wire::put_read_index).await
    }

    async fn offer_key(
        &self,
        rpc: Rpc<proto::OfferKeyRequest>,
    ) -> Result<Response<proto::Done>, Status> {
        self.ask(rpc, wire::offer_key, wire::put_done).await
    }

    async fn fetch_key(
        &self,
        rpc: Rpc<proto::FetchKeyRequest>,
    ) -> Result<Response<proto::FetchKeyReply>, Status> {
        self.ask(rpc, wire::fetch_key, wire::put_found_key).await
    }

    async fn propose(
        &self,
        rpc: Rpc<proto::ProposeRequest>,
    ) -> Result<Response<proto::Receipt>, Status> {
        self.ask(rpc, wire::propose, wire::put_receipt).await
    }

    async fn advance_volume(
        &self,
        rpc: Rpc<proto::AdvanceVolumeRequest>,
    ) -> Result<Response<proto::AdvanceVolumeReply>, Status> {
        self.ask(rpc, wire::advance, wire::put_advanced).await
    }

    async fn leave(&self, rpc: Rpc<proto::LeaveRequest>) -> Result<Response<proto::Done>, Status> {
        self.ask(rpc, wire::leave, wire::put_done).await
    }
}
