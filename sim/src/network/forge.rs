//! Alterations of a question.

use contrast_coordinator::{
    cluster::{ClusterId, NodeId},
    replica::message::{RaftMessage, Request},
};
use openraft::vote::RaftVote;

use crate::dice::Dice;

/// The question, with one of its fields changed, or none.
pub(super) fn alter(dice: &Dice, mut request: Request) -> Request {
    let which = dice.within(0..4);
    match &mut request {
        Request::Hello { head, .. } => {
            if which == 0 {
                *head = None;
            }
        }
        Request::FetchSecrets => {}
        Request::Join { cluster, node, .. }
        | Request::Confirm { cluster, node }
        | Request::Leave { cluster, node } => match which {
            0 => alter_cluster(dice, cluster),
            1 => alter_node(dice, node),
            _ => {}
        },
        Request::OfferKey { cluster, .. }
        | Request::FetchKey { cluster, .. }
        | Request::AdvanceVolume { cluster, .. } => {
            if which == 0 {
                alter_cluster(dice, cluster);
            }
        }
        Request::Propose { cluster, update } => match which {
            0 => *cluster = None,
            1 => update.approvals.clear(),
            _ => {}
        },
        Request::Raft(call) => match which {
            0 => alter_cluster(dice, &mut call.cluster),
            1 => alter_node(dice, &mut call.from),
            2 => alter_node(dice, &mut call.to),
            _ => alter_message(dice, &mut call.message),
        },
    }
    request
}

fn alter_cluster(dice: &Dice, cluster: &mut ClusterId) {
    let at = dice.index(cluster.0.len());
    if let Some(byte) = cluster.0.get_mut(at) {
        *byte ^= 1;
    }
}

fn alter_node(dice: &Dice, node: &mut NodeId) {
    *node = dice.number();
}

/// Claims a later term, so that whoever believes it steps down.
fn alter_message(dice: &Dice, message: &mut RaftMessage) {
    let later = 1 + dice.within(0..100);
    let vote = match message {
        RaftMessage::Append { vote, .. }
        | RaftMessage::Snapshot { vote, .. }
        | RaftMessage::Transfer { vote, .. } => vote,
        RaftMessage::Vote(ballot) | RaftMessage::PreVote(ballot) => &mut ballot.vote,
    };
    let mut leader = *vote.leader_id();
    leader.term = leader.term.saturating_add(later);
    let committed = vote.is_committed();
    *vote = contrast_coordinator::cluster::NodeVote::from_leader_id(leader, committed);
}
