//! Which membership a leader should bring about. Pure.
//!
//! Rules, in the order of their weight:
//! 1. A place has one identity: a silent one gives way to a living one that has caught up, in one change.
//! 2. Whoever leaves, or is silent for longer than the grace period, does not stay.
//! 3. The number of voters is odd, because an even one more makes nothing safer and a quorum larger. The one that is left over is a
//!    spare: a learner that takes the place of the next voter that fails.
//! 4. Nothing changes without need: living voters stay before learners, learners come before silent voters.
//! 5. No change is begun that the living members could not commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::message::Place;
use crate::cluster::NodeId;

/// A member as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) place: Place,
    /// Since when nothing was heard of it; zero for the leader itself.
    pub(crate) silent_for: Duration,
    /// Has the log up to a few entries.
    pub(crate) caught_up: bool,
    /// Asked to be taken out.
    pub(crate) leaving: bool,
}

/// A cluster as its leader sees it.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) leader: NodeId,
    /// Voters; two sets while a change is under way, of which a majority of each decides.
    pub(crate) configs: Vec<BTreeSet<NodeId>>,
    pub(crate) members: BTreeMap<NodeId, Seen>,
    /// Silent for this long: may be replaced.
    pub(crate) silence: Duration,
    /// Silent for this long: is removed.
    pub(crate) grace: Duration,
}

/// One membership change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Exactly these vote from now on; who did before becomes a learner.
    Voters(BTreeSet<NodeId>),
    /// These learners are removed.
    Remove(BTreeSet<NodeId>),
}

impl Observed {
    /// The next change; `None` when nothing is to be done.
    pub(crate) fn next(&self) -> Option<Step> {
        let voters = self.target();
        let possible = self.configs.iter().all(|config| self.commits(config));
        // A change that a leader before began is ended, too.
        if self.configs.as_slice() != [voters.clone()] {
            return (possible && self.commits(&voters)).then_some(Step::Voters(voters));
        }
        let removed: BTreeSet<NodeId> = self
            .members
            .keys()
            .filter(|node| !self.votes(**node) && self.is_gone(**node))
            .copied()
            .collect();
        (possible && !removed.is_empty()).then_some(Step::Remove(removed))
    }

    /// Whether nothing is left to do about `node`: it votes, or is a spare. Who is to follow an earlier identity of its place is no
    /// spare, although the earlier one has not been silent for long enough yet: until then the cluster has one living voter less.
    pub(crate) fn is_settled(&self, node: NodeId) -> bool {
        let Some(seen) = self.members.get(&node) else {
            return false;
        };
        // A voter of the same place is an earlier identity that is not known to be dead yet; this one is about to replace it.
        let replaces = self.members.iter().any(|(other, earlier)| {
            *other != node && earlier.place == seen.place && self.votes(*other)
        });
        let spare = seen.caught_up && !replaces && !self.target().contains(&node);
        let votes = self.configs.iter().all(|config| config.contains(&node));
        !seen.leaving && (votes || spare)
    }

    fn target(&self) -> BTreeSet<NodeId> {
        let mut wanted: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(node, seen)| self.votes(**node) || self.is_ready(seen))
            .filter(|(node, _)| !self.is_gone(**node))
            .map(|(node, _)| *node)
            .collect();
        wanted.sort_by_key(|node| (self.rank(*node), *node));
        let odd = match wanted.len() {
            0 => return self.configs.last().cloned().unwrap_or_default(),
            even if even.is_multiple_of(2) => even - 1,
            odd => odd,
        };
        wanted.truncate(odd);
        wanted.into_iter().collect()
    }

    fn rank(&self, node: NodeId) -> u8 {
        let alive = self
            .members
            .get(&node)
            .is_some_and(|seen| self.is_alive(seen));
        match (node == self.leader, self.votes(node), alive) {
            (true, _, _) => 0,
            (_, true, true) => 1,
            (_, false, _) => 2,
            (_, true, false) => 3,
        }
    }

    pub(crate) fn votes(&self, node: NodeId) -> bool {
        self.configs.iter().any(|config| config.contains(&node))
    }

    fn is_alive(&self, seen: &Seen) -> bool {
        seen.silent_for < self.silence
    }

    fn is_ready(&self, seen: &Seen) -> bool {
        self.is_alive(seen) && seen.caught_up && !seen.leaving
    }

    fn is_gone(&self, node: NodeId) -> bool {
        let Some(seen) = self.members.get(&node) else {
            return true;
        };
        let succeeded = || {
            self.members.iter().any(|(other, candidate)| {
                *other != node && candidate.place == seen.place && self.is_ready(candidate)
            })
        };
        seen.leaving || seen.silent_for >= self.grace || (!self.is_alive(seen) && succeeded())
    }

    /// Whether a majority of `voters` lives.
    fn commits(&self, voters: &BTreeSet<NodeId>) -> bool {
        let alive = voters.iter().filter(|node| {
            let seen = self.members.get(node);
            seen.is_some_and(|seen| self.is_alive(seen))
        });
        alive.count() > voters.len() / 2
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
