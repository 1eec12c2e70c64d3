//! What runs all the time.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use contrast_telemetry::exposure::PUBLIC;
use futures::future::{self, Either};
use openraft::{
    ChangeMembers, ServerState,
    async_runtime::Instant as _,
    type_config::{TypeConfigExt, alias::InstantOf},
};

use super::{
    Replica,
    life::Life,
    message::{MemberReport, Place, Reply, Request},
    peers::Trust,
    plan::Step,
    write::Attempt,
};
use crate::{
    cluster::{ClusterId, ClusterTypes},
    state::{Phase, StateError, Unserved, proposal},
};

/// Who has a quorum looks around once in so many times as often as who has none.
const SELDOM: u32 = 30;

/// The identity of this process is over: the process has to end, and the next one draws a fresh identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The cluster removed this identity.
    #[error(
        "the cluster removed this replica's identity, because nobody heard of it for too long; it starts anew with a fresh one"
    )]
    Evicted,
    /// Owners recovered the deployment elsewhere.
    #[error(
        "owners recovered this deployment at {place}, in the new cluster {cluster}; this replica starts anew to join it"
    )]
    Superseded {
        /// Where.
        place: Place,
        /// The new cluster.
        cluster: ClusterId,
    },
    /// Raft stopped, because the disk failed or was tampered with.
    #[error("replication stopped: {0}; this replica starts anew with a fresh identity")]
    Stopped(String),
}

/// What a life remembers from tick to tick.
struct Watch<C: ClusterTypes> {
    state: ServerState,
    term: u64,
    leader: Option<u64>,
    members: Vec<super::message::Member>,
    key_missing_since: Option<InstantOf<C>>,
    looked_around: InstantOf<C>,
    history_behind: bool,
    conflict: Option<Place>,
}

impl<C: ClusterTypes> Replica<C> {
    /// Looks for other replicas, joins them, and takes part in their cluster; returns only when this identity is over.
    pub async fn run(self: Arc<Self>) -> Ended {
        loop {
            match self.life() {
                // A process that is about to end must not come back.
                _ if self.stopping.load(Ordering::SeqCst) => C::sleep(self.timing.discovery).await,
                None => self.look_for_a_cluster().await,
                Some(life) => {
                    if let Some(ended) = self.live(&life).await {
                        tracing::warn!(event = "ended", node = life.node, "{ended}");
                        return ended;
                    }
                }
            }
        }
    }

    /// One look around, from outside.
    async fn look_for_a_cluster(&self) {
        let snapshot = self.guard.snapshot();
        let head = snapshot.history().map(|history| history.head().hash);
        let survey = self.survey(head, &Trust::Anyone).await;
        if self.life().is_some() {
            return;
        }
        // Anybody may say anything, so that one that cannot be joined must not stand before another one that can.
        let mut candidates: Vec<_> = survey.members.iter().collect();
        candidates.sort_by_key(|(_, report)| (!report.confirmed, !report.contains_head));
        let mut reason = survey.quorum();
        for (index, (place, report)) in candidates.into_iter().enumerate() {
            match self.join(place, report).await {
                Ok(()) => return,
                Err(_) if index > 0 || !survey.has_quorum() => {}
                Err(StateError::NotAdmitted { reason: why }) => reason = why,
                Err(error) => reason = error.to_string(),
            }
        }
        let seen = !survey.members.is_empty() || !survey.refusals.is_empty();
        self.note_outside(reason, seen);
        C::sleep(self.timing.discovery).await;
    }

    /// Until the life is replaced by another one (`None`), or over.
    async fn live(&self, life: &Arc<Life<C>>) -> Option<Ended> {
        // Confirmations must not wait for a membership change, which may take its time.
        let living = Box::pin(self.do_duties(life));
        let confirming = Box::pin(self.keep_confirmed(life));
        match future::select(living, confirming).await {
            Either::Left((ended, _)) => ended,
            Either::Right((never, _)) => match never {},
        }
    }

    /// Confirms the state once in a while although nobody asks, so that readiness and metrics know.
    async fn keep_confirmed(&self, life: &Life<C>) -> Infallible {
        loop {
            if life.is_member()
                && let Err(why) = self.confirm(life).await
            {
                tracing::debug!(why, "not confirmed");
            }
            let pause = match life.is_settled() {
                true => self.timing.discovery,
                false => self.timing.tick,
            };
            C::sleep(pause).await;
        }
    }

    async fn do_duties(&self, life: &Arc<Life<C>>) -> Option<Ended> {
        let now = C::now();
        let mut watch = Watch {
            state: ServerState::Learner,
            term: 0,
            leader: None,
            members: Vec::new(),
            key_missing_since: None,
            looked_around: now,
            history_behind: false,
            conflict: None,
        };
        loop {
            let current = self.life()?;
            if current.node != life.node || self.stopping.load(Ordering::SeqCst) {
                return None;
            }
            if let Err(error) = life.metrics().running_state {
                // A recovery stops Raft of the life before on purpose.
                let _entering = self.entering.lock().await;
                if self.life().is_some_and(|current| current.node == life.node) {
                    return Some(Ended::Stopped(error.to_string()));
                }
                return None;
            }
            self.announce(life, &mut watch);
            let behind = self.guard.catch_up().err();
            if let Some(error) = &behind
                && !watch.history_behind
            {
                tracing::warn!(event = "history_behind", %error, "the history file lacks what was applied; trying again");
            }
            watch.history_behind = behind.is_some();
            match life.is_member() {
                true => {
                    self.tend(life).await;
                    self.look_for_key(life, &mut watch).await;
                }
                false => self.ask_to_be_admitted(life).await,
            }
            let lonely = !life.confirmed_within(self.timing.silence);
            // A quorum that was hidden while owners recovered elsewhere is not lonely, and has to learn of it when it can.
            let pause = match lonely {
                true => self.timing.discovery,
                false => self.timing.discovery.saturating_mul(SELDOM),
            };
            if watch.looked_around.elapsed() >= pause {
                watch.looked_around = C::now();
                if let Some(ended) = self.look_after_own_end(life, &mut watch).await {
                    return Some(ended);
                }
            }
            C::sleep(self.timing.tick).await;
        }
    }

    /// One membership change, if this replica leads and there is one to make.
    pub(super) async fn tend(&self, life: &Life<C>) {
        let _changing = life.changing.lock().await;
        let Some(step) = life
            .observe(&self.timing)
            .and_then(|observed| observed.next())
        else {
            return;
        };
        let (change, what) = match step {
            Step::Voters(voters) => (
                ChangeMembers::ReplaceAllVoters(voters.clone()),
                format!("voters become {voters:?}"),
            ),
            Step::Remove(nodes) => (
                ChangeMembers::RemoveNodes(nodes.clone()),
                format!("{nodes:?} are removed"),
            ),
        };
        // Voters of before stay as learners: a step of its own removes them.
        let changed = C::timeout(
            self.timing.change,
            life.raft.change_membership(change, true),
        )
        .await;
        match changed {
            Ok(Ok(_)) => {
                tracing::info!(
                    event = "membership_changed",
                    what,
                    exposure = PUBLIC,
                    "changed the membership"
                )
            }
            Ok(Err(error)) => {
                tracing::warn!(event = "membership_unchanged", what, %error, "could not change the membership")
            }
            Err(_) => tracing::warn!(
                event = "membership_unchanged",
                what,
                exposure = PUBLIC,
                "a membership change is still under way"
            ),
        }
    }

    async fn ask_to_be_admitted(&self, life: &Life<C>) {
        let Some(trusted) = self.guard.trusted() else {
            return;
        };
        let places = self.peers.places().await;
        for place in places {
            let question = Request::Join {
                cluster: life.cluster,
                node: life.node,
                place: life.place.clone(),
            };
            let trust = Trust::CoordinatorOf(Arc::clone(&trusted));
            let answer = self
                .peers
                .call(place, question, trust, self.timing.call)
                .await;
            match answer {
                Ok(Reply::Done) => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "not admitted"),
            }
        }
    }

    /// Whether the cluster goes on without this identity.
    async fn look_after_own_end(&self, life: &Life<C>, watch: &mut Watch<C>) -> Option<Ended> {
        let snapshot = self.guard.snapshot();
        let head = snapshot.history().map(|history| history.head().hash);
        let trusted = self.guard.trusted()?;
        // Before anybody is asked: this replica may become a member while the answer is on its way.
        let named_since = life.named_since();
        // Only a Coordinator of our own manifest is believed: an identity must not end because a stranger says so.
        let survey = self.survey(head, &Trust::CoordinatorOf(trusted)).await;
        let mut conflict = None;
        for (place, report) in survey.members {
            if !report.confirmed {
                continue;
            }
            if report.cluster == life.cluster {
                let named = report.members.iter().any(|member| member.node == life.node);
                // Who has not applied the entry that named this replica may simply not know it yet.
                let knows = named_since.is_some_and(|since| report.applied >= since);
                if !named && knows {
                    return Some(Ended::Evicted);
                }
            } else if report.contains_head {
                let cluster = report.cluster;
                return Some(Ended::Superseded { place, cluster });
            } else {
                conflict = Some((place, report));
            }
        }
        note_conflict(conflict, watch);
        None
    }

    /// Asks the others for the mesh CA key of the latest transition. When nobody alive has it, the leader makes a new one.
    async fn look_for_key(&self, life: &Arc<Life<C>>, watch: &mut Watch<C>) {
        let snapshot = self.guard.snapshot();
        let Phase::Held(held) = &*snapshot else {
            watch.key_missing_since = None;
            return;
        };
        let Unserved::MissingKey(public_key) = &held.why else {
            return;
        };
        // Time in which nobody could be asked says nothing about who has the key.
        if !life.confirmed_within(self.timing.silence) {
            watch.key_missing_since = None;
        }
        let since = *watch.key_missing_since.get_or_insert_with(C::now);
        let Some(trusted) = self.guard.trusted() else {
            return;
        };
        for member in life.others() {
            let question = Request::FetchKey {
                cluster: life.cluster,
                public_key: public_key.clone(),
            };
            let trust = Trust::CoordinatorOf(Arc::clone(&trusted));
            let answer = self
                .peers
                .call(member.place, question, trust, self.timing.call)
                .await;
            if let Ok(Reply::Key(Some(key))) = answer {
                match self.guard.add_key(key) {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "a replica sent a key that is none"),
                }
            }
        }
        if since.elapsed() >= self.timing.key_patience && life.is_leader() {
            self.renew_mesh_ca(life, &held.history).await;
            watch.key_missing_since = None;
        }
    }

    async fn renew_mesh_ca(&self, life: &Arc<Life<C>>, history: &crate::state::History) {
        let _proposing = life.proposing.lock().await;
        // A new key goes only to Coordinators of the latest manifest, so that has to be known.
        if let Err(why) = self.confirm(life).await {
            tracing::debug!(why, "no new mesh CA yet");
            return;
        }
        let (Some(deployment), Ok(manifest)) = (self.guard.deployment(), history.latest_manifest())
        else {
            return;
        };
        let (now, entropy) = (self.guard.clock().now(), self.guard.entropy());
        let renewed = match proposal::renew(history, &manifest, &deployment, entropy, now) {
            Ok(proposal) => self.commit(life, proposal).await,
            Err(error) => Attempt::Decided(Err(error)),
        };
        match renewed {
            Attempt::Decided(Ok(receipt)) => tracing::warn!(
                event = "mesh_ca_renewed",
                transition = %receipt.transition,
                exposure = PUBLIC,
                "no living replica had the mesh CA key of the latest transition; made a new mesh CA for the same manifest"
            ),
            Attempt::Decided(Err(error)) => tracing::warn!(%error, "no new mesh CA yet"),
            Attempt::Again(why) => tracing::warn!(why, "no new mesh CA yet"),
        }
    }

    /// Before a stop: hands over leadership and leaves the membership, so that the others need not wait for this replica. Tries
    /// for at most `within`.
    pub async fn leave(&self, within: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        let Some(life) = self.life() else {
            return;
        };
        let start = C::now();
        let mut left = false;
        while start.elapsed() < within && life.is_member() && !life.others().is_empty() && !left {
            match life.is_leader() {
                true => self.hand_over(&life).await,
                false => left = self.ask_to_leave(&life).await,
            }
            C::sleep(self.timing.heartbeat).await;
        }
        tracing::info!(
            event = "left",
            left = left || !life.is_member(),
            exposure = PUBLIC,
            "stops taking part in the cluster"
        );
    }

    async fn hand_over(&self, life: &Arc<Life<C>>) {
        let Some(observed) = life.observe(&self.timing) else {
            return;
        };
        let heir = observed
            .members
            .iter()
            .filter(|(node, _)| **node != life.node && observed.is_settled(**node))
            .find(|(node, seen)| observed.votes(**node) && seen.silent_for < self.timing.silence);
        match heir {
            Some((heir, _)) => {
                if let Err(error) = life.raft.trigger().transfer_leader(*heir).await {
                    tracing::debug!(%error, "could not hand over leadership");
                }
                C::sleep(self.timing.heartbeat).await;
            }
            // No other voter: a learner becomes one, and this replica none.
            None => {
                life.note_leaving(life.node);
                self.tend(life).await;
            }
        }
    }

    /// Whether this identity is out. The message that says so may never reach it, so the leader's answer counts.
    async fn ask_to_leave(&self, life: &Life<C>) -> bool {
        let (Some(leader), Some(trusted)) = (life.leader_elsewhere(), self.guard.trusted()) else {
            return false;
        };
        let question = Request::Leave {
            cluster: life.cluster,
            node: life.node,
        };
        let trust = Trust::CoordinatorOf(trusted);
        let answer = self
            .peers
            .call(leader, question, trust, self.timing.call)
            .await;
        if let Err(error) = &answer {
            tracing::debug!(%error, "still a member");
        }
        answer.is_ok()
    }

    /// Logs elections and membership changes.
    fn announce(&self, life: &Life<C>, watch: &mut Watch<C>) {
        let metrics = life.metrics();
        let (state, term, leader) = (metrics.state, metrics.current_term, metrics.current_leader);
        if (state, term, leader) != (watch.state, watch.term, watch.leader) {
            tracing::info!(
                event = "election",
                ?state,
                term,
                leader,
                node = life.node,
                exposure = PUBLIC,
                "role or leader changed"
            );
            (watch.state, watch.term, watch.leader) = (state, term, leader);
        }
        let members = life.members();
        if members != watch.members {
            let text: Vec<String> = members
                .iter()
                .map(|member| {
                    let role = if member.voter { "voter" } else { "learner" };
                    format!("{} {} {role}", member.place, member.node)
                })
                .collect();
            tracing::info!(event = "members", members = text.join(", "), "membership");
            watch.members = members;
        }
    }
}

fn note_conflict<C: ClusterTypes>(conflict: Option<(Place, MemberReport)>, watch: &mut Watch<C>) {
    if let Some((place, report)) = &conflict
        && watch.conflict.as_ref() != Some(place)
    {
        tracing::error!(
            event = "conflict",
            %place,
            cluster = %report.cluster,
            head = %report.head,
            "another cluster of this deployment has a history without this replica's latest transition: owners recovered beside a \
             living replica. Compare both with `contrast verify`, then restart the one to give up"
        );
    }
    watch.conflict = conflict.map(|(place, _)| place);
}
