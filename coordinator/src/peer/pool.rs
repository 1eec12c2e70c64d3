//! Connections to other replicas, kept for the next question.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use contrast_atls::{AtlsError, ClientConfig, Connector, Dialer, Limits, Misbehaviour};
use contrast_attestation::EvidenceVerifier;
use contrast_manifest::ManifestHash;
use futures::{FutureExt, future::Shared};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::Instant,
};
use tonic::transport::{Channel, Endpoint, Uri};

use super::{
    Local, Timing,
    link::Link,
    proof::{CoordinatorVerifier, Proof},
};
use crate::{
    causes::causes,
    replica::{
        message::Place,
        peers::{CallError, EvidenceSummary, Trust},
    },
};

/// Places that connections are kept for; those unused for longest make room. Others tell us where the leader is, so that the number
/// of places is not ours to choose.
const PLACES_MAX: usize = 128;
/// Bytes that a peer may send before it must wait.
const WINDOW: u32 = 2 << 20;
/// Largest headers of an answer, in bytes: room for the longest error.
const HEADER_BYTES_MAX: u32 = 128 << 10;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Questions to whoever answers; the server's evidence is not asked for.
    Anyone,
    /// Questions to Coordinators.
    Coordinators,
    /// Large messages to Coordinators. They do not keep heartbeats waiting.
    Bulk,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    proof: Arc<Proof>,
    life: Weak<()>,
}

impl Connection {
    fn is_open(&self) -> bool {
        self.life.strong_count() > 0
    }
}

type Dialled = Result<Arc<Connection>, CallError>;

enum State {
    Idle,
    Dialling {
        /// The manifest by which the server is judged.
        manifest: Option<ManifestHash>,
        outcome: Shared<oneshot::Receiver<Dialled>>,
    },
    Open(Arc<Connection>),
}

struct Peer {
    lanes: HashMap<Lane, State>,
    /// One dial at a time.
    dial: Arc<Semaphore>,
    used: Instant,
}

/// All connections of a client.
pub(super) struct Pool<D> {
    local: Local,
    dialer: D,
    timing: Timing,
    peers: Mutex<HashMap<Place, Peer>>,
    dials: Mutex<JoinSet<()>>,
}

enum Step {
    Use(Arc<Connection>),
    Wait {
        outcome: Shared<oneshot::Receiver<Dialled>>,
        /// Whether the server is judged by the manifest of this very question.
        same_trust: bool,
    },
}

impl<D: Dialer> Pool<D> {
    pub(super) fn new(local: Local, dialer: D, timing: Timing) -> Self {
        Self {
            local,
            dialer,
            timing,
            peers: Mutex::default(),
            dials: Mutex::default(),
        }
    }

    /// What was proven at `place`, on a connection that is open. What another process proved there before says nothing of this one.
    pub(super) fn evidence(&self, place: &Place) -> Option<EvidenceSummary> {
        let peers = self.lock();
        let mut lanes = peers.get(place)?.lanes.values();
        lanes.find_map(|lane| match lane {
            State::Open(connection) if connection.is_open() => connection.proof.summary(),
            _ => None,
        })
    }

    /// A connection whose other side is believed under `trust`: the one that is open, or a new one. A dial goes on when its caller
    /// stops waiting, so that a short limit does not keep a slow handshake from ever ending.
    pub(super) async fn connection(
        self: &Arc<Self>,
        place: &Place,
        lane: Lane,
        trust: &Trust,
    ) -> Result<Arc<Connection>, CallError> {
        loop {
            let connection = match self.step(place, lane, trust) {
                Step::Use(connection) => connection,
                Step::Wait {
                    outcome,
                    same_trust,
                } => match outcome.await {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(error)) if same_trust => return Err(error),
                    Ok(Err(_)) => continue,
                    Err(_) => {
                        self.forget_dial(place, lane);
                        return Err(unreachable(place, "internal error: dialling failed"));
                    }
                },
            };
            if let Trust::CoordinatorOf(trusted) = trust
                && let Err(reason) = connection.proof.prove(trusted).await
            {
                self.discard(place, lane, &connection);
                let place = place.clone();
                return Err(CallError::NotBelieved { place, reason });
            }
            return Ok(connection);
        }
    }

    /// Drops a connection, so that the next question dials anew.
    pub(super) fn discard(&self, place: &Place, lane: Lane, connection: &Arc<Connection>) {
        if let Some(peer) = self.lock().get_mut(place)
            && let Some(State::Open(open)) = peer.lanes.get(&lane)
            && Arc::ptr_eq(open, connection)
        {
            peer.lanes.remove(&lane);
        }
    }

    fn forget_dial(&self, place: &Place, lane: Lane) {
        if let Some(peer) = self.lock().get_mut(place)
            && let Some(State::Dialling { outcome, .. }) = peer.lanes.get(&lane)
            && outcome.peek().is_some()
        {
            peer.lanes.remove(&lane);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(self: &Arc<Self>, place: &Place, lane: Lane, trust: &Trust) -> Step {
        let manifest = manifest(trust);
        let mut peers = self.lock();
        if !peers.contains_key(place) {
            make_room(&mut peers);
        }
        let peer = peers.entry(place.clone()).or_insert_with(|| Peer {
            lanes: HashMap::new(),
            dial: Arc::new(Semaphore::new(1)),
            used: Instant::now(),
        });
        peer.used = Instant::now();
        let state = peer.lanes.entry(lane).or_insert(State::Idle);
        match state {
            State::Open(connection) if connection.is_open() => Step::Use(Arc::clone(connection)),
            State::Dialling {
                manifest: judged_by,
                outcome,
            } => Step::Wait {
                outcome: outcome.clone(),
                same_trust: *judged_by == manifest,
            },
            State::Open(_) | State::Idle => {
                let (done, outcome) = oneshot::channel();
                let outcome = outcome.shared();
                *state = State::Dialling {
                    manifest,
                    outcome: outcome.clone(),
                };
                let permit = Arc::clone(&peer.dial);
                self.start_dial(permit, place.clone(), lane, trust.clone(), done);
                Step::Wait {
                    outcome,
                    same_trust: true,
                }
            }
        }
    }

    fn start_dial(
        self: &Arc<Self>,
        permit: Arc<Semaphore>,
        place: Place,
        lane: Lane,
        trust: Trust,
        done: oneshot::Sender<Dialled>,
    ) {
        let pool = Arc::clone(self);
        let mut dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        while dials.try_join_next().is_some() {}
        dials.spawn(async move {
            let _permit = permit.acquire().await;
            let dialled = pool.dial(&place, &trust).await;
            pool.arrived(&place, lane, &dialled);
            // Whoever asked may have stopped waiting.
            let _ = done.send(dialled);
        });
    }

    fn arrived(&self, place: &Place, lane: Lane, dialled: &Dialled) {
        let mut peers = self.lock();
        // A place that made room meanwhile stays forgotten; who waits gets the connection all the same.
        let Some(peer) = peers.get_mut(place) else {
            return;
        };
        let state = match dialled {
            Ok(connection) => State::Open(Arc::clone(connection)),
            Err(_) => State::Idle,
        };
        peer.lanes.insert(lane, state);
    }

    async fn dial(&self, place: &Place, trust: &Trust) -> Dialled {
        let uri: Uri = format!("http://{place}").parse().map_err(|_| {
            unreachable(
                place,
                "expected HOST:PORT, found something else as its place",
            )
        })?;
        let verifier = match trust {
            Trust::Anyone => None,
            Trust::CoordinatorOf(trusted) => Some(Arc::new(CoordinatorVerifier {
                trusted: Arc::clone(trusted),
                collateral: Arc::clone(&self.local.collateral),
            }) as Arc<dyn EvidenceVerifier>),
        };
        let config = ClientConfig {
            identity: Arc::clone(&self.local.identity),
            issuer: Some(Arc::clone(&self.local.issuer)),
            verifier,
            clock: Arc::clone(&self.local.clock),
            limits: Limits {
                handshake: self.timing.connect,
                ..Limits::client()
            },
        };
        let connector = Connector::with_dialer(config, self.dialer.clone());
        let connector = match trust {
            Trust::Anyone => connector.permit_unattested(),
            Trust::CoordinatorOf(_) => connector,
        };
        let tls = connector.connect(uri.clone()).await;
        let tls = tls.map_err(|error| failed(place, &error))?;
        let proof = Proof::new(&self.local, tls.peer().attested.clone());
        let proof = match trust {
            Trust::Anyone => proof,
            Trust::CoordinatorOf(trusted) => proof.accepted_under(trusted.manifest),
        };
        let link = Link::new(tls, proof);
        let (proof, life) = (Arc::clone(link.proof()), link.life());
        let channel = self.http2(uri, link).await;
        let channel = channel.map_err(|error| unreachable(place, &causes(&error)))?;
        tracing::debug!(%place, "connected to a replica");
        Ok(Arc::new(Connection {
            channel,
            proof,
            life,
        }))
    }

    async fn http2(&self, uri: Uri, link: Link<D::Io>) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from(uri)
            .http2_keep_alive_interval(self.timing.keepalive)
            .keep_alive_timeout(self.timing.keepalive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .http2_max_header_list_size(HEADER_BYTES_MAX);
        // A channel dials again by itself, which must not happen behind the pool's back: this one can only once.
        let mut link = Some(TokioIo::new(link));
        let once = tower::service_fn(move |_: Uri| {
            let link = link.take();
            async move { link.ok_or_else(|| io::Error::other("the connection is over")) }
        });
        endpoint.connect_with_connector(once).await
    }
}

fn make_room(peers: &mut HashMap<Place, Peer>) {
    while peers.len() >= PLACES_MAX {
        let oldest = peers.iter().min_by_key(|(_, peer)| peer.used);
        let Some(oldest) = oldest.map(|(place, _)| place.clone()) else {
            return;
        };
        peers.remove(&oldest);
    }
}

fn manifest(trust: &Trust) -> Option<ManifestHash> {
    match trust {
        Trust::Anyone => None,
        Trust::CoordinatorOf(trusted) => Some(trusted.manifest),
    }
}

pub(super) fn unreachable(place: &Place, reason: &str) -> CallError {
    CallError::Unreachable {
        place: place.clone(),
        reason: reason.to_owned(),
    }
}

/// Who refused whom.
fn failed(place: &Place, error: &AtlsError) -> CallError {
    let place = place.clone();
    match error {
        AtlsError::RefusedPeer(_)
        | AtlsError::PeerMisbehaved(
            Misbehaviour::EvidenceMissing
            | Misbehaviour::EvidenceFormat(_)
            | Misbehaviour::NoCertificate,
        ) => CallError::NotBelieved {
            place,
            reason: error.causes().to_string(),
        },
        AtlsError::RefusedByPeer { reason } => CallError::NotBelievedBy {
            place,
            reason: reason.clone(),
        },
        _ => CallError::Unreachable {
            place,
            reason: error.causes().to_string(),
        },
    }
}
