//! What the host does to replicas, what a restarted replica may do, and what owners do when no quorum is left.

use std::collections::BTreeSet;

use crate::{
    Cluster, Mutant,
    action::Action,
    raft::length,
    state::{
        Chain, Config, Disk, Entry, Id, Leadership, Message, Node, Payload, Recovery, Role, State,
        Voters,
    },
};

impl Cluster {
    pub(crate) fn host_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.restarts < self.bounds.restarts {
            // A replica that has not joined holds nothing that a restart could lose.
            for node in state.nodes.iter().filter(|node| !node.log.is_empty()) {
                actions.push(Action::Restart { id: node.id });
                if state.clones < self.bounds.clones {
                    actions.push(Action::Clone { id: node.id });
                }
            }
            actions.push(Action::PowerLoss);
        }
        if self.mutant().is_some_and(Mutant::resumes) {
            for node in state.nodes.iter().filter(|node| node.log.is_empty()) {
                for disk in &state.disks {
                    if self.may_resume(state, node, disk) {
                        actions.push(Action::Resume {
                            id: node.id,
                            disk: disk.clone(),
                        });
                    }
                }
            }
        }
        for history in &state.histories {
            if self.may_recover(state, history) {
                actions.push(Action::Recover {
                    history: history.clone(),
                });
            }
        }
    }

    pub(crate) fn host_step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Restart { id } => {
                state.restarts += 1;
                state.nodes.retain(|node| node.id != id);
                boot(state, state.place(id));
            }
            Action::Clone { id } => {
                state.restarts += 1;
                state.clones += 1;
                boot(state, state.place(id));
            }
            Action::PowerLoss => {
                state.restarts += 1;
                let places: BTreeSet<u8> = state
                    .nodes
                    .iter()
                    .map(|node| state.place(node.id))
                    .collect();
                state.nodes.clear();
                for place in places {
                    boot(state, place);
                }
            }
            Action::Resume { id, disk } => {
                let node = state.nodes.iter_mut().find(|node| node.id == id)?;
                node.id = disk.id;
                node.term = disk.term;
                node.voted = disk.voted;
                node.log = disk.log;
                state.nodes.sort_by_key(|node| node.id);
            }
            Action::Recover { history } => self.recover(state, &history)?,
            _ => return None,
        }
        Some(())
    }

    /// Notes what the host can copy from a disk from now on.
    pub(crate) fn persist(&self, state: &mut State, id: Id) {
        let Some(node) = state.nodes.iter().find(|node| node.id == id) else {
            return;
        };
        if state.epoch == 0 {
            state.histories.insert(crate::state::chain(&node.log));
        }
        if self.remembers_votes() && !node.log.is_empty() {
            state.disks.insert(Disk {
                id,
                term: node.term,
                voted: node.voted,
                log: node.log.clone(),
            });
        }
    }

    /// The rules that would let an identity outlive its process. Survivors remember all that was ever sent to them: if a
    /// rule fails even so, it fails with what really arrived.
    fn may_resume(&self, state: &State, node: &Node, disk: &Disk) -> bool {
        if state.place(disk.id) != state.place(node.id) || state.epoch != node.epoch {
            return false;
        }
        if state.nodes.iter().any(|other| other.id == disk.id) && !self.is(Mutant::ResumeFromDisk) {
            return false;
        }
        let mut survivors = state.nodes.iter().filter(|other| !other.log.is_empty());
        match self.mutant() {
            Some(Mutant::ResumeFromDisk) => survivors.next().is_some(),
            Some(Mutant::ResumeBySurvivor) => {
                survivors.any(|survivor| !remembers_newer(state, survivor, disk, true))
            }
            Some(rule @ (Mutant::ResumeBelowQuorum | Mutant::ResumeBelowQuorumWithoutVotes)) => {
                let votes = rule == Mutant::ResumeBelowQuorum;
                let mut survivors = survivors.peekable();
                survivors.peek().is_some()
                    && !state.quorum_lives()
                    && survivors.all(|survivor| !remembers_newer(state, survivor, disk, votes))
            }
            _ => false,
        }
    }

    /// Owners recover when they find no quorum, with a history that has all they know and all that survivors know.
    pub(crate) fn may_recover(&self, state: &State, history: &Chain) -> bool {
        let hidden = self.is(Mutant::RecoverBesideSurvivors);
        let possible = state.epoch == 0
            && state.nodes.iter().any(|node| node.log.is_empty())
            && (hidden || !state.quorum_lives());
        possible && (hidden || self.survivors_agree(state, history)) && self.guarded(state, history)
    }

    fn survivors_agree(&self, state: &State, history: &Chain) -> bool {
        state
            .nodes
            .iter()
            .all(|survivor| history.starts_with(&survivor.committed_chain()))
    }

    fn guarded(&self, state: &State, history: &Chain) -> bool {
        match self.mutant() {
            Some(Mutant::RecoverWithoutGuard) => true,
            Some(Mutant::GuardByLength) => history.len() >= state.acknowledged.len(),
            _ => history.starts_with(&state.acknowledged),
        }
    }

    /// Founds the next cluster: one replica with the history, the others join it with fresh identities.
    fn recover(&self, state: &mut State, history: &Chain) -> Option<()> {
        let hidden = self.is(Mutant::RecoverBesideSurvivors);
        let survivors = state.nodes.iter().any(|node| !node.log.is_empty());
        state.recovery = Some(if survivors {
            Recovery::Survivors
        } else {
            Recovery::AllGone
        });
        state.epoch += 1;
        let (stay, join): (Vec<Node>, Vec<Node>) = state
            .nodes
            .drain(..)
            .partition(|node| hidden && !node.log.is_empty());
        let places: BTreeSet<u8> = join
            .iter()
            .map(|node| state.places[usize::from(node.id)])
            .collect();
        state.nodes = stay;
        if !hidden {
            state.places.clear();
            state.messages.clear();
            state.leaders.clear();
        }
        state.histories.clear();
        state.disks.clear();
        let first = Id::try_from(state.places.len()).ok()?;
        for place in places {
            boot(state, place);
        }
        let log: Vec<Entry> = [Payload::Membership(Config {
            voters: Voters::of([first]),
            next: None,
        })]
        .into_iter()
        .chain(history.iter().map(|id| Payload::Transition(*id)))
        .map(|payload| Entry { term: 1, payload })
        .collect();
        state.history = (1, history.clone());
        state.guard.clone_from(&state.acknowledged);
        state.leaders.insert(
            (state.epoch, 1),
            Leadership {
                id: first,
                log: log.clone(),
                acknowledged: Default::default(),
                ended: None,
            },
        );
        let founder = state.nodes.iter_mut().find(|node| node.id == first)?;
        founder.term = 1;
        founder.voted = Some(first);
        founder.role = Role::Leader;
        founder.committed = length(&log);
        founder.log = log;
        self.persist(state, first);
        Some(())
    }
}

/// A fresh identity for a boot at this place.
fn boot(state: &mut State, place: u8) {
    let id = Id::try_from(state.places.len()).unwrap_or(Id::MAX);
    state.places.push(place);
    state.nodes.push(Node::fresh(id, state.epoch));
}

/// Whether a survivor was sent a vote or an acknowledgement by this identity that its disk does not have.
fn remembers_newer(state: &State, survivor: &Node, disk: &Disk, votes: bool) -> bool {
    let newer_vote = state.messages.iter().any(|message| match *message {
        Message::Vote { term, from, to, .. } => {
            from == disk.id && to == survivor.id && term > disk.term
        }
        Message::Ask { term, from, .. } => from == disk.id && term > disk.term,
    });
    let newer_entries = state.leaders.iter().any(|((_, term), leadership)| {
        leadership.id == survivor.id
            && leadership.acknowledged.get(&disk.id).is_some_and(|len| {
                let acknowledged = &leadership.log[..usize::from(*len)];
                *len > 0 && *term > disk.term || !disk.log.starts_with(acknowledged)
            })
    });
    votes && newer_vote || newer_entries
}
