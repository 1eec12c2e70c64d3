//! From a pod template to its policy.

use contrast_images::{ImageCache, ImageConfig, ImageReference, ReferenceError};
use serde_json::Value;

use crate::{ContainerPolicy, EnvRule, PodPolicy};

/// Characters of the suffixes that Kubernetes appends to generated names.
const SUFFIX: &str = "[bcdfghjklmnpqrstvwxz2456789]+";
const IPV4: &str = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$";
const UUID: &str = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
const DNS_NAME: &str = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$";
const NUMBER: &str = "^[0-9]+$";
/// What containerd gives a process whose image sets no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Capabilities that containerd gives a container by default.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What containerd and Kubernetes mount into every container.
const DEFAULT_MOUNTS: [&str; 12] = [
    "/proc",
    "/dev",
    "/dev/pts",
    "/dev/shm",
    "/dev/mqueue",
    "/sys",
    "/sys/fs/cgroup",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/dev/termination-log",
    "/var/run/secrets/kubernetes.io/serviceaccount",
];

/// Variables that Kubernetes adds for the pod's name and for the services of the namespace.
const ENV_PATTERNS: [&str; 7] = [
    "^HOSTNAME=[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
    r"^[A-Z0-9_]+_SERVICE_HOST=[0-9]{1,3}(\.[0-9]{1,3}){3}$",
    "^[A-Z0-9_]+_SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]{1,5}$",
    r"^[A-Z0-9_]+_PORT(_[0-9]{1,5}_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://[0-9]{1,3}(\.[0-9]{1,3}){3}:[0-9]{1,5}$",
    "^[A-Z0-9_]+_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)_PROTO=(tcp|udp|sctp)$",
    "^[A-Z0-9_]+_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)_PORT=[0-9]{1,5}$",
    r"^[A-Z0-9_]+_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)_ADDR=[0-9]{1,3}(\.[0-9]{1,3}){3}$",
];

/// A pod template for which no policy can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The image is not pinned.
    #[error("container `{container}`")]
    Image {
        /// The container.
        container: String,
        /// What is wrong with its image.
        #[source]
        source: ReferenceError,
    },
    /// The program is unknown.
    #[error(
        "container `{container}` leaves its {missing} to the image, whose configuration is not in the image cache; write \
         `command` and `args`, or add {digest} to the cache"
    )]
    UnknownProgram {
        /// The container.
        container: String,
        /// What is missing.
        missing: &'static str,
        /// Digest of its image.
        digest: String,
    },
    /// A field that the policy cannot bind.
    #[error("{field} of `{place}` is not supported: {reason}")]
    Unsupported {
        /// The field.
        field: String,
        /// Container or pod.
        place: String,
        /// Why, and what to write instead.
        reason: &'static str,
    },
    /// A field that is missing or has another type.
    #[error("{field} of `{place}` is missing or malformed")]
    Malformed {
        /// The field.
        field: String,
        /// Container or pod.
        place: String,
    },
    /// The policy cannot be written.
    #[error("the policy cannot be encoded")]
    Encode(#[from] serde_json::Error),
}

/// A workload whose pods get a policy.
#[derive(Debug, Clone, Copy)]
pub struct PodSource<'a> {
    /// Kubernetes kind, for the form of the pods' names.
    pub kind: &'a str,
    /// The workload's name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The pod template: an object with `spec`.
    pub template: &'a Value,
    /// Known image configurations.
    pub images: &'a ImageCache,
}

impl PodSource<'_> {
    /// Makes the policy of this workload's pods.
    ///
    /// # Errors
    /// When a container cannot be pinned or uses something that the policy cannot bind.
    pub fn policy(&self) -> Result<PodPolicy, BuildError> {
        let spec = &self.template["spec"];
        for field in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
            if spec[field] == true {
                return Err(self.unsupported(
                    field,
                    "a confidential pod shares nothing with its host; remove it",
                ));
            }
        }
        for volume in list(&spec["volumes"]) {
            if volume.get("hostPath").is_some() {
                return Err(self.unsupported(
                    "hostPath",
                    "the host could put anything there; use an emptyDir",
                ));
            }
        }
        let init = list(&spec["initContainers"])
            .iter()
            .map(|container| (container, true));
        let regular = list(&spec["containers"])
            .iter()
            .map(|container| (container, false));
        let containers = init
            .chain(regular)
            .map(|(container, gate)| self.container(container, gate))
            .collect::<Result<Vec<_>, _>>()?;
        if containers.is_empty() {
            return Err(BuildError::Malformed {
                field: "containers".into(),
                place: self.name.into(),
            });
        }
        Ok(PodPolicy {
            namespace: self.namespace.to_owned(),
            sandbox_name: self.sandbox_name(),
            env_patterns: ENV_PATTERNS.map(str::to_owned).to_vec(),
            containers,
        })
    }

    /// Names of the pods that each kind makes.
    fn sandbox_name(&self) -> String {
        let name = self.name.replace('.', r"\.");
        match self.kind {
            "Pod" => format!("^{name}$"),
            "Deployment" => format!("^{name}-{SUFFIX}-{SUFFIX}$"),
            "StatefulSet" => format!("^{name}-[0-9]+$"),
            "Job" => format!("^{name}(-[0-9]+)?-{SUFFIX}$"),
            "CronJob" => format!("^{name}-[0-9]+(-[0-9]+)?-{SUFFIX}$"),
            _ => format!("^{name}-{SUFFIX}$"),
        }
    }

    fn container(&self, container: &Value, gate: bool) -> Result<ContainerPolicy, BuildError> {
        let malformed = |field: &str| BuildError::Malformed {
            field: field.to_owned(),
            place: self.name.to_owned(),
        };
        let name = container["name"]
            .as_str()
            .ok_or_else(|| malformed("containers[].name"))?;
        let image = container["image"]
            .as_str()
            .ok_or_else(|| malformed("containers[].image"))?;
        let image = ImageReference::parse(image).map_err(|source| BuildError::Image {
            container: name.to_owned(),
            source,
        })?;
        let config = self.images.get(image.digest());
        if container
            .get("envFrom")
            .is_some_and(|from| !list(from).is_empty())
        {
            return Err(unsupported(
                name,
                "envFrom",
                "its content is not bound yet; write the variables out under `env`",
            ));
        }
        let env = self.environment(name, container, config)?;
        let security = &container["securityContext"];
        let pod_security = &self.template["spec"]["securityContext"];
        let id = |field: &str| {
            let id = security[field]
                .as_u64()
                .or_else(|| pod_security[field].as_u64());
            id.and_then(|id| u32::try_from(id).ok())
        };
        let (image_uid, image_gid) = config.map_or((None, None), image_user);
        let mut mounts: Vec<String> = DEFAULT_MOUNTS.map(str::to_owned).to_vec();
        mounts.extend(texts(container, "volumeMounts", "mountPath"));
        mounts.extend(
            container["terminationMessagePath"]
                .as_str()
                .map(str::to_owned),
        );
        Ok(ContainerPolicy {
            name: name.to_owned(),
            image_digest: image.digest().to_owned(),
            args: arguments(name, container, config, image.digest(), &env)?,
            env,
            mounts,
            devices: texts(container, "volumeDevices", "devicePath"),
            exec_commands: exec_commands(container),
            capabilities: capabilities(security),
            privileged: security["privileged"] == true,
            gate,
            uid: id("runAsUser").or(image_uid),
            gid: id("runAsGroup").or(image_gid),
            cwd: container["workingDir"]
                .as_str()
                .map(str::to_owned)
                .or_else(|| {
                    config.map(|config| match config.working_dir.as_str() {
                        "" => "/".to_owned(),
                        directory => directory.to_owned(),
                    })
                }),
            terminal: container["tty"] == true,
            readonly_root: security["readOnlyRootFilesystem"] == true,
        })
    }

    /// The image's variables, then the pod's; a later one replaces an earlier one of the same name.
    fn environment(
        &self,
        container_name: &str,
        container: &Value,
        config: Option<&ImageConfig>,
    ) -> Result<Vec<EnvRule>, BuildError> {
        let mut rules: Vec<EnvRule> = Vec::new();
        let put = |rules: &mut Vec<EnvRule>, rule: EnvRule| {
            rules.retain(|other| other.name != rule.name);
            rules.push(rule);
        };
        put(&mut rules, fixed("PATH", DEFAULT_PATH));
        for variable in config
            .map(|config| config.env.as_slice())
            .unwrap_or_default()
        {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            put(&mut rules, fixed(name, value));
        }
        for variable in list(&container["env"]) {
            let name = variable["name"]
                .as_str()
                .ok_or_else(|| BuildError::Malformed {
                    field: "env[].name".into(),
                    place: container_name.to_owned(),
                })?;
            let rule = match variable.get("valueFrom") {
                None => {
                    let value = variable["value"].as_str().unwrap_or_default();
                    fixed(name, &expand(value, &rules).map_err(|field| {
                        unsupported(container_name, &field, "its value is only known in the cluster, so nothing can be built from it")
                    })?)
                }
                Some(from) => self.cluster_value(container_name, name, from)?,
            };
            put(&mut rules, rule);
        }
        if container["tty"] == true {
            put(&mut rules, fixed("TERM", "xterm"));
        }
        Ok(rules)
    }

    fn cluster_value(
        &self,
        container: &str,
        name: &str,
        from: &Value,
    ) -> Result<EnvRule, BuildError> {
        if from.get("resourceFieldRef").is_some() {
            return Ok(pattern(name, NUMBER));
        }
        let account = self.template["spec"]["serviceAccountName"]
            .as_str()
            .unwrap_or("default");
        Ok(match from["fieldRef"]["fieldPath"].as_str() {
            Some("metadata.name") => pattern(name, &self.sandbox_name()),
            Some("metadata.namespace") => fixed(name, self.namespace),
            Some("metadata.uid") => pattern(name, UUID),
            Some("spec.nodeName") => pattern(name, DNS_NAME),
            Some("spec.serviceAccountName") => fixed(name, account),
            Some("status.podIP" | "status.hostIP") => pattern(name, IPV4),
            _ => {
                let field = format!("env `{name}` with valueFrom");
                return Err(unsupported(
                    container,
                    &field,
                    "its value is not bound yet; write it out as `value`",
                ));
            }
        })
    }

    fn unsupported(&self, field: &str, reason: &'static str) -> BuildError {
        unsupported(self.name, field, reason)
    }
}

fn unsupported(place: &str, field: &str, reason: &'static str) -> BuildError {
    BuildError::Unsupported {
        field: field.to_owned(),
        place: place.to_owned(),
        reason,
    }
}

fn fixed(name: &str, value: &str) -> EnvRule {
    EnvRule {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        pattern: None,
    }
}

fn pattern(name: &str, pattern: &str) -> EnvRule {
    EnvRule {
        name: name.to_owned(),
        value: None,
        pattern: Some(pattern.to_owned()),
    }
}

fn arguments(
    name: &str,
    container: &Value,
    config: Option<&ImageConfig>,
    digest: &str,
    env: &[EnvRule],
) -> Result<Vec<String>, BuildError> {
    let command = words(&container["command"]);
    let args = words(&container["args"]);
    let unknown = |missing| BuildError::UnknownProgram {
        container: name.to_owned(),
        missing,
        digest: digest.to_owned(),
    };
    // As Kubernetes has it: `command` replaces entrypoint and cmd, `args` replaces cmd.
    let (program, rest) = match (command.is_empty(), args.is_empty()) {
        (false, _) => (command, args),
        (true, false) => (
            config
                .ok_or_else(|| unknown("entrypoint"))?
                .entrypoint
                .clone(),
            args,
        ),
        (true, true) => {
            let config = config.ok_or_else(|| unknown("entrypoint and arguments"))?;
            (config.entrypoint.clone(), config.cmd.clone())
        }
    };
    let words: Vec<String> = program.into_iter().chain(rest).collect();
    if words.is_empty() {
        return Err(unknown("entrypoint"));
    }
    words
        .iter()
        .map(|word| {
            expand(word, env).map_err(|field| {
                unsupported(
                    name,
                    &field,
                    "its value is only known in the cluster, so no argument can be built from it",
                )
            })
        })
        .collect()
}

/// `$(NAME)` becomes the variable's value, `$$` becomes `$`; unknown names stay as they are. A name whose value is not fixed
/// is the error.
fn expand(text: &str, env: &[EnvRule]) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let reference = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'));
        rest = match reference {
            Some((name, behind)) => match env.iter().find(|rule| rule.name == name) {
                Some(EnvRule {
                    value: Some(value), ..
                }) => {
                    expanded.push_str(value);
                    behind
                }
                Some(_) => return Err(format!("$({name})")),
                None => {
                    expanded.push_str(&format!("$({name})"));
                    behind
                }
            },
            None => {
                expanded.push('$');
                after
            }
        };
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Numeric `uid[:gid]`; names are resolved in the guest and not bound here.
fn image_user(config: &ImageConfig) -> (Option<u32>, Option<u32>) {
    if config.user.is_empty() {
        return (Some(0), Some(0));
    }
    let (user, group) = config.user.split_once(':').unwrap_or((&config.user, ""));
    (user.parse().ok(), group.parse().ok())
}

fn capabilities(security: &Value) -> Vec<String> {
    let named = |key: &str| {
        let names = words(&security["capabilities"][key]);
        names
            .into_iter()
            .map(|name| name.trim_start_matches("CAP_").to_owned())
            .collect::<Vec<_>>()
    };
    let dropped = named("drop");
    let mut kept: Vec<String> = DEFAULT_CAPABILITIES
        .iter()
        .filter(|name| !dropped.iter().any(|drop| drop == "ALL" || drop == *name))
        .map(ToString::to_string)
        .collect();
    kept.extend(named("add"));
    kept
}

fn exec_commands(container: &Value) -> Vec<Vec<String>> {
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
    let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
    let commands = probes
        .into_iter()
        .chain(hooks)
        .map(|handler| words(&handler["exec"]["command"]));
    commands.filter(|command| !command.is_empty()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn words(value: &Value) -> Vec<String> {
    list(value)
        .iter()
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}

fn texts(container: &Value, key: &str, field: &str) -> Vec<String> {
    list(&container[key])
        .iter()
        .filter_map(|item| item[field].as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
