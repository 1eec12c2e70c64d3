//! Our annotations. What exists, and what it may say, is in the table of [`crate::generate::annotations`]; here is what also depends on the pod. The
//! entries of the service mesh are in `mesh`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Notes,
    model::{Pod, items, keys, text},
    rules,
};
use crate::generate::annotations::{
    ANNOTATIONS, Field, Form, PREFIX, Problem, ProblemKind, find, problems,
};

pub(super) fn check<'a>(pod: &Pod<'a>, notes: &mut Notes<'a>) {
    let problems = problems(pod.resource.object(), pod.template);
    for problem in &problems {
        if is_of_mesh(pod, problem) {
            continue;
        }
        let rule = match problem.kind {
            ProblemKind::Unknown => &rules::UNKNOWN_ANNOTATION,
            ProblemKind::Value => &rules::INVALID_ANNOTATION,
            ProblemKind::Place => &rules::ANNOTATION_WITHOUT_EFFECT,
        };
        let key = format!("{PREFIX}{}", problem.name);
        let path = keys(&["metadata", problem.field.key(), &key]);
        let text = (problem.found.clone(), problem.advice.clone());
        match problem.on_template {
            true => notes.pod(rule, pod, &path, text),
            false => notes.resource(rule, pod.resource, &path, text),
        }
    }
    for known in ANNOTATIONS {
        let Some(value) = pod.annotation(known.name) else {
            continue;
        };
        if problems.iter().any(|problem| problem.name == known.name) {
            continue;
        }
        if pod.is_coordinator() && !known.coordinator {
            let text = (
                format!("`{}` has no effect on a Coordinator", known.name),
                "remove it",
            );
            notes.annotation(&rules::ANNOTATION_WITHOUT_EFFECT, pod, known.name, text);
        } else if known.value == Form::Volumes
            && let Some((found, advice)) = volumes(pod, known.name, value)
        {
            let text = (format!("`{}`: {found}", known.name), advice);
            notes.annotation(&rules::INVALID_ANNOTATION, pod, known.name, text);
        }
    }
}

/// Whether `mesh` reports the problem, entry by entry.
fn is_of_mesh(pod: &Pod<'_>, problem: &Problem<'_>) -> bool {
    let entries =
        find(problem.name).is_some_and(|known| matches!(known.value, Form::Ingress | Form::Egress));
    entries
        && problem.kind == ProblemKind::Value
        && problem.field == Field::Annotations
        && pod.annotation(problem.name).is_some()
        && pod.has_mesh()
}

fn volumes(pod: &Pod<'_>, name: &str, value: &str) -> Option<(String, String)> {
    let copied = ["configMap", "secret", "downwardAPI", "projected"];
    let own = |volume: &Value| copied.iter().any(|kind| volume.get(*kind).is_some());
    let fits = |volume: &Value| match name {
        "mutable-volumes" => own(volume),
        _ => !own(volume) && volume.get("emptyDir").is_none() && volume.get("hostPath").is_none(),
    };
    let all = items(pod.spec(), "volumes").iter();
    let mut known: BTreeSet<&str> = all
        .filter(|volume| fits(volume))
        .map(|volume| text(&volume["name"]))
        .collect();
    if name == "untrusted-volumes" {
        let claims = items(&pod.resource.object()["spec"], "volumeClaimTemplates").iter();
        known.extend(claims.map(|claim| text(&claim["metadata"]["name"])));
    }
    let mut names = value
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let wrong = names.find(|name| !known.contains(name))?;
    let kinds = match name {
        "mutable-volumes" => "volumes of ConfigMaps, Secrets, downward API and projections",
        _ => "persistent volumes",
    };
    let known: Vec<&str> = known.into_iter().collect();
    let here = match known.is_empty() {
        true => "; this pod has none".to_owned(),
        false => format!("; this pod has {}", known.join(", ")),
    };
    Some((
        format!("`{wrong}` is none of them"),
        format!("expected names of {kinds}, separated by commas{here}"),
    ))
}
