//! openraft on the Coordinator's store, without the Coordinator's rules: a node resumes whatever its disk says.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use contrast_attestation::PolicyHash;
use contrast_coordinator::{
    cluster::{
        ClusterId, LogStore, LogStoreError, Node as Address, NodeId, NodeVote, RecordKey,
        SignedChain, StateMachine,
    },
    replica::{
        message::{AppendReply, Ballot, Place, RaftCall, RaftMessage, RaftReply, Reply, Request},
        peers::{BoxFuture, PeerFailure, Peers, Trust},
    },
    state::TransitionHash,
};
use contrast_pki::{Derivation, Salt, Seed};
use contrast_sim::{
    SimTypes,
    disk::Disk,
    network::{Endpoint, Identity, Network, SimPeers},
    runtime::Node,
};
use openraft::{
    Config, Raft, RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::SnapshotOf,
};

type C = SimTypes;

pub(crate) const CLUSTER: ClusterId = ClusterId([1; 32]);
pub(crate) const POLICY: PolicyHash = PolicyHash([3; 32]);

pub(crate) fn place(node: NodeId) -> Place {
    Place::new(&format!("node-{node}:7778"))
}

pub(crate) fn derivation() -> Derivation {
    let seed = Seed::from_slice(&[1; 64]).expect("64 bytes");
    Derivation::new(&seed, &Salt::from_slice(&[2; 32]).expect("32 bytes"))
}

#[derive(Clone)]
pub(crate) struct Plain {
    pub(crate) raft: Raft<C, StateMachine>,
    pub(crate) machine: StateMachine,
    id: NodeId,
}

impl Plain {
    /// Starts in the place of `id`: resumes from the disk when there is a log, else begins anew.
    pub(crate) async fn start(
        id: NodeId,
        process: &Node,
        disk: &Disk,
        network: &Network,
    ) -> Result<Self, LogStoreError> {
        let drive = disk.drive(process);
        let key = derivation().store_record_key().expect("derives");
        let key = || RecordKey::new(&key, CLUSTER, id);
        let log = match LogStore::open(&drive, key()) {
            Err(LogStoreError::Absent { .. }) => LogStore::create(&drive, key())?,
            opened => opened?,
        };
        let signer = derivation().transition_signing_key().expect("derives");
        let machine = StateMachine::new(&log, signer.public_key_spki());
        let identity = Arc::new(Identity {
            // An identity that is resumed leads on under its leader id.
            name: format!("node {id}"),
            place: place(id),
            policy: POLICY,
            genuine: true,
        });
        let config = Config {
            heartbeat_interval: 100,
            election_timeout_min: 400,
            election_timeout_max: 700,
            ..Config::default()
        };
        let connections = Connections {
            peers: Arc::new(SimPeers::new(network, process, Arc::clone(&identity))),
            from: id,
        };
        let config = Arc::new(config.validate().expect("valid"));
        let raft = Raft::new(id, config, connections, log, machine.clone())
            .await
            .map_err(|_| LogStoreError::GivenUp)?;
        let plain = Self { raft, machine, id };
        network.attach(process, identity, Arc::new(plain.clone()));
        Ok(plain)
    }

    /// Makes `nodes` the cluster; harmless when it is one.
    pub(crate) async fn found(&self, nodes: &[NodeId]) {
        let nodes = nodes
            .iter()
            .map(|id| (*id, Address::new(place(*id).as_str())));
        drop(
            self.raft
                .initialize(nodes.collect::<BTreeMap<_, _>>())
                .await,
        );
    }

    pub(crate) fn chain(&self) -> Vec<TransitionHash> {
        let view = self.machine.view();
        let history = view.history.iter();
        history
            .flat_map(|history| history.links().map(|link| link.hash))
            .collect()
    }

    async fn answer(self: Arc<Self>, call: RaftCall) -> Result<RaftReply, PeerFailure> {
        if (call.cluster, call.to) != (CLUSTER, self.id) {
            return Err(PeerFailure::OtherIdentity);
        }
        let failed = |error: &dyn std::fmt::Display| PeerFailure::Unavailable(error.to_string());
        match call.message {
            RaftMessage::Append {
                vote,
                previous,
                entries,
                committed,
            } => {
                let request = AppendEntriesRequest {
                    vote,
                    prev_log_id: previous,
                    entries,
                    leader_commit: committed,
                };
                let reply = self.raft.append_entries(request).await;
                Ok(RaftReply::Append(
                    match reply.map_err(|error| failed(&error))? {
                        AppendEntriesResponse::Success => AppendReply::Success,
                        AppendEntriesResponse::PartialSuccess(last) => AppendReply::Partial(last),
                        AppendEntriesResponse::Conflict => AppendReply::Conflict,
                        AppendEntriesResponse::HigherVote(vote) => AppendReply::HigherVote(vote),
                    },
                ))
            }
            RaftMessage::Vote(ballot) => {
                let reply = self
                    .raft
                    .vote(VoteRequest::new(ballot.vote, ballot.last))
                    .await;
                let reply = reply.map_err(|error| failed(&error))?;
                Ok(RaftReply::Vote {
                    vote: reply.vote,
                    granted: reply.vote_granted,
                    last: reply.last_log_id,
                })
            }
            _ => Err(PeerFailure::Unavailable("not needed here".to_owned())),
        }
    }
}

impl Endpoint for Plain {
    fn handle(
        self: Arc<Self>,
        _: Arc<Identity>,
        request: Request,
    ) -> BoxFuture<Result<Reply, PeerFailure>> {
        Box::pin(async move {
            match request {
                Request::Raft(call) => self.answer(call).await.map(Reply::Raft),
                _ => Err(PeerFailure::Unavailable("Raft only".to_owned())),
            }
        })
    }
}

#[derive(Clone)]
struct Connections {
    peers: Arc<SimPeers>,
    from: NodeId,
}

struct Connection {
    connections: Connections,
    to: NodeId,
}

fn unreachable(why: &str) -> Unreachable<C> {
    Unreachable::new(&io::Error::other(why.to_owned()))
}

impl RaftNetworkFactory<C> for Connections {
    type Network = Connection;

    async fn new_client(&mut self, to: NodeId, _: &Address) -> Connection {
        Connection {
            connections: self.clone(),
            to,
        }
    }
}

impl Connection {
    async fn ask(
        &self,
        message: RaftMessage,
        within: Duration,
    ) -> Result<RaftReply, Unreachable<C>> {
        let request = Request::Raft(RaftCall {
            cluster: CLUSTER,
            from: self.connections.from,
            to: self.to,
            message,
        });
        let peers = &self.connections.peers;
        match peers
            .call(place(self.to), request, Trust::Anyone, within)
            .await
        {
            Ok(Reply::Raft(reply)) => Ok(reply),
            Ok(_) => Err(unreachable("another answer")),
            Err(error) => Err(unreachable(&error.to_string())),
        }
    }
}

impl RaftNetworkV2<C> for Connection {
    type SnapshotData = SignedChain;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let message = RaftMessage::Append {
            vote: request.vote,
            previous: request.prev_log_id,
            entries: request.entries,
            committed: request.leader_commit,
        };
        match self.ask(message, option.hard_ttl()).await? {
            RaftReply::Append(AppendReply::Success) => Ok(AppendEntriesResponse::Success),
            RaftReply::Append(AppendReply::Partial(last)) => {
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            RaftReply::Append(AppendReply::Conflict) => Ok(AppendEntriesResponse::Conflict),
            RaftReply::Append(AppendReply::HigherVote(vote)) => {
                Ok(AppendEntriesResponse::HigherVote(vote))
            }
            _ => Err(unreachable("another answer").into()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let ballot = Ballot {
            vote: request.vote,
            last: request.last_log_id,
            transfer: false,
        };
        match self
            .ask(RaftMessage::Vote(ballot), option.hard_ttl())
            .await?
        {
            RaftReply::Vote {
                vote,
                granted,
                last,
            } => Ok(VoteResponse::new(vote, last, granted)),
            _ => Err(unreachable("another answer").into()),
        }
    }

    /// No log here is long enough for a snapshot.
    async fn full_snapshot(
        &mut self,
        _: NodeVote,
        _: SnapshotOf<C, SignedChain>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        Err(StreamingError::Unreachable(unreachable("no snapshots")))
    }
}
