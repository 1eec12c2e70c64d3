//! How many vCPUs a pod's VM has.
//!
//! A container needs its CPU limit, or its request where it has no limit or a lower one. The pod needs the largest of three
//! sums: all containers and sidecars together, all init containers together, and what the pod itself states. Its VM has as
//! many vCPUs as that, rounded up, and one more for the guest itself; a pod without any CPU resources has one.

use std::fmt;

use serde_json::Value;

use crate::{MilliCpu, QuantityError, VcpuCount, VcpuError};

/// Resources of this vendor are GPUs.
const GPU_VENDOR: &str = "nvidia.com/";

/// The vCPUs of a pod cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PodError {
    /// No containers.
    #[error("expected a pod with containers, found none in `spec.containers`")]
    NoContainers,
    /// A quantity that is none.
    #[error("{place}: `{field}` is unusable")]
    Quantity {
        /// `the pod`, or `container` and its name.
        place: String,
        /// The field.
        field: &'static str,
        /// Why.
        #[source]
        source: QuantityError,
    },
    /// A number of GPUs that is none.
    #[error("{place}: expected a whole number of `{resource}`, found `{found}`")]
    GpuCount {
        /// `container` and its name.
        place: String,
        /// The resource.
        resource: String,
        /// What was found.
        found: String,
    },
    /// More vCPUs than a VM can have.
    #[error("the pod's CPU resources, {need} in all, need too many vCPUs{contributions}")]
    Vcpus {
        /// What it needs.
        need: MilliCpu,
        /// What each container contributes.
        contributions: Contributions,
        /// Why that is too much.
        #[source]
        source: VcpuError,
    },
    /// More GPUs than vCPUs.
    #[error(
        "expected at least as many vCPUs as GPUs, found {vcpus} vCPUs and {gpus} GPUs; raise a CPU limit{contributions}"
    )]
    Gpus {
        /// vCPUs.
        vcpus: VcpuCount,
        /// GPUs.
        gpus: u64,
        /// What each container contributes.
        contributions: Contributions,
    },
}

/// What the parts of a pod contribute, in words: ` (container ...: 2000m and 1 GPU; ...)`, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contributions {
    containers: Vec<ContainerCpu>,
    pod: Option<MilliCpu>,
}

impl fmt::Display for Contributions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for container in &self.containers {
            let (need, gpus) = (container.need(), container.gpus);
            let amounts = match (need > MilliCpu(0), gpus) {
                (false, 0) => continue,
                (true, 0) => need.to_string(),
                (false, 1) => "1 GPU".to_owned(),
                (true, 1) => format!("{need} and 1 GPU"),
                (false, gpus) => format!("{gpus} GPUs"),
                (true, gpus) => format!("{need} and {gpus} GPUs"),
            };
            let (role, name) = (container.role, &container.name);
            parts.push(format!("{role} `{name}`: {amounts}"));
        }
        parts.extend(self.pod.map(|need| format!("`spec.resources`: {need}")));
        match parts.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", parts.join("; ")),
        }
    }
}

/// When a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerRole {
    /// One of `containers`.
    Regular,
    /// One of `initContainers` with restart policy `Always`: it keeps running.
    Sidecar,
    /// Another one of `initContainers`.
    Init,
}

impl fmt::Display for ContainerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regular => "container",
            Self::Sidecar => "sidecar",
            Self::Init => "init container",
        })
    }
}

/// CPU of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerCpu {
    /// Its name.
    pub name: String,
    /// When it runs.
    pub role: ContainerRole,
    /// `resources.limits.cpu`.
    pub limit: Option<MilliCpu>,
    /// `resources.requests.cpu`.
    pub request: Option<MilliCpu>,
    /// GPUs.
    pub gpus: u64,
}

impl ContainerCpu {
    /// What it needs: the larger of limit and request.
    pub fn need(&self) -> MilliCpu {
        self.limit.max(self.request).unwrap_or_default()
    }

    fn limited(&self) -> MilliCpu {
        self.limit.unwrap_or_default()
    }
}

/// What decides about a pod's vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Basis {
    /// Nothing: there are no CPU resources.
    Nothing,
    /// The sum of containers and sidecars.
    Containers,
    /// The sum of init containers.
    InitContainers,
    /// The pod's own resources.
    Pod,
}

/// The vCPUs of a pod, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodVcpus {
    /// How many.
    pub vcpus: VcpuCount,
    /// What decides.
    pub basis: Basis,
    /// What the pod needs.
    pub need: MilliCpu,
    /// Every container, init containers first.
    pub containers: Vec<ContainerCpu>,
    /// What the pod itself states: the larger of `spec.resources`' limit and request.
    pub pod: Option<MilliCpu>,
    /// GPUs.
    pub gpus: u64,
    /// How many vCPUs Kata gives the VM by itself, from what the kubelet tells it: it knows limits only, and of init
    /// containers the largest, beside the sidecars before it.
    pub by_kata: u64,
    /// How many vCPUs the VM is launched with, if Kata's `default_vcpus` is [`Self::default_vcpus`]: the larger of [`Self::vcpus`] and
    /// [`Self::by_kata`].
    pub launched: VcpuCount,
}

impl PodVcpus {
    /// What Kata's setting `default_vcpus` has to be, so that the VM gets at least [`Self::vcpus`]. Kata adds the limits that it knows to
    /// this number (static sandbox sizing), so it makes up for what Kata does not know; it cannot make up for what Kata counts twice.
    pub fn default_vcpus(&self) -> u64 {
        let missing = u64::from(self.vcpus.get()).saturating_sub(self.by_kata);
        missing.saturating_add(1)
    }

    /// Computes the vCPUs from a pod's `spec`, or a pod template's.
    ///
    /// # Errors
    /// When a quantity is none, or the result is no possible count.
    pub fn of(spec: &Value) -> Result<Self, PodError> {
        let list = |key: &str| spec[key].as_array().map_or(&[][..], Vec::as_slice);
        if list("containers").is_empty() {
            return Err(PodError::NoContainers);
        }
        let mut containers = Vec::new();
        let mut gpus: u64 = 0;
        for (key, regular) in [("initContainers", false), ("containers", true)] {
            for container in list(key) {
                let role = match (regular, container["restartPolicy"].as_str()) {
                    (true, _) => ContainerRole::Regular,
                    (false, Some("Always")) => ContainerRole::Sidecar,
                    (false, _) => ContainerRole::Init,
                };
                let name = container["name"].as_str().unwrap_or("?").to_owned();
                let place = format!("container `{name}`");
                let own_gpus = gpus_of(&place, container)?;
                gpus = gpus.saturating_add(own_gpus);
                containers.push(ContainerCpu {
                    limit: quantity(
                        &place,
                        "resources.limits.cpu",
                        &container["resources"]["limits"],
                    )?,
                    request: quantity(
                        &place,
                        "resources.requests.cpu",
                        &container["resources"]["requests"],
                    )?,
                    name,
                    role,
                    gpus: own_gpus,
                });
            }
        }
        let own = |field, key: &str| quantity("the pod", field, &spec["resources"][key]);
        let limit = own("spec.resources.limits.cpu", "limits")?;
        let pod = limit.max(own("spec.resources.requests.cpu", "requests")?);

        let init = |container: &&ContainerCpu| container.role == ContainerRole::Init;
        let sum = |sum: MilliCpu, container: &ContainerCpu| sum.plus(container.need());
        let init_sum = containers.iter().filter(init).fold(MilliCpu(0), sum);
        let sum = containers
            .iter()
            .filter(|container| !init(container))
            .fold(MilliCpu(0), sum);
        // In case of a tie the first one counts.
        let (need, basis) = [
            (sum, Basis::Containers),
            (init_sum, Basis::InitContainers),
            (pod.unwrap_or_default(), Basis::Pod),
        ]
        .into_iter()
        .rev()
        .max_by_key(|(need, _)| *need)
        .filter(|(need, _)| *need > MilliCpu(0))
        .unwrap_or((MilliCpu(0), Basis::Nothing));
        let contributions = || Contributions {
            containers: containers.clone(),
            pod,
        };
        let count = |need: MilliCpu| {
            let vcpus = u32::try_from(vcpus(need)).unwrap_or(u32::MAX);
            VcpuCount::new(vcpus).map_err(|source| PodError::Vcpus {
                need,
                contributions: contributions(),
                source,
            })
        };
        let known_to_kata = limit.unwrap_or_else(|| kubelet_limit(&containers));
        let vcpus = count(need)?;
        let launched = count(need.max(known_to_kata))?;
        if gpus > u64::from(vcpus.get()) {
            return Err(PodError::Gpus {
                vcpus,
                gpus,
                contributions: contributions(),
            });
        }
        let by_kata = self::vcpus(known_to_kata);
        Ok(Self {
            vcpus,
            launched,
            basis,
            need,
            containers,
            pod,
            gpus,
            by_kata,
        })
    }
}

/// vCPUs of a VM for a need of CPU: that of the guest itself, and as many as are needed.
fn vcpus(need: MilliCpu) -> u64 {
    need.cpus().saturating_add(1)
}

/// The CPU limit of the pod's sandbox: what runs together at most, where sidecars run beside later init containers
/// (Kubernetes enhancement proposal 753).
fn kubelet_limit(containers: &[ContainerCpu]) -> MilliCpu {
    let mut running = MilliCpu(0);
    let mut most = MilliCpu(0);
    for container in containers {
        let with = running.plus(container.limited());
        most = most.max(with);
        if container.role != ContainerRole::Init {
            running = with;
        }
    }
    most
}

fn quantity(
    place: &str,
    field: &'static str,
    resources: &Value,
) -> Result<Option<MilliCpu>, PodError> {
    match &resources["cpu"] {
        Value::Null => Ok(None),
        value => text(value)
            .parse()
            .map(Some)
            .map_err(|source| PodError::Quantity {
                place: place.to_owned(),
                field,
                source,
            }),
    }
}

/// A scalar as it was written; quantities may be strings or numbers.
fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// GPUs of a container. They are extended resources: whole numbers, limit and request are equal.
fn gpus_of(place: &str, container: &Value) -> Result<u64, PodError> {
    let mut total: u64 = 0;
    let limits = container["resources"]["limits"].as_object();
    for (resource, amount) in limits.into_iter().flatten() {
        if !resource.starts_with(GPU_VENDOR) {
            continue;
        }
        let found = text(amount);
        let count: u64 = found.parse().map_err(|_| PodError::GpuCount {
            place: place.to_owned(),
            resource: resource.clone(),
            found,
        })?;
        total = total.saturating_add(count);
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
