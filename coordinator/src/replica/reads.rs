//! Reads that decide trust: the state must be confirmed by a quorum.
//!
//! A confirmation is Raft's read-index: the leader learns from a majority that it still leads, and says up to where the log is
//! committed; whoever asked waits until it has applied that much. No clock takes part. Callers that come while a round is under way
//! share the next one, so that the cost does not grow with their number.

use std::sync::{Arc, atomic::Ordering};

use openraft::{ReadPolicy, type_config::TypeConfigExt};

use super::{
    Replica,
    life::Life,
    message::{Reply, Request},
    peers::Trust,
};
use crate::{
    cluster::ClusterTypes,
    state::{Active, Phase, StateError},
};

impl<C: ClusterTypes> Replica<C> {
    /// The state, confirmed after this call began: it contains every change that anybody was told of before.
    ///
    /// # Errors
    /// When there is no active state, or no quorum confirms it in time.
    pub async fn confirmed(&self) -> Result<Arc<Active>, StateError> {
        let life = self.member()?;
        if !cfg!(feature = "mutant-unconfirmed-reads") {
            self.confirm(&life).await.map_err(StateError::NoQuorum)?;
        }
        self.active()
    }

    /// As [`confirmed`](Self::confirmed); when no quorum answers, a confirmation that is not older than the bound will do.
    ///
    /// # Errors
    /// When there is no active state, or its last confirmation is older than the bound.
    pub async fn confirmed_for_issuing(&self) -> Result<Arc<Active>, StateError> {
        let life = self.member()?;
        if let Err(why) = self.confirm(&life).await
            && !cfg!(feature = "mutant-unbounded-issuing")
            && let Err(error) = self.check_bound(&life)
        {
            tracing::warn!(event = "unconfirmed", why, "refused to issue");
            return Err(error);
        }
        self.active()
    }

    /// As [`confirmed_for_issuing`](Self::confirmed_for_issuing), without asking a quorum while the last confirmation is within the bound:
    /// for what is asked thousands of times a second. A change elsewhere may be unknown here for that long.
    ///
    /// # Errors
    /// When there is no active state, or it could not be confirmed within the bound.
    pub async fn recently_confirmed(&self) -> Result<Arc<Active>, StateError> {
        let life = self.member()?;
        match self.check_bound(&life) {
            Ok(()) => self.active(),
            Err(_) => self.confirmed_for_issuing().await,
        }
    }

    pub(super) fn active(&self) -> Result<Arc<Active>, StateError> {
        let snapshot = self.guard.snapshot();
        let active = snapshot.active().map(Arc::clone);
        active.map_err(|error| self.why_inactive(error))
    }

    /// The life of a replica that the membership names.
    pub(super) fn member(&self) -> Result<Arc<Life<C>>, StateError> {
        match self.life() {
            Some(life) if life.is_member() => Ok(life),
            found => {
                self.active()?;
                let reason = match found {
                    Some(_) => "the leader has not added it yet".to_owned(),
                    None => self.outside().reason,
                };
                Err(StateError::NotAdmitted { reason })
            }
        }
    }

    /// Why a replica without an active state has none.
    pub(super) fn why_inactive(&self, error: StateError) -> StateError {
        let outside = self.outside();
        match (&error, self.life()) {
            (StateError::NoManifest | StateError::RecoveryNeeded, Some(_)) => {
                StateError::NotAdmitted {
                    reason: "it receives the history from the other replicas at this moment"
                        .to_owned(),
                }
            }
            (StateError::NoManifest | StateError::RecoveryNeeded, None) if outside.members_seen => {
                StateError::NotAdmitted {
                    reason: outside.reason,
                }
            }
            _ => error,
        }
    }

    /// One confirmation that begins after this call.
    pub(super) async fn confirm(&self, life: &Life<C>) -> Result<(), String> {
        let begun = life.rounds_begun.load(Ordering::SeqCst);
        let mut round = life.round.lock().await;
        if round.number > begun
            && let Some(outcome) = &round.outcome
        {
            return outcome.clone();
        }
        let number = life.rounds_begun.fetch_add(1, Ordering::SeqCst) + 1;
        let start = C::now();
        let asked = C::timeout(self.timing.read, self.ask_read_index(life)).await;
        let outcome = match asked {
            Ok(Ok(settled)) => {
                life.note_confirmed(start, settled);
                self.guard.believe_history();
                Ok(())
            }
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("no confirmation within {:?}", self.timing.read)),
        };
        round.number = number;
        round.outcome = Some(outcome.clone());
        outcome
    }

    async fn ask_read_index(&self, life: &Life<C>) -> Result<bool, String> {
        let (index, settled) = match life.leader_elsewhere() {
            None => self.read_index(life, life.node).await?,
            Some(leader) => {
                let trusted = self
                    .guard
                    .trusted()
                    .ok_or("no manifest says whom to believe")?;
                let question = Request::Confirm {
                    cluster: life.cluster,
                    node: life.node,
                };
                let trust = Trust::CoordinatorOf(trusted);
                let answer = self
                    .peers
                    .call(leader, question, trust, self.timing.read)
                    .await;
                match answer.map_err(|error| error.to_string())? {
                    Reply::ReadIndex { index, settled } => (index, settled),
                    _ => return Err("the leader answered another question".to_owned()),
                }
            }
        };
        let applied = life.raft.wait(Some(self.timing.read));
        let applied = applied
            .applied_index_at_least(Some(index), "read index")
            .await;
        applied.map_err(|error| error.to_string())?;
        Ok(settled)
    }

    /// What the leader answers: the index up to which a state must be applied to be confirmed now, and whether nothing is left to
    /// change about `node`.
    pub(super) async fn read_index(
        &self,
        life: &Life<C>,
        node: u64,
    ) -> Result<(u64, bool), String> {
        let linearizer = life.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        let linearizer = linearizer.map_err(|error| error.to_string())?;
        let observed = life.observe(&self.timing);
        let settled = observed.is_some_and(|observed| observed.is_settled(node));
        Ok((linearizer.read_log_id().index(), settled))
    }

    /// Refuses a state whose last confirmation is older than the bound.
    pub(super) fn check_bound(&self, life: &Life<C>) -> Result<(), StateError> {
        let bound = self.timing.confirmation_bound;
        match life.confirmed_ago() {
            Some(ago) if ago <= bound => Ok(()),
            ago => Err(StateError::Unconfirmed { ago, bound }),
        }
    }

    /// Whether this replica may answer for the deployment now: for probes and status.
    pub fn serving(&self) -> Result<(), String> {
        let life = match self.member() {
            Ok(life) => life,
            Err(error) => return Err(error.to_string()),
        };
        let snapshot = self.guard.snapshot();
        if let Phase::Held(held) = &*snapshot {
            return Err(held.why.to_string());
        }
        self.check_bound(&life).map_err(|error| error.to_string())?;
        match life.is_voter() || life.is_settled() {
            true => Ok(()),
            false => Err("it is a learner that is about to become a voter".to_owned()),
        }
    }
}
