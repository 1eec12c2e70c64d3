//! What must always hold, and what must be reachable for that to mean something.

use stateright::Property;

use crate::{
    Cluster,
    state::{Chain, Node, Recovery, Role, State, Voters, chain, membership},
};

/// Names of the invariants.
pub const ALWAYS: [&str; 4] = [
    "one history",
    "no acknowledged transition is lost",
    "one leader per term",
    "no leader behind the recovery guard",
];

/// Names of what must be reachable.
pub const SOMETIMES: [&str; 6] = [
    "a fresh identity replaced a restarted one",
    "a transition was committed after a fresh identity joined",
    "an identity was replaced while it still ran",
    "a rolled-back history was refused",
    "recovered after all were gone",
    "recovered with a survivor, and all places joined",
];

pub(crate) fn all() -> Vec<Property<Cluster>> {
    vec![
        Property::always(ALWAYS[0], |_, state: &State| !state.violations.forked),
        Property::always(ALWAYS[1], |_, state: &State| !state.violations.lost),
        Property::always(ALWAYS[2], |_, state: &State| !state.violations.two_leaders),
        Property::always(ALWAYS[3], |_, state: &State| !behind_guard(state)),
        Property::sometimes(SOMETIMES[0], |model: &Cluster, state: &State| {
            joined(model, state).is_some()
        }),
        Property::sometimes(SOMETIMES[1], |model: &Cluster, state: &State| {
            joined(model, state).is_some_and(|chain| !chain.is_empty())
        }),
        Property::sometimes(SOMETIMES[2], |model: &Cluster, state: &State| {
            state.nodes.iter().any(|leader| {
                settled(leader).is_some_and(|voters| {
                    (0..model.bounds.replicas).any(|id| {
                        leader.epoch == 0 && state.node(id).is_some() && !voters.contains(id)
                    })
                })
            })
        }),
        Property::sometimes(SOMETIMES[3], |model: &Cluster, state: &State| {
            // The disks of the start, which the host still has, hold no transition.
            state
                .histories
                .iter()
                .any(|history| model.may_recover(state, history))
                && !model.may_recover(state, &Chain::new())
        }),
        Property::sometimes(SOMETIMES[4], |_, state: &State| {
            state.recovery == Some(Recovery::AllGone) && !state.acknowledged.is_empty()
        }),
        Property::sometimes(SOMETIMES[5], |model: &Cluster, state: &State| {
            state.recovery == Some(Recovery::Survivors)
                && state.nodes.iter().any(|node| {
                    settled(node).is_some_and(|voters| {
                        voters.ids().count() == usize::from(model.bounds.replicas)
                    })
                })
        }),
    ]
}

/// Whether a leader of the latest cluster lacks the transition that the recovery guard names.
pub(crate) fn behind_guard(state: &State) -> bool {
    state
        .nodes
        .iter()
        .filter(|node| node.epoch == state.epoch && node.role == Role::Leader)
        .any(|node| !chain(&node.log).starts_with(&state.guard))
}

/// The voters of a leader whose membership is committed and not joint.
fn settled(node: &Node) -> Option<Voters> {
    let (len, config) = membership(&node.log)?;
    let settled =
        node.role == Role::Leader && config.next.is_none() && usize::from(node.committed) >= len;
    settled.then_some(config.voters)
}

/// What is committed under a leader whose membership has a fresh identity, before any recovery.
fn joined(model: &Cluster, state: &State) -> Option<Chain> {
    state.nodes.iter().find_map(|node| {
        let voters = settled(node)?;
        let fresh = voters.ids().any(|id| id >= model.bounds.replicas);
        (fresh && state.epoch == 0).then(|| node.committed_chain())
    })
}
