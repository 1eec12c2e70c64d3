//! What a pod shares with its host, and what its containers may do in the guest.

use std::collections::{BTreeMap, BTreeSet};

use contrast_policy::CIPHERTEXT_PATH;
use serde_json::Value;

use super::{
    Notes,
    model::{Container, Pod, items, keys, text},
    rules,
};
use crate::generate::annotations::PREFIX;

/// Volumes that are made in the guest, or copied into it.
const OWN: [&str; 5] = [
    "emptyDir",
    "configMap",
    "secret",
    "downwardAPI",
    "projected",
];

pub(super) fn check<'a>(pod: &Pod<'a>, notes: &mut Notes<'a>) {
    let spec = pod.spec();
    for field in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
        if spec[field] == true {
            let text = (format!("`{field}: true`"), format!("remove `{field}`"));
            notes.pod(&rules::HOST_NAMESPACE, pod, &keys(&["spec", field]), text);
        }
    }
    for (index, volume) in items(spec, "volumes").iter().enumerate() {
        if let Some(host) = volume.get("hostPath") {
            let path = [
                "spec".into(),
                "volumes".into(),
                index.into(),
                "hostPath".into(),
            ];
            let found = format!(
                "the volume `{}` is `{}` of the host",
                text(&volume["name"]),
                text(&host["path"])
            );
            notes.pod(
                &rules::HOST_PATH,
                pod,
                &path,
                (
                    found,
                    "use an emptyDir, or a block device under `volumeDevices`",
                ),
            );
        }
    }
    let volumes = Volumes::of(pod);
    for container in pod.containers() {
        mounts(&container, &volumes, notes);
        // Those of `generate` have what they need.
        if !container.is_generated() {
            privileges(&container, notes);
        }
    }
}

enum Volume {
    /// `hostPath` has a finding of its own.
    Host,
    /// An emptyDir, or one that is declared untrusted.
    Directory,
    /// Files that are copied in.
    Files,
    /// What it is called in messages.
    Shared(String),
}

struct Volumes<'a>(BTreeMap<&'a str, Volume>);

impl<'a> Volumes<'a> {
    fn of(pod: &Pod<'a>) -> Self {
        let annotation = format!("{}untrusted-volumes", PREFIX);
        let names = text(&pod.template["metadata"]["annotations"][annotation]);
        let untrusted: BTreeSet<&str> = names.split(',').map(str::trim).collect();
        let declared = items(pod.spec(), "volumes").iter().map(|volume| {
            let name = text(&volume["name"]);
            let kind = match () {
                () if volume.get("hostPath").is_some() => Volume::Host,
                () if volume.get("emptyDir").is_some() => Volume::Directory,
                () if OWN.iter().any(|kind| volume.get(*kind).is_some()) => Volume::Files,
                () if untrusted.contains(name) => Volume::Directory,
                () => Volume::Shared(shared(volume)),
            };
            (name, kind)
        });
        let claims = items(&pod.resource.object()["spec"], "volumeClaimTemplates")
            .iter()
            .map(|claim| {
                let name = text(&claim["metadata"]["name"]);
                let kind = match (
                    untrusted.contains(name),
                    claim["spec"]["volumeMode"] == "Block",
                ) {
                    (true, _) => Volume::Directory,
                    (_, true) => Volume::Shared(
                        "a block device, which belongs under `volumeDevices`".to_owned(),
                    ),
                    (_, false) => {
                        Volume::Shared("a claim of the StatefulSet as a file system".to_owned())
                    }
                };
                (name, kind)
            });
        let generated = pod.generated_volumes().into_iter();
        let generated = generated.map(|name| (name, Volume::Directory));
        // What the pod has stays as it is.
        Self(generated.chain(declared).chain(claims).collect())
    }
}

fn shared(volume: &Value) -> String {
    let kind = super::model::entries(volume)
        .map(|(key, _)| key.as_str())
        .find(|key| *key != "name");
    match kind {
        // Kubernetes makes an empty directory of a volume that says nothing, and the policy does not.
        None => "a volume of no kind; write `emptyDir: {}`".to_owned(),
        Some("persistentVolumeClaim") => {
            format!(
                "the claim `{}` as a file system",
                text(&volume["persistentVolumeClaim"]["claimName"])
            )
        }
        Some(kind) => format!("a volume of the kind `{kind}`"),
    }
}

fn mounts<'a>(container: &Container<'_, 'a>, volumes: &Volumes<'_>, notes: &mut Notes<'a>) {
    for (mut path, mount) in container.list_items("volumeMounts") {
        let name = text(&mount["name"]);
        let sub_path = !text(&mount["subPath"]).is_empty();
        match volumes.0.get(name) {
            None => {
                let text = (
                    format!("it mounts `{name}`, which is no volume of the pod"),
                    "declare it under `volumes`, or correct the name",
                );
                notes.container(&rules::UNKNOWN_VOLUME, container, &path, text);
            }
            Some(Volume::Shared(_))
                if container.is_generated() && mount["mountPath"] == CIPHERTEXT_PATH => {}
            Some(Volume::Shared(what)) => {
                let text = (
                    format!("it mounts `{name}`, {what}"),
                    format!(
                        "use a claim with `volumeMode: Block` under `volumeDevices`, or name the volume in `contrast.edgeless.systems/untrusted-volumes: {name}` if the application expects nothing of it"
                    ),
                );
                notes.container(&rules::SHARED_FILESYSTEM, container, &path, text);
            }
            Some(_) if mount.get("subPathExpr").is_some() => {
                path.push("subPathExpr".into());
                let text = (
                    format!("`subPathExpr` of the volume `{name}`"),
                    "use `subPath`, or mount the whole volume",
                );
                notes.container(&rules::UNSUPPORTED_SUB_PATH, container, &path, text);
            }
            Some(Volume::Directory) if sub_path => {
                path.push("subPath".into());
                let text = (
                    format!("`subPath` of the volume `{name}`"),
                    "mount the whole volume",
                );
                notes.container(&rules::UNSUPPORTED_SUB_PATH, container, &path, text);
            }
            Some(Volume::Host | Volume::Directory | Volume::Files) => {}
        }
    }
}

fn privileges<'a>(container: &Container<'_, 'a>, notes: &mut Notes<'a>) {
    let own = &container.value["securityContext"];
    let of_pod = &container.pod.spec()["securityContext"];
    if own["privileged"] == true {
        let path = keys(&["securityContext", "privileged"]);
        let text = (
            "`privileged: true`",
            "remove it, and add the capabilities that are needed",
        );
        notes.container(&rules::PRIVILEGED, container, &path, text);
        return;
    }
    let field = |name: &str| {
        [own, of_pod]
            .into_iter()
            .map(|context| &context[name])
            .find(|value| !value.is_null())
    };
    let ordinary = match field("runAsUser").and_then(Value::as_u64) {
        Some(user) => user != 0,
        None => field("runAsNonRoot") == Some(&Value::Bool(true)),
    };
    if ordinary && own["allowPrivilegeEscalation"] != false {
        let path = keys(&["securityContext", "allowPrivilegeEscalation"]);
        let text = (
            "it runs as an ordinary user, and `allowPrivilegeEscalation` is open",
            "set `securityContext.allowPrivilegeEscalation: false`",
        );
        notes.container(&rules::PRIVILEGE_ESCALATION, container, &path, text);
    }
}
