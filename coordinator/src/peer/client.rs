//! Asks other replicas.

use std::{fmt, sync::Arc, time::Duration};

use contrast_atls::{Dialer, TcpDialer};
use contrast_proto::peer::{discovery_client::DiscoveryClient, peer_api_client::PeerApiClient};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, IntoRequest, Request as Rpc, Response, Status, transport::Channel};

use super::{
    Discovery, Local,
    pool::{Connection, Lane, Pool, unreachable},
    wire::{self, Malformed, Route},
};
use crate::{
    causes::causes,
    replica::{
        message::{Place, RaftCall, RaftMessage, Reply, Request},
        peers::{BoxFuture, CallError, EvidenceSummary, PeerFailure, Peers, Trust},
    },
};

/// Largest answer, in bytes (8 MiB): a manifest has at most 4 MiB.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Larger proposals take the lane of large messages.
const SMALL_BYTES_MAX: usize = 256 << 10;

/// How long a client waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Dialling and handshake together; it goes on for this long although the question that needed it gave up.
    pub connect: Duration,
    /// Interval of pings on a connection, and how long an answer may take before the connection counts as broken.
    pub keepalive: Duration,
}

impl Default for Timing {
    /// 10 s and 2 s.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            keepalive: Duration::from_secs(2),
        }
    }
}

/// Asks other replicas over attested TLS. Clones share their connections.
#[derive(Clone)]
pub struct PeerClient<D = TcpDialer> {
    own: Place,
    discovery: Discovery,
    pool: Arc<Pool<D>>,
}

impl PeerClient {
    /// A client over TCP of the replica at `own`.
    pub fn new(local: Local, own: Place, discovery: Discovery) -> Self {
        Self::with_dialer(local, own, discovery, TcpDialer, Timing::default())
    }
}

impl<D: Dialer> PeerClient<D> {
    /// A client over another transport.
    pub fn with_dialer(
        local: Local,
        own: Place,
        discovery: Discovery,
        dialer: D,
        timing: Timing,
    ) -> Self {
        Self {
            own,
            discovery,
            pool: Arc::new(Pool::new(local, dialer, timing)),
        }
    }
}

impl<D> fmt::Debug for PeerClient<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerClient")
            .field("own", &self.own)
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}

impl<D: Dialer> Peers for PeerClient<D> {
    fn own_place(&self) -> Place {
        self.own.clone()
    }

    fn places(&self) -> BoxFuture<Vec<Place>> {
        let discovery = self.discovery.clone();
        Box::pin(async move { discovery.places().await })
    }

    fn call(
        &self,
        place: Place,
        request: Request,
        trust: Trust,
        within: Duration,
    ) -> BoxFuture<Result<Reply, CallError>> {
        let pool = Arc::clone(&self.pool);
        Box::pin(async move { call(&pool, place, request, trust, within).await })
    }

    fn evidence(&self, place: &Place) -> Option<EvidenceSummary> {
        self.pool.evidence(place)
    }
}

async fn call<D: Dialer>(
    pool: &Arc<Pool<D>>,
    place: Place,
    request: Request,
    trust: Trust,
    within: Duration,
) -> Result<Reply, CallError> {
    let late = |what: &str| unreachable(&place, &format!("{what} within {within:?}"));
    let start = Instant::now();
    let Some(deadline) = start.checked_add(within) else {
        return Err(unreachable(&place, "the time limit is out of range"));
    };
    let lane = lane(&request, &trust);
    let connection = timeout_at(deadline, pool.connection(&place, lane, &trust)).await;
    let connection = connection.map_err(|_| late("no connection"))??;
    let question = Question {
        connection: &connection,
        left: deadline.saturating_duration_since(Instant::now()),
    };
    let outcome = timeout_at(deadline, question.ask(request)).await;
    let error = match outcome.map_err(|_| late("no answer"))? {
        Ok(reply) => return Ok(reply),
        Err(error) => error,
    };
    match error {
        AskError::Status(status) => match wire::failure(&status) {
            Some(failure) => {
                // The connection may be older than the manifest that counts there; a new one may do better.
                if matches!(failure, PeerFailure::NotCoordinator(_)) {
                    pool.discard(&place, lane, &connection);
                }
                Err(CallError::Failed { place, failure })
            }
            // A method that it does not have.
            None if status.code() == Code::Unimplemented => {
                let failure = PeerFailure::Unreadable("it has no such method".to_owned());
                Err(CallError::Failed { place, failure })
            }
            None => {
                // That the other side stopped in time says nothing bad about the connection.
                if !matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) {
                    pool.discard(&place, lane, &connection);
                }
                Err(unreachable(&place, &describe(&status)))
            }
        },
        AskError::Answer(malformed) => {
            let reason = format!("its answer cannot be read: {malformed}");
            Err(unreachable(&place, &reason))
        }
        AskError::ChainTooLarge { bytes } => {
            let reason = format!(
                "the snapshot has {bytes} bytes, expected at most {}; it was not sent",
                wire::CHAIN_BYTES_MAX
            );
            Err(unreachable(&place, &reason))
        }
    }
}

fn lane(request: &Request, trust: &Trust) -> Lane {
    let large = match request {
        Request::Raft(call) => matches!(call.message, RaftMessage::Snapshot { .. }),
        Request::Propose { update, .. } => {
            let policies = update.policies.iter().map(bytes::Bytes::len);
            policies
                .sum::<usize>()
                .saturating_add(update.manifest.len())
                > SMALL_BYTES_MAX
        }
        _ => false,
    };
    match trust {
        Trust::Anyone => Lane::Anyone,
        Trust::CoordinatorOf(_) if large => Lane::Bulk,
        Trust::CoordinatorOf(_) => Lane::Coordinators,
    }
}

fn describe(status: &Status) -> String {
    let text = causes(status);
    let printable = |c: char| match c.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    };
    text.chars().take(1024).map(printable).collect()
}

enum AskError {
    Status(Box<Status>),
    Answer(Malformed),
    ChainTooLarge { bytes: usize },
}

impl From<Status> for AskError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl From<Malformed> for AskError {
    fn from(malformed: Malformed) -> Self {
        Self::Answer(malformed)
    }
}

/// One question on one connection.
struct Question<'a> {
    connection: &'a Connection,
    /// The other side learns how long the answer is waited for.
    left: Duration,
}

impl Question<'_> {
    fn peers(&self) -> PeerApiClient<Channel> {
        PeerApiClient::new(self.connection.channel.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    fn rpc<M>(&self, message: impl IntoRequest<M>) -> Rpc<M> {
        let mut rpc = message.into_request();
        rpc.set_timeout(self.left);
        rpc
    }

    async fn ask(&self, request: Request) -> Result<Reply, AskError> {
        let mut peers = self.peers();
        Ok(match request {
            Request::Hello { boot, head } => {
                let mut discovery = DiscoveryClient::new(self.connection.channel.clone())
                    .max_decoding_message_size(ANSWER_BYTES_MAX);
                let rpc = self.rpc(wire::put_hello(boot, head));
                wire::welcome(body(discovery.hello(rpc).await)?)?
            }
            Request::FetchSecrets => {
                let rpc = self.rpc(contrast_proto::peer::FetchSecretsRequest {});
                wire::secrets(body(peers.fetch_secrets(rpc).await)?)?
            }
            Request::Join {
                cluster,
                node,
                place,
            } => {
                let rpc = self.rpc(wire::put_join(cluster, node, &place));
                wire::done(body(peers.join(rpc).await)?)?
            }
            Request::Raft(call) => self.raft(peers, call).await?,
            Request::Confirm { cluster, node } => {
                let rpc = self.rpc(wire::put_confirm(cluster, node));
                wire::read_index(body(peers.confirm(rpc).await)?)?
            }
            Request::OfferKey { cluster, key } => {
                let rpc = self.rpc(wire::put_offer_key(cluster, &key));
                wire::done(body(peers.offer_key(rpc).await)?)?
            }
            Request::FetchKey {
                cluster,
                public_key,
            } => {
                let rpc = self.rpc(wire::put_fetch_key(cluster, public_key));
                wire::found_key(body(peers.fetch_key(rpc).await)?)?
            }
            Request::Propose { cluster, update } => {
                let rpc = self.rpc(wire::put_propose(cluster, update));
                wire::receipt(body(peers.propose(rpc).await)?)?
            }
            Request::AdvanceVolume { cluster, advance } => {
                let rpc = self.rpc(wire::put_advance(cluster, &advance));
                wire::advanced(body(peers.advance_volume(rpc).await)?)?
            }
            Request::Leave { cluster, node } => {
                let rpc = self.rpc(wire::put_leave(cluster, node));
                wire::done(body(peers.leave(rpc).await)?)?
            }
        })
    }

    async fn raft(
        &self,
        mut peers: PeerApiClient<Channel>,
        call: RaftCall,
    ) -> Result<Reply, AskError> {
        let route = Route {
            cluster: call.cluster,
            from: call.from,
            to: call.to,
        };
        Ok(match call.message {
            RaftMessage::Append {
                vote,
                previous,
                entries,
                committed,
            } => {
                let (message, cut) = wire::put_append(
                    route,
                    &vote,
                    previous.as_ref(),
                    &entries,
                    committed,
                    wire::APPEND_BYTES,
                );
                let answer = body(peers.append_entries(self.rpc(message)).await)?;
                wire::append_reply(answer, cut)?
            }
            RaftMessage::Vote(ballot) => {
                let rpc = self.rpc(wire::put_ballot(route, &ballot));
                wire::vote_reply(body(peers.vote(rpc).await)?)?
            }
            RaftMessage::PreVote(ballot) => {
                let rpc = self.rpc(wire::put_ballot(route, &ballot));
                wire::vote_reply(body(peers.pre_vote(rpc).await)?)?
            }
            RaftMessage::Snapshot { vote, info, chain } => {
                let bytes = chain.0.len();
                if u64::try_from(bytes).is_ok_and(|bytes| bytes > wire::CHAIN_BYTES_MAX) {
                    return Err(AskError::ChainTooLarge { bytes });
                }
                let parts = wire::put_snapshot(route, &vote, &info, chain);
                let mut rpc = Rpc::new(futures::stream::iter(parts));
                rpc.set_timeout(self.left);
                wire::snapshot_reply(body(peers.install_snapshot(rpc).await)?)?
            }
            RaftMessage::Transfer { vote, to, last } => {
                let rpc = self.rpc(wire::put_transfer(route, &vote, to, last.as_ref()));
                wire::transfer_reply(body(peers.transfer_leader(rpc).await)?)?
            }
        })
    }
}

fn body<A>(answer: Result<Response<A>, Status>) -> Result<A, AskError> {
    Ok(answer?.into_inner())
}
