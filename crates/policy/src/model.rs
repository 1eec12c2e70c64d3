use serde::Serialize;

/// Rules that are the same for every pod.
const RULES: &str = include_str!("rules/agent.rego");

/// What one pod may be: the data behind the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodPolicy {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Regular expression, anchored, that the pod's name must match.
    pub sandbox_name: String,
    /// Environment variables (`NAME=value`) that Kubernetes adds by itself: anchored regular expressions.
    pub env_patterns: Vec<String>,
    /// Containers in the order in which they are created: init containers first.
    pub containers: Vec<ContainerPolicy>,
}

/// What one container may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerPolicy {
    /// Name in the pod.
    pub name: String,
    /// `sha256:…`.
    pub image_digest: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Declared variables; each must be there.
    pub env: Vec<EnvRule>,
    /// Destinations that may be mounted.
    pub mounts: Vec<String>,
    /// Device paths in the container.
    pub devices: Vec<String>,
    /// Commands that may be executed in it: its probes and hooks.
    pub exec_commands: Vec<Vec<String>>,
    /// Capabilities without the prefix `CAP_`.
    pub capabilities: Vec<String>,
    /// Whether every capability is allowed.
    pub privileged: bool,
    /// Whether later containers may only start after this one did.
    pub gate: bool,
    /// User id; `None` leaves it to the image, whose digest is fixed.
    pub uid: Option<u32>,
    /// Group id; `None` as for the user.
    pub gid: Option<u32>,
    /// Working directory; `None` leaves it to the image.
    pub cwd: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its root file system is read-only.
    pub readonly_root: bool,
}

/// A declared environment variable: a fixed value, or a pattern for values that only the cluster knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvRule {
    /// Name.
    pub name: String,
    /// The value, if it is fixed.
    pub value: Option<String>,
    /// Anchored regular expression of the value, if it is not.
    pub pattern: Option<String>,
}

impl PodPolicy {
    /// The whole policy as Rego text: rules and data. The same pod always gives the same bytes.
    ///
    /// # Errors
    /// Never for data of these types.
    pub fn to_rego(&self) -> Result<String, serde_json::Error> {
        Ok(format!(
            "{RULES}\npolicy_data := {}\n",
            serde_json::to_string_pretty(self)?
        ))
    }
}
