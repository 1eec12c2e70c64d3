//! A workload's policy, and what the manifest says about it.

use contrast_firewall::ENVOY_UID;
use contrast_images::ImageCache;
use contrast_policy::{
    ConfigObjects, ContainerPolicy, Initdata, PodName, PodPolicy, PodSource, SERVICE_MESH,
};
use serde_json::Value;

use super::{GenerateError, annotations::PREFIX, inject};

/// Identity of a workload, read from its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// The namespace as the object names it; without one, `namespace` is the default one and the pods may run in any.
    pub(super) written_namespace: Option<String>,
}

impl Identity {
    pub(super) fn of(object: &Value) -> Result<Self, GenerateError> {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let Some(name) = metadata["name"].as_str() else {
            let reason = match metadata["generateName"].is_string() {
                true => {
                    "it has `metadata.generateName`, but certificates and secrets need a name that stays the same; write \
                     `metadata.name` instead"
                }
                false => "it has no `metadata.name`",
            };
            return Err(GenerateError::Workload {
                workload: kind,
                reason: reason.to_owned(),
            });
        };
        Ok(Self {
            api_version: object["apiVersion"].as_str().unwrap_or_default().to_owned(),
            kind,
            namespace: metadata["namespace"]
                .as_str()
                .unwrap_or("default")
                .to_owned(),
            name: name.to_owned(),
            written_namespace: metadata["namespace"].as_str().map(str::to_owned),
        })
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        format!(
            "{} `{}` in namespace `{}`",
            self.kind, self.name, self.namespace
        )
    }

    /// `group/version/kind/namespace/name`, with `core` for the empty group.
    pub(super) fn default_secret_id(&self) -> String {
        let version = match self.api_version.contains('/') {
            true => self.api_version.clone(),
            false => format!("core/{}", self.api_version),
        };
        format!("{version}/{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// Annotation of the pod template, or else of the workload itself.
pub(crate) fn annotation<'a>(
    object: &'a Value,
    template: &'a Value,
    name: &str,
) -> Option<&'a str> {
    let key = format!("{PREFIX}{name}");
    let on = |value: &'a Value| value["metadata"]["annotations"].get(&key)?.as_str();
    on(template).or_else(|| on(object))
}

/// Label of the pod template.
pub(crate) fn label<'a>(template: &'a Value, name: &str) -> Option<&'a str> {
    let key = format!("{PREFIX}{name}");
    template["metadata"]["labels"].get(&key)?.as_str()
}

/// The pod's initdata document.
pub(super) fn initdata(
    identity: &Identity,
    object: &Value,
    template: &Value,
    images: &ImageCache,
    config: &ConfigObjects,
) -> Result<Initdata, GenerateError> {
    let source = PodSource {
        kind: &identity.kind,
        name: PodName::Fixed(&identity.name),
        namespace: identity.written_namespace.as_deref(),
        template,
        claims: object["spec"]["volumeClaimTemplates"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default(),
        images,
        config,
    };
    let failed = |source| GenerateError::Policy {
        workload: identity.shown(),
        source: Box::new(source),
    };
    let policy = source.policy().map_err(failed)?;
    refuse_user_of_envoy(identity, &policy)?;
    let rego = policy.to_rego().map_err(|error| failed(error.into()))?;
    Ok(Initdata::with_policy(&rego)?)
}

/// What Envoy's user sends is never captured, and its group reads the pod's key.
fn refuse_user_of_envoy(identity: &Identity, policy: &PodPolicy) -> Result<(), GenerateError> {
    let containers = &policy.containers;
    if !containers
        .iter()
        .any(|container| container.name == SERVICE_MESH)
    {
        return Ok(());
    }
    let is_envoys = |container: &&ContainerPolicy| {
        container.uid == ENVOY_UID
            || container.gid == ENVOY_UID
            || container.groups.contains(&ENVOY_UID)
    };
    let refused = |what: String| GenerateError::Workload {
        workload: identity.shown(),
        reason: format!(
            "{what} user or group {ENVOY_UID}, which is that of the service mesh's Envoy, whose connections pass the mesh by; write another \
             one in `securityContext` (runAsUser, runAsGroup, fsGroup, supplementalGroups)"
        ),
    };
    let of_the_user = |container: &&ContainerPolicy| !inject::is_injected(&container.name);
    match containers.iter().filter(of_the_user).find(is_envoys) {
        Some(container) => Err(refused(format!(
            "the container `{}` runs as",
            container.name
        ))),
        None if policy.fs_group == ENVOY_UID => {
            Err(refused("the pod's volumes belong to".to_owned()))
        }
        None => Ok(()),
    }
}
