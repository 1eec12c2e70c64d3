//! Coordinator, names and kinds.

use std::collections::BTreeMap;

use contrast_resources::{CustomTemplate, Step};
use serde_json::Value;

use super::{
    Notes,
    model::{Pod, Resource, keys, text},
    rules,
};
use crate::generate::platforms;

pub(super) fn check<'a>(
    resources: &'a [Resource],
    pods: &[Pod<'a>],
    templates: &[CustomTemplate],
    notes: &mut Notes<'a>,
) {
    coordinators(pods, notes);
    names(pods, notes);
    for resource in resources {
        if Pod::of(resource, templates).is_none() {
            kind(resource, notes);
        }
    }
}

fn coordinators<'a>(pods: &[Pod<'a>], notes: &mut Notes<'a>) {
    let coordinators: Vec<&Pod<'a>> = pods.iter().filter(|pod| pod.is_coordinator()).collect();
    match (pods.first(), coordinators.split_first()) {
        (Some(first), None) => notes.resource(
            &rules::COORDINATOR_MISSING,
            first.resource,
            &[],
            (
                "none of the confidential pods is the Coordinator",
                "add the Coordinator's YAML to the paths, or set `contrast.edgeless.systems/pod-role: coordinator` on its pod template",
            ),
        ),
        (_, Some((first, others))) => {
            for other in others {
                notes.annotation(
                    &rules::COORDINATOR_DUPLICATED,
                    other,
                    "pod-role",
                    (
                        format!("{} is the Coordinator already", first.resource.shown()),
                        "keep one of them; several replicas are one workload",
                    ),
                );
            }
        }
        (None, None) => {}
    }
}

fn names<'a>(pods: &[Pod<'a>], notes: &mut Notes<'a>) {
    let mut seen = BTreeMap::new();
    for pod in pods {
        let resource = pod.resource;
        let metadata = &resource.object()["metadata"];
        if !metadata["name"].is_string() {
            let found = match metadata["generateName"].is_string() {
                true => "it has `metadata.generateName`",
                false => "it has no `metadata.name`",
            };
            let path = keys(&["metadata", "generateName"]);
            notes.resource(
                &rules::NO_STABLE_NAME,
                resource,
                &path,
                (found, "write `metadata.name` instead"),
            );
            continue;
        }
        let shown = resource.shown();
        let group = text(&resource.object()["apiVersion"]).to_owned();
        if seen.insert((group, shown.clone()), ()).is_some() {
            notes.resource(
                &rules::WORKLOAD_DUPLICATED,
                resource,
                &keys(&["metadata", "name"]),
                (
                    format!("{shown} is defined a second time"),
                    "remove one of the two, or give it another name",
                ),
            );
        }
    }
}

/// A class deep inside a kind that nobody knows.
fn kind<'a>(resource: &'a Resource, notes: &mut Notes<'a>) {
    let mut path = Vec::new();
    if !find_class(resource.object(), &mut path) {
        return;
    }
    let version = text(&resource.object()["apiVersion"]);
    let group = version.split_once('/').map_or("", |(group, _)| group);
    // The template is what has the `spec` that has the class.
    let template: Option<Vec<&str>> = path
        .iter()
        .map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        })
        .collect();
    let template =
        template.filter(|keys| keys.len() > 2 && keys.get(keys.len() - 2) == Some(&"spec"));
    let advice = match template {
        Some(keys) if !group.is_empty() => {
            let keys = keys.get(..keys.len().saturating_sub(2)).unwrap_or_default();
            format!("add `--pod-template-path {group}/{}=.{}`", resource.kind(), keys.join("."))
        }
        _ => "use a Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob or PodTemplate".to_owned(),
    };
    let found = format!(
        "`{}` of `{version}` is no kind that carries pods",
        resource.kind()
    );
    notes.resource(&rules::UNSUPPORTED_KIND, resource, &path, (found, advice));
}

fn find_class(value: &Value, path: &mut Vec<Step>) -> bool {
    let children: Vec<(Step, &Value)> = match value {
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| (Step::key(key), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| (Step::Index(at), item))
            .collect(),
        _ => return false,
    };
    for (step, child) in children {
        let is_it =
            step == Step::key("runtimeClassName") && platforms::is_confidential(text(child));
        path.push(step);
        if is_it || find_class(child, path) {
            return true;
        }
        path.pop();
    }
    false
}
