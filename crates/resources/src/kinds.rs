use serde_json::Value;

use crate::patch::Step;

/// Built-in kinds that carry a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of Kubernetes")]
pub enum WorkloadKind {
    Pod,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    ReplicationController,
    Job,
    CronJob,
}

impl WorkloadKind {
    /// The kind of a Kubernetes object, by group and kind.
    pub fn of(object: &Value) -> Option<Self> {
        let version = object["apiVersion"].as_str()?;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        Some(match (group, object["kind"].as_str()?) {
            ("", "Pod") => Self::Pod,
            ("apps", "Deployment") => Self::Deployment,
            ("apps", "StatefulSet") => Self::StatefulSet,
            ("apps", "DaemonSet") => Self::DaemonSet,
            ("apps", "ReplicaSet") => Self::ReplicaSet,
            ("", "ReplicationController") => Self::ReplicationController,
            ("batch", "Job") => Self::Job,
            ("batch", "CronJob") => Self::CronJob,
            _ => return None,
        })
    }
}

/// Path from an object to its pod template: where `metadata` and `spec` of the pod stand. Empty for a Pod; `None` for kinds
/// without one.
pub fn pod_template_path(object: &Value) -> Option<Vec<Step>> {
    let keys: &[&str] = match WorkloadKind::of(object)? {
        WorkloadKind::Pod => &[],
        WorkloadKind::CronJob => &["spec", "jobTemplate", "spec", "template"],
        _ => &["spec", "template"],
    };
    Some(keys.iter().map(|key| Step::key(key)).collect())
}
