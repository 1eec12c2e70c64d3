//! Raft's messages as questions to peers, and back.

use std::{fmt::Display, future::Future, sync::Arc, time::Duration};

use openraft::{
    RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};

use super::{
    message::{AppendReply, Ballot, Place, RaftCall, RaftMessage, RaftReply, Reply, Request},
    peers::{CallError, PeerFailure, Peers, Trust},
};
use crate::{
    cluster::{ClusterId, ClusterTypes, Node, NodeId, NodeVote, SignedChain},
    state::Guard,
};

/// Makes connections for Raft from one identity.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) peers: Arc<dyn Peers>,
    /// Says whom to believe.
    pub(super) guard: Arc<Guard>,
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
}

impl<C: ClusterTypes> RaftNetworkFactory<C> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, node: &Node) -> Link {
        Link {
            network: self.clone(),
            to: target,
            place: Place::new(&node.addr),
        }
    }
}

/// From one identity to another.
#[derive(Debug)]
pub(super) struct Link {
    network: Network,
    to: NodeId,
    place: Place,
}

/// The other side answered something else than what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{0} answered another question than the one it was asked")]
struct OtherAnswer(Place);

impl Link {
    async fn ask<C: ClusterTypes>(
        &self,
        message: RaftMessage,
        within: Duration,
    ) -> Result<RaftReply, RPCError<C>> {
        let network = &self.network;
        let Some(trusted) = network.guard.trusted() else {
            return Err(unreachable("no manifest says whom to believe").into());
        };
        let call = RaftCall {
            cluster: network.cluster,
            from: network.node,
            to: self.to,
            message,
        };
        let answer = network.peers.call(
            self.place.clone(),
            Request::Raft(call),
            Trust::CoordinatorOf(trusted),
            within,
        );
        match answer.await {
            Ok(Reply::Raft(reply)) => Ok(reply),
            Ok(_) => Err(self.other_answer()),
            // The same question will not be understood the next moment either.
            Err(
                error @ CallError::Failed {
                    failure: PeerFailure::Unreadable(_),
                    ..
                },
            ) => Err(Unreachable::new(&error).into()),
            // openraft waits before it tries an unreachable node again; an error that was answered is tried again at once.
            Err(error @ CallError::Failed { .. }) => Err(NetworkError::new(&error).into()),
            Err(error) => Err(Unreachable::new(&error).into()),
        }
    }

    fn other_answer<C: ClusterTypes>(&self) -> RPCError<C> {
        NetworkError::new(&OtherAnswer(self.place.clone())).into()
    }

    async fn ballot<C: ClusterTypes>(
        &self,
        request: VoteRequest<C>,
        wrap: fn(Ballot) -> RaftMessage,
        option: &RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let message = wrap(Ballot {
            vote: request.vote,
            last: request.last_log_id,
            transfer: request.leadership_transfer,
        });
        match self.ask(message, option.hard_ttl()).await? {
            RaftReply::Vote {
                vote,
                granted,
                last,
            } => Ok(VoteResponse::new(vote, last, granted)),
            _ => Err(self.other_answer()),
        }
    }
}

fn unreachable<C: ClusterTypes>(why: impl Display) -> Unreachable<C> {
    Unreachable::new(&std::io::Error::other(why.to_string()))
}

impl<C: ClusterTypes> RaftNetworkV2<C> for Link {
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
            RaftReply::Append(reply) => Ok(match reply {
                AppendReply::Success => AppendEntriesResponse::Success,
                AppendReply::Partial(last) => AppendEntriesResponse::PartialSuccess(last),
                AppendReply::Conflict => AppendEntriesResponse::Conflict,
                AppendReply::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote),
            }),
            _ => Err(self.other_answer()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.ballot(request, RaftMessage::Vote, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.ballot(request, RaftMessage::PreVote, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: NodeVote,
        snapshot: openraft::type_config::alias::SnapshotOf<C, SignedChain>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let message = RaftMessage::Snapshot {
            vote,
            info: snapshot.meta,
            chain: snapshot.snapshot,
        };
        match self.ask::<C>(message, option.hard_ttl()).await {
            Ok(RaftReply::Snapshot { vote }) => Ok(SnapshotResponse::new(vote)),
            Ok(_) => Err(NetworkError::new(&OtherAnswer(self.place.clone())).into()),
            Err(RPCError::Unreachable(error)) => Err(StreamingError::Unreachable(error)),
            Err(error) => Err(NetworkError::new(&error).into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let message = RaftMessage::Transfer {
            vote: *request.from_leader(),
            to: *request.to_node_id(),
            last: request.last_log_id().copied(),
        };
        match self.ask(message, option.hard_ttl()).await? {
            RaftReply::Transfer { accepted: true } => Ok(Ok(())),
            RaftReply::Transfer { accepted: false } => {
                Err(unreachable("it does not stand for election").into())
            }
            _ => Err(self.other_answer()),
        }
    }
}
