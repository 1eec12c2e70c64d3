use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rules;

/// What one pod may be: the data behind the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodPolicy {
    /// Anchored regular expression that the pod's name must match.
    pub name: String,
    /// Anchored regular expression that its namespace must match: one name, or any if the YAML names none.
    pub namespace: String,
    /// Host name that the pod declares; empty where Kubernetes takes it from the pod's name.
    pub hostname: String,
    /// Regular expression, without anchors, of the variables (`NAME=value`) that Kubernetes adds for Services.
    pub env_pattern: String,
    /// Kernel settings of the pod, by name.
    pub sysctls: BTreeMap<String, String>,
    /// Group that owns the pod's volumes; 0 where none is declared.
    pub fs_group: u32,
    /// What the host may do with streams: `read` what containers print, `write` to their standard input.
    pub streams: Vec<Stream>,
    /// Files and directories that the host copies into the guest, by the last part of their mount path. Several containers
    /// may mount different things at paths that end alike.
    pub copies: BTreeMap<String, Vec<CopyPolicy>>,
    /// The pause container.
    pub sandbox: SandboxPolicy,
    /// Containers in the order in which they are created: init containers first.
    pub containers: Vec<ContainerPolicy>,
}

/// A use of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output and standard error.
    Read,
    /// Standard input.
    Write,
}

/// Something that arrives by CopyFile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CopyPolicy {
    /// One file.
    File {
        /// Its content, if it is bound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Content>,
    },
    /// A directory as Kubernetes writes it.
    Directory {
        /// Its files by path, if no others may come. The content of each is bound, unless only the cluster knows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        files: Option<BTreeMap<String, Option<Content>>>,
    },
    /// A directory that must stay empty.
    Empty,
}

/// Content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

/// The pause container, which holds the pod's namespaces and does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxPolicy {
    /// User ids that runtimes give it.
    pub uids: Vec<u32>,
    /// Group ids that runtimes give it.
    pub gids: Vec<u32>,
}

/// When a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// An init container: ends before the next container is created.
    Init,
    /// An init container with `restartPolicy: Always`: started before the next container is created, and stays.
    Sidecar,
    /// A regular container.
    Main,
}

/// What one container may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerPolicy {
    /// Name in the pod.
    pub name: String,
    /// When it runs.
    pub stage: Stage,
    /// Its image.
    pub image: ImagePolicy,
    /// Program and arguments.
    pub args: Vec<Template>,
    /// Variables with a fixed value, `NAME=value`. Each must be there.
    pub env: Vec<String>,
    /// Variables whose value only the cluster knows, by name. Each must be there.
    pub env_facts: BTreeMap<String, EnvFact>,
    /// Properties of the process.
    pub process: ProcessPolicy,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// All group ids, ascending.
    pub groups: Vec<u32>,
    /// Capabilities, with the prefix `CAP_`, ascending.
    pub capabilities: Vec<String>,
    /// AppArmor profiles that runtimes name; the guest does not load any.
    pub apparmor: Vec<String>,
    /// Whether it is privileged.
    pub privileged: bool,
    /// Whether `/proc` and `/sys` may be fully visible.
    pub unmasked: bool,
    /// Whether its root file system is read-only.
    pub readonly_root: bool,
    /// Mounts that the pod declares. Each must be there.
    pub mounts: Vec<MountPolicy>,
    /// Files that Kubernetes mounts by itself. They may be there.
    pub files: Vec<FilePolicy>,
    /// Paths of block devices in the container. Each must be there.
    pub devices: Vec<String>,
    /// Number of GPUs.
    pub gpus: u32,
    /// Commands that may be executed in it: its probes and hooks, and the check of the service mesh in its sidecar.
    pub exec: Vec<Vec<String>>,
    /// Whether the host may read what these commands print, whatever `streams` says: in the sidecar of the service mesh only.
    pub exec_output: bool,
}

/// A pinned image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePolicy {
    /// Names of its repository: the full one, and the one that the pod uses.
    pub repositories: Vec<String>,
    /// `sha256:…`.
    pub digest: String,
}

/// Fields of the OCI process, under the names of the agent's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ProcessPolicy {
    /// Working directory.
    pub cwd: String,
    /// Whether it cannot gain privileges.
    pub no_new_privileges: bool,
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// A value that only the cluster knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EnvFact {
    /// A fact: `pod-name`, `namespace`, `pod-uid`, `pod-ip`, `pod-ips`, `host-ip`, `host-ips`, `node-name`, `pod-index`, `number`.
    Kind(String),
    /// Text with such values in it.
    Parts(Vec<Part>),
}

/// Text, fixed or with values of variables in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Template {
    /// Fixed.
    Fixed(String),
    /// Filled in from the container's variables.
    Parts(Vec<Part>),
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Part {
    /// Fixed text.
    Text(String),
    /// The value of a variable.
    Variable {
        /// Its name.
        env: String,
    },
}

/// What stands behind a declared mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// A copy of a file or directory that the host has.
    Copy,
    /// A temporary directory on a disk that is encrypted with a key of the guest, or in the guest's root.
    Disk,
    /// A temporary directory in memory.
    Memory,
    /// A file system on a disk of the host, as the host gives it.
    Untrusted,
}

/// A declared mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountPolicy {
    /// Path in the container.
    pub destination: String,
    /// What stands behind it.
    pub kind: MountKind,
    /// Last part of the path, which names copies.
    pub name: String,
    /// Volume of the pod.
    pub volume: String,
    /// Options, ascending.
    pub options: Vec<String>,
}

/// A file or directory that Kubernetes mounts by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePolicy {
    /// Path in the container.
    pub destination: String,
    /// Last part of the path.
    pub name: String,
    /// Options, ascending.
    pub options: Vec<String>,
}

impl PodPolicy {
    /// The whole policy as Rego text: rules and data. The same pod always gives the same bytes.
    ///
    /// # Errors
    /// Never for data of these types.
    pub fn to_rego(&self) -> Result<String, serde_json::Error> {
        // One line for each value: kata-agent takes lines of at most 64 KiB.
        let mut data = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"");
        let mut serializer = serde_json::Serializer::with_formatter(&mut data, formatter);
        self.serialize(&mut serializer)?;
        Ok(format!(
            "{}{DATA}{}\n",
            rules::text(),
            String::from_utf8_lossy(&data)
        ))
    }

    /// Reads the data of a policy that [`PodPolicy::to_rego`] wrote.
    ///
    /// # Errors
    /// When the text is no such policy.
    pub fn from_rego(rego: &str) -> Result<Self, DataError> {
        let (_, data) = rego.split_once(DATA).ok_or(DataError::Absent)?;
        serde_json::from_str(data).map_err(DataError::Malformed)
    }
}

const DATA: &str = "policy_data := ";

/// A policy without readable data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No data.
    #[error("the policy has no `policy_data`; expected one that `contrast generate` wrote")]
    Absent,
    /// Other data.
    #[error("the policy's data are not those of this version of `contrast`")]
    Malformed(#[source] serde_json::Error),
}
