//! How a replica gets into a cluster: it founds one or joins one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use contrast_manifest::Manifest;
use contrast_telemetry::exposure::PUBLIC;
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
        Answer, Change, ClusterId, ClusterTypes, LogStore, Members, Node, NodeId, RecordKey, Sink,
        StateMachine,
    },
    state::{
        Deployment, History, KeysError, Phase, StateError, TransitionHash, UpdateRequest,
        proposal::{self, Origin, Proposal},
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
pub(super) enum Beginning<'a> {
    /// Empty, and nobody else: the first of a new cluster.
    Alone,
    /// With a history, and nobody else.
    Recovered(&'a Arc<History>),
    /// Empty, to receive everything from a leader.
    Learner,
}

impl<C: ClusterTypes> Replica<C> {
    /// Asks everybody whom `trust` allows who they are. `head` is the latest transition that this replica has.
    pub(super) async fn survey(&self, head: Option<TransitionHash>, trust: &Trust) -> Survey {
        let places = self.peers.places().await;
        let mut asked: FuturesUnordered<_> = places
            .into_iter()
            .map(|place| async move {
                let question = Request::Hello {
                    boot: self.boot,
                    head,
                };
                let trust = trust.clone();
                let call = self
                    .peers
                    .call(place.clone(), question, trust, self.timing.call);
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
    pub(super) async fn survey_to_begin(
        &self,
        head: Option<TransitionHash>,
    ) -> Result<Survey, StateError> {
        let deadline = C::now() + self.timing.change / 2;
        loop {
            let survey = self.survey(head, &Trust::Anyone).await;
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

    /// Sets the first manifest: founds a cluster of one.
    pub(super) async fn found(
        &self,
        request: UpdateRequest,
        origin: &Origin,
    ) -> Result<SetReceipt, StateError> {
        let _entering = self.entering.lock().await;
        if self.life().is_some() {
            return Err(StateError::Undecided(
                "this replica just joined a cluster".to_owned(),
            ));
        }
        self.guard.check_undamaged()?;
        let (now, entropy) = (self.guard.clock().now(), self.guard.entropy());
        let (deployment, manifest, proposal) = proposal::found(request, origin, entropy, now)?;
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
        let beginning = Beginning::Alone;
        let receipt = self.begin_with(&deployment, &manifest, proposal, beginning);
        let receipt = receipt.await?;
        tracing::info!(event = "founded", transition = %receipt.transition, exposure = PUBLIC, "founded a cluster");
        Ok(receipt)
    }

    /// Begins a cluster of one, under a fresh cluster id, with a first change. Either all of it is on the disk, log and history, or this
    /// replica has no identity and no secrets of it.
    pub(super) async fn begin_with(
        &self,
        deployment: &Arc<Deployment>,
        manifest: &Manifest,
        proposal: Proposal,
        beginning: Beginning<'_>,
    ) -> Result<SetReceipt, StateError> {
        let Proposal {
            change,
            key,
            mesh_ca,
            receipt,
        } = proposal;
        let trusted = Arc::new(Trusted::of(manifest, None));
        self.guard.adopt(Arc::clone(deployment), Some(trusted));
        self.guard.add_own_key(key, mesh_ca);
        let cluster = ClusterId::generate(self.guard.entropy());
        let begun = match self.begin(deployment, cluster, beginning).await {
            Ok(life) => self.first_change(&life, change).await,
            Err(error) => Err(error),
        };
        // Nobody is told of this cluster unless its first transition is on the disk in both places.
        if let Err(error) = begun.and_then(|()| self.guard.catch_up()) {
            self.give_up().await;
            self.guard.forget();
            return Err(error);
        }
        // Whoever asks for the status next finds a replica that serves. What was decided is decided without that.
        if let Some(life) = self.life()
            && let Err(why) = self.confirm(&life).await
        {
            tracing::debug!(why, "not confirmed");
        }
        Ok(receipt)
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
        let found = sealed.open_volumes(deployment);
        let (history, doubt) = self.left_behind(deployment, &sealed.history, found)?;
        match doubt {
            None => self.guard.keep(&history, deployment),
            // The cluster that admits this replica has its own record. Until that is here, nobody may recover this disk as if it had one.
            Some(error) => {
                tracing::warn!(event = "volumes_unusable", %error, "a part of the history on this disk is of no use");
                self.guard.keep_without_volumes(&history)
            }
        }
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
        let trusted = Arc::new(Trusted::of(&manifest, None));
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
            manifest: latest,
        } = secrets;
        // Whoever answered the greeting may have made its manifest up, so that it names Coordinators who are none. Nothing but the
        // seed's keeper can say what the latest is.
        if latest != trusted.manifest {
            return Err(refused(format!(
                "{place} says that the manifest is {}, but the keeper of the seed says {latest}; the seed was not taken",
                trusted.manifest
            )));
        }
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
        let written = life.raft.client_write(change.into()).await;
        let written = written.map_err(|error| StateError::Stopped(error.to_string()))?;
        match written.data {
            Answer::Applied(_) => Ok(()),
            Answer::Refused(refusal) => Err(StateError::Stopped(refusal.to_string())),
            Answer::NoChange | Answer::Advanced(_) => {
                Err(StateError::Stopped("a change changed nothing".to_owned()))
            }
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
            tracing::info!(event = "identity_dropped", node = life.node, cluster = %life.cluster, exposure = PUBLIC, "dropped an identity");
            if let Err(error) = life.raft.shutdown().await {
                tracing::warn!(%error, "Raft did not stop cleanly");
            }
        }
    }
}

/// While it exists, others see that this replica begins.
pub(super) struct Founding<'a>(&'a std::sync::atomic::AtomicBool);

impl<'a> Founding<'a> {
    pub(super) fn raise<C: ClusterTypes>(replica: &'a Replica<C>) -> Self {
        replica.founding.store(true, Ordering::SeqCst);
        Self(&replica.founding)
    }
}

impl Drop for Founding<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
