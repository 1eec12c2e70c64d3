//! Our annotations: names, places and values. The grammar of the service mesh is in `mesh`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Notes,
    model::{PREFIX, Pod, entries, items, keys, text},
    rules,
};

/// All annotations, and whether only the pod template's is read.
const KNOWN: [(&str, bool); 9] = [
    ("mutable-volumes", true),
    ("pod-role", false),
    ("servicemesh-admin-interface-port", false),
    ("servicemesh-egress", false),
    ("servicemesh-ingress", false),
    ("skip-initializer", false),
    ("streams", true),
    ("untrusted-volumes", true),
    ("workload-secret-id", false),
];
/// What is not applied to a Coordinator.
const NOT_OF_COORDINATORS: [&str; 4] = [
    "servicemesh-admin-interface-port",
    "servicemesh-egress",
    "servicemesh-ingress",
    "skip-initializer",
];
/// Least likeness (Jaro-Winkler, 0 to 1) of a name that is suggested.
const ALIKE: f64 = 0.8;

pub(super) fn check<'a>(pod: &Pod<'a>, notes: &mut Notes<'a>) {
    let object = pod.resource.object();
    // A Pod is its own template.
    let places = match std::ptr::eq(object, pod.template) {
        true => vec![(pod.template, true)],
        false => vec![(object, false), (pod.template, true)],
    };
    for (holder, on_template) in places {
        for field in ["annotations", "labels"] {
            for (key, value) in entries(&holder["metadata"][field]) {
                let Some(name) = key.strip_prefix(PREFIX) else {
                    continue;
                };
                let mut path = keys(&["metadata", field, key]);
                if on_template {
                    path = pod.path(&path);
                }
                let finding = match field {
                    "labels" => Some((
                        &rules::ANNOTATION_WITHOUT_EFFECT,
                        (
                            format!("`{name}` is a label"),
                            "move it to `metadata.annotations` of the pod template".to_owned(),
                        ),
                    )),
                    _ => problem(pod, name, value, on_template),
                };
                if let Some((rule, text)) = finding {
                    notes.resource(rule, pod.resource, &path, text);
                }
            }
        }
    }
}

type Problem = (&'static rules::Rule, (String, String));

fn problem(pod: &Pod<'_>, name: &str, value: &Value, on_template: bool) -> Option<Problem> {
    let Some((_, template_only)) = KNOWN.iter().find(|(known, _)| *known == name) else {
        let found = format!("`{PREFIX}{name}` is no annotation of this version");
        return Some((&rules::UNKNOWN_ANNOTATION, (found, suggestion(name))));
    };
    let without_effect = |found: String, advice: &str| {
        Some((
            &rules::ANNOTATION_WITHOUT_EFFECT,
            (found, advice.to_owned()),
        ))
    };
    if *template_only && !on_template {
        return without_effect(
            format!(
                "`{name}` stands on the {}, and only the pod template's is read",
                pod.resource.kind()
            ),
            "move it to `metadata.annotations` of the pod template",
        );
    }
    if pod.is_coordinator() && NOT_OF_COORDINATORS.contains(&name) {
        return without_effect(
            format!("`{name}` has no effect on a Coordinator"),
            "remove it",
        );
    }
    let Some(written) = value.as_str() else {
        let found = format!("`{name}` is no text, so the cluster refuses it");
        return Some((
            &rules::INVALID_ANNOTATION,
            (found, format!("write it in quotes: \"{value}\"")),
        ));
    };
    let (found, expected) = invalid(pod, name, written)?;
    Some((
        &rules::INVALID_ANNOTATION,
        (format!("`{name}`: {found}"), expected),
    ))
}

fn suggestion(name: &str) -> String {
    let likeness = |known: &str| strsim::jaro_winkler(known, &name.to_ascii_lowercase());
    let best = KNOWN
        .iter()
        .map(|(known, _)| (likeness(known), *known))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match best {
        Some((likeness, known)) if likeness >= ALIKE => format!("did you mean `{PREFIX}{known}`?"),
        _ => "remove it, or update `contrast`".to_owned(),
    }
}

/// What is wrong with the value, and what is expected.
fn invalid(pod: &Pod<'_>, name: &str, value: &str) -> Option<(String, String)> {
    let expected = |wanted: &str| Some((format!("found `{value}`"), format!("expected {wanted}")));
    match name {
        "pod-role" if value != "coordinator" => expected("`coordinator`, the only role"),
        "skip-initializer" if !matches!(value, "true" | "false") => {
            expected("\"true\" or \"false\"")
        }
        "servicemesh-admin-interface-port"
            if value.parse::<u16>().map_or(true, |port| port == 0) =>
        {
            expected("a port from 1 to 65535")
        }
        "workload-secret-id" if value.trim().is_empty() => {
            expected("an id of at least one character")
        }
        "streams"
            if value
                .split(',')
                .any(|word| !matches!(word.trim(), "read" | "write")) =>
        {
            expected("`read`, `write` or `read,write`")
        }
        "mutable-volumes" | "untrusted-volumes" => volumes(pod, name, value),
        _ => None,
    }
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
