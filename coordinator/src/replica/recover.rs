//! How an owner of the seed brings a deployment back when no quorum lives.

use std::sync::{Arc, PoisonError};

use contrast_telemetry::exposure::PUBLIC;

use super::{
    Replica,
    enter::{Beginning, Founding},
    life::Life,
};
use crate::{
    cluster::{ClusterTypes, Earlier, read_earlier},
    state::{
        Deployment, History, Phase, RecoveryRequest, StateError, TransitionHash, Volumes,
        VolumesError, proposal, recovery,
    },
};

impl<C: ClusterTypes> Replica<C> {
    /// Brings a deployment back under a new mesh CA, in a new cluster of which this replica is the first member.
    ///
    /// # Errors
    /// As [`StateError`] says. The history is then unchanged; a survivor may have given up its identity all the same.
    pub async fn recover(&self, request: RecoveryRequest) -> Result<TransitionHash, StateError> {
        let _entering = self.entering.lock().await;
        // A member to which no history came yet has nothing but what was on its disk.
        let survivor = self
            .life()
            .filter(|life| life.is_member() && life.machine.view().history.is_some());
        let (deployment, history) = match &survivor {
            Some(life) => {
                let deployment = self.check_survivor(life, &request).await?;
                let history = remembered(life, &deployment)?;
                (deployment, history)
            }
            None => self.unseal(&request)?,
        };
        let _flag = Founding::raise(self);
        if !cfg!(feature = "mutant-unguarded-recovery") {
            // Before the guard: where a member answers, that is the one to recover, whatever this replica has.
            self.ask_survivors(survivor.as_deref(), &history, &request)
                .await?;
            check_known(&history, &request)?;
        }
        history.latest_manifest()?;

        self.give_up().await;
        let survived = survivor.is_some();
        // Until its Raft stopped, a survivor could acknowledge more than it had when others were asked.
        let history = match survivor {
            Some(life) => remembered(&life, &deployment)?,
            None => history,
        };
        // The log of the last life is set aside when the next one begins: what only it has must be in the history before.
        self.guard.keep(&history, &deployment)?;
        check_known(&history, &request)?;
        let manifest = history.latest_manifest()?;
        let (now, entropy) = (self.guard.clock().now(), self.guard.entropy());
        let proposal = proposal::renew(&history, &manifest, &deployment, entropy, now)?;
        let beginning = Beginning::Recovered(&history);
        let receipt = self.begin_with(&deployment, &manifest, proposal, beginning);
        let receipt = receipt.await?;
        tracing::warn!(
            event = "recovered",
            transition = %receipt.transition,
            survivor = survived,
            exposure = PUBLIC,
            "an owner recovered this deployment; it continues in a new cluster"
        );
        Ok(receipt.transition)
    }

    /// The history on disk, with what the log of the last life has beyond it.
    fn unseal(
        &self,
        request: &RecoveryRequest,
    ) -> Result<(Arc<Deployment>, Arc<History>), StateError> {
        self.guard.check_undamaged()?;
        let snapshot = self.guard.snapshot();
        let history = snapshot.history().ok_or(StateError::NothingToRecover)?;
        let deployment = recovery::unseal(history, request)?;
        let found = match &*snapshot {
            Phase::Sealed(sealed) => sealed.open_volumes(&deployment),
            _ => Ok(history.volumes().clone()),
        };
        let (recovered, doubt) = self.left_behind(&deployment, history, found)?;
        match doubt {
            None => {}
            Some(error) if request.forget_volumes => {
                tracing::warn!(
                    event = "volumes_forgotten",
                    exposure = PUBLIC,
                    "the owners recover without the generations of encrypted volumes: an older image of one is not noticed until \
                     the volume is opened once more"
                );
                tracing::warn!(%error, "why there are no generations of encrypted volumes");
            }
            Some(error) => return Err(StateError::Volumes(error)),
        }
        Ok((deployment, recovered))
    }

    /// What the log of the last life has; `None` when it is of no use.
    fn earlier(&self, deployment: &Deployment) -> Result<Option<Earlier>, StateError> {
        let key = deployment.derivation().store_record_key()?;
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        match read_earlier(&**log, &key) {
            // It may have what was acknowledged. Only the version that wrote it can say so.
            Err(error) if error.is_of_a_later_version() => Err(error.into()),
            Err(error) => {
                tracing::warn!(
                    event = "log_unusable",
                    "the log of the last life is of no use: {error}"
                );
                Ok(None)
            }
            Ok(earlier) => Ok(earlier),
        }
    }

    /// What the last life left: `history` with what was `found` of encrypted volumes beside it, and what the log has beyond both. And why
    /// those generations are not to be believed, if they are not.
    pub(super) fn left_behind(
        &self,
        deployment: &Deployment,
        history: &History,
        found: Result<Volumes, VolumesError>,
    ) -> Result<(Arc<History>, Option<VolumesError>), StateError> {
        let doubt = found.as_ref().err().copied();
        let own = history.clone().with_volumes(found.unwrap_or_default());
        let Some(earlier) = self.earlier(deployment)? else {
            return Ok((Arc::new(own), doubt));
        };
        let key = deployment.transition_key().public_key_spki();
        // A log that has all of the history says all that the file could have said.
        let doubt = doubt.filter(|_| !earlier.covers(&own, key));
        Ok((Arc::new(own.continued_by(&earlier, key)), doubt))
    }

    /// A survivor is recovered by an owner of its seed, and only without a quorum.
    async fn check_survivor(
        &self,
        life: &Life<C>,
        request: &RecoveryRequest,
    ) -> Result<Arc<Deployment>, StateError> {
        let deployment = self.guard.deployment().ok_or(StateError::RecoveryNeeded)?;
        if !deployment.has_seed(&request.seed, &request.salt) {
            return Err(StateError::History(crate::state::HistoryError::WrongSeed));
        }
        match self.confirm(life).await {
            Ok(()) => Err(StateError::AlreadyRecovered),
            Err(_) => Ok(deployment),
        }
    }

    /// Whoever lives and remembers the deployment is the one to recover, and whoever knows more than this replica forbids it.
    async fn ask_survivors(
        &self,
        own: Option<&Life<C>>,
        history: &History,
        request: &RecoveryRequest,
    ) -> Result<(), StateError> {
        let survey = self.survey_to_begin(Some(history.head().hash)).await?;
        for (place, report) in &survey.members {
            let place = place.to_string();
            let same = own.is_some_and(|life| life.cluster == report.cluster);
            if report.confirmed && !request.force {
                let standing = "it has a quorum".to_owned();
                return Err(StateError::SurvivorAnswers { place, standing });
            }
            if same && history.check_contains(report.head).is_err() {
                let head = report.head;
                return Err(StateError::SurvivorKnowsMore { place, head });
            }
            if !same && !request.force {
                let standing = survey.quorum();
                return Err(StateError::SurvivorAnswers { place, standing });
            }
        }
        Ok(())
    }
}

/// Refuses a history without every transition that an owner names.
fn check_known(history: &History, request: &RecoveryRequest) -> Result<(), StateError> {
    let skipped = cfg!(feature = "mutant-unguarded-recovery");
    let mut known = request.known.iter().filter(|_| !skipped);
    Ok(known.try_for_each(|known| history.check_contains(*known))?)
}

/// What a member remembers. Its log counts, too: what is in it may have been acknowledged.
fn remembered<C: ClusterTypes>(
    life: &Life<C>,
    deployment: &Deployment,
) -> Result<Arc<History>, StateError> {
    // One view: what is applied after it was taken is in the log after it.
    let view = life.machine.view();
    let history = view.history.clone();
    let history = history.ok_or(StateError::NothingToRecover)?;
    let applied = view.last_applied.map_or(0, |id| id.index);
    let own = Earlier {
        cluster: life.cluster,
        node: life.node,
        commands: life.log.commands_after(applied)?,
        history: Some(Arc::clone(&history)),
    };
    let key = deployment.transition_key().public_key_spki();
    Ok(Arc::new(history.continued_by(&own, key)))
}
