//! Monitors of the Prometheus operator: that they find the port of metrics, and give the labels that rules go by.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Check, OPS_PORT, items, ports, selects};

/// The configuration for a Prometheus without the operator, which the alert rules were written for.
pub(super) const PROMETHEUS: &str = "deploy/monitoring/prometheus.yaml";
/// Its job of Coordinators.
pub(super) const JOB: &str = "contrast-coordinator";
const POD_NAME: &str = "__meta_kubernetes_pod_name";

impl Check<'_> {
    pub(super) fn monitor(&mut self, monitor: &Value, endpoints: &str, of: &str) {
        let selector = &monitor["spec"]["selector"]["matchLabels"];
        let mut names = BTreeSet::new();
        if of == "Service" {
            let services = self.all.iter().filter(|object| {
                object["kind"] == "Service" && selects(selector, &object["metadata"]["labels"])
            });
            for port in services.flat_map(|service| items(&service["spec"]["ports"])) {
                names.insert((
                    port["name"].as_str().unwrap_or_default().to_owned(),
                    port["port"].as_u64(),
                ));
            }
        } else {
            let templates = self.templates(monitor, selector).into_iter();
            names.extend(
                templates
                    .flat_map(ports)
                    .map(|(name, port)| (name, Some(port))),
            );
        }
        for endpoint in items(&monitor["spec"][endpoints]) {
            let port = endpoint["port"].as_str().unwrap_or_default().to_owned();
            self.expect(
                names.contains(&(port.clone(), Some(OPS_PORT))),
                monitor,
                format!("`{port}` is no port of the {of} that it selects"),
            );
            for (label, expected) in [
                ("job", json!({"targetLabel": "job", "replacement": JOB})),
                (
                    "instance",
                    json!({"targetLabel": "instance", "sourceLabels": [POD_NAME]}),
                ),
            ] {
                let rules = items(&endpoint["relabelings"]);
                let found: Value = rules
                    .filter(|rule| rule["targetLabel"] == label)
                    .cloned()
                    .collect();
                self.expect(
                    found == json!([expected]),
                    monitor,
                    format!("alert rules go by `{label}`: expected {expected}, found {found}"),
                );
            }
        }
    }
}
