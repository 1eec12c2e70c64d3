//! Secrets of Kubernetes in a pod: the host reads them, whatever the pod runs in.

use std::collections::BTreeSet;

use serde_json::Value;

use super::inject::{containers, items};

/// What the operator should know about a pod's Secrets.
pub(super) fn notices(spec: &Value) -> Vec<String> {
    let mut notices = Vec::new();
    let pull: BTreeSet<&str> = items(spec, "imagePullSecrets")
        .iter()
        .filter_map(|secret| secret["name"].as_str())
        .collect();
    if !pull.is_empty() {
        notices.push(format!(
            "the host reads the credentials in imagePullSecrets ({}), and the guest, which pulls the images, gets none of them; convert them with \
             `contrast seal pull-secrets PATHS` (docs/how-to/private-registries.md)",
            quoted(&pull)
        ));
    }
    let used = used(spec);
    if !used.is_empty() {
        notices.push(format!(
            "the host reads the Secrets {}; seal what must stay secret with `contrast seal secret NAME PATHS --pod NAME --from-file KEY=FILE` \
             (docs/how-to/sealed-secrets.md)",
            quoted(&used)
        ));
    }
    notices
}

fn quoted(names: &BTreeSet<&str>) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Names of the Secrets that the pod mounts or has in its environment.
fn used(spec: &Value) -> BTreeSet<&str> {
    let mut names = Vec::new();
    for volume in items(spec, "volumes") {
        names.push(&volume["secret"]["secretName"]);
        let sources = items(&volume["projected"], "sources");
        names.extend(sources.iter().map(|source| &source["secret"]["name"]));
    }
    for (_, _, container) in containers(spec) {
        let env = items(container, "env").iter();
        names.extend(env.map(|variable| &variable["valueFrom"]["secretKeyRef"]["name"]));
        let from = items(container, "envFrom").iter();
        names.extend(from.map(|source| &source["secretRef"]["name"]));
    }
    names.into_iter().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_a_secret_is_told_and_nothing_else() {
        let spec = json!({
            "imagePullSecrets": [{"name": "registry"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "mounted"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "not"}}]}},
                {"name": "c", "configMap": {"name": "not"}},
            ],
            "containers": [{
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "variable"}}}, {"name": "B", "value": "not"}],
                "envFrom": [{"secretRef": {"name": "all"}}],
            }],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "early"}}]}],
        });
        let notices = notices(&spec);
        assert_eq!(notices.len(), 2);
        assert!(notices[0].contains("(`registry`)"), "{}", notices[0]);
        let all = "`all`, `early`, `mounted`, `projected`, `variable`;";
        assert!(notices[1].contains(all), "{}", notices[1]);
        assert!(super::notices(&json!({"containers": [{}]})).is_empty());
    }
}
