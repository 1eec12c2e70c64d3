//! Raft: elections, replication, commit, change of membership.

use crate::{
    Cluster, Mutant,
    action::Action,
    state::{
        Chain, Config, Entry, Id, Leadership, Message, Node, Payload, Role, State, Voters, chain,
        membership,
    },
};

fn last(log: &[Entry]) -> (u8, u8) {
    (log.last().map_or(0, |entry| entry.term), length(log))
}

/// Lists of the model have a handful of items.
pub(crate) fn length<T>(items: &[T]) -> u8 {
    u8::try_from(items.len()).unwrap_or(u8::MAX)
}

impl Cluster {
    pub(crate) fn raft_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for node in &state.nodes {
            let Node {
                id, epoch, term, ..
            } = *node;
            let votes = node.config().is_some_and(|config| {
                config.voters.contains(id) || config.next.is_some_and(|next| next.contains(id))
            });
            if votes && node.role != Role::Leader && term < self.bounds.terms {
                actions.push(Action::Campaign { id });
            }
            for message in &state.messages {
                if let Message::Ask {
                    epoch: asked,
                    term,
                    from,
                    last,
                } = *message
                    && asked == epoch
                    && self.is_asked(state, node, from)
                    && self.grants(node, term, from, last)
                {
                    actions.push(Action::Vote { id, term, to: from });
                }
            }
            if node.role == Role::Candidate && self.won(state, node) {
                actions.push(Action::Lead { id });
            }
            for ((led, term), leadership) in &state.leaders {
                if *led == epoch
                    && leadership.id != id
                    && *term >= node.term
                    && self.is_sent(state, leadership, id)
                {
                    for len in 1..=length(&leadership.log) {
                        actions.push(Action::Replicate {
                            id,
                            term: *term,
                            len,
                        });
                    }
                }
            }
            if node.role == Role::Leader {
                self.leader_actions(state, node, actions);
            }
        }
    }

    fn leader_actions(&self, state: &State, node: &Node, actions: &mut Vec<Action>) {
        let id = node.id;
        if state.proposed < self.bounds.transitions {
            actions.push(Action::Propose { id });
        }
        for len in node.committed + 1..=length(&node.log) {
            if self.durable(state, node, len) {
                actions.push(Action::Commit {
                    id,
                    len,
                    answered: false,
                });
                if chain(&node.log[..usize::from(len)]).len() > state.acknowledged.len() {
                    actions.push(Action::Commit {
                        id,
                        len,
                        answered: true,
                    });
                }
            }
        }
        for joiner in &state.nodes {
            if self.next_voters(state, node, joiner).is_some() {
                actions.push(Action::Admit {
                    id,
                    joiner: joiner.id,
                });
            }
        }
    }

    /// A candidate asks those whose vote counts in its membership.
    fn is_asked(&self, state: &State, node: &Node, candidate: Id) -> bool {
        state
            .node(candidate)
            .and_then(Node::config)
            .is_some_and(|config| self.counts(state, config, node.id))
    }

    /// A leader sends to those who counted in some membership of its log, unless they came after its end.
    fn is_sent(&self, state: &State, leadership: &Leadership, id: Id) -> bool {
        leadership.ended.is_none_or(|ended| id < ended)
            && leadership.log.iter().any(|entry| match entry.payload {
                Payload::Membership(config) => self.counts(state, config, id),
                Payload::Transition(_) => false,
            })
    }

    fn counts(&self, state: &State, config: Config, id: Id) -> bool {
        let voters = config.voters.0 | config.next.unwrap_or_default().0;
        self.voice(state, config, id).0 & voters != 0
    }

    fn grants(&self, node: &Node, term: u8, to: Id, asked: (u8, u8)) -> bool {
        let free = node.voted.is_none_or(|voted| voted == to);
        node.id != to
            && (term > node.term
                || term == node.term
                    && node.voted != Some(to)
                    && (free || self.is(Mutant::ForgetVote)))
            && asked >= last(&node.log)
    }

    /// Whose voice a replica's vote or acknowledgement is, in the eyes of one with this membership.
    fn voice(&self, state: &State, config: Config, from: Id) -> Voters {
        let own = Voters::of([from]);
        if !self.is(Mutant::CountByPlace) {
            return own;
        }
        config
            .voters
            .ids()
            .filter(|id| state.place(*id) == state.place(from))
            .fold(own, Voters::with)
    }

    fn won(&self, state: &State, node: &Node) -> bool {
        let Some(config) = node.config() else {
            return false;
        };
        let mut voices = self.voice(state, config, node.id);
        for message in &state.messages {
            if let Message::Vote {
                epoch,
                term,
                from,
                to,
            } = *message
                && (epoch, term, to) == (node.epoch, node.term, node.id)
            {
                voices.0 |= self.voice(state, config, from).0;
            }
        }
        config.quorum(voices)
    }

    /// A leader commits entries of its own term only (Raft, section 5.4.2), by the membership in effect.
    fn durable(&self, state: &State, node: &Node, len: u8) -> bool {
        let (Some(config), Some(leadership)) =
            (node.config(), state.leaders.get(&(node.epoch, node.term)))
        else {
            return false;
        };
        let mut voices = self.voice(state, config, node.id);
        for (from, held) in &leadership.acknowledged {
            if *held >= len {
                voices.0 |= self.voice(state, config, *from).0;
            }
        }
        node.log[usize::from(len) - 1].term == node.term && config.quorum(voices)
    }

    /// The voters after a joiner took the seat of its place; none if it may not now.
    fn next_voters(&self, state: &State, leader: &Node, joiner: &Node) -> Option<Voters> {
        let (len, config) = membership(&leader.log)?;
        let settled = config.next.is_none() && usize::from(leader.committed) >= len;
        if !settled || joiner.epoch != leader.epoch || config.voters.contains(joiner.id) {
            return None;
        }
        // Identities are given out in order: a later one of the same place is the newer boot.
        let place = state.place(joiner.id);
        let mut stay = Voters::default();
        for id in config.voters.ids() {
            if state.place(id) != place {
                stay = stay.with(id);
            } else if id == leader.id || id > joiner.id {
                return None;
            }
        }
        Some(stay.with(joiner.id))
    }

    pub(crate) fn raft_step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Campaign { id } => {
                let node = node_mut(state, id)?;
                node.term += 1;
                node.voted = Some(id);
                node.role = Role::Candidate;
                node.committed = 0;
                let ask = Message::Ask {
                    epoch: node.epoch,
                    term: node.term,
                    from: id,
                    last: last(&node.log),
                };
                state.messages.insert(ask);
                self.persist(state, id);
            }
            Action::Vote { id, term, to } => {
                let node = node_mut(state, id)?;
                let epoch = node.epoch;
                node.term = term;
                node.voted = Some(to);
                node.role = Role::Follower;
                node.committed = 0;
                state.messages.insert(Message::Vote {
                    epoch,
                    term,
                    from: id,
                    to,
                });
                self.persist(state, id);
            }
            Action::Lead { id } => {
                let node = node_mut(state, id)?;
                node.role = Role::Leader;
                let key = (node.epoch, node.term);
                let leadership = Leadership {
                    id,
                    log: node.log.clone(),
                    acknowledged: Default::default(),
                    ended: None,
                };
                if let Some(other) = state.leaders.insert(key, leadership) {
                    state.violations.two_leaders |= other.id != id;
                }
            }
            Action::Replicate { id, term, len } => self.replicate(state, id, term, len)?,
            Action::Propose { id } => {
                state.proposed += 1;
                let payload = Payload::Transition(state.proposed);
                self.append(state, id, payload)?;
            }
            Action::Commit { id, len, answered } => self.commit(state, id, len, answered)?,
            Action::Admit { id, joiner } => {
                let (leader, joiner) = (state.node(id)?, state.node(joiner)?);
                let next = self.next_voters(state, leader, joiner)?;
                let config = if self.is(Mutant::ChangeWithoutJoint) {
                    Config {
                        voters: next,
                        next: None,
                    }
                } else {
                    Config {
                        voters: leader.config()?.voters,
                        next: Some(next),
                    }
                };
                self.append(state, id, Payload::Membership(config))?;
            }
            _ => return None,
        }
        Some(())
    }

    fn replicate(&self, state: &mut State, id: Id, term: u8, len: u8) -> Option<()> {
        let node = state.nodes.iter_mut().find(|node| node.id == id)?;
        let leadership = state.leaders.get_mut(&(node.epoch, term))?;
        let entries = &leadership.log[..usize::from(len)];
        let known = node.log.starts_with(entries);
        let held = leadership.acknowledged.get(&id).copied().unwrap_or(0);
        if known && node.term == term && node.voted == Some(leadership.id) && held >= len {
            return None;
        }
        if node.term < term || node.role == Role::Candidate {
            node.role = Role::Follower;
            node.committed = 0;
        }
        node.term = term;
        node.voted = Some(leadership.id);
        if !known {
            node.log = entries.to_vec();
        }
        if len > held {
            leadership.acknowledged.insert(id, len);
        }
        self.persist(state, id);
        Some(())
    }

    fn append(&self, state: &mut State, id: Id, payload: Payload) -> Option<()> {
        let node = node_mut(state, id)?;
        let entry = Entry {
            term: node.term,
            payload,
        };
        node.log.push(entry);
        let key = (node.epoch, node.term);
        state.leaders.get_mut(&key)?.log.push(entry);
        self.persist(state, id);
        Some(())
    }

    fn commit(&self, state: &mut State, id: Id, len: u8, answered: bool) -> Option<()> {
        let node = node_mut(state, id)?;
        node.committed = len;
        let (epoch, term, committed) = (node.epoch, node.term, node.committed_chain());
        let settled = membership(&node.log)
            .filter(|(at, config)| *at <= usize::from(len) && config.next.is_some());
        self.record(state, epoch, term, committed, answered);
        if let Some(Config {
            next: Some(voters), ..
        }) = settled.map(|(_, config)| config)
        {
            self.append(
                state,
                id,
                Payload::Membership(Config { voters, next: None }),
            )?;
        }
        Some(())
    }

    /// Compares a commit with all that was committed and acknowledged before.
    fn record(&self, state: &mut State, epoch: u8, term: u8, committed: Chain, answered: bool) {
        let (newest, history) = &state.history;
        let later = epoch == state.epoch && term >= *newest;
        let holds = |earlier: &Chain| {
            committed.starts_with(earlier) || !later && earlier.starts_with(&committed)
        };
        state.violations.forked |= !holds(history);
        state.violations.lost |= !holds(&state.acknowledged);
        if answered {
            state.acknowledged.clone_from(&committed);
        }
        if later {
            state.history = (term, committed);
        }
    }
}

fn node_mut(state: &mut State, id: Id) -> Option<&mut Node> {
    state.nodes.iter_mut().find(|node| node.id == id)
}
