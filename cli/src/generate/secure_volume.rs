//! Encrypted volumes (`secure-pv`): the Initializer opens a block device, or a file on a file system of the host, with a key from the workload secret
//! and mounts it into an emptyDir, from where the application's containers see it.

use contrast_policy::CIPHERTEXT_PATH;
use contrast_quantity::Quantity;
use serde_json::{Value, json};

use super::{
    annotations::{PREFIX, device_and_mount, volume_bytes},
    inject::{SECRETS_VOLUME, items, root},
    inputs::InputFile,
};

const ANNOTATION: &str = "secure-pv";
const SIZE: &str = "secure-pv-size";
/// Where the Initializer finds the device.
const DEVICE_PATH: &str = "/dev/csi0";
/// The file in a claim that is a file system.
const FILE_NAME: &str = "contrast-volume";
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
    /// The volume of the host.
    device: &'a str,
    /// The emptyDir.
    pub(super) mount: &'a str,
    /// Size of the file, if the volume of the host is a file system and no block device.
    file_bytes: Option<u64>,
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
    /// What a pod's annotations name, whether it has the volumes or not. `None` if it has no `secure-pv` of the right form.
    pub(super) fn named(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let (device, mount) = device_and_mount(annotation(ANNOTATION)?)?;
        let said = SETTINGS.iter().filter_map(|(name, variable)| {
            let value = annotation(name)?;
            Some((*variable, value))
        });
        Some(Self {
            device,
            mount,
            file_bytes: annotation(SIZE).and_then(volume_bytes),
            settings: said.collect(),
        })
    }

    /// Reads the pod's annotations and looks for the volumes that they name.
    ///
    /// # Errors
    /// What cannot be used and what to write, when they are no volume that stays and no emptyDir.
    pub(super) fn of(
        annotation: impl Fn(&str) -> Option<&'a str>,
        spec: &Value,
        templates: &[Value],
        claims: &Claims,
        namespace: Option<&str>,
    ) -> Result<Option<Self>, String> {
        let Some(value) = annotation(ANNOTATION) else {
            let mut others = SETTINGS.iter().map(|(name, _)| *name).chain([SIZE]);
            return match others.find(|name| annotation(name).is_some()) {
                None => Ok(None),
                Some(name) => Err(format!(
                    "the annotation {name} says something of the encrypted volume, and the pod has none; add secure-pv, or remove it"
                )),
            };
        };
        let prefix = format!("annotation {PREFIX}{ANNOTATION}: ");
        let Some(secure) = Self::named(&annotation) else {
            return Err(format!("{prefix}expected `device:mount`, found `{value}`"));
        };
        let (device, mount) = (secure.device, secure.mount);
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
                     another kind does not stay"
                ));
            }
            (None, None) => {
                let known = known(spec, templates);
                return Err(format!(
                    "{prefix}expected the name of a persistent volume in front of `:`, found `{device}`, and the pod has {known}"
                ));
            }
        };
        if let Some(claim) = claim {
            secure
                .fits(claim)
                .map_err(|reason| prefix.clone() + &reason)?;
        }
        let is_other = self::volume(spec, mount)
            .is_some_and(|volume| volume.get("emptyDir").is_none())
            || templates
                .iter()
                .any(|template| template["metadata"]["name"] == mount)
            || mount == SECRETS_VOLUME;
        match is_other {
            false => Ok(Some(secure)),
            true => Err(format!(
                "{prefix}expected the name of an emptyDir behind `:`, which is made if there is none, found `{mount}`, which is another volume"
            )),
        }
    }

    /// Whether the volume can be on this claim.
    fn fits(&self, claim: &Value) -> Result<(), String> {
        let device = self.device;
        let is_block = claim["spec"]["volumeMode"] == "Block";
        match (self.file_bytes, is_block) {
            (None, true) => Ok(()),
            (None, false) => Err(format!(
                "expected a claim with `volumeMode: Block` behind `{device}`, found a file system, which the host can read; write \
                 `volumeMode: Block` into its spec, or have a file on it encrypted with the annotation {PREFIX}{SIZE}"
            )),
            (Some(_), true) => Err(format!(
                "expected a claim with a file system behind `{device}`, because {SIZE} asks for a file, found `volumeMode: Block`; remove {SIZE}, \
                 since a block device is encrypted whole"
            )),
            (Some(bytes), false) => {
                let storage = claim["spec"]["resources"]["requests"]["storage"].as_str();
                let storage = storage.and_then(|text| text.parse::<Quantity>().ok()?.value());
                match storage.filter(|storage| *storage <= bytes) {
                    None => Ok(()),
                    Some(storage) => Err(format!(
                        "expected a claim of more than {bytes} bytes behind `{device}`, because the file of {SIZE} has them and its file system needs \
                         some, found {storage}; make the claim larger or the file smaller"
                    )),
                }
            }
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
        let mut variable = |name: &str, value: &str| {
            push(
                &mut initializer["env"],
                json!({"name": name, "value": value}),
            );
        };
        match self.file_bytes {
            None => variable("CRYPTSETUP_DEVICE", DEVICE_PATH),
            Some(bytes) => {
                variable(
                    "CRYPTSETUP_DEVICE",
                    &format!("{CIPHERTEXT_PATH}/{FILE_NAME}"),
                );
                variable("CRYPTSETUP_FILE_BYTES", &bytes.to_string());
            }
        }
        for (name, value) in &self.settings {
            variable(name, value);
        }
        // Only root can set up a mapping and mount it, whatever user the pod's containers have.
        let mut security = root(pod_security);
        security["privileged"] = json!(true);
        initializer["securityContext"] = security;
        for kind in ["requests", "limits"] {
            initializer["resources"][kind]["memory"] = json!(MEMORY);
        }
        match self.file_bytes {
            None => {
                initializer["volumeDevices"] =
                    json!([{"name": self.device, "devicePath": DEVICE_PATH}]);
            }
            Some(_) => push(
                &mut initializer["volumeMounts"],
                json!({"name": self.device, "mountPath": CIPHERTEXT_PATH}),
            ),
        }
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
        judge_sized(annotation, None, volumes, claims)
    }

    fn judge_sized(
        annotation: &str,
        size: Option<&str>,
        volumes: Value,
        claims: &[Value],
    ) -> Result<(), String> {
        let templates = [
            json!({"metadata": {"name": "block"}, "spec": {"volumeMode": "Block"}}),
            json!({"metadata": {"name": "files"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}}),
        ];
        let spec = json!({"volumes": volumes});
        let claims = Claims(claims.to_vec());
        let annotations = |name: &str| match name {
            ANNOTATION => Some(annotation),
            SIZE => size,
            _ => None,
        };
        SecureVolume::of(annotations, &spec, &templates, &claims, Some("shop")).map(drop)
    }

    #[test]
    fn file_is_on_a_file_system_that_has_room_for_it() {
        let sized = |annotation, size| judge_sized(annotation, Some(size), json!([]), &[]);
        assert_eq!(sized("files:state", "1Gi"), Ok(()));
        for (annotation, size, part) in [
            (
                "files:state",
                "2Gi",
                "found 2147483648; make the claim larger",
            ),
            ("block:state", "1Gi", "found `volumeMode: Block`; remove"),
        ] {
            let text = sized(annotation, size).expect_err("refused");
            assert!(text.contains(part), "{part}: {text}");
        }
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
                "does not stay",
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
            file_bytes: None,
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
