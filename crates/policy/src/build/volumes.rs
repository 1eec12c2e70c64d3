//! Volumes: what each mount is, and what the host may copy into the guest for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aws_lc_rs::digest::{SHA256, digest};
use contrast_images::ImageConfig;
use serde_json::Value;

use super::{BuildError, PodSource, fields::list, unsupported};
use crate::{CIPHERTEXT_PATH, Content, CopyPolicy, FilePolicy, MountKind, MountPolicy};

/// Copies by name.
pub(super) type Copies = BTreeMap<String, Vec<CopyPolicy>>;

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The pod's volumes by name.
#[derive(Debug)]
pub(super) struct Volumes(BTreeMap<String, Volume>);

#[derive(Debug, Clone)]
enum Volume {
    Disk,
    Memory,
    /// A file system of the host.
    Untrusted,
    /// Files by path; content that is not bound is `None`. `None` for all where any file may come.
    Files(Option<BTreeMap<String, Option<Content>>>),
}

impl PodSource<'_> {
    pub(super) fn volumes(&self) -> Result<Volumes, BuildError> {
        let mutable = self.named_volumes("mutable-volumes")?;
        let untrusted = self.named_volumes("untrusted-volumes")?;
        let volumes = list(&self.spec()["volumes"]).iter().map(|volume| {
            let name = volume["name"]
                .as_str()
                .ok_or_else(|| BuildError::Malformed {
                    field: "volumes[].name".into(),
                    place: self.name.text().to_owned(),
                })?;
            let kind = self.volume(name, volume, mutable.contains(name))?;
            Ok(kind.map(|kind| (name.to_owned(), kind)))
        });
        let mut volumes = volumes
            .filter_map(Result::transpose)
            .collect::<Result<BTreeMap<_, _>, BuildError>>()?;
        for name in untrusted {
            match volumes.get(&name) {
                None => volumes.insert(name, Volume::Untrusted),
                Some(_) => {
                    return Err(BuildError::Annotation {
                        name: "untrusted-volumes",
                        place: self.name.text().to_owned(),
                        reason: format!(
                            "expected names of persistent volumes, found `{name}`, which is none"
                        ),
                    });
                }
            };
        }
        Ok(Volumes(volumes))
    }

    /// Volumes that an annotation names.
    fn named_volumes(&self, name: &'static str) -> Result<BTreeSet<String>, BuildError> {
        let text = self.annotation(name).unwrap_or_default();
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let volumes = list(&self.spec()["volumes"])
            .iter()
            .filter_map(|volume| volume["name"].as_str());
        let claims = self
            .claims
            .iter()
            .filter_map(|claim| claim["metadata"]["name"].as_str());
        let known: BTreeSet<&str> = volumes.chain(claims).collect();
        names
            .map(|volume| {
                match known.contains(volume) {
                    true => Ok(volume.to_owned()),
                    false => Err(BuildError::Annotation {
                        name,
                        place: self.name.text().to_owned(),
                        reason: format!("expected names of the pod's volumes, separated by commas, found `{volume}`, which is none"),
                    }),
                }
            })
            .collect()
    }

    /// `None` for kinds that can only be devices.
    fn volume(
        &self,
        name: &str,
        volume: &Value,
        mutable: bool,
    ) -> Result<Option<Volume>, BuildError> {
        let bound = |files: BTreeMap<_, _>| Volume::Files((!mutable).then_some(files));
        let mut files = BTreeMap::new();
        if let Some(empty) = volume.get("emptyDir") {
            return match empty["medium"].as_str() {
                None | Some("") => Ok(Some(Volume::Disk)),
                Some("Memory") => Ok(Some(Volume::Memory)),
                Some(_) => Err(unsupported(
                    name,
                    "emptyDir.medium",
                    "expected none, or `Memory`",
                )),
            };
        }
        if volume.get("hostPath").is_some() {
            return Err(unsupported(
                name,
                "hostPath",
                "the host could put anything there; use an emptyDir",
            ));
        }
        if let Some(source) = volume.get("configMap") {
            self.files_of("ConfigMap", name, source, mutable, &mut files)?;
        } else if let Some(source) = volume.get("secret") {
            self.files_of("Secret", name, source, mutable, &mut files)?;
        } else if let Some(source) = volume.get("downwardAPI") {
            paths_of(&source["items"], &mut files);
        } else if let Some(projected) = volume.get("projected") {
            for source in list(&projected["sources"]) {
                if let Some(source) = source.get("configMap") {
                    self.files_of("ConfigMap", name, source, mutable, &mut files)?;
                } else if let Some(source) = source.get("secret") {
                    self.files_of("Secret", name, source, mutable, &mut files)?;
                } else if let Some(source) = source.get("downwardAPI") {
                    paths_of(&source["items"], &mut files);
                } else if let Some(path) = ["serviceAccountToken", "clusterTrustBundle"]
                    .iter()
                    .find_map(|kind| source[*kind]["path"].as_str())
                {
                    files.insert(path.to_owned(), None);
                } else {
                    return Err(unsupported(
                        name,
                        "projected.sources[]",
                        "expected configMap, secret, downwardAPI, serviceAccountToken or clusterTrustBundle",
                    ));
                }
            }
        } else {
            return Ok(None);
        }
        Ok(Some(bound(files)))
    }

    fn files_of(
        &self,
        kind: &'static str,
        volume: &str,
        source: &Value,
        mutable: bool,
        files: &mut BTreeMap<String, Option<Content>>,
    ) -> Result<(), BuildError> {
        // A volume names a Secret in `secretName`, a projection in `name`.
        let name = ["secretName", "name"]
            .iter()
            .find_map(|key| source[*key].as_str());
        let name = name.unwrap_or_default();
        let place = || format!("volume `{volume}`");
        let Some(values) = self.config.get(kind, self.namespace, name) else {
            return match mutable || source["optional"] == true {
                true => Ok(()),
                false => Err(BuildError::UnknownConfig {
                    place: place(),
                    what: "its files".to_owned(),
                    kind,
                    name: name.to_owned(),
                    hint: format!(
                        ", or give their content up with the annotation `contrast.edgeless.systems/mutable-volumes: {volume}`"
                    ),
                }),
            };
        };
        match source.get("items").and_then(Value::as_array) {
            None => files.extend(
                values
                    .iter()
                    .map(|(key, value)| (key.clone(), Some(content(value)))),
            ),
            Some(items) => {
                for item in items {
                    let key = item["key"].as_str().unwrap_or_default();
                    let path = item["path"].as_str().unwrap_or(key);
                    match values.get(key) {
                        Some(value) => {
                            files.insert(path.to_owned(), Some(content(value)));
                        }
                        None if source["optional"] == true => {}
                        None => {
                            return Err(BuildError::UnknownKey {
                                place: place(),
                                key: key.to_owned(),
                                kind,
                                name: name.to_owned(),
                                found: values.keys().cloned().collect::<Vec<_>>().join(", "),
                            });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Values of the downward API are the host's.
fn paths_of(items: &Value, files: &mut BTreeMap<String, Option<Content>>) {
    for item in list(items) {
        if let Some(path) = item["path"].as_str() {
            files.insert(path.to_owned(), None);
        }
    }
}

fn content(value: &[u8]) -> Content {
    let hash = digest(&SHA256, value);
    Content {
        size: u64::try_from(value.len()).unwrap_or(u64::MAX),
        sha256: hash
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    }
}

impl Volumes {
    /// The container's mounts: declared ones, and the image's own volumes, which must stay empty.
    pub(super) fn mounts(
        &self,
        container_name: &str,
        is_initializer: bool,
        container: &Value,
        config: &ImageConfig,
        copies: &mut Copies,
    ) -> Result<Vec<MountPolicy>, BuildError> {
        let mut mounts = Vec::new();
        for mount in list(&container["volumeMounts"]) {
            mounts.push(self.mount(container_name, is_initializer, mount, copies)?);
        }
        for path in &config.volumes {
            let path = path.trim_end_matches('/');
            if path.is_empty() || mounts.iter().any(|mount| mount.destination == path) {
                continue;
            }
            let name = last_part(path);
            add(copies, &name, CopyPolicy::Empty);
            mounts.push(MountPolicy {
                destination: path.to_owned(),
                kind: MountKind::Copy,
                volume: String::new(),
                name,
                options: bind_options("rprivate", "rw"),
            });
        }
        Ok(mounts)
    }

    fn mount(
        &self,
        container: &str,
        is_initializer: bool,
        mount: &Value,
        copies: &mut Copies,
    ) -> Result<MountPolicy, BuildError> {
        let malformed = |field: &str| BuildError::Malformed {
            field: field.to_owned(),
            place: container.to_owned(),
        };
        let destination = mount["mountPath"]
            .as_str()
            .ok_or_else(|| malformed("volumeMounts[].mountPath"))?;
        let volume = mount["name"]
            .as_str()
            .ok_or_else(|| malformed("volumeMounts[].name"))?;
        if mount.get("subPathExpr").is_some() {
            return Err(unsupported(
                container,
                "volumeMounts[].subPathExpr",
                "it is only known in the cluster; use `subPath`, or mount the whole volume",
            ));
        }
        let sub_path = mount["subPath"].as_str().filter(|path| !path.is_empty());
        let ciphertext =
            (is_initializer && destination == CIPHERTEXT_PATH).then_some(&Volume::Untrusted);
        let source = self.0.get(volume).or(ciphertext).ok_or_else(|| {
            unsupported(
                container,
                &format!("volumeMounts[] of `{volume}`"),
                "the host can read and change its files; use a block device under `volumeDevices`, or, where the application itself \
                 expects that, name the volume in the annotation `contrast.edgeless.systems/untrusted-volumes`",
            )
        })?;
        let propagation = match mount["mountPropagation"].as_str() {
            Some("HostToContainer") => "rslave",
            Some("Bidirectional") => "rshared",
            _ => "rprivate",
        };
        let read_only = mount["readOnly"] == true;
        let path = destination.trim_end_matches('/');
        let name = last_part(path);
        let (kind, read_only) = match source {
            Volume::Disk | Volume::Memory | Volume::Untrusted if sub_path.is_some() => {
                return Err(unsupported(
                    container,
                    "volumeMounts[].subPath",
                    "it leads to nothing that the policy knows; mount the whole volume",
                ));
            }
            Volume::Disk => (MountKind::Disk, read_only),
            Volume::Memory => (MountKind::Memory, read_only),
            Volume::Untrusted => (MountKind::Untrusted, read_only),
            Volume::Files(files) => {
                let copy = match sub_path {
                    None => CopyPolicy::Directory {
                        files: files.clone(),
                    },
                    Some(key) => CopyPolicy::File {
                        content: file_at(container, volume, key, files.as_ref())?,
                    },
                };
                add(copies, &name, copy);
                (MountKind::Copy, true)
            }
        };
        Ok(MountPolicy {
            destination: path.to_owned(),
            kind,
            name,
            volume: volume.to_owned(),
            options: bind_options(propagation, if read_only { "ro" } else { "rw" }),
        })
    }
}

/// Content of the file that a `subPath` names.
fn file_at(
    container: &str,
    volume: &str,
    key: &str,
    files: Option<&BTreeMap<String, Option<Content>>>,
) -> Result<Option<Content>, BuildError> {
    let Some(files) = files else { return Ok(None) };
    files.get(key).cloned().ok_or_else(|| {
        unsupported(
            container,
            &format!("subPath `{key}` of the volume `{volume}`"),
            "expected one of the volume's files; mount the whole volume for a directory",
        )
    })
}

/// Files of the pod that every container gets.
pub(super) fn pod_copies() -> Copies {
    let mut copies = Copies::new();
    for name in ["hostname", "hosts", "resolv.conf"] {
        add(&mut copies, name, CopyPolicy::File { content: None });
    }
    copies
}

/// What Kubernetes mounts without being told: the termination log and the service account's token.
pub(super) fn kubernetes_files(
    spec: &Value,
    container: &Value,
    copies: &mut Copies,
) -> Vec<FilePolicy> {
    let log = container["terminationMessagePath"]
        .as_str()
        .filter(|path| !path.is_empty())
        .unwrap_or(TERMINATION_LOG);
    let log_name = last_part(log);
    add(copies, &log_name, CopyPolicy::File { content: None });
    let mut files = vec![FilePolicy {
        destination: log.to_owned(),
        name: log_name,
        options: bind_options("rprivate", "rw"),
    }];
    if spec["automountServiceAccountToken"] != false {
        let name = last_part(SERVICE_ACCOUNT);
        let token: BTreeMap<String, Option<Content>> = ["ca.crt", "namespace", "token"]
            .map(|file| (file.to_owned(), None))
            .into();
        add(copies, &name, CopyPolicy::Directory { files: Some(token) });
        files.push(FilePolicy {
            destination: SERVICE_ACCOUNT.to_owned(),
            name,
            options: bind_options("rprivate", "ro"),
        });
    }
    files
}

fn add(copies: &mut Copies, name: &str, copy: CopyPolicy) {
    let same_name = copies.entry(name.to_owned()).or_default();
    if !same_name.contains(&copy) {
        same_name.push(copy);
    }
}

/// The host names a copy `<container>-<random>-<last part of the mount's path>`, so two that differ must not end alike: one's content would pass for the other's.
pub(super) fn distinct(copies: &Copies) -> Result<(), BuildError> {
    let is_bound = |copy: &CopyPolicy| {
        !matches!(
            copy,
            CopyPolicy::File { content: None } | CopyPolicy::Directory { files: None }
        )
    };
    let mut mixed = copies
        .iter()
        .filter(|(_, same_name)| same_name.len() > 1 && same_name.iter().any(is_bound));
    match mixed.next() {
        None => Ok(()),
        Some((name, _)) => Err(BuildError::SameName { name: name.clone() }),
    }
}

fn last_part(path: &str) -> String {
    Path::new(path)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Ascending.
fn bind_options(propagation: &str, access: &str) -> Vec<String> {
    let mut options = vec![
        "rbind".to_owned(),
        propagation.to_owned(),
        access.to_owned(),
    ];
    options.sort_unstable();
    options
}
