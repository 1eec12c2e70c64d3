//! How a replica gets into a cluster: it founds one, joins one, or brings one back with an owner's seed share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use contrast_manifest::Manifest;
use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{Raft, type_config::TypeConfigExt};

use super::{
    Replica, draw,
    life::Life,
    message::{
        BootId, MemberReport, Place, Reply, Request, Secrets, SetReceipt, Standing, Welcome,
    },
    network::Network,
    peers::{CallError, Trust, Trusted},
};
use crate::{
    cluster::{
        Answer, Change, ClusterId, ClusterTypes, Earlier, LogStore, Members, Node, NodeId,
        RecordKey, Sink, StateMachine, read_earlier,
    },
    state::{
        Deployment, History, KeysError, Phase, RecoveryRequest, StateError, TransitionHash,
        UpdateRequest, proposal, recovery,
    },
};

/// What others said on a look around.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Replicas that are members of a cluster, and where they were asked.
    pub(super) members: Vec<(Place, MemberReport)>,
    /// Replicas that are about to found or recover a cluster.
    pub(super) beginners: Vec<(Place, BootId)>,
    /// Replicas that do not believe this one.
    pub(super) refusals: Vec<CallError>,
}

impl Survey {
    /// Voters of the largest cluster that was seen, and how many of them answer.
    fn answering(&self) -> Option<(usize, usize)> {
        let largest = self
            .members
            .iter()
            .max_by_key(|(_, report)| report.members.len());
        let (_, report) = largest?;
        let voters = report.members.iter().filter(|member| member.voter);
        let voters: BTreeSet<NodeId> = voters.map(|member| member.node).collect();
        let same = self
            .members
            .iter()
            .filter(|(_, other)| other.cluster == report.cluster);
        let answer: BTreeSet<NodeId> = same.map(|(_, other)| other.node).collect();
        Some((voters.intersection(&answer).count(), voters.len()))
    }

    /// Whether a majority of voters answers.
    pub(super) fn has_quorum(&self) -> bool {
        self.answering()
            .is_some_and(|(answer, voters)| answer > voters / 2)
    }

    /// What keeps a replica outside, for people.
    pub(super) fn quorum(&self) -> String {
        match (self.answering(), self.refusals.first()) {
            (Some((answer, voters)), _) => {
                format!("no quorum: {answer} of {voters} members answer")
            }
            (None, Some(refusal)) => refusal.to_string(),
            (None, None) => "no quorum: 0 members answer".to_owned(),
        }
    }
}

/// How a life begins.
enum Beginning<'a> {
    /// Empty, and nobody else: the first of a new cluster.
    Alone,
    /// With a history, and nobody else.
    Recovered(&'a Arc<History>),
    /// Empty, to receive everything from a leader.
    Learner,
}

impl<C: ClusterTypes> Replica<C> {
    /// Asks everybody who they are. `head` is the latest transition that this replica has.
    pub(super) async fn survey(&self, head: Option<TransitionHash>) -> Survey {
        let places = self.peers.places().await;
        let mut asked: FuturesUnordered<_> = places
            .into_iter()
            .map(|place| async move {
                let question = Request::Hello {
                    boot: self.boot,
                    head,
                };
                let call =
                    self.peers
                        .call(place.clone(), question, Trust::Anyone, self.timing.call);
                (place, call.await)
            })
            .collect();
        let mut survey = Survey::default();
        while let Some((place, answer)) = asked.next().await {
            match answer {
                Ok(Reply::Welcome(Welcome { boot, .. })) if boot == self.boot => {}
                Ok(Reply::Welcome(Welcome { boot, standing })) => match standing {
                    Standing::Member(report) => survey.members.push((place, report)),
                    Standing::Founding => survey.beginners.push((place, boot)),
                    Standing::Empty | Standing::Waiting => {}
                },
                Err(error @ CallError::NotBelievedBy { .. }) => survey.refusals.push(error),
                Ok(_) | Err(_) => {}
            }
        }
        survey.members.sort_by(|(a, _), (b, _)| a.cmp(b));
        survey
    }

    /// Looks around until nobody else is about to begin. The own flag must be up before.
    ///
    /// Of two that see each other the one with the lower boot number goes on. It must not go on while it sees the other's flag, because
    /// the other one may have looked before this one raised its own.
    async fn survey_to_begin(&self, head: Option<TransitionHash>) -> Result<Survey, StateError> {
        let deadline = C::now() + self.timing.change / 2;
        loop {
            let survey = self.survey(head).await;
            let first = survey.beginners.iter().min_by_key(|(_, boot)| *boot);
            match first {
                None => return Ok(survey),
                Some((_, boot)) if *boot > self.boot && C::now() < deadline => {
                    C::sleep(self.timing.heartbeat).await;
                }
                Some((place, _)) => {
                    return Err(StateError::BeginsElsewhere {
                        place: place.to_string(),
                    });
                }
            }
        }
    }

    /// Sets the first manifest: draws the seed and founds a cluster of one.
    pub(super) async fn found(&self, request: UpdateRequest) -> Result<SetReceipt, StateError> {
        let _entering = self.entering.lock().await;
        if self.life().is_some() {
            return Err(StateError::Undecided(
                "this replica just joined a cluster".to_owned(),
            ));
        }
        let (now, entropy) = (self.guard.clock().now(), self.guard.entropy());
        let (deployment, manifest, proposal) = proposal::found(request, entropy, now)?;
        let _flag = Founding::raise(self);
        let survey = self.survey_to_begin(None).await?;
        if let Some((place, _)) = survey.members.first() {
            return Err(StateError::NotAdmitted {
                reason: format!(
                    "there is a cluster at {place}, which this replica is about to join"
                ),
            });
        }
        if let Some(refusal) = survey.refusals.first() {
            return Err(StateError::NotAdmitted {
                reason: refusal.to_string(),
            });
        }
        let trusted = Arc::new(Trusted::of(&manifest, manifest.verifier()));
        self.guard.adopt(Arc::clone(&deployment), Some(trusted));
        self.guard.add_own_key(proposal.key, proposal.mesh_ca);
        let begun = self.begin(&deployment, ClusterId::generate(entropy), Beginning::Alone);
        let founded = match begun.await {
            Ok(life) => self.first_change(&life, proposal.change).await,
            Err(error) => Err(error),
        };
        // Nobody was told of this cluster unless its first transition is on the disk in both places.
        if let Err(error) = founded.and_then(|()| self.guard.catch_up()) {
            self.give_up().await;
            self.guard.forget();
            return Err(error);
        }
        tracing::info!(event = "founded", transition = %proposal.receipt.transition, "founded a cluster");
        Ok(proposal.receipt)
    }

    /// Brings a deployment back under a new mesh CA, in a new cluster of which this replica is the first member.
    ///
    /// # Errors
    /// As [`StateError`] says; the state is then unchanged.
    pub async fn recover(&self, request: RecoveryRequest) -> Result<TransitionHash, StateError> {
        let _entering = self.entering.lock().await;
        let _flag = Founding::raise(self);
        let survivor = self.life().filter(|life| life.is_member());
        let snapshot = self.guard.snapshot();
        let history = match (&*snapshot, &survivor) {
            (Phase::Empty, _) => return Err(StateError::NothingToRecover),
            (phase, _) => Arc::clone(phase.history().ok_or(StateError::NothingToRecover)?),
        };
        let (deployment, history) = match &survivor {
            Some(life) => self.recall(life, history, &request).await?,
            None => self.unseal(history, &request)?,
        };
        if !cfg!(feature = "mutant-unguarded-recovery") {
            // Before the guard: where a member answers, that is the one to recover, whatever this replica has.
            self.ask_survivors(survivor.as_deref(), &history, &request)
                .await?;
            if let Some(known) = request.known {
                history.check_contains(known)?;
            }
        }

        let manifest = history.latest_manifest()?;
        let (now, entropy) = (self.guard.clock().now(), self.guard.entropy());
        let proposal = proposal::renew(&history, &manifest, &deployment, entropy, now)?;
        // The log of the last life is set aside when the next one begins: what only it has must be in the history before.
        self.guard.keep(&history)?;
        let survived = survivor.is_some();
        drop(survivor);
        self.give_up().await;
        let trusted = Arc::new(Trusted::of(&manifest, manifest.verifier()));
        self.guard.adopt(Arc::clone(&deployment), Some(trusted));
        self.guard.add_own_key(proposal.key, proposal.mesh_ca);
        let begun = self.begin(
            &deployment,
            ClusterId::generate(entropy),
            Beginning::Recovered(&history),
        );
        let recovered = match begun.await {
            Ok(life) => self.first_change(&life, proposal.change).await,
            Err(error) => Err(error),
        };
        if let Err(error) = recovered.and_then(|()| self.guard.catch_up()) {
            self.give_up().await;
            self.guard.forget();
            return Err(error);
        }
        tracing::warn!(
            event = "recovered",
            transition = %proposal.receipt.transition,
            survivor = survived,
            "an owner recovered this deployment; it continues in a new cluster"
        );
        Ok(proposal.receipt.transition)
    }

    /// The history on disk, with what the log of the last life has beyond it.
    fn unseal(
        &self,
        history: Arc<History>,
        request: &RecoveryRequest,
    ) -> Result<(Arc<Deployment>, Arc<History>), StateError> {
        let deployment = recovery::unseal(&history, request)?;
        let history = self.salvage(&deployment, history)?;
        Ok((deployment, history))
    }

    /// `history`, and what the log of the last life has beyond it.
    fn salvage(
        &self,
        deployment: &Deployment,
        history: Arc<History>,
    ) -> Result<Arc<History>, StateError> {
        let key = deployment.derivation().store_record_key()?;
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = match read_earlier(&**log, &key) {
            Ok(earlier) => earlier,
            Err(error) => {
                tracing::warn!(
                    event = "log_unusable",
                    "the log of the last life is of no use: {error}"
                );
                None
            }
        };
        Ok(match earlier {
            Some(earlier) => {
                let key = deployment.transition_key().public_key_spki();
                Arc::new(history.continued_by(&earlier, key))
            }
            None => history,
        })
    }

    /// Before this replica takes over another history: what its own last life acknowledged must not be lost if everybody else
    /// dies now.
    fn keep_own_history(&self, deployment: &Deployment) -> Result<(), StateError> {
        let snapshot = self.guard.snapshot();
        let Phase::Sealed(sealed) = &*snapshot else {
            return Ok(());
        };
        let key = deployment.transition_key().public_key_spki();
        if sealed.history.verify(key).is_err() {
            // Of another deployment, or forged. It is set aside as it is when the cluster's history is written.
            return Ok(());
        }
        let history = self.salvage(deployment, Arc::clone(&sealed.history))?;
        self.guard.keep(&history)
    }

    /// What a member without a quorum remembers. Its log counts, too: what is in it may have been acknowledged.
    async fn recall(
        &self,
        life: &Life<C>,
        history: Arc<History>,
        request: &RecoveryRequest,
    ) -> Result<(Arc<Deployment>, Arc<History>), StateError> {
        let deployment = self.guard.deployment().ok_or(StateError::RecoveryNeeded)?;
        if !deployment.has_seed(&request.seed, &request.salt) {
            return Err(StateError::History(crate::state::HistoryError::WrongSeed));
        }
        if self.confirm(life).await.is_ok() {
            return Err(StateError::AlreadyRecovered);
        }
        let own = Earlier {
            cluster: life.cluster,
            node: life.node,
            changes: life.log.changes_after(life.applied())?,
            history: Some(Arc::clone(&history)),
        };
        let key = deployment.transition_key().public_key_spki();
        let history = Arc::new(history.continued_by(&own, key));
        Ok((deployment, history))
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

    /// Asks a member for what it takes, and begins as a learner.
    pub(super) async fn join(
        &self,
        place: &Place,
        report: &MemberReport,
    ) -> Result<(), StateError> {
        let _entering = self.entering.lock().await;
        if self.life().is_some() {
            return Ok(());
        }
        let refused = |reason: String| StateError::NotAdmitted { reason };
        let manifest = Manifest::parse(&report.manifest)
            .map_err(|error| refused(format!("the manifest of {place} is refused: {error}")))?;
        let trusted = Arc::new(Trusted::of(&manifest, manifest.verifier()));
        let ask = |place: Place| {
            let trust = Trust::CoordinatorOf(Arc::clone(&trusted));
            self.peers
                .call(place, Request::FetchSecrets, trust, self.timing.call)
        };
        let target = report.leader.clone().unwrap_or_else(|| place.clone());
        let answer = ask(target)
            .await
            .map_err(|error| refused(error.to_string()))?;
        let Reply::Secrets(secrets) = answer else {
            return Err(refused(format!("{place} answered another question")));
        };
        let Secrets {
            cluster,
            seed,
            salt,
            mesh_ca_keys,
        } = secrets;
        let deployment = Arc::new(Deployment::new(seed, salt).map_err(StateError::Keys)?);
        self.keep_own_history(&deployment)?;
        self.guard.adopt(Arc::clone(&deployment), Some(trusted));
        for key in mesh_ca_keys {
            self.guard.add_key(key)?;
        }
        let begun = self.begin(&deployment, Ok(cluster), Beginning::Learner);
        let life = match begun.await {
            Ok(life) => life,
            Err(error) => {
                self.guard.forget();
                return Err(error);
            }
        };
        tracing::info!(
            event = "joining",
            cluster = %life.cluster,
            node = life.node,
            from = %place,
            "received the secrets; asking to be admitted with a fresh identity"
        );
        Ok(())
    }

    /// Starts Raft under a fresh identity on a fresh store.
    async fn begin(
        &self,
        deployment: &Deployment,
        cluster: Result<ClusterId, contrast_clock::EntropyError>,
        beginning: Beginning<'_>,
    ) -> Result<Arc<Life<C>>, StateError> {
        let cluster = cluster.map_err(|error| StateError::Keys(KeysError::Entropy(error)))?;
        let place = self.peers.own_place();
        let node: NodeId = match cfg!(feature = "mutant-reused-identity") {
            true => place.as_str().bytes().map(NodeId::from).sum(),
            false => draw(self.guard.entropy())?,
        };
        let at = Node::new(place.as_str());
        let record_key = deployment.derivation().store_record_key()?;
        let key = RecordKey::new(&record_key, cluster, node);
        let transition_key = deployment.transition_key().public_key_spki();
        let sink: Arc<dyn Sink> = Arc::<crate::state::Guard>::clone(&self.guard);
        let log = {
            let medium = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            medium.set_aside()?;
            match &beginning {
                Beginning::Recovered(history) => {
                    let members =
                        Members::new(vec![[node].into()], BTreeMap::from([(node, at.clone())]));
                    let members =
                        members.map_err(|error| StateError::Stopped(error.to_string()))?;
                    LogStore::create_with_snapshot(&**medium, key, members, history)?
                }
                Beginning::Alone | Beginning::Learner => LogStore::create(&**medium, key)?,
            }
        };
        let machine = StateMachine::with_sink(&log, transition_key, sink);
        let stopped = |error: &dyn std::fmt::Display| StateError::Stopped(error.to_string());
        let config = self.timing.raft().map_err(|error| stopped(&error))?;
        let network = Network {
            peers: Arc::clone(&self.peers),
            guard: Arc::clone(&self.guard),
            cluster,
            node,
        };
        let raft = Raft::new(
            node,
            Arc::new(config),
            network,
            log.clone(),
            machine.clone(),
        )
        .await
        .map_err(|error| stopped(&error))?;
        if matches!(beginning, Beginning::Alone) {
            let members = BTreeMap::from([(node, at)]);
            raft.initialize(members)
                .await
                .map_err(|error| stopped(&error))?;
        }
        let life = Arc::new(Life::new((cluster, node, place), raft, machine, log));
        self.life.store(Some(Arc::clone(&life)));
        Ok(life)
    }

    /// Commits the first change of a cluster of one.
    async fn first_change(&self, life: &Life<C>, change: Change) -> Result<(), StateError> {
        let leads = life.raft.wait(Some(self.timing.change));
        let leads = leads
            .current_leader(life.node, "the only voter leads")
            .await;
        leads.map_err(|error| StateError::Stopped(error.to_string()))?;
        let written = life.raft.client_write(change).await;
        let written = written.map_err(|error| StateError::Stopped(error.to_string()))?;
        match written.data {
            Answer::Applied(_) => Ok(()),
            Answer::Refused(refusal) => Err(StateError::Stopped(refusal.to_string())),
            Answer::NoChange => Err(StateError::Stopped("a change changed nothing".to_owned())),
        }
    }

    /// Ends whatever runs. To be called when nobody asks any more.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.give_up().await;
        if let Err(error) = self.guard.catch_up() {
            tracing::warn!(event = "history_behind", %error, "the history file lacks what was applied; the log has it");
        }
    }

    /// Ends the identity that this replica has, if any.
    pub(crate) async fn give_up(&self) {
        if let Some(life) = self.life.swap(None) {
            tracing::info!(event = "identity_dropped", node = life.node, cluster = %life.cluster, "dropped an identity");
            if let Err(error) = life.raft.shutdown().await {
                tracing::warn!(%error, "Raft did not stop cleanly");
            }
        }
    }
}

/// While it exists, others see that this replica begins.
struct Founding<'a>(&'a std::sync::atomic::AtomicBool);

impl<'a> Founding<'a> {
    fn raise<C: ClusterTypes>(replica: &'a Replica<C>) -> Self {
        replica.founding.store(true, Ordering::SeqCst);
        Self(&replica.founding)
    }
}

impl Drop for Founding<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
