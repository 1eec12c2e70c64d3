use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use contrast_audit::{Event, Hash, Kind, Subject, hex64};
use contrast_telemetry::drain::Watcher;
use tokio::time::sleep;

use super::{Recorder, subject};
use crate::replica::{
    Hosted,
    status::{ClusterStatus, Role, Status},
};

/// How often the replica is looked at. What comes and goes in between is not seen; the history and the leader's log have it.
const PERIOD: Duration = Duration::from_millis(250);

/// Records what changes without a request to this replica, until draining starts.
pub(crate) async fn watch(
    replica: Hosted,
    recorder: Arc<Recorder>,
    drain: Watcher,
) -> Result<(), Infallible> {
    let mut seen = Seen::default();
    while !drain.is_draining() {
        for event in seen.look(&replica.status()) {
            recorder.record(event);
        }
        recorder.admit_losses();
        tokio::select! {
            () = sleep(PERIOD) => {}
            () = drain.draining() => {}
        }
    }
    Ok(())
}

/// What was seen last.
#[derive(Debug, Default)]
struct Seen {
    role: Option<(Role, Option<u64>)>,
    /// By identity: whether it votes.
    members: BTreeMap<u64, bool>,
    transition: Option<[u8; 32]>,
}

impl Seen {
    /// What is new, oldest first as far as there is an order.
    fn look(&mut self, status: &Status) -> Vec<Event> {
        let mut events = Vec::new();
        let role = (
            status.role,
            status.cluster.as_ref().and_then(|cluster| cluster.leader),
        );
        if self.role.replace(role) != Some(role) {
            events.push(Event::done(Kind::Leader, leadership(status)));
        }
        self.members(status.cluster.as_ref(), &mut events);
        if let Some(active) = &status.active
            && self.transition.replace(active.transition.0) != Some(active.transition.0)
        {
            let subject = Subject {
                manifest: Some(Hash(active.manifest.0)),
                generation: Some(active.generation),
                ..Subject::default()
            };
            events.push(subject::transition(
                Kind::Transition,
                subject,
                active.transition,
            ));
        }
        events
    }

    fn members(&mut self, cluster: Option<&ClusterStatus>, events: &mut Vec<Event>) {
        let now = cluster.map_or(&[][..], |cluster| &cluster.members);
        let member = |node: u64, role: &str, subject: Subject| {
            let subject = Subject {
                cluster: cluster.map(|cluster| Hash(cluster.id.0)),
                node: Some(hex64(node)),
                role: Some(role.to_owned()),
                ..subject
            };
            Event::done(Kind::Member, subject)
        };
        for one in now {
            if self.members.insert(one.node, one.voter) != Some(one.voter) {
                let role = if one.voter { "voter" } else { "learner" };
                let subject = subject::replica(one.evidence.as_ref());
                events.push(member(one.node, role, subject));
            }
        }
        let gone = |node: &u64| !now.iter().any(|one| one.node == *node);
        for (node, _) in self.members.extract_if(.., |node, _| gone(node)) {
            events.push(member(node, "none", Subject::default()));
        }
    }
}

fn leadership(status: &Status) -> Subject {
    let cluster = status.cluster.as_ref();
    Subject {
        cluster: cluster.map(|cluster| Hash(cluster.id.0)),
        node: cluster.map(|cluster| hex64(cluster.node)),
        role: Some(status.role.name().to_owned()),
        leader: cluster.and_then(|cluster| cluster.leader).map(hex64),
        term: cluster.map(|cluster| cluster.term),
        ..Subject::default()
    }
}

#[cfg(test)]
mod tests {
    use contrast_manifest::ManifestHash;

    use super::*;
    use crate::{
        cluster::ClusterId,
        replica::{
            message::Place,
            status::{ActiveStatus, MemberStatus},
        },
        state::TransitionHash,
    };

    fn status(role: Role, members: &[(u64, bool)], transition: Option<u8>) -> Status {
        let member = |(node, voter): &(u64, bool)| MemberStatus {
            node: *node,
            place: Place::new("10.0.0.1:7778"),
            voter: *voter,
            heard_ago: None,
            matched: None,
            evidence: None,
        };
        Status {
            place: Place::new("10.0.0.1:7778"),
            role,
            serving: Ok(()),
            cluster: (!members.is_empty()).then(|| ClusterStatus {
                id: ClusterId([7; 32]),
                node: 1,
                term: 3,
                leader: Some(1),
                committed: 0,
                applied: 0,
                members: members.iter().map(member).collect(),
            }),
            active: transition.map(|byte| ActiveStatus {
                manifest: ManifestHash([byte; 32]),
                transition: TransitionHash([byte; 32]),
                generation: byte.into(),
                since: Duration::ZERO,
            }),
            confirmed_ago: None,
            confirmation_bound: Duration::ZERO,
        }
    }

    fn news(seen: &mut Seen, status: &Status) -> Vec<String> {
        let name = |event: Event| {
            let Subject { node, role, .. } = event.subject;
            let texts = [Some(event.kind.to_string()), node, role];
            texts.into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        seen.look(status).into_iter().map(name).collect()
    }

    #[test]
    fn each_change_is_seen_once_and_names_no_address() {
        let mut seen = Seen::default();
        assert_eq!(
            news(&mut seen, &status(Role::Empty, &[], None)),
            ["leader empty"]
        );
        let alone = status(Role::Leader, &[(1, true)], Some(1));
        let events = seen.look(&alone);
        assert_eq!(events.len(), 3);
        assert!(!format!("{events:?}").contains("10.0.0.1"));
        assert!(seen.look(&alone).is_empty());
        let two = status(Role::Leader, &[(1, true), (2, false)], Some(1));
        assert_eq!(news(&mut seen, &two), ["member 0000000000000002 learner"]);
        let two = status(Role::Leader, &[(1, true), (2, true)], Some(2));
        assert_eq!(
            news(&mut seen, &two),
            ["member 0000000000000002 voter", "transition"]
        );
        let gone = status(Role::Leader, &[(1, true)], Some(2));
        assert_eq!(news(&mut seen, &gone), ["member 0000000000000002 none"]);
        let outside = status(Role::Waiting, &[], None);
        assert_eq!(
            news(&mut seen, &outside),
            ["leader waiting", "member 0000000000000001 none"]
        );
    }
}
