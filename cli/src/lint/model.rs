//! Resources, pods and containers, as checks look at them.

use contrast_resources::{CustomTemplate, Document, Step, pod_template_path};
use serde_json::Value;

pub(super) use crate::generate::inject::items;
use crate::generate::{annotations::PREFIX, inject, platforms, policies, recognize};

/// One object.
pub(super) struct Resource {
    pub(super) file: usize,
    pub(super) document: Document,
}

impl Resource {
    pub(super) fn object(&self) -> &Value {
        &self.document.object
    }

    pub(super) fn kind(&self) -> &str {
        text(&self.object()["kind"])
    }

    pub(super) fn name(&self) -> &str {
        let metadata = &self.object()["metadata"];
        metadata["name"]
            .as_str()
            .unwrap_or_else(|| text(&metadata["generateName"]))
    }

    pub(super) fn namespace(&self) -> &str {
        self.object()["metadata"]["namespace"]
            .as_str()
            .unwrap_or("default")
    }

    /// `Kind namespace/name`.
    pub(super) fn shown(&self) -> String {
        format!("{} {}/{}", self.kind(), self.namespace(), self.name())
    }

    /// Whether it is of this kind, in whatever version of the group.
    pub(super) fn is(&self, group: &str, kind: &str) -> bool {
        let version = text(&self.object()["apiVersion"]);
        let found = version.split_once('/').map_or("", |(group, _)| group);
        found == group && self.kind() == kind
    }

    pub(super) fn path(&self, below: &[Step]) -> Vec<Step> {
        self.document.path.iter().chain(below).cloned().collect()
    }
}

/// A pod template.
pub(super) struct Pod<'a> {
    pub(super) resource: &'a Resource,
    pub(super) template: &'a Value,
    below: Vec<Step>,
}

impl<'a> Pod<'a> {
    pub(super) fn of(resource: &'a Resource, templates: &[CustomTemplate]) -> Option<Self> {
        let object = resource.object();
        let custom = || templates.iter().find_map(|template| template.path(object));
        let below = pod_template_path(object).or_else(custom)?;
        let template = below
            .iter()
            .try_fold(object, |value, step| step.of(value))?;
        Some(Self {
            resource,
            template,
            below,
        })
    }

    pub(super) fn is_confidential(&self) -> bool {
        platforms::is_confidential(text(&self.spec()["runtimeClassName"]))
    }

    pub(super) fn is_coordinator(&self) -> bool {
        let label = || policies::label(self.template, "pod-role");
        self.annotation("pod-role").or_else(label) == Some("coordinator")
    }

    pub(super) fn spec(&self) -> &'a Value {
        &self.template["spec"]
    }

    pub(super) fn path(&self, below: &[Step]) -> Vec<Step> {
        self.below.iter().chain(below).cloned().collect()
    }

    /// Annotation of the template, or else of the workload, as `generate` reads it.
    pub(super) fn annotation(&self, name: &str) -> Option<&'a str> {
        policies::annotation(self.resource.object(), self.template, name)
    }

    /// Where that annotation, or the label in its place, stands, from the template on; from the object on if it stands there.
    pub(super) fn annotation_path(&self, name: &str) -> (Vec<Step>, bool) {
        let key = format!("{PREFIX}{name}");
        let has = |value: &Value| value["metadata"]["annotations"].get(&key).is_some();
        let (field, on_template) = match (has(self.template), has(self.resource.object())) {
            (true, _) => ("annotations", true),
            (false, true) => ("annotations", false),
            (false, false) => ("labels", true),
        };
        (keys(&["metadata", field, &key]), on_template)
    }

    pub(super) fn skips_initializer(&self) -> bool {
        self.annotation("skip-initializer") == Some("true")
    }

    /// Whether `generate` injects the Initializer.
    pub(super) fn has_initializer(&self) -> bool {
        !self.is_coordinator() && !self.skips_initializer()
    }

    /// Volumes that `generate` adds if they are not there.
    pub(super) fn generated_volumes(&self) -> Vec<&'a str> {
        let mut volumes = Vec::new();
        if self.has_initializer() {
            volumes.extend(recognize::secure_mount(|name| self.annotation(name)));
        }
        if self.has_initializer() || self.has_mesh() {
            volumes.push(recognize::SECRETS_VOLUME);
        }
        volumes
    }

    /// Whether `generate` injects the service mesh.
    pub(super) fn has_mesh(&self) -> bool {
        let names = [
            "servicemesh-ingress",
            "servicemesh-egress",
            "servicemesh-admin-interface-port",
            "servicemesh-metrics-port",
        ];
        !self.is_coordinator() && names.iter().any(|name| self.annotation(name).is_some())
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = Container<'_, 'a>> {
        inject::containers(self.spec()).map(move |(list, index, value)| Container {
            pod: self,
            value,
            list,
            index,
        })
    }
}

/// A container of a pod template.
pub(super) struct Container<'p, 'a> {
    pub(super) pod: &'p Pod<'a>,
    pub(super) value: &'a Value,
    pub(super) list: &'static str,
    index: usize,
}

impl<'a> Container<'_, 'a> {
    pub(super) fn name(&self) -> &'a str {
        text(&self.value["name"])
    }

    /// Whether it is as `generate` injects it.
    pub(super) fn is_generated(&self) -> bool {
        let security = &self.pod.spec()["securityContext"];
        let annotation = |name: &str| {
            let value = self.pod.annotation(name)?;
            self.pod.has_initializer().then_some(value)
        };
        self.list == "initContainers" && recognize::is_generated(self.value, security, annotation)
    }

    pub(super) fn path(&self, below: &[Step]) -> Vec<Step> {
        let own = ["spec".into(), self.list.into(), self.index.into()];
        own.iter().chain(below).cloned().collect()
    }

    /// Items of the list `key` with their paths from the container on.
    pub(super) fn list_items(
        &self,
        key: &'static str,
    ) -> impl Iterator<Item = (Vec<Step>, &'a Value)> {
        let all = items(self.value, key).iter().enumerate();
        all.map(move |(index, item)| (vec![key.into(), index.into()], item))
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Entries of the mapping `value` with keys that are text.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A path from keys.
pub(super) fn keys(keys: &[&str]) -> Vec<Step> {
    keys.iter().map(|key| Step::key(key)).collect()
}
