//! Setting a manifest, on any replica.

use std::{collections::BTreeSet, sync::Arc};

use contrast_manifest::Manifest;
use contrast_pki::{Salt, Seed};
use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{
    errors::{ClientWriteError, RaftError},
    type_config::TypeConfigExt,
};

use super::{
    Replica,
    life::Life,
    message::{MeshCaKey, Reply, Request, SetReceipt},
    peers::{CallError, PeerFailure, Trust, Trusted},
};
use crate::{
    cluster::{Answer, ClusterTypes, Refusal},
    state::{
        Active, Phase, StateError, TransitionHash, UpdateRequest,
        proposal::{self, Origin, Proposal},
    },
};

/// A proposal that was made while a quorum was asked whether the state that it builds on is the latest.
struct Prepared {
    follows: TransitionHash,
    proposal: Result<Proposal, StateError>,
}

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

    /// Sets the first manifest of a deployment that has a seed already. Repeating a request that took effect changes nothing.
    ///
    /// # Errors
    /// When there is a manifest already, or as [`StateError`] says.
    pub async fn import(
        &self,
        request: UpdateRequest,
        seed: Arc<Seed>,
        salt: Arc<Salt>,
    ) -> Result<SetReceipt, StateError> {
        let snapshot = self.guard.snapshot();
        let empty = matches!(&*snapshot, Phase::Empty) && self.life().is_none();
        if empty && !self.outside().members_seen && request.base == TransitionHash::NONE {
            return self.found(request, &Origin::Imported { seed, salt }).await;
        }
        let active = self.confirmed().await.map_err(|_| StateError::NotEmpty)?;
        let deployment = active.keys().deployment();
        match deployment.has_seed(&seed, &salt) && proposal::took_effect(&active, &request) {
            true => proposal::receipt(&active),
            false => Err(StateError::NotEmpty),
        }
    }

    async fn set_outside(&self, request: UpdateRequest) -> Result<SetReceipt, StateError> {
        let snapshot = self.guard.snapshot();
        match &*snapshot {
            Phase::Empty
                if !self.outside().members_seen && request.base == TransitionHash::NONE =>
            {
                self.found(request, &Origin::Drawn).await
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
        // What an earlier leader has committed must be applied here before anything is built on it. Nothing of what is prepared
        // meanwhile leaves this function before the answer is there.
        let (confirmed, prepared) =
            futures::join!(self.confirm(life), async { self.prepare(request.clone()) });
        if let Err(why) = confirmed {
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
            let receipt = proposal::receipt(active);
            return Attempt::Decided(self.second_copy(life).await.and(receipt));
        }
        if let Err(error) = self.guard.check_room(&request) {
            return Attempt::Decided(Err(error));
        }
        let proposal = match prepared {
            Some(prepared) if prepared.follows == active.transition() => prepared.proposal,
            _ => self.proposal(active, request),
        };
        match proposal {
            Ok(proposal) => self.commit(life, proposal).await,
            Err(error) => Attempt::Decided(Err(error)),
        }
    }

    /// What would be proposed if nothing is newer than what this replica has applied.
    fn prepare(&self, request: UpdateRequest) -> Option<Prepared> {
        let snapshot = self.guard.snapshot();
        let active = snapshot.active().ok()?;
        // Not for a request that took effect already: its base is not the latest transition.
        (request.base == active.transition()).then(|| Prepared {
            follows: active.transition(),
            proposal: self.proposal(active, request),
        })
    }

    fn proposal(&self, active: &Active, request: UpdateRequest) -> Result<Proposal, StateError> {
        let (now, entropy) = (self.guard.clock().now(), self.guard.entropy());
        proposal::replace(active, request, entropy, now)
    }

    /// Lets a majority have the key, then the log.
    pub(super) async fn commit(&self, life: &Life<C>, proposal: Proposal) -> Attempt<SetReceipt> {
        let Proposal {
            change,
            key,
            mesh_ca,
            receipt,
        } = proposal;
        let next = match Manifest::parse(&change.manifest) {
            Ok(manifest) => manifest,
            Err(error) => return Attempt::Decided(Err(StateError::Manifest(error))),
        };
        // The key is one of the manifest that comes: whoever that one excludes must not get it.
        let next = Arc::new(Trusted::of(&next, self.guard.trusted().as_deref()));
        self.guard.add_own_key(key.clone(), mesh_ca);
        let offered = match cfg!(feature = "mutant-late-key") {
            true => Ok(true),
            false => C::timeout(self.timing.read, self.offer(life, key, &next)).await,
        };
        if !offered.unwrap_or(false) {
            return Attempt::Again(
                "no majority of the replicas answers and is a Coordinator of the new manifest; nothing was proposed".to_owned(),
            );
        }
        let written = C::timeout(self.timing.change, life.raft.client_write(change.into())).await;
        let Ok(written) = written else {
            return Attempt::Decided(Err(StateError::Undecided(
                "it was proposed, but no majority acknowledged it in time".to_owned(),
            )));
        };
        match written {
            Ok(written) => Attempt::Decided(match written.data {
                Answer::Applied(_) => self.second_copy(life).await.map(|()| receipt),
                Answer::Refused(Refusal::NotNext { head, found }) => Err(StateError::StaleBase {
                    latest: head,
                    found,
                }),
                Answer::Refused(refusal) => Err(StateError::Stopped(refusal.to_string())),
                Answer::NoChange | Answer::Advanced(_) => {
                    Err(StateError::Stopped("a change changed nothing".to_owned()))
                }
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

    /// A single voter commits alone. While a spare lives, what an owner relies on is to be on its disk, too: the loss of one replica
    /// must not be the loss of what an owner was told.
    pub(super) async fn second_copy(&self, life: &Life<C>) -> Result<(), StateError> {
        let deadline = C::now() + self.timing.change;
        let index = life.applied();
        while !life.is_copied(index, &self.timing) {
            if C::now() >= deadline {
                return Err(StateError::Undecided(
                    "it is set, but no second replica has it on its disk yet".to_owned(),
                ));
            }
            C::sleep(self.timing.heartbeat / 10).await;
        }
        Ok(())
    }

    /// Offers a mesh CA key to all members that are Coordinators of `next`; true as soon as a majority of every voter set has it.
    async fn offer(&self, life: &Life<C>, key: MeshCaKey, next: &Arc<Trusted>) -> bool {
        let metrics = life.metrics();
        let sets = metrics
            .membership_config
            .membership()
            .get_joint_config()
            .clone();
        let mut have = BTreeSet::from([life.node]);
        let enough = |have: &BTreeSet<u64>| {
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
                let trust = Trust::CoordinatorOf(Arc::clone(next));
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
