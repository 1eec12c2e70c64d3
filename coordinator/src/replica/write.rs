//! Setting a manifest, on any replica.

use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{
    errors::{ClientWriteError, RaftError},
    type_config::TypeConfigExt,
};

use super::{
    Replica,
    life::Life,
    message::{Reply, Request, SetReceipt},
    peers::{CallError, PeerFailure, Trust},
};
use crate::{
    cluster::{Answer, ClusterTypes, Refusal},
    state::{
        Phase, StateError, TransitionHash, UpdateRequest,
        proposal::{self, Proposal},
    },
};

/// What an attempt to change something came to.
pub(super) enum Attempt<T> {
    /// It is decided.
    Decided(Result<T, StateError>),
    /// Another replica leads, or none: try again.
    Again(String),
}

impl<C: ClusterTypes> Replica<C> {
    /// Sets the first manifest or replaces the active one, here or at the leader. Repeating a request that took effect changes
    /// nothing, so a caller that lost the answer repeats it.
    ///
    /// # Errors
    /// As [`StateError`] says. The state is then unchanged, except after [`StateError::Undecided`].
    pub async fn set_manifest(&self, request: UpdateRequest) -> Result<SetReceipt, StateError> {
        let deadline = C::now() + self.timing.change;
        let mut why = String::new();
        while C::now() < deadline {
            let attempt = match self.life() {
                None => return self.set_outside(request).await,
                Some(life) if life.is_leader() => self.propose(&life, request.clone()).await,
                Some(life) => self.forward(&life, request.clone()).await,
            };
            match attempt {
                Attempt::Decided(outcome) => return outcome,
                Attempt::Again(reason) => {
                    tracing::debug!(reason, "setting a manifest again");
                    why = reason;
                }
            }
            C::sleep(self.timing.heartbeat).await;
        }
        Err(StateError::Undecided(why))
    }

    async fn set_outside(&self, request: UpdateRequest) -> Result<SetReceipt, StateError> {
        let snapshot = self.guard.snapshot();
        match &*snapshot {
            Phase::Empty
                if !self.outside().members_seen && request.base == TransitionHash::NONE =>
            {
                self.found(request).await
            }
            // Not that the base is outdated: a newcomer does not know what the latest transition is.
            Phase::Empty => Err(self.why_inactive(StateError::NoManifest)),
            _ => Err(self.why_inactive(StateError::RecoveryNeeded)),
        }
    }

    async fn forward(&self, life: &Life<C>, update: UpdateRequest) -> Attempt<SetReceipt> {
        let (Some(leader), Some(trusted)) = (life.leader_elsewhere(), self.guard.trusted()) else {
            return Attempt::Again("no leader is known".to_owned());
        };
        let question = Request::Propose {
            cluster: Some(life.cluster),
            update,
        };
        let trust = Trust::CoordinatorOf(trusted);
        match self
            .peers
            .call(leader, question, trust, self.timing.change)
            .await
        {
            Ok(Reply::Set(receipt)) => Attempt::Decided(Ok(receipt)),
            Ok(_) => Attempt::Again("the leader answered another question".to_owned()),
            Err(CallError::Failed {
                failure: PeerFailure::Owner(failure),
                ..
            }) => Attempt::Decided(Err(StateError::Forwarded(failure))),
            Err(error) => Attempt::Again(error.to_string()),
        }
    }

    /// As the leader.
    pub(super) async fn propose(
        &self,
        life: &Life<C>,
        request: UpdateRequest,
    ) -> Attempt<SetReceipt> {
        let _proposing = life.proposing.lock().await;
        // What an earlier leader has committed must be applied here before anything is built on it.
        if let Err(why) = self.confirm(life).await {
            return Attempt::Again(why);
        }
        if !life.is_leader() {
            return Attempt::Again("this replica does not lead any more".to_owned());
        }
        let snapshot = self.guard.snapshot();
        let active = match snapshot.active() {
            Ok(active) => active,
            Err(error) => return Attempt::Decided(Err(self.why_inactive(error))),
        };
        if proposal::took_effect(active, &request) {
            return Attempt::Decided(proposal::receipt(active));
        }
        if let Err(error) = self.guard.check_room(&request) {
            return Attempt::Decided(Err(error));
        }
        let (now, entropy) = (self.guard.clock().now(), self.guard.entropy());
        match proposal::replace(active, request, entropy, now) {
            Ok(proposal) => self.commit(life, proposal).await,
            Err(error) => Attempt::Decided(Err(error)),
        }
    }

    /// Lets a majority have the key, then the log.
    pub(super) async fn commit(&self, life: &Life<C>, proposal: Proposal) -> Attempt<SetReceipt> {
        let Proposal {
            change,
            key,
            mesh_ca,
            receipt,
        } = proposal;
        self.guard.add_own_key(key.clone(), mesh_ca);
        let offered = match cfg!(feature = "mutant-late-key") {
            true => Ok(true),
            false => C::timeout(self.timing.read, self.offer(life, key)).await,
        };
        if !offered.unwrap_or(false) {
            return Attempt::Again(
                "a majority of the replicas does not answer; nothing was proposed".to_owned(),
            );
        }
        let written = C::timeout(self.timing.change, life.raft.client_write(change)).await;
        let Ok(written) = written else {
            return Attempt::Decided(Err(StateError::Undecided(
                "it was proposed, but no majority acknowledged it in time".to_owned(),
            )));
        };
        match written {
            Ok(written) => Attempt::Decided(match written.data {
                Answer::Applied(_) => Ok(receipt),
                Answer::Refused(Refusal::NotNext { head, found }) => Err(StateError::StaleBase {
                    latest: head,
                    found,
                }),
                Answer::Refused(refusal) => Err(StateError::Stopped(refusal.to_string())),
                Answer::NoChange => Err(StateError::Stopped("a change changed nothing".to_owned())),
            }),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(error))) => {
                Attempt::Again(error.to_string())
            }
            // It may have been committed by the next leader. The next attempt finds out: it begins with a confirmation.
            Err(RaftError::APIError(error)) => Attempt::Again(error.to_string()),
            Err(RaftError::Fatal(error)) => {
                Attempt::Decided(Err(StateError::Stopped(error.to_string())))
            }
        }
    }

    /// Offers a mesh CA key to all members; true as soon as a majority of every voter set has it.
    async fn offer(&self, life: &Life<C>, key: super::message::MeshCaKey) -> bool {
        let Some(trusted) = self.guard.trusted() else {
            return false;
        };
        let metrics = life.metrics();
        let sets = metrics
            .membership_config
            .membership()
            .get_joint_config()
            .clone();
        let mut have = std::collections::BTreeSet::from([life.node]);
        let enough = |have: &std::collections::BTreeSet<u64>| {
            sets.iter()
                .all(|set| set.intersection(have).count() > set.len() / 2)
        };
        let mut offers: FuturesUnordered<_> = life
            .others()
            .into_iter()
            .map(|member| {
                let question = Request::OfferKey {
                    cluster: life.cluster,
                    key: key.clone(),
                };
                let trust = Trust::CoordinatorOf(std::sync::Arc::clone(&trusted));
                let call = self
                    .peers
                    .call(member.place, question, trust, self.timing.call);
                // A task of its own: those who come too late for the majority get the key all the same.
                let task = C::spawn(call);
                async move { (member.node, task.await) }
            })
            .collect();
        while !enough(&have) {
            match offers.next().await {
                Some((node, Ok(Ok(_)))) => {
                    have.insert(node);
                }
                Some(_) => {}
                None => return false,
            }
        }
        true
    }
}
