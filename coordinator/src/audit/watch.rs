use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use contrast_audit::{Event, Hash, Kind, Subject, hex64};
use contrast_manifest::ManifestHash;
use contrast_telemetry::drain::Watcher;
use tokio::time::sleep;

use super::{Recorder, subject};
use crate::{
    replica::{
        Hosted,
        status::{ClusterStatus, Role, Status},
    },
    state::{Phase, TransitionHash},
};

/// How often the replica is looked at. What comes and goes in between is not seen; the history and the leader's log have it.
const PERIOD: Duration = Duration::from_millis(250);

/// Transitions that are recorded at once; a replica that joins gets the whole history. The number in the record tells of a gap.
const TRANSITIONS_MAX: usize = 16;

/// Records what changes from now on without a request to this replica, until draining starts.
pub(crate) fn watch(
    replica: Hosted,
    recorder: Arc<Recorder>,
    drain: Watcher,
) -> impl Future<Output = Result<(), Infallible>> {
    // What is on the disk was recorded by a process before.
    let mut seen = Seen {
        transition: links(&replica.guard().snapshot()).last().map(|last| last.0),
        ..Seen::default()
    };
    async move {
        while !drain.is_draining() {
            for event in seen.look(&replica.status()) {
                recorder.record(event);
            }
            let snapshot = replica.guard().snapshot();
            if let Phase::Active(active) = &*snapshot
                && seen.transition != Some(active.transition())
            {
                for event in seen.transitions(&links(&snapshot)) {
                    recorder.record(event);
                }
            }
            recorder.admit_losses();
            tokio::select! {
                () = sleep(PERIOD) => {}
                () = drain.draining() => {}
            }
        }
        Ok(())
    }
}

/// All transitions with their manifests, oldest first.
fn links(phase: &Phase) -> Vec<(TransitionHash, ManifestHash)> {
    let Some(history) = phase.history() else {
        return Vec::new();
    };
    let links = history.links();
    links
        .map(|link| (link.hash, link.transition.manifest_hash))
        .collect()
}

/// What was seen last.
#[derive(Debug, Default)]
struct Seen {
    role: Option<(Role, Option<u64>)>,
    /// By identity: whether it votes.
    members: BTreeMap<u64, bool>,
    transition: Option<TransitionHash>,
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
        events
    }

    /// Those that came into force since the last look.
    fn transitions(&mut self, history: &[(TransitionHash, ManifestHash)]) -> Vec<Event> {
        let known = history
            .iter()
            .rposition(|(hash, _)| Some(*hash) == self.transition);
        let first = known.map_or(0, |known| known + 1);
        let first = first.max(history.len().saturating_sub(TRANSITIONS_MAX));
        self.transition = history.last().map(|last| last.0);
        let numbered = history.iter().zip(1_u64..).skip(first);
        let event = |((hash, manifest), number): (&(TransitionHash, ManifestHash), u64)| {
            let subject = Subject {
                manifest: Some(Hash(manifest.0)),
                generation: Some(number),
                ..Subject::default()
            };
            subject::transition(Kind::Transition, subject, *hash)
        };
        numbered.map(event).collect()
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
    use super::*;
    use crate::{
        cluster::ClusterId,
        replica::{message::Place, status::MemberStatus},
    };

    fn status(role: Role, members: &[(u64, bool)]) -> Status {
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
            active: None,
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
        assert_eq!(news(&mut seen, &status(Role::Empty, &[])), ["leader empty"]);
        let alone = status(Role::Leader, &[(1, true)]);
        let events = seen.look(&alone);
        assert_eq!(events.len(), 2);
        assert!(!format!("{events:?}").contains("10.0.0.1"));
        assert!(seen.look(&alone).is_empty());
        let two = status(Role::Leader, &[(1, true), (2, false)]);
        assert_eq!(news(&mut seen, &two), ["member 0000000000000002 learner"]);
        let two = status(Role::Leader, &[(1, true), (2, true)]);
        assert_eq!(news(&mut seen, &two), ["member 0000000000000002 voter"]);
        assert_eq!(news(&mut seen, &alone), ["member 0000000000000002 none"]);
        let outside = status(Role::Waiting, &[]);
        let expected = ["leader waiting", "member 0000000000000001 none"];
        assert_eq!(news(&mut seen, &outside), expected);
    }

    #[test]
    fn each_transition_is_seen_once_also_of_those_that_came_together() {
        let history = |numbers: std::ops::RangeInclusive<u8>| -> Vec<_> {
            let both = |number| (TransitionHash([number; 32]), ManifestHash([number; 32]));
            numbers.map(both).collect()
        };
        let mut seen = Seen::default();
        let mut numbers = |numbers| -> Vec<_> {
            let events = seen.transitions(&history(numbers)).into_iter();
            events
                .filter_map(|event| event.subject.generation)
                .collect()
        };
        assert_eq!(numbers(1..=2), [1, 2]);
        assert!(numbers(1..=2).is_empty());
        assert_eq!(numbers(1..=5), [3, 4, 5]);
        assert_eq!(numbers(1..=100), (85..=100).collect::<Vec<_>>());
        // Another cluster's history, which this replica joined.
        assert_eq!(numbers(101..=103), [1, 2, 3]);
    }
}
