//! An executable model of a replicated Coordinator whose host is the adversary: who may rejoin after a restart, and how
//! a rolled-back disk is told from the truth. `README.md` says what is modelled, what is not, and what was found.
//!
//! [`Cluster`] is the model; [`Cluster::default`] has the bounds of the standard check. Nothing here is part of the
//! product.

mod action;
mod mutant;
mod properties;
mod raft;
mod reduce;
mod rejoin;
pub mod state;
mod symmetry;

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

pub use action::Action;
pub use mutant::Mutant;
pub use properties::{ALWAYS, SOMETIMES};

use state::{Config, Entry, Leadership, Node, Payload, Role, State, Violations, Voters};

/// How far a check goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Replicas at the start: 1 to 5.
    pub replicas: u8,
    /// Restarts by the host: of one replica, of a second one beside the first, or of all at once.
    pub restarts: u8,
    /// How many of the restarts may leave the former process running, cut off from nothing.
    pub clones: u8,
    /// Transitions that owners ask for.
    pub transitions: u8,
    /// Highest term. A cluster starts in term 1, so this bounds the elections.
    pub terms: u8,
}

impl Bounds {
    /// The standard check: two restarts and two transitions; clones; a second election.
    pub const STANDARD: [Self; 3] = [
        Self {
            replicas: 3,
            restarts: 2,
            clones: 0,
            transitions: 2,
            terms: 2,
        },
        Self {
            replicas: 3,
            restarts: 1,
            clones: 1,
            transitions: 1,
            terms: 2,
        },
        Self {
            replicas: 3,
            restarts: 1,
            clones: 0,
            transitions: 1,
            terms: 3,
        },
    ];
}

impl Default for Bounds {
    fn default() -> Self {
        Self::STANDARD[0]
    }
}

/// The model.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    bounds: Bounds,
    mutant: Option<Mutant>,
    unreduced: bool,
}

impl Cluster {
    /// The model of the right rules.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            mutant: None,
            unreduced: false,
        }
    }

    /// The same without forgetting what cannot matter any more: many more states, for checking that nothing mattered.
    #[must_use]
    pub fn unreduced(mut self) -> Self {
        self.unreduced = true;
        self
    }

    /// The same bounds with a wrong rule.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn with_mutant(mut self, mutant: Mutant) -> Self {
        self.mutant = Some(mutant);
        self
    }

    fn mutant(&self) -> Option<Mutant> {
        self.mutant
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether every message and every history stays in the state.
    fn keeps_all(&self) -> bool {
        self.unreduced || self.remembers_votes()
    }

    /// Votes on disks matter only to rules that read them back.
    fn remembers_votes(&self) -> bool {
        self.mutant.is_some_and(Mutant::resumes)
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    /// Replica 0 leads term 1, all know it and the membership, and the first manifest is set.
    fn init_states(&self) -> Vec<State> {
        let ids = 0..self.bounds.replicas;
        let config = Config {
            voters: Voters::of(ids.clone()),
            next: None,
        };
        let log = vec![Entry {
            term: 1,
            payload: Payload::Membership(config),
        }];
        let nodes = ids
            .clone()
            .map(|id| Node {
                term: 1,
                voted: Some(0),
                role: if id == 0 {
                    Role::Leader
                } else {
                    Role::Follower
                },
                committed: u8::from(id == 0),
                log: log.clone(),
                ..Node::fresh(id, 0)
            })
            .collect();
        let leadership = Leadership {
            id: 0,
            log,
            acknowledged: BTreeMap::new(),
            ended: None,
        };
        let mut state = State {
            nodes,
            places: ids.clone().collect(),
            messages: BTreeSet::new(),
            leaders: BTreeMap::from([((0, 1), leadership)]),
            histories: BTreeSet::new(),
            disks: BTreeSet::new(),
            restarts: 0,
            clones: 0,
            proposed: 0,
            epoch: 0,
            recovery: None,
            history: (1, Vec::new()),
            acknowledged: Vec::new(),
            guard: Vec::new(),
            violations: Violations::default(),
        };
        for id in ids {
            self.persist(&mut state, id);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violations == Violations::default() && !properties::behind_guard(state) {
            self.raft_actions(state, actions);
            self.host_actions(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Restart { .. }
            | Action::Clone { .. }
            | Action::PowerLoss
            | Action::Resume { .. }
            | Action::Recover { .. } => self.host_step(&mut state, action)?,
            _ => self.raft_step(&mut state, action)?,
        }
        self.reduce(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

/// The shortest way in which a wrong rule breaks this invariant.
///
/// # Panics
///
/// If the checker fails.
#[cfg(feature = "mutants")]
pub fn counterexample(mutant: Mutant, invariant: &'static str) -> Option<Vec<Action>> {
    use stateright::{Checker, HasDiscoveries};
    let checker = Cluster::new(mutant.bounds())
        .with_mutant(mutant)
        .checker()
        .finish_when(HasDiscoveries::AnyOf([invariant].into()))
        .spawn_bfs()
        .join();
    Some(checker.discovery(invariant)?.into_actions())
}
