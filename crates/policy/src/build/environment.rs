//! Environment variables: the image's, the pod's, and those of Kubernetes.

use std::collections::BTreeMap;

use contrast_images::ImageConfig;
use serde_json::Value;

use super::{
    BuildError, PodSource,
    arguments::{expand, simplified},
    fields::list,
    resource_field, unsupported,
};
use crate::{EnvFact, Part, Template};

/// Labels and annotations that controllers put on pods.
const ADDED_LABELS: [&str; 8] = [
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "kubernetes.io/config.hash",
];
/// What containerd gives a process whose image sets no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const IP: &str = r"\[?[0-9a-f.:]{2,45}\]?";

/// Variables of one container.
#[derive(Debug, Default)]
pub(super) struct Environment {
    values: BTreeMap<String, EnvValue>,
    /// Names that the pod declares: only those are filled into `$(NAME)`.
    declared: Vec<String>,
    service_links: bool,
}

#[derive(Debug, Clone)]
enum EnvValue {
    Fixed(String),
    Kind(&'static str),
    Parts(Vec<Part>),
}

impl Environment {
    /// `NAME=value`, ascending.
    pub(super) fn fixed(&self) -> Vec<String> {
        let fixed = self.values.iter().filter_map(|(name, value)| match value {
            EnvValue::Fixed(value) => Some(format!("{name}={value}")),
            _ => None,
        });
        fixed.collect()
    }

    pub(super) fn facts(&self) -> BTreeMap<String, EnvFact> {
        let facts = self.values.iter().filter_map(|(name, value)| {
            let fact = match value {
                EnvValue::Fixed(_) => return None,
                EnvValue::Kind(kind) => EnvFact::Kind((*kind).to_owned()),
                EnvValue::Parts(parts) => EnvFact::Parts(parts.clone()),
            };
            Some((name.clone(), fact))
        });
        facts.collect()
    }

    pub(super) fn expand(&self, text: &str) -> Template {
        simplified(expand(text, &|name| self.reference(name)))
    }

    fn reference(&self, name: &str) -> Option<Vec<Part>> {
        let variable = || {
            vec![Part::Variable {
                env: name.to_owned(),
            }]
        };
        if !self.declared.iter().any(|declared| declared == name) {
            let of_service = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
            let linked = self.service_links || name.starts_with("KUBERNETES_");
            return (of_service && linked).then(variable);
        }
        Some(match self.values.get(name)? {
            EnvValue::Fixed(value) => vec![Part::Text(value.clone())],
            EnvValue::Kind(_) => variable(),
            EnvValue::Parts(parts) => parts.clone(),
        })
    }

    fn declare(&mut self, name: &str, value: EnvValue) {
        self.values.insert(name.to_owned(), value);
        if !self.declared.iter().any(|declared| declared == name) {
            self.declared.push(name.to_owned());
        }
    }
}

impl PodSource<'_> {
    /// The image's variables, then those of `envFrom`, then the pod's; a later one replaces an earlier one of the same name.
    pub(super) fn environment(
        &self,
        place: &str,
        container: &Value,
        config: &ImageConfig,
    ) -> Result<Environment, BuildError> {
        let mut environment = Environment {
            service_links: self.spec()["enableServiceLinks"] != false,
            ..Environment::default()
        };
        let values = &mut environment.values;
        values.insert("PATH".to_owned(), EnvValue::Fixed(DEFAULT_PATH.to_owned()));
        if container["tty"] == true {
            values.insert("TERM".to_owned(), EnvValue::Fixed("xterm".to_owned()));
        }
        for variable in &config.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            values.insert(name.to_owned(), EnvValue::Fixed(value.to_owned()));
        }
        for from in list(&container["envFrom"]) {
            self.all_of(place, from, &mut environment)?;
        }
        for variable in list(&container["env"]) {
            let Some(name) = variable["name"].as_str() else {
                return Err(BuildError::Malformed {
                    field: "env[].name".into(),
                    place: place.to_owned(),
                });
            };
            let value = match variable.get("valueFrom").filter(|from| !from.is_null()) {
                None => {
                    let text = variable["value"].as_str().unwrap_or_default();
                    Some(match environment.expand(text) {
                        Template::Fixed(text) => EnvValue::Fixed(text),
                        Template::Parts(parts) => EnvValue::Parts(parts),
                    })
                }
                Some(from) => self.value_from(place, name, from)?,
            };
            if let Some(value) = value {
                environment.declare(name, value);
            }
        }
        Ok(environment)
    }

    fn all_of(
        &self,
        place: &str,
        from: &Value,
        environment: &mut Environment,
    ) -> Result<(), BuildError> {
        let (kind, reference) = match (from.get("configMapRef"), from.get("secretRef")) {
            (Some(reference), _) => ("ConfigMap", reference),
            (None, Some(reference)) => ("Secret", reference),
            (None, None) => {
                return Err(BuildError::Malformed {
                    field: "envFrom[]".into(),
                    place: place.to_owned(),
                });
            }
        };
        let prefix = from["prefix"].as_str().unwrap_or_default();
        let name = reference["name"].as_str().unwrap_or_default();
        let Some(values) = self.config.get(kind, self.namespace, name) else {
            return match reference["optional"] == true {
                true => Ok(()),
                false => Err(unknown(place, "its variables", kind, name)),
            };
        };
        for (key, value) in values {
            let value = text(place, key, value)?;
            environment.declare(&format!("{prefix}{key}"), EnvValue::Fixed(value));
        }
        Ok(())
    }

    fn value_from(
        &self,
        place: &str,
        variable: &str,
        from: &Value,
    ) -> Result<Option<EnvValue>, BuildError> {
        for (key, kind) in [("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")] {
            let Some(reference) = from.get(key) else {
                continue;
            };
            let name = reference["name"].as_str().unwrap_or_default();
            let key = reference["key"].as_str().unwrap_or_default();
            let optional = reference["optional"] == true;
            let values = self.config.get(kind, self.namespace, name);
            return match values.and_then(|values| values.get(key)) {
                Some(value) => Ok(Some(EnvValue::Fixed(text(place, variable, value)?))),
                None if optional => Ok(None),
                None => Err(match values {
                    None => unknown(place, &format!("the variable {variable}"), kind, name),
                    Some(values) => BuildError::UnknownKey {
                        place: format!("container `{place}`"),
                        key: key.to_owned(),
                        kind,
                        name: name.to_owned(),
                        found: values.keys().cloned().collect::<Vec<_>>().join(", "),
                    },
                }),
            };
        }
        if let Some(reference) = from.get("resourceFieldRef") {
            let value = resource_field::value(self.spec(), place, reference);
            return Ok(Some(match value {
                Some(value) => EnvValue::Fixed(value.to_string()),
                None => EnvValue::Kind("number"),
            }));
        }
        let path = from["fieldRef"]["fieldPath"].as_str();
        path.and_then(|path| self.field(path))
            .map(Some)
            .ok_or_else(|| {
                unsupported(
                    place,
                    &format!("env `{variable}` with valueFrom"),
                    "its value is not known here; expected a fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef",
                )
            })
    }

    /// A field of the downward API.
    fn field(&self, path: &str) -> Option<EnvValue> {
        let account = || {
            let name = self.spec()["serviceAccountName"].as_str();
            EnvValue::Fixed(name.unwrap_or("default").to_owned())
        };
        Some(match path {
            "metadata.name" => EnvValue::Kind("pod-name"),
            "metadata.namespace" => EnvValue::Kind("namespace"),
            "metadata.uid" => EnvValue::Kind("pod-uid"),
            "spec.nodeName" => EnvValue::Kind("node-name"),
            "spec.serviceAccountName" => account(),
            "status.podIP" => EnvValue::Kind("pod-ip"),
            "status.podIPs" => EnvValue::Kind("pod-ips"),
            "status.hostIP" => EnvValue::Kind("host-ip"),
            "status.hostIPs" => EnvValue::Kind("host-ips"),
            _ => {
                let (map, key) = path.strip_suffix("']")?.split_once("['")?;
                let own = match map {
                    "metadata.labels" => &self.template["metadata"]["labels"],
                    "metadata.annotations" => &self.template["metadata"]["annotations"],
                    _ => return None,
                };
                match (own.get(key).and_then(Value::as_str), key) {
                    (Some(value), _) => EnvValue::Fixed(value.to_owned()),
                    (None, "statefulset.kubernetes.io/pod-name") => EnvValue::Kind("pod-name"),
                    (
                        None,
                        "apps.kubernetes.io/pod-index" | "batch.kubernetes.io/job-completion-index",
                    ) => EnvValue::Kind("pod-index"),
                    // Kubernetes adds these, with values that only it knows.
                    (None, key) if ADDED_LABELS.contains(&key) => return None,
                    // Kubernetes gives an empty value for what a pod does not have.
                    (None, _) => EnvValue::Fixed(String::new()),
                }
            }
        })
    }
}

fn text(place: &str, key: &str, value: &[u8]) -> Result<String, BuildError> {
    String::from_utf8(value.to_vec()).map_err(|_| {
        unsupported(
            place,
            &format!("env `{key}`"),
            "its value is not UTF-8 text; mount it as a file",
        )
    })
}

fn unknown(place: &str, what: &str, kind: &'static str, name: &str) -> BuildError {
    BuildError::UnknownConfig {
        place: format!("container `{place}`"),
        what: what.to_owned(),
        kind,
        name: name.to_owned(),
        hint: String::new(),
    }
}

/// Variables that Kubernetes adds: of the namespace's Services, or only of the API server, and the index of an indexed Job.
pub(super) fn kubernetes_pattern(spec: &Value, kind: &str) -> String {
    let service = match spec["enableServiceLinks"] == false {
        true => "KUBERNETES",
        false => "[A-Z][A-Z0-9_]*",
    };
    let port = "[0-9]{1,5}";
    let protocol = "(TCP|UDP|SCTP)";
    let mut forms = vec![
        format!("{service}_SERVICE_HOST={IP}"),
        format!("{service}_SERVICE_PORT(_[A-Z0-9_]+)?={port}"),
        format!("{service}_PORT(_{port}_{protocol})?=(tcp|udp|sctp)://{IP}:{port}"),
        format!("{service}_PORT_{port}_{protocol}_PROTO=(tcp|udp|sctp)"),
        format!("{service}_PORT_{port}_{protocol}_PORT={port}"),
        format!("{service}_PORT_{port}_{protocol}_ADDR={IP}"),
    ];
    if matches!(kind, "Job" | "CronJob") {
        forms.push("JOB_COMPLETION_INDEX=[0-9]{1,9}".to_owned());
    }
    forms.join("|")
}
