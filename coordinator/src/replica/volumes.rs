//! Generations of encrypted volumes: read under a confirmation, advanced through the log.

use std::sync::Arc;

use openraft::{
    errors::{ClientWriteError, RaftError},
    type_config::TypeConfigExt,
};

use super::{
    Replica,
    life::Life,
    message::{Reply, Request},
    peers::{CallError, PeerFailure, Trust},
    write::Attempt,
};
use crate::{
    cluster::{Answer, ClusterTypes},
    state::{Active, Advance, Advanced, StateError, Volumes},
};

impl<C: ClusterTypes> Replica<C> {
    /// The state and the generations of encrypted volumes, confirmed after this call began. There is no bound within which older ones
    /// would do: a generation that is too low lets an old disk pass.
    ///
    /// # Errors
    /// As [`confirmed`](Self::confirmed).
    pub async fn confirmed_volumes(&self) -> Result<(Arc<Active>, Volumes), StateError> {
        let active = self.confirmed().await?;
        // The view is what the confirmation waited for; `active` may be of before the latest generations.
        let view = self.member()?.machine.view();
        let volumes = view
            .history
            .as_ref()
            .map(|history| history.volumes().clone());
        Ok((active, volumes.unwrap_or_default()))
    }

    /// Records what a pod reported, here or at the leader. Repeating a report changes nothing, so a caller that lost the answer repeats
    /// it.
    ///
    /// # Errors
    /// As [`StateError`] says; after [`StateError::Undecided`] it may be recorded all the same.
    pub async fn advance_volume(&self, advance: Advance) -> Result<Advanced, StateError> {
        let deadline = C::now() + self.timing.change;
        let mut why = String::new();
        while C::now() < deadline {
            let life = self.member()?;
            let attempt = match life.is_leader() {
                true => self.record_volume(&life, advance.clone()).await,
                false => self.forward_volume(&life, advance.clone()).await,
            };
            match attempt {
                Attempt::Decided(outcome) => return outcome,
                Attempt::Again(reason) => {
                    tracing::debug!(reason, "recording a volume's generation again");
                    why = reason;
                }
            }
            C::sleep(self.timing.heartbeat).await;
        }
        Err(StateError::NoQuorum(why))
    }

    async fn forward_volume(&self, life: &Life<C>, advance: Advance) -> Attempt<Advanced> {
        let (Some(leader), Some(trusted)) = (life.leader_elsewhere(), self.guard.trusted()) else {
            return Attempt::Again("no leader is known".to_owned());
        };
        let question = Request::AdvanceVolume {
            cluster: life.cluster,
            advance,
        };
        let trust = Trust::CoordinatorOf(trusted);
        let answer = self.peers.call(leader, question, trust, self.timing.change);
        match answer.await {
            Ok(Reply::Volume(advanced)) => Attempt::Decided(Ok(advanced)),
            Ok(_) => Attempt::Again("the leader answered another question".to_owned()),
            Err(CallError::Failed {
                failure: PeerFailure::Owner(failure),
                ..
            }) => Attempt::Decided(Err(StateError::Forwarded(failure))),
            Err(error) => Attempt::Again(error.to_string()),
        }
    }

    /// As the leader. Nothing is looked up before: the log decides in which order reports come.
    pub(super) async fn record_volume(
        &self,
        life: &Life<C>,
        advance: Advance,
    ) -> Attempt<Advanced> {
        let written = C::timeout(self.timing.change, life.raft.client_write(advance.into())).await;
        let Ok(written) = written else {
            return Attempt::Again("no majority acknowledged it in time".to_owned());
        };
        match written {
            Ok(written) => Attempt::Decided(match written.data {
                Answer::Advanced(advanced) => self.second_copy(life).await.map(|()| advanced),
                Answer::NoChange | Answer::Applied(_) | Answer::Refused(_) => Err(
                    StateError::Stopped("a generation came before any history".to_owned()),
                ),
            }),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(error))) => {
                Attempt::Again(error.to_string())
            }
            Err(RaftError::APIError(error)) => Attempt::Again(error.to_string()),
            Err(RaftError::Fatal(error)) => {
                Attempt::Decided(Err(StateError::Stopped(error.to_string())))
            }
        }
    }
}
