use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::replica::status::{Role, Status};

const ROLES: [Role; 7] = [
    Role::Empty,
    Role::Waiting,
    Role::Joining,
    Role::Learner,
    Role::Follower,
    Role::Candidate,
    Role::Leader,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabels {
    place: String,
    voter: &'static str,
}

/// What this replica sees of its cluster.
#[derive(Default)]
pub(super) struct ClusterMetrics {
    role: Family<RoleLabel, Gauge>,
    serving: Gauge,
    voters: Gauge,
    learners: Gauge,
    has_leader: Gauge,
    term: Gauge<u64, AtomicU64>,
    committed: Gauge<u64, AtomicU64>,
    applied: Gauge<u64, AtomicU64>,
    confirmation_age: Gauge<f64, AtomicU64>,
    heard_age: Family<MemberLabels, Gauge<f64, AtomicU64>>,
    lag: Family<MemberLabels, Gauge<u64, AtomicU64>>,
}

impl ClusterMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let mut add = |name: &str, help: &str, metric: Registered<'_>| match metric {
            Registered::Gauge(gauge) => registry.register(name, help, gauge.clone()),
            Registered::Count(gauge) => registry.register(name, help, gauge.clone()),
        };
        add(
            "contrast_cluster_serving",
            "1 while this replica answers for the deployment: a confirmed member",
            Registered::Gauge(&metrics.serving),
        );
        add(
            "contrast_cluster_voters",
            "Voters of the cluster, as this replica knows the membership; 0 outside of one",
            Registered::Gauge(&metrics.voters),
        );
        add(
            "contrast_cluster_learners",
            "Members that do not vote",
            Registered::Gauge(&metrics.learners),
        );
        add(
            "contrast_cluster_has_leader",
            "1 while this replica knows a leader",
            Registered::Gauge(&metrics.has_leader),
        );
        add(
            "contrast_cluster_term",
            "Raft term",
            Registered::Count(&metrics.term),
        );
        add(
            "contrast_cluster_committed_index",
            "Last log entry that this replica knows to be committed",
            Registered::Count(&metrics.committed),
        );
        add(
            "contrast_cluster_applied_index",
            "Last log entry that this replica applied",
            Registered::Count(&metrics.applied),
        );
        registry.register(
            "contrast_cluster_role",
            "1 for the role that this replica has",
            metrics.role.clone(),
        );
        registry.register(
            "contrast_cluster_confirmation_age_seconds",
            "Age of the last confirmation of this replica's state by a quorum; -1 before the first",
            metrics.confirmation_age.clone(),
        );
        registry.register(
            "contrast_cluster_member_heard_age_seconds",
            "On the leader: time since it heard of a member",
            metrics.heard_age.clone(),
        );
        registry.register(
            "contrast_cluster_member_lag_entries",
            "On the leader: log entries that a member is not known to have",
            metrics.lag.clone(),
        );
        metrics
    }

    pub(super) fn set(&self, status: &Status) {
        for role in ROLES {
            let label = RoleLabel { role: role.name() };
            let is_it = i64::from(role == status.role);
            self.role.get_or_create(&label).set(is_it);
        }
        self.serving.set(status.serving.is_ok().into());
        let age = status.confirmed_ago;
        self.confirmation_age
            .set(age.map_or(-1.0, |age| age.as_secs_f64()));
        // Members come and go, and only a leader knows these.
        self.heard_age.clear();
        self.lag.clear();
        let Some(cluster) = &status.cluster else {
            for gauge in [&self.voters, &self.learners, &self.has_leader] {
                gauge.set(0);
            }
            return;
        };
        let voters = cluster.members.iter().filter(|member| member.voter).count();
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.voters.set(number(voters));
        self.learners.set(number(cluster.members.len() - voters));
        self.has_leader.set(cluster.leader.is_some().into());
        self.term.set(cluster.term);
        self.committed.set(cluster.committed);
        self.applied.set(cluster.applied);
        for member in &cluster.members {
            let labels = MemberLabels {
                place: member.place.to_string(),
                voter: if member.voter { "true" } else { "false" },
            };
            if let Some(ago) = member.heard_ago {
                self.heard_age.get_or_create(&labels).set(ago.as_secs_f64());
            }
            if let Some(matched) = member.matched {
                let lag = cluster.committed.saturating_sub(matched);
                self.lag.get_or_create(&labels).set(lag);
            }
        }
    }
}

enum Registered<'a> {
    Gauge(&'a Gauge),
    Count(&'a Gauge<u64, AtomicU64>),
}
