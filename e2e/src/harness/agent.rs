use anyhow::{Context, Result, bail};
use contrast_policy::{Engine, Initdata};
use serde_json::{Value, json};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What containerd gives a container by default.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
/// Volume of the Coordinator's history in the sample application.
const STATE_VOLUME: &str = "state";
const MASKED_PATHS: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Name that Kubernetes could give the sandbox of a workload's pod; it fits every kind of the sample application.
fn sandbox_name(workload: &str, kind: &str) -> String {
    match kind {
        "StatefulSet" => format!("{workload}-0"),
        _ => format!("{workload}-7b4c5d6f7-x2x4z"),
    }
}

/// What containerd gives a container, with what its security context adds.
fn capabilities(container: &Value) -> Vec<String> {
    let added = container["securityContext"]["capabilities"]["add"].as_array();
    let added = added.into_iter().flatten().filter_map(Value::as_str);
    let usual = CAPABILITIES.iter().map(ToString::to_string);
    usual
        .chain(added.map(|name| format!("CAP_{name}")))
        .collect()
}

/// kata-agent's gate: every container is created and started only as the pod's policy allows.
#[derive(Debug)]
pub(super) struct Agent {
    engine: Engine,
    name: String,
    namespace: String,
}

impl Agent {
    /// Loads the policy of the initdata document and creates the sandbox.
    pub(super) fn boot(
        initdata: &[u8],
        workload: &str,
        kind: &str,
        namespace: &str,
    ) -> Result<Self> {
        let initdata = Initdata::parse(initdata.to_vec())?;
        let mut agent = Self {
            engine: Engine::load(initdata.policy())?,
            name: sandbox_name(workload, kind),
            namespace: namespace.to_owned(),
        };
        let process = json!({
            "Args": ["/pause"],
            "Cwd": "/",
            "Env": [PATH],
            "NoNewPrivileges": true,
            "User": {"UID": 65535, "GID": 65535, "AdditionalGids": [65535]},
            "Capabilities": {"Bounding": CAPABILITIES, "Effective": CAPABILITIES, "Permitted": CAPABILITIES},
        });
        let request = agent.create_request("sandbox", "sandbox", &json!({}), &process);
        agent.ask("CreateContainerRequest", &request)?;
        Ok(agent)
    }

    /// Asks whether `container` of the pod may be created with this environment, and then started.
    pub(super) fn run(&mut self, container: &Value, env: &[(String, String)]) -> Result<()> {
        let name = container["name"]
            .as_str()
            .context("container without a name")?;
        let words = |key: &str| container[key].as_array().cloned().unwrap_or_default();
        let arguments: Vec<Value> = words("command").into_iter().chain(words("args")).collect();
        let own = env.iter().map(|(name, value)| format!("{name}={value}"));
        let variables: Vec<String> = [PATH.to_owned(), format!("HOSTNAME={}", self.name)]
            .into_iter()
            .chain(own)
            .collect();
        let capabilities = capabilities(container);
        let process = json!({
            "Args": arguments,
            "Cwd": "/",
            "Env": variables,
            "Terminal": false,
            "User": {"UID": 0, "GID": 0, "AdditionalGids": [0]},
            "Capabilities": {"Bounding": capabilities, "Effective": capabilities, "Permitted": capabilities},
        });
        let request = self.create_request(name, "container", container, &process);
        self.ask("CreateContainerRequest", &request)?;
        self.ask(
            "StartContainerRequest",
            &json!({"container_id": format!("{name}-id")}),
        )
    }

    fn create_request(&self, name: &str, kind: &str, container: &Value, process: &Value) -> Value {
        let image = &container["image"];
        let mounts = container["volumeMounts"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        // The Coordinator's state is on a disk of the host; everything else is in memory.
        let place = |volume: &Value| match volume.as_str().unwrap_or_default() {
            STATE_VOLUME => "/run/kata-containers/sandbox/storage/MDAvMDA=".to_owned(),
            name => format!("/run/kata-containers/sandbox/ephemeral/{name}"),
        };
        let storages = mounts.iter().map(|mount| {
            let (driver, fstype, source) = match mount["name"] == STATE_VOLUME {
                true => ("blk", "ext4", "00/00"),
                false => ("ephemeral", "tmpfs", "tmpfs"),
            };
            json!({
                "driver": driver,
                "fstype": fstype,
                "source": source,
                "mount_point": place(&mount["name"]),
                "options": [],
            })
        });
        let root = format!("/run/kata-containers/{name}-id/rootfs");
        let id = format!("{name}-id");
        let mut annotations = json!({
            "io.katacontainers.pkg.oci.container_type": format!("pod_{kind}"),
            "io.kubernetes.cri.container-type": kind,
            "io.kubernetes.cri.sandbox-id": "5e".repeat(32),
            "io.kubernetes.cri.sandbox-name": self.name,
            "io.kubernetes.cri.sandbox-namespace": self.namespace,
        });
        let storages: Vec<Value> = match kind {
            "sandbox" => Vec::new(),
            _ => {
                annotations["io.kubernetes.cri.container-name"] = json!(name);
                annotations["io.kubernetes.cri.image-name"] = image.clone();
                let pull = json!({
                    "driver": "image_guest_pull",
                    "driver_options": [format!("image_guest_pull={}", json!({"metadata": annotations}))],
                    "fstype": "overlay",
                    "source": image,
                    "mount_point": root,
                });
                std::iter::once(pull).chain(storages).collect()
            }
        };
        let mounts: Vec<Value> = mounts
            .iter()
            .map(|mount| {
                json!({
                    "destination": mount["mountPath"],
                    "source": place(&mount["name"]),
                    "type_": "bind",
                    "options": ["rbind", "rprivate", "rw"],
                })
            })
            .collect();
        let namespaces = ["ipc", "uts", "mount"].map(|kind| json!({"Type": kind, "Path": ""}));
        json!({
            "container_id": id,
            "exec_id": id,
            "sandbox_pidns": false,
            "shared_mounts": [],
            "devices": [],
            "storages": storages,
            "OCI": {
                "Version": "1.1.0",
                "Annotations": annotations,
                "Hooks": null,
                "Linux": {
                    "MaskedPaths": MASKED_PATHS,
                    "ReadonlyPaths": READ_ONLY_PATHS,
                    "Namespaces": namespaces,
                    "Seccomp": null,
                },
                "Mounts": mounts,
                "Root": {"Path": root, "Readonly": kind == "sandbox"},
                "Process": process,
            },
        })
    }

    fn ask(&mut self, kind: &str, request: &Value) -> Result<()> {
        let decision = self.engine.allow(kind, request)?;
        if !decision.allowed {
            bail!(
                "the pod's policy refuses {kind}: {}",
                decision.reasons.join("; ")
            );
        }
        Ok(())
    }
}
