//! Names of Services, which the certificates of the pods behind them carry.
//!
//! Clients dial a Service, and the egress of the service mesh demands a certificate with the name that was dialled.

use contrast_resources::ResourceError;
use serde_json::Value;

use super::{GenerateError, inputs::InputFile};

/// A Service that selects pods.
struct Service {
    namespace: String,
    name: String,
    /// Never empty: a Service without selector leads wherever its endpoints say.
    selector: serde_json::Map<String, Value>,
}

/// All Services of the inputs that select pods.
pub(super) struct Services(Vec<Service>);

impl Services {
    /// Those of all files, in their order.
    ///
    /// # Errors
    /// When a document is no Kubernetes object.
    pub(super) fn of(files: &[InputFile]) -> Result<Self, GenerateError> {
        let mut services = Vec::new();
        for file in files {
            let failed = |source: ResourceError| GenerateError::Resource {
                path: file.path.clone(),
                source,
            };
            let documents = file.yaml.documents().map_err(failed)?;
            services.extend(documents.iter().filter_map(|one| service(&one.object)));
        }
        Ok(Self(services))
    }

    /// Names under which clients in the cluster reach the pods of a template, in the order of the Services.
    pub(super) fn names(&self, namespace: &str, template: &Value) -> Vec<String> {
        let selecting = self.0.iter().filter(|service| {
            service.namespace == namespace && selects(&service.selector, template)
        });
        selecting
            .flat_map(|service| names(&service.name, &service.namespace))
            .collect()
    }
}

fn service(object: &Value) -> Option<Service> {
    let metadata = &object["metadata"];
    let selector = object["spec"]["selector"].as_object()?;
    let is_service = object["apiVersion"] == "v1" && object["kind"] == "Service";
    // A name outside the cluster; Kubernetes ignores the selector then.
    let leads_away = object["spec"]["type"] == "ExternalName";
    (is_service && !leads_away && !selector.is_empty()).then_some(())?;
    Some(Service {
        namespace: metadata["namespace"]
            .as_str()
            .unwrap_or("default")
            .to_owned(),
        name: metadata["name"].as_str()?.to_owned(),
        selector: selector.clone(),
    })
}

/// Whether a selector takes the pods of a template.
fn selects(selector: &serde_json::Map<String, Value>, template: &Value) -> bool {
    let labels = &template["metadata"]["labels"];
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// Names that the cluster's DNS knows a Service by, as in <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>, with
/// the cluster domain that is the default.
pub(crate) fn names(service: &str, namespace: &str) -> [String; 4] {
    [
        service.to_owned(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
    ]
}
