//! Encrypted volumes (`secure-pv`): the Initializer opens a block device with a key from the workload secret and mounts it into an emptyDir, from where
//! the application's containers see it.

use serde_json::{Value, json};

use super::{
    annotations::{PREFIX, device_and_mount},
    inject::{SECRETS_VOLUME, items, root},
    inputs::InputFile,
};

/// Where the Initializer finds the device.
const DEVICE_PATH: &str = "/dev/csi0";
/// Where it mounts the file system.
const MOUNT_PATH: &str = "/state";
/// Annotations that say more of the volume, and the variables by which the Initializer is told.
pub(super) const SETTINGS: [(&str, &str); 4] = [
    ("secure-pv-filesystem", "CRYPTSETUP_FILESYSTEM"),
    ("secure-pv-format", "CRYPTSETUP_FORMAT"),
    ("secure-pv-mount-options", "CRYPTSETUP_MOUNT_OPTIONS"),
    ("secure-pv-rollback", "CRYPTSETUP_ROLLBACK"),
];
/// With the memory of the programs that open and format.
const MEMORY: &str = "100Mi";

/// What a pod asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SecureVolume<'a> {
    /// The block volume.
    device: &'a str,
    /// The emptyDir.
    pub(super) mount: &'a str,
    /// Variables and values of what the pod says more of it.
    settings: Vec<(&'static str, &'a str)>,
}

/// PersistentVolumeClaims of the inputs.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<Value>);

impl Claims {
    pub(super) fn of(files: &[InputFile]) -> Self {
        let documents = files.iter().filter_map(|file| file.yaml.documents().ok());
        let objects = documents.flatten().map(|document| document.object);
        Self(
            objects
                .filter(|object| object["kind"] == "PersistentVolumeClaim")
                .collect(),
        )
    }

    /// The claim as the user wrote it; `None` if it is elsewhere.
    fn get(&self, namespace: Option<&str>, name: &str) -> Option<&Value> {
        self.0.iter().find(|claim| {
            let own = claim["metadata"]["namespace"].as_str();
            claim["metadata"]["name"] == name
                && (own == namespace || own.is_none() || namespace.is_none())
        })
    }
}

impl<'a> SecureVolume<'a> {
    /// What the annotation names, whether the pod has it or not.
    pub(super) fn named(annotation: &'a str) -> Option<Self> {
        let (device, mount) = device_and_mount(annotation)?;
        Some(Self {
            device,
            mount,
            settings: Vec::new(),
        })
    }

    /// With what the pod's annotations say more of it.
    pub(super) fn with_settings(mut self, annotation: impl Fn(&str) -> Option<&'a str>) -> Self {
        let said = SETTINGS.iter().filter_map(|(name, variable)| {
            let value = annotation(name)?;
            Some((*variable, value))
        });
        self.settings = said.collect();
        self
    }

    /// Reads the annotation and looks for its volumes.
    ///
    /// # Errors
    /// What cannot be used and what to write, when they are no block device and no emptyDir.
    pub(super) fn of(
        annotation: &'a str,
        spec: &Value,
        templates: &[Value],
        claims: &Claims,
        namespace: Option<&str>,
    ) -> Result<Self, String> {
        let prefix = format!("annotation {PREFIX}secure-pv: ");
        let Some((device, mount)) = device_and_mount(annotation) else {
            return Err(format!(
                "{prefix}expected `device:mount`, found `{annotation}`"
            ));
        };
        let template = templates
            .iter()
            .find(|template| template["metadata"]["name"] == device);
        let volume = volume(spec, device);
        let claim = match (template, volume) {
            (Some(template), _) => Some(template),
            (None, Some(volume)) if volume.get("iscsi").is_some() => None,
            (None, Some(volume)) if volume.get("persistentVolumeClaim").is_some() => {
                let name = volume["persistentVolumeClaim"]["claimName"].as_str();
                claims.get(namespace, name.unwrap_or_default())
            }
            (None, Some(_)) => {
                return Err(format!(
                    "{prefix}expected the volume `{device}` to be a persistentVolumeClaim or iscsi, or a volumeClaimTemplate of the StatefulSet; \
                     another kind is no block device that stays"
                ));
            }
            (None, None) => {
                let known = known(spec, templates);
                return Err(format!(
                    "{prefix}expected the name of a block volume in front of `:`, found `{device}`, and the pod has {known}"
                ));
            }
        };
        if claim.is_some_and(|claim| claim["spec"]["volumeMode"] != "Block") {
            return Err(format!(
                "{prefix}expected a claim with `volumeMode: Block` behind `{device}`, found a file system, which the host can read; write \
                 `volumeMode: Block` into its spec"
            ));
        }
        let is_other = self::volume(spec, mount)
            .is_some_and(|volume| volume.get("emptyDir").is_none())
            || templates
                .iter()
                .any(|template| template["metadata"]["name"] == mount)
            || mount == SECRETS_VOLUME;
        match is_other {
            false => Ok(Self {
                device,
                mount,
                settings: Vec::new(),
            }),
            true => Err(format!(
                "{prefix}expected the name of an emptyDir behind `:`, which is made if there is none, found `{mount}`, which is another volume"
            )),
        }
    }

    /// The emptyDir, unless the pod has it.
    pub(super) fn missing_volume(&self, spec: &Value) -> Option<Value> {
        match volume(spec, self.mount) {
            Some(_) => None,
            None => Some(json!({"name": self.mount, "emptyDir": {}})),
        }
    }

    /// Gives the Initializer what it needs.
    pub(super) fn extend(&self, initializer: &mut Value, pod_security: &Value) {
        push(
            &mut initializer["env"],
            json!({"name": "CRYPTSETUP_DEVICE", "value": DEVICE_PATH}),
        );
        for (variable, value) in &self.settings {
            push(
                &mut initializer["env"],
                json!({"name": variable, "value": value}),
            );
        }
        // Only root can set up a mapping and mount it, whatever user the pod's containers have.
        let mut security = root(pod_security);
        security["privileged"] = json!(true);
        initializer["securityContext"] = security;
        for kind in ["requests", "limits"] {
            initializer["resources"][kind]["memory"] = json!(MEMORY);
        }
        initializer["volumeDevices"] = json!([{"name": self.device, "devicePath": DEVICE_PATH}]);
        push(
            &mut initializer["volumeMounts"],
            json!({"name": self.mount, "mountPath": MOUNT_PATH, "mountPropagation": "Bidirectional"}),
        );
    }

    /// What the user may have overlooked in the application's containers.
    pub(super) fn advice(&self, spec: &Value) -> Vec<String> {
        let mut mounted = false;
        let mut advice = Vec::new();
        for container in items(spec, "containers") {
            for mount in items(container, "volumeMounts") {
                if mount["name"] != self.mount {
                    continue;
                }
                mounted = true;
                if mount["mountPropagation"] != "HostToContainer" {
                    advice.push(format!(
                        "container `{}` mounts `{}` without `mountPropagation: HostToContainer`, so it does not see the encrypted volume when the \
                         Initializer mounts it again",
                        container["name"].as_str().unwrap_or_default(),
                        self.mount
                    ));
                }
            }
        }
        if !mounted {
            advice.push(format!(
                "no container mounts `{}`, the encrypted volume; add it to `volumeMounts` with `mountPropagation: HostToContainer`",
                self.mount
            ));
        }
        advice
    }
}

fn volume<'a>(spec: &'a Value, name: &str) -> Option<&'a Value> {
    items(spec, "volumes")
        .iter()
        .find(|volume| volume["name"] == name)
}

fn known(spec: &Value, templates: &[Value]) -> String {
    let volumes = items(spec, "volumes").iter().map(|volume| &volume["name"]);
    let templates = templates
        .iter()
        .map(|template| &template["metadata"]["name"]);
    let names: Vec<String> = templates
        .chain(volumes)
        .filter_map(|name| Some(format!("`{}`", name.as_str()?)))
        .collect();
    match names.is_empty() {
        true => "no volume".to_owned(),
        false => format!("only {}", names.join(", ")),
    }
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(annotation: &str, volumes: Value, claims: &[Value]) -> Result<(), String> {
        let templates = [
            json!({"metadata": {"name": "block"}, "spec": {"volumeMode": "Block"}}),
            json!({"metadata": {"name": "files"}, "spec": {}}),
        ];
        let spec = json!({"volumes": volumes});
        let claims = Claims(claims.to_vec());
        SecureVolume::of(annotation, &spec, &templates, &claims, Some("shop")).map(drop)
    }

    #[test]
    fn device_is_a_claim_a_template_or_iscsi() {
        assert_eq!(judge("block:state", json!([]), &[]), Ok(()));
        let claimed = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "mine"}}, {"name": "state", "emptyDir": {}}]);
        assert_eq!(judge("data:state", claimed.clone(), &[]), Ok(()));
        assert_eq!(
            judge("data:state", json!([{"name": "data", "iscsi": {}}]), &[]),
            Ok(())
        );
        let claim = |mode: &str, namespace: &str| json!({"metadata": {"name": "mine", "namespace": namespace}, "spec": {"volumeMode": mode}});
        assert_eq!(
            judge("data:state", claimed.clone(), &[claim("Block", "shop")]),
            Ok(())
        );
        assert_eq!(
            judge(
                "data:state",
                claimed.clone(),
                &[claim("Filesystem", "other")]
            ),
            Ok(())
        );
        let refused = [
            (
                judge("data:state", claimed, &[claim("Filesystem", "shop")]),
                "volumeMode: Block",
            ),
            (judge("files:state", json!([]), &[]), "volumeMode: Block"),
            (
                judge("data:state", json!([{"name": "data", "emptyDir": {}}]), &[]),
                "no block device",
            ),
            (
                judge("dota:state", json!([{"name": "data", "emptyDir": {}}]), &[]),
                "only `block`, `files`, `data`",
            ),
            (
                judge(
                    "block:state",
                    json!([{"name": "state", "configMap": {}}]),
                    &[],
                ),
                "another volume",
            ),
            (judge("block:block", json!([]), &[]), "another volume"),
            (
                judge("block:contrast-secrets", json!([]), &[]),
                "another volume",
            ),
            (judge("block", json!([]), &[]), "expected `device:mount`"),
        ];
        for (result, part) in refused {
            let text = result.expect_err("refused");
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn root_is_demanded_where_the_pod_forbids_it() {
        let secure = SecureVolume {
            device: "a",
            mount: "b",
            settings: vec![("CRYPTSETUP_ROLLBACK", "warn")],
        };
        let mut container = json!({});
        secure.extend(&mut container, &json!({"runAsNonRoot": true}));
        assert_eq!(
            container["securityContext"],
            json!({"privileged": true, "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false})
        );
    }
}
