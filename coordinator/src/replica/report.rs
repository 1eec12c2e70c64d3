//! What a replica says about itself to people.

use openraft::{
    ServerState,
    async_runtime::Instant as _,
    type_config::{TypeConfigExt, alias::InstantOf},
};

use super::{
    Replica,
    life::Life,
    message::Place,
    status::{ActiveStatus, ClusterStatus, MemberStatus, Role, Status},
};
use crate::{cluster::ClusterTypes, state::Phase};

impl<C: ClusterTypes> Replica<C> {
    /// This replica and its cluster as it sees them. Asks nobody.
    pub fn status(&self) -> Status {
        let life = self.life();
        let snapshot = self.guard.snapshot();
        let active = match &*snapshot {
            Phase::Active(active) => Some(ActiveStatus {
                manifest: active.manifest().hash(),
                transition: active.transition(),
                generation: active.history().generation().try_into().unwrap_or(u64::MAX),
                since: self
                    .guard
                    .clock()
                    .now()
                    .duration_since(active.since())
                    .unwrap_or_default(),
            }),
            _ => None,
        };
        Status {
            place: self.peers.own_place(),
            role: role(life.as_deref(), &snapshot),
            serving: self.serving(),
            cluster: life.as_deref().map(|life| self.cluster_status(life)),
            active,
            confirmed_ago: life.as_deref().and_then(Life::confirmed_ago),
            confirmation_bound: self.timing.confirmation_bound,
        }
    }

    fn cluster_status(&self, life: &Life<C>) -> ClusterStatus {
        let metrics = life.metrics();
        let now = C::now();
        let members = metrics.membership_config.membership();
        let voters: Vec<u64> = members.voter_ids().collect();
        let member = |(node, at): (&u64, &crate::cluster::Node)| {
            let place = Place::new(&at.addr);
            let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(node));
            let since = |at: InstantOf<C>| now.saturating_duration_since(at);
            let matched = metrics.replication.as_ref().and_then(|all| all.get(node));
            MemberStatus {
                node: *node,
                voter: voters.contains(node),
                heard_ago: heard.copied().flatten().map(|at| since(*at)),
                matched: matched.copied().flatten().map(|id| id.index),
                evidence: self.peers.evidence(&place),
                place,
            }
        };
        ClusterStatus {
            id: life.cluster,
            node: life.node,
            term: metrics.current_term,
            leader: metrics.current_leader,
            committed: metrics.local_committed.map_or(0, |id| id.index),
            applied: life.applied(),
            members: members.nodes().map(member).collect(),
        }
    }
}

fn role<C: ClusterTypes>(life: Option<&Life<C>>, phase: &Phase) -> Role {
    let Some(life) = life else {
        return match phase {
            Phase::Empty => Role::Empty,
            _ => Role::Waiting,
        };
    };
    if !life.is_member() {
        return Role::Joining;
    }
    match life.metrics().state {
        ServerState::Leader => Role::Leader,
        ServerState::Candidate => Role::Candidate,
        ServerState::Follower => Role::Follower,
        _ => Role::Learner,
    }
}
