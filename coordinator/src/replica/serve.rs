//! What a replica answers to another.

use std::sync::{Arc, atomic::Ordering};

use openraft::{
    Snapshot,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
        VoteResponse,
    },
};

use super::{
    Replica,
    life::Life,
    message::{
        AppendReply, Ballot, MemberReport, Place, RaftCall, RaftMessage, RaftReply, Reply, Request,
        Secrets, Standing, Welcome,
    },
    peers::{Caller, OwnerFailure, PeerFailure},
    write::Attempt,
};
use crate::{
    cluster::{ClusterId, ClusterTypes, Node, NodeId},
    state::{History, Phase, StateError, TransitionHash},
};

/// A cluster has at most this many members: more would only make quorums larger.
const MEMBERS_MAX: usize = 16;

impl<C: ClusterTypes> Replica<C> {
    /// Answers another replica. Everything but [`Request::Hello`] requires that the caller is a Coordinator of the latest manifest
    /// that this replica knows.
    ///
    /// # Errors
    /// As [`PeerFailure`] says.
    pub async fn handle(
        &self,
        caller: &dyn Caller,
        request: Request,
    ) -> Result<Reply, PeerFailure> {
        if let Request::Hello { head, .. } = request {
            return Ok(Reply::Welcome(self.welcome(head)));
        }
        if !(cfg!(feature = "mutant-unproven-secrets") && matches!(request, Request::FetchSecrets))
        {
            self.prove(caller)?;
        }
        let life = self.life().ok_or(PeerFailure::OtherIdentity)?;
        match request {
            Request::Hello { .. } => Err(PeerFailure::OtherIdentity),
            Request::FetchSecrets => self.hand_out_secrets(&life, caller).await,
            Request::Join {
                cluster,
                node,
                place,
            } => {
                same(cluster, &life)?;
                self.admit(&life, node, &place).await
            }
            Request::Raft(call) => self.raft(&life, call).await.map(Reply::Raft),
            Request::Confirm { cluster, node } => {
                same(cluster, &life)?;
                self.leads(&life)?;
                named(node, &life)?;
                let answer = self.read_index(&life, node).await;
                let (index, settled) = answer.map_err(PeerFailure::Unavailable)?;
                Ok(Reply::ReadIndex { index, settled })
            }
            Request::OfferKey { cluster, key } => {
                same(cluster, &life)?;
                let added = self.guard.add_key(key);
                added.map_err(|error| PeerFailure::Unavailable(error.to_string()))?;
                Ok(Reply::Done)
            }
            Request::FetchKey {
                cluster,
                public_key,
            } => {
                same(cluster, &life)?;
                let history = self.confirmed_trust(&life, caller).await?;
                // Keys of transitions under way are not for everybody: who gets one is for the proposer to decide.
                let latest = &history.head().transition.mesh_ca_public_key;
                let found = (*latest == public_key).then(|| self.guard.key(latest));
                Ok(Reply::Key(found.flatten()))
            }
            Request::Propose { cluster, update } => {
                if cluster != Some(life.cluster) {
                    return Err(PeerFailure::OtherIdentity);
                }
                self.leads(&life)?;
                match self.propose(&life, update).await {
                    Attempt::Decided(Ok(receipt)) => Ok(Reply::Set(receipt)),
                    Attempt::Decided(Err(error)) => Err(PeerFailure::Owner(owner_failure(error))),
                    Attempt::Again(why) => Err(PeerFailure::Unavailable(why)),
                }
            }
            Request::AdvanceVolume { cluster, advance } => {
                same(cluster, &life)?;
                self.leads(&life)?;
                match self.record_volume(&life, advance).await {
                    Attempt::Decided(Ok(advanced)) => Ok(Reply::Volume(advanced)),
                    Attempt::Decided(Err(error)) => Err(PeerFailure::Owner(owner_failure(error))),
                    Attempt::Again(why) => Err(PeerFailure::Unavailable(why)),
                }
            }
            Request::Leave { cluster, node } => {
                same(cluster, &life)?;
                self.leads(&life)?;
                life.note_leaving(node);
                self.tend(&life).await;
                match life.names(node) {
                    true => Err(PeerFailure::Unavailable(
                        "it is still a member; ask again".to_owned(),
                    )),
                    false => Ok(Reply::Done),
                }
            }
        }
    }

    fn welcome(&self, head: Option<TransitionHash>) -> Welcome {
        let snapshot = self.guard.snapshot();
        let report = self
            .life()
            .filter(|life| life.is_member())
            .and_then(|life| {
                let history = snapshot.history()?;
                let contains = |head| history.check_contains(head).is_ok();
                let leader = match life.is_leader() {
                    true => Some(life.place.clone()),
                    false => life.leader_elsewhere(),
                };
                Some(MemberReport {
                    cluster: life.cluster,
                    node: life.node,
                    members: life.members(),
                    leader,
                    confirmed: life.confirmed_within(self.timing.silence),
                    manifest: history.latest_manifest_bytes(),
                    head: history.head().hash,
                    applied: life.applied(),
                    contains_head: head.is_none_or(contains),
                })
            });
        let standing = match (report, &*snapshot) {
            // Before all else: of two survivors that owners recover at the same time, only one may go on.
            _ if self.founding.load(Ordering::SeqCst) => Standing::Founding,
            (Some(report), _) => Standing::Member(report),
            (None, Phase::Empty) => Standing::Empty,
            (None, _) => Standing::Waiting,
        };
        Welcome {
            boot: self.boot,
            standing,
        }
    }

    fn prove(&self, caller: &dyn Caller) -> Result<(), PeerFailure> {
        let trusted = self.guard.trusted().ok_or_else(|| {
            PeerFailure::NotCoordinator("there is no manifest here yet".to_owned())
        })?;
        caller
            .prove_coordinator(&trusted)
            .map_err(PeerFailure::NotCoordinator)
    }

    /// Secrets go only to a Coordinator of the manifest of now, that of the returned history: a replica that was cut off may have a superseded
    /// one, and one that cannot read the latest still judges by the one before.
    async fn confirmed_trust(
        &self,
        life: &Life<C>,
        caller: &dyn Caller,
    ) -> Result<Arc<History>, PeerFailure> {
        self.confirm(life).await.map_err(PeerFailure::Unavailable)?;
        let trusted = self.guard.trusted();
        let snapshot = self.guard.snapshot();
        match (trusted, snapshot.history()) {
            (Some(trusted), Some(history))
                if trusted.manifest == history.head().transition.manifest_hash =>
            {
                let proven = caller.prove_coordinator(&trusted);
                proven.map_err(PeerFailure::NotCoordinator)?;
                Ok(Arc::clone(history))
            }
            _ => Err(PeerFailure::Unavailable(
                "this replica cannot judge by the latest manifest who is a Coordinator; ask another one"
                    .to_owned(),
            )),
        }
    }

    async fn hand_out_secrets(
        &self,
        life: &Life<C>,
        caller: &dyn Caller,
    ) -> Result<Reply, PeerFailure> {
        if !life.is_member() {
            return Err(PeerFailure::OtherIdentity);
        }
        let history = match cfg!(feature = "mutant-unproven-secrets") {
            true => self.guard.snapshot().history().cloned(),
            false => Some(self.confirmed_trust(life, caller).await?),
        };
        let history = history.ok_or(PeerFailure::OtherIdentity)?;
        let latest = &history.head().transition;
        let deployment = self.guard.deployment();
        let deployment =
            deployment.ok_or_else(|| PeerFailure::Unavailable("no seed here".to_owned()))?;
        Ok(Reply::Secrets(Secrets {
            cluster: life.cluster,
            seed: Arc::clone(deployment.seed()),
            salt: Arc::clone(deployment.salt()),
            mesh_ca_keys: self
                .guard
                .key(&latest.mesh_ca_public_key)
                .into_iter()
                .collect(),
            manifest: latest.manifest_hash,
        }))
    }

    fn leads(&self, life: &Life<C>) -> Result<(), PeerFailure> {
        match life.is_leader() {
            true => Ok(()),
            false => Err(PeerFailure::NotLeader {
                leader: life.leader_elsewhere(),
            }),
        }
    }

    /// Adds a learner. The rest is up to the membership plan.
    async fn admit(
        &self,
        life: &Life<C>,
        node: NodeId,
        place: &Place,
    ) -> Result<Reply, PeerFailure> {
        self.leads(life)?;
        let _changing = life.changing.lock().await;
        // It may have taken itself out meanwhile.
        self.leads(life)?;
        if self.stopping.load(Ordering::SeqCst) {
            return Err(PeerFailure::Unavailable("it is about to stop".to_owned()));
        }
        let members = life.members();
        match members.iter().find(|member| member.node == node) {
            Some(member) if member.place == *place => return Ok(Reply::Done),
            Some(_) => return Err(PeerFailure::OtherIdentity),
            None if members.len() >= MEMBERS_MAX => {
                return Err(PeerFailure::Unavailable(format!(
                    "the cluster has {MEMBERS_MAX} members, which is the most it may have"
                )));
            }
            None => {}
        }
        let added = life
            .raft
            .add_learner(node, Node::new(place.as_str()), false)
            .await;
        added.map_err(|error| PeerFailure::Unavailable(error.to_string()))?;
        tracing::info!(event = "learner_added", node, %place, "admitted a replica as a learner");
        Ok(Reply::Done)
    }

    async fn raft(&self, life: &Life<C>, call: RaftCall) -> Result<RaftReply, PeerFailure> {
        let RaftCall {
            cluster,
            from,
            to,
            message,
        } = call;
        same(cluster, life)?;
        if to != life.node && !cfg!(feature = "mutant-any-cluster") {
            return Err(PeerFailure::OtherIdentity);
        }
        // Who was removed may still stand for election; it counts for nothing.
        let stands = matches!(message, RaftMessage::Vote(_) | RaftMessage::PreVote(_));
        if stands {
            named(from, life)?;
        }
        let raft = &life.raft;
        let failed = |error: &dyn std::fmt::Display| PeerFailure::Unavailable(error.to_string());
        match message {
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
                let reply = raft.append_entries(request).await;
                Ok(RaftReply::Append(match reply.map_err(|e| failed(&e))? {
                    AppendEntriesResponse::Success => AppendReply::Success,
                    AppendEntriesResponse::PartialSuccess(last) => AppendReply::Partial(last),
                    AppendEntriesResponse::Conflict => AppendReply::Conflict,
                    AppendEntriesResponse::HigherVote(vote) => AppendReply::HigherVote(vote),
                }))
            }
            RaftMessage::Vote(ballot) => {
                let reply = raft.vote(vote_request(ballot)).await;
                Ok(vote_reply(reply.map_err(|error| failed(&error))?))
            }
            RaftMessage::PreVote(ballot) => {
                let reply = raft.pre_vote(vote_request(ballot)).await;
                Ok(vote_reply(reply.map_err(|error| failed(&error))?))
            }
            RaftMessage::Snapshot { vote, info, chain } => {
                let snapshot = Snapshot {
                    meta: info,
                    snapshot: chain,
                };
                let reply = raft.install_full_snapshot(vote, snapshot).await;
                let reply = reply.map_err(|error| failed(&error))?;
                Ok(RaftReply::Snapshot { vote: reply.vote })
            }
            RaftMessage::Transfer { vote, to, last } => {
                let request = TransferLeaderRequest::new(vote, to, last);
                let reply = raft.handle_transfer_leader(request).await;
                let accepted = reply.map_err(|error| failed(&error))?.is_ok();
                Ok(RaftReply::Transfer { accepted })
            }
        }
    }
}

fn same<C: ClusterTypes>(cluster: ClusterId, life: &Life<C>) -> Result<(), PeerFailure> {
    match cluster == life.cluster || cfg!(feature = "mutant-any-cluster") {
        true => Ok(()),
        false => Err(PeerFailure::OtherIdentity),
    }
}

/// Refuses an identity that the membership does not name.
fn named<C: ClusterTypes>(node: NodeId, life: &Life<C>) -> Result<(), PeerFailure> {
    match life.names(node) || cfg!(feature = "mutant-any-cluster") {
        true => Ok(()),
        false => Err(PeerFailure::OtherIdentity),
    }
}

fn vote_request<C: ClusterTypes>(ballot: Ballot) -> VoteRequest<C> {
    VoteRequest {
        vote: ballot.vote,
        last_log_id: ballot.last,
        leadership_transfer: ballot.transfer,
    }
}

fn vote_reply<C: ClusterTypes>(reply: VoteResponse<C>) -> RaftReply {
    RaftReply::Vote {
        vote: reply.vote,
        granted: reply.vote_granted,
        last: reply.last_log_id,
    }
}

/// The status that the owner would have got here.
fn owner_failure(error: StateError) -> OwnerFailure {
    crate::api::owner_failure(error)
}
