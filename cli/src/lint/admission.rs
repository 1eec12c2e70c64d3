//! What changes between the YAML and the pod: admission controllers, defaults and autoscalers.

use contrast_policy::SERVICE_MESH;
use serde_json::Value;

use super::{
    Notes,
    model::{Pod, Resource, items, keys, text},
    rules,
};
use crate::generate::recognize::INITIALIZER;

/// Keys of labels and annotations with which injectors are asked, and the values that do not ask.
const INJECTORS: [(&str, &[&str]); 8] = [
    ("istio-injection", &["disabled"]),
    ("istio.io/rev", &[]),
    ("sidecar.istio.io/inject", &["false"]),
    ("linkerd.io/inject", &["disabled"]),
    ("dapr.io/enabled", &["false"]),
    ("vault.hashicorp.com/agent-inject", &["false"]),
    ("sidecar.opentelemetry.io/inject", &["false"]),
    ("consul.hashicorp.com/connect-inject", &["false"]),
];

pub(super) fn check<'a>(resources: &'a [Resource], pods: &[Pod<'a>], notes: &mut Notes<'a>) {
    for pod in pods {
        for field in ["labels", "annotations"] {
            if let Some((key, shown)) = injector(&pod.template["metadata"][field]) {
                let text = (
                    format!("`{shown}` asks for a container that the policy does not know"),
                    format!("remove `{key}`"),
                );
                notes.pod(
                    &rules::INJECTED_AT_ADMISSION,
                    pod,
                    &keys(&["metadata", field, key]),
                    text,
                );
            }
        }
    }
    for resource in resources {
        if resource.is("", "Namespace") {
            namespace(resource, pods, notes);
        } else if resource.is("", "LimitRange") {
            limit_range(resource, pods, notes);
        } else if resource.is("autoscaling.k8s.io", "VerticalPodAutoscaler") {
            autoscaler(resource, pods, notes);
        } else if resource.is("", "ServiceAccount") {
            service_account(resource, pods, notes);
        }
    }
}

fn injector(fields: &Value) -> Option<(&'static str, String)> {
    INJECTORS.iter().find_map(|(key, refusals)| {
        let value = fields.get(*key)?;
        let shown = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        (!refusals.contains(&shown.as_str())).then(|| (*key, format!("{key}: {shown}")))
    })
}

fn namespace<'a>(resource: &'a Resource, pods: &[Pod<'a>], notes: &mut Notes<'a>) {
    for field in ["labels", "annotations"] {
        let Some((key, shown)) = injector(&resource.object()["metadata"][field]) else {
            continue;
        };
        let turned_off = |pod: &Pod<'_>| {
            let metadata = &pod.template["metadata"];
            INJECTORS.iter().any(|(key, refusals)| {
                let said = ["labels", "annotations"].map(|field| text(&metadata[field][*key]));
                said.iter().any(|said| refusals.contains(said))
            })
        };
        let inside = |pod: &&Pod<'_>| pod.resource.namespace() == resource.name();
        if let Some(pod) = pods.iter().filter(inside).find(|pod| !turned_off(pod)) {
            let text = (
                format!(
                    "`{shown}` puts a container that the policy does not know into {}",
                    pod.resource.shown()
                ),
                "turn injection off on the pod template, or for the namespace",
            );
            notes.resource(
                &rules::INJECTED_AT_ADMISSION,
                resource,
                &keys(&["metadata", field, key]),
                text,
            );
        }
    }
}

/// Limits that a LimitRange gives: `default`, and where there is none, `max` (Kubernetes API, LimitRangeItem).
fn limit_range<'a>(range: &'a Resource, pods: &[Pod<'a>], notes: &mut Notes<'a>) {
    let limits = items(&range.object()["spec"], "limits").iter().enumerate();
    for (index, limit) in limits.filter(|(_, limit)| limit["type"] == "Container") {
        for resource in ["cpu", "memory"] {
            let field = ["default", "max"]
                .into_iter()
                .find(|field| limit[*field].get(resource).is_some());
            let Some(field) = field else { continue };
            let path = [
                "spec".into(),
                "limits".into(),
                index.into(),
                field.into(),
                resource.into(),
            ];
            for pod in pods
                .iter()
                .filter(|pod| pod.resource.namespace() == range.namespace())
            {
                let without = without_limit(pod, resource);
                if !without.is_empty() {
                    let text = (
                        format!(
                            "it gives a {resource} limit to {} of {}",
                            without.join(", "),
                            pod.resource.shown()
                        ),
                        format!(
                            "set `resources.limits.{resource}` in every container, or keep this default out of the namespace"
                        ),
                    );
                    notes.resource(&rules::LIMIT_RANGE, range, &path, text);
                }
            }
        }
    }
}

/// Containers without a limit, those that `generate` injects included: they have memory limits and no CPU limits.
fn without_limit(pod: &Pod<'_>, resource: &str) -> Vec<String> {
    let mut names: Vec<String> = pod
        .containers()
        .filter(|container| {
            container.value["resources"]["limits"]
                .get(resource)
                .is_none()
        })
        .map(|container| format!("`{}`", container.name()))
        .collect();
    let injected = [
        (INITIALIZER, pod.has_initializer()),
        (SERVICE_MESH, pod.has_mesh()),
    ];
    for (name, injects) in injected {
        let shown = format!("`{name}`");
        if resource == "cpu" && injects && !names.contains(&shown) {
            names.push(format!("{shown} (injected)"));
        }
    }
    names
}

fn autoscaler<'a>(scaler: &'a Resource, pods: &[Pod<'a>], notes: &mut Notes<'a>) {
    let spec = &scaler.object()["spec"];
    let target = &spec["targetRef"];
    // In YAML 1.1, an unquoted Off is the truth value.
    let mode = &spec["updatePolicy"]["updateMode"];
    if mode == "Off" || *mode == Value::Bool(false) {
        return;
    }
    let scaled = pods.iter().find(|pod| {
        pod.resource.namespace() == scaler.namespace()
            && target["kind"] == pod.resource.kind()
            && target["name"] == pod.resource.name()
    });
    if let Some(pod) = scaled {
        let text = (
            format!("it changes the resources of {}", pod.resource.shown()),
            "set `spec.updatePolicy.updateMode: \"Off\"`",
        );
        notes.resource(
            &rules::AUTOSCALED_RESOURCES,
            scaler,
            &keys(&["spec", "targetRef"]),
            text,
        );
    }
}

fn service_account<'a>(account: &'a Resource, pods: &[Pod<'a>], notes: &mut Notes<'a>) {
    if account.object()["automountServiceAccountToken"] != false {
        return;
    }
    for pod in pods {
        let spec = pod.spec();
        let uses = spec["serviceAccountName"].as_str().unwrap_or("default") == account.name();
        let same = pod.resource.namespace() == account.namespace();
        if uses && same && spec["automountServiceAccountToken"].is_null() {
            let text = (
                format!(
                    "the ServiceAccount `{}` turns the token off, and the pod does not",
                    account.name()
                ),
                "set `automountServiceAccountToken: false` in the pod template",
            );
            notes.pod(
                &rules::SERVICE_ACCOUNT_TOKEN,
                pod,
                &keys(&["spec", "serviceAccountName"]),
                text,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn injectors_that_are_turned_off_ask_for_nothing() {
        assert!(injector(&json!({"sidecar.istio.io/inject": "true"})).is_some());
        assert!(injector(&json!({"sidecar.istio.io/inject": true})).is_some());
        assert!(injector(&json!({"sidecar.istio.io/inject": "false"})).is_none());
        assert!(injector(&json!({"app": "web"})).is_none());
    }
}
