//! Forgets what cannot matter any more, so that states that differ in nothing else become one. Each rule keeps every
//! violation reachable; the reason stands beside it.

use crate::{
    Cluster, Mutant,
    raft::length,
    state::{Message, Node, Role, State},
};

impl Cluster {
    pub(crate) fn reduce(&self, state: &mut State) {
        self.end_leaderships(state);
        if self.keeps_all() {
            return;
        }
        // A vote for one who is no candidate in that term any more is never counted. Who gives it only binds itself.
        let nodes = &state.nodes;
        state.messages.retain(|message| match *message {
            Message::Ask {
                epoch, term, from, ..
            }
            | Message::Vote {
                epoch,
                term,
                to: from,
                ..
            } => nodes.iter().any(|node| {
                (node.id, node.epoch, node.term, node.role) == (from, epoch, term, Role::Candidate)
            }),
        });
        // A history without what owners were told is never recovered: what they were told only grows.
        if !self.is(Mutant::RecoverWithoutGuard) && !self.is(Mutant::GuardByLength) {
            let told = &state.acknowledged;
            state.histories.retain(|history| history.starts_with(told));
        }
    }

    fn end_leaderships(&self, state: &mut State) {
        let identities = length(&state.places);
        for ((epoch, term), leadership) in &mut state.leaders {
            let leads = |node: &&Node| {
                (node.id, node.epoch, node.term, node.role)
                    == (leadership.id, *epoch, *term, Role::Leader)
            };
            if let Some(leader) = state.nodes.iter().find(leads) {
                // What is committed needs no acknowledgement.
                leadership
                    .acknowledged
                    .retain(|_, len| *len > leader.committed);
                continue;
            }
            let ended = *leadership.ended.get_or_insert(identities);
            if self.keeps_all() {
                continue;
            }
            // Nobody counts acknowledgements for one who leads no more. Its requests matter while one who may have been
            // sent them would still take them.
            leadership.acknowledged.clear();
            let matters = state
                .nodes
                .iter()
                .any(|node| node.epoch == *epoch && node.id < ended && node.term <= *term);
            if !matters {
                leadership.log.clear();
                leadership.ended = Some(0);
            }
        }
    }
}
