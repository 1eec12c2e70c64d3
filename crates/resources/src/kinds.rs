use std::{fmt, str::FromStr};

use serde_json::Value;

use crate::Step;

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
    PodTemplate,
}

impl WorkloadKind {
    /// The kind of a Kubernetes object, by group and kind.
    pub fn of(object: &Value) -> Option<Self> {
        let (group, kind) = group_kind(object)?;
        Some(match (group, kind) {
            ("", "Pod") => Self::Pod,
            ("apps", "Deployment") => Self::Deployment,
            ("apps", "StatefulSet") => Self::StatefulSet,
            ("apps", "DaemonSet") => Self::DaemonSet,
            ("apps", "ReplicaSet") => Self::ReplicaSet,
            ("", "ReplicationController") => Self::ReplicationController,
            ("batch", "Job") => Self::Job,
            ("batch", "CronJob") => Self::CronJob,
            ("", "PodTemplate") => Self::PodTemplate,
            _ => return None,
        })
    }
}

fn group_kind(object: &Value) -> Option<(&str, &str)> {
    let version = object["apiVersion"].as_str()?;
    let group = version.split_once('/').map_or("", |(group, _)| group);
    Some((group, object["kind"].as_str()?))
}

/// Path from an object to its pod template: where `metadata` and `spec` of the pod stand. Empty for a Pod; `None` for kinds
/// without one.
pub fn pod_template_path(object: &Value) -> Option<Vec<Step>> {
    let keys: &[&str] = match WorkloadKind::of(object)? {
        WorkloadKind::Pod => &[],
        WorkloadKind::PodTemplate => &["template"],
        WorkloadKind::CronJob => &["spec", "jobTemplate", "spec", "template"],
        _ => &["spec", "template"],
    };
    Some(keys.iter().map(|key| Step::key(key)).collect())
}

/// Where a custom resource has its pod template: `group/Kind=.path.to.template`, for example
/// `argoproj.io/Rollout=.spec.template`. The version does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomTemplate {
    group: String,
    kind: String,
    path: Vec<String>,
}

/// Not of the form `group/Kind=.path`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected `group/Kind=.path.to.template`, for example `argoproj.io/Rollout=.spec.template`, found `{found}`"
)]
pub struct CustomTemplateError {
    found: String,
}

impl FromStr for CustomTemplate {
    type Err = CustomTemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('=').and_then(|(resource, path)| {
            let (group, kind) = resource.split_once('/')?;
            let keys: Vec<String> = path
                .strip_prefix('.')?
                .split('.')
                .map(str::to_owned)
                .collect();
            let complete = !group.is_empty()
                && kind.starts_with(|c: char| c.is_ascii_uppercase())
                && kind.chars().all(|c| c.is_ascii_alphanumeric())
                && keys.iter().all(|key| {
                    !key.is_empty()
                        && key
                            .chars()
                            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
                });
            complete.then(|| Self {
                group: group.to_owned(),
                kind: kind.to_owned(),
                path: keys,
            })
        });
        parsed.ok_or_else(|| CustomTemplateError {
            found: text.to_owned(),
        })
    }
}

impl fmt::Display for CustomTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}=.{}", self.group, self.kind, self.path.join("."))
    }
}

impl CustomTemplate {
    /// Path to the pod template, if `object` is of this kind.
    pub fn path(&self, object: &Value) -> Option<Vec<Step>> {
        (group_kind(object)? == (self.group.as_str(), self.kind.as_str()))
            .then(|| self.path.iter().map(|key| Step::key(key)).collect())
    }
}
