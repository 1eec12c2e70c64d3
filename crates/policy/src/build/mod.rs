//! From a pod template to its policy.

mod arguments;
mod config;
mod environment;
mod error;
mod fields;
mod names;
mod resource_field;
mod security;
mod user;
mod volumes;

pub use config::ConfigObjects;
pub use error::BuildError;
pub use names::PodName;

use contrast_images::{ImageCache, ImageConfig, ImageReference};
use serde_json::{Value, json};

use crate::{
    ContainerPolicy, INITIALIZER, ImagePolicy, MESH_CHECK, PodPolicy, ProcessPolicy, SERVICE_MESH,
    SERVICE_MESH_PROGRAM, SandboxPolicy, Stage, Stream,
};
use error::unsupported;
use fields::{ids, list, texts};

/// Annotations that change a policy stand on the pod template, behind this prefix.
const PREFIX: &str = "contrast.edgeless.systems/";
/// User and group of the guest's pause image.
const PAUSE_USER: u32 = 65535;

/// A workload whose pods get a policy.
#[derive(Debug, Clone, Copy)]
pub struct PodSource<'a> {
    /// Kubernetes kind, for the form of the pods' names.
    pub kind: &'a str,
    /// The workload's name.
    pub name: PodName<'a>,
    /// Its namespace; `None` if the YAML names none, and the pods may run in any.
    pub namespace: Option<&'a str>,
    /// The pod template: an object with `metadata` and `spec`.
    pub template: &'a Value,
    /// `spec.volumeClaimTemplates` of a StatefulSet.
    pub claims: &'a [Value],
    /// Known image configurations.
    pub images: &'a ImageCache,
    /// ConfigMaps and Secrets that the pod may refer to.
    pub config: &'a ConfigObjects,
}

impl PodSource<'_> {
    /// Makes the policy of this workload's pods.
    ///
    /// # Errors
    /// When a container cannot be pinned or uses something that the policy cannot bind.
    pub fn policy(&self) -> Result<PodPolicy, BuildError> {
        let spec = self.spec();
        for field in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
            if spec[field] == true {
                return Err(unsupported(
                    self.name.text(),
                    field,
                    "a confidential pod shares nothing with its host, and its containers no processes; remove it",
                ));
            }
        }
        let volumes = self.volumes()?;
        let mut copies = volumes::pod_copies();
        let init = list(&spec["initContainers"]).iter().map(|container| {
            match container["restartPolicy"] == "Always" {
                true => (container, Stage::Sidecar),
                false => (container, Stage::Init),
            }
        });
        let regular = list(&spec["containers"])
            .iter()
            .map(|container| (container, Stage::Main));
        let containers = init
            .chain(regular)
            .map(|(container, stage)| self.container(container, stage, &volumes, &mut copies))
            .collect::<Result<Vec<_>, _>>()?;
        if containers.is_empty() {
            return Err(BuildError::Malformed {
                field: "containers".into(),
                place: self.name.text().to_owned(),
            });
        }
        volumes::distinct(&copies)?;
        let security = &spec["securityContext"];
        Ok(PodPolicy {
            name: self.name.pattern(self.kind),
            namespace: names::namespace_pattern(self.namespace),
            hostname: spec["hostname"].as_str().unwrap_or_default().to_owned(),
            env_pattern: environment::kubernetes_pattern(spec, self.kind),
            sysctls: self.sysctls(security)?,
            fs_group: fields::id(&security["fsGroup"]).unwrap_or_default(),
            streams: self.streams()?,
            copies,
            sandbox: sandbox(security),
            containers,
        })
    }

    fn spec(&self) -> &Value {
        &self.template["spec"]
    }

    /// Annotation `contrast.edgeless.systems/<name>` of the pod template.
    fn annotation(&self, name: &str) -> Option<&str> {
        let key = format!("{PREFIX}{name}");
        self.template["metadata"]["annotations"].get(key)?.as_str()
    }

    fn container(
        &self,
        container: &Value,
        stage: Stage,
        volumes: &volumes::Volumes,
        copies: &mut volumes::Copies,
    ) -> Result<ContainerPolicy, BuildError> {
        let malformed = |field: &str| BuildError::Malformed {
            field: field.to_owned(),
            place: self.name.text().to_owned(),
        };
        let name = container["name"]
            .as_str()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| malformed("containers[].name"))?;
        let written = container["image"]
            .as_str()
            .ok_or_else(|| malformed("containers[].image"))?;
        let image = ImageReference::parse(written).map_err(|source| BuildError::Image {
            container: name.to_owned(),
            source,
        })?;
        let known = self.images.get(image.digest());
        // Without a configuration the image is taken to have none: no variables, root, `/`. Where that is wrong, the pod is refused.
        let assumed = ImageConfig::default();
        let config = known.unwrap_or(&assumed);
        let environment = self.environment(name, container, config)?;
        let args = arguments::of(name, container, known, image.digest(), &environment)?;
        let user = self.user(name, container, config)?;
        let security = &container["securityContext"];
        let privileged = security["privileged"] == true;
        let is_initializer = stage != Stage::Main && name == INITIALIZER;
        let mounts = volumes.mounts(name, is_initializer, container, config, copies)?;
        let is_mesh = is_service_mesh(container, stage);
        let exec = arguments::exec_commands(container, is_mesh);
        let files = volumes::kubernetes_files(self.spec(), container, copies);
        Ok(ContainerPolicy {
            name: name.to_owned(),
            stage,
            image: image_policy(&image, written),
            args,
            env: environment.fixed(),
            env_facts: environment.facts(),
            process: ProcessPolicy {
                cwd: working_directory(container, config),
                no_new_privileges: security["allowPrivilegeEscalation"] == false,
                terminal: container["tty"] == true,
            },
            uid: user.uid,
            gid: user.gid,
            groups: user.groups,
            capabilities: security::capabilities(security),
            apparmor: security::apparmor(&self.spec()["securityContext"], security),
            privileged,
            unmasked: privileged || security["procMount"] == "Unmasked",
            readonly_root: security["readOnlyRootFilesystem"] == true,
            mounts,
            files,
            devices: texts(container, "volumeDevices", "devicePath"),
            gpus: gpus(name, container)?,
            exec_output: is_mesh && exec.iter().all(|command| is_check(command)),
            exec,
        })
    }

    fn sysctls(
        &self,
        security: &Value,
    ) -> Result<std::collections::BTreeMap<String, String>, BuildError> {
        list(&security["sysctls"])
            .iter()
            .map(
                |sysctl| match (sysctl["name"].as_str(), sysctl["value"].as_str()) {
                    (Some(name), Some(value)) => Ok((name.to_owned(), value.to_owned())),
                    _ => Err(BuildError::Malformed {
                        field: "securityContext.sysctls[]".into(),
                        place: self.name.text().to_owned(),
                    }),
                },
            )
            .collect()
    }

    /// `read`, or `read,write`.
    fn streams(&self) -> Result<Vec<Stream>, BuildError> {
        let Some(text) = self.annotation("streams") else {
            return Ok(Vec::new());
        };
        let mut streams = text
            .split(',')
            .map(|word| match word.trim() {
                "read" => Ok(Stream::Read),
                "write" => Ok(Stream::Write),
                other => Err(BuildError::Annotation {
                    name: "streams",
                    place: self.name.text().to_owned(),
                    reason: format!("expected `read`, `write` or `read,write`, found `{other}`"),
                }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        streams.sort_unstable();
        streams.dedup();
        Ok(streams)
    }
}

/// Whether it is one of the sidecar's own checks, whose output says nothing that the host must not know.
fn is_check(command: &[String]) -> bool {
    command == [SERVICE_MESH_PROGRAM, "--check-ready"] || command == MESH_CHECK
}

/// Whether it is the sidecar that `generate` injects.
fn is_service_mesh(container: &Value, stage: Stage) -> bool {
    stage == Stage::Sidecar
        && container["name"] == SERVICE_MESH
        && container["command"] == json!([SERVICE_MESH_PROGRAM])
}

/// Some runtimes start the pause container as the pod's user, others as its image's.
fn sandbox(security: &Value) -> SandboxPolicy {
    let user = fields::id(&security["runAsUser"]);
    let group = fields::id(&security["runAsGroup"]);
    let mut uids: Vec<u32> = user.into_iter().chain([PAUSE_USER]).collect();
    let mut gids: Vec<u32> = [fields::id(&security["fsGroup"]), group]
        .into_iter()
        .flatten()
        .chain(ids(&security["supplementalGroups"]))
        .chain([PAUSE_USER])
        // A user without an entry in the image's passwd file has group 0.
        .chain(user.filter(|_| group.is_none()).map(|_| 0))
        .collect();
    for ids in [&mut uids, &mut gids] {
        ids.sort_unstable();
        ids.dedup();
    }
    SandboxPolicy { uids, gids }
}

fn image_policy(image: &ImageReference, written: &str) -> ImagePolicy {
    let full = image.repository().to_owned();
    let name = written.split('@').next().unwrap_or(written);
    let short = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    let mut repositories = vec![full];
    if repositories.iter().all(|repository| repository != short) {
        repositories.push(short.to_owned());
    }
    ImagePolicy {
        repositories,
        digest: image.digest().to_owned(),
    }
}

fn working_directory(container: &Value, config: &ImageConfig) -> String {
    let own = container["workingDir"]
        .as_str()
        .filter(|path| !path.is_empty());
    match (own, config.working_dir.as_str()) {
        (Some(path), _) => path.to_owned(),
        (None, "") => "/".to_owned(),
        (None, path) => path.to_owned(),
    }
}

/// GPUs are extended resources: whole numbers, limit and request are equal.
fn gpus(name: &str, container: &Value) -> Result<u32, BuildError> {
    let limits = container["resources"]["limits"].as_object();
    let mut total: u32 = 0;
    for (resource, amount) in limits.into_iter().flatten() {
        if !resource.starts_with("nvidia.com/") {
            continue;
        }
        let count = amount
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .or_else(|| amount.as_str().and_then(|count| count.parse().ok()));
        let count = count.ok_or_else(|| BuildError::Malformed {
            field: format!("resources.limits[{resource}]"),
            place: name.to_owned(),
        })?;
        total = total.saturating_add(count);
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
