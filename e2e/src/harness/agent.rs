use anyhow::{Context, Result, bail};
use contrast_policy::{Engine, Initdata};
use serde_json::{Value, json};

/// Name that Kubernetes could give the sandbox of a workload's pod; it fits every kind of the sample application.
fn sandbox_name(workload: &str, kind: &str) -> String {
    match kind {
        "StatefulSet" => format!("{workload}-0"),
        _ => format!("{workload}-7b4c5d6f7-x2x4z"),
    }
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
        let process = json!({"Args": ["/pause"]});
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
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        let own = env.iter().map(|(name, value)| format!("{name}={value}"));
        let variables: Vec<String> = [path, format!("HOSTNAME={}", self.name)]
            .into_iter()
            .chain(own)
            .collect();
        let process = json!({
            "Args": arguments,
            "Cwd": "/",
            "Env": variables,
            "Terminal": false,
            "User": {"UID": 0, "GID": 0},
            "Capabilities": {"Bounding": ["CAP_CHOWN"]},
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
        let mounts: Vec<Value> = mounts
            .iter()
            .map(|mount| {
                json!({
                    "destination": mount["mountPath"],
                    "source": format!("/run/kata-containers/sandbox/{name}-volume"),
                })
            })
            .collect();
        let root = format!("/run/kata-containers/{name}-id/rootfs");
        json!({
            "container_id": format!("{name}-id"),
            "sandbox_pidns": false,
            "shared_mounts": [],
            "devices": [],
            "storages": match kind {
                "sandbox" => json!([]),
                _ => json!([{"driver": "image_guest_pull", "source": image, "mount_point": root}]),
            },
            "OCI": {
                "Annotations": {
                    "io.kubernetes.cri.container-type": kind,
                    "io.kubernetes.cri.container-name": name,
                    "io.kubernetes.cri.image-name": image,
                    "io.kubernetes.cri.sandbox-name": self.name,
                    "io.kubernetes.cri.sandbox-namespace": self.namespace,
                },
                "Hooks": null,
                "Linux": {"Seccomp": null},
                "Mounts": mounts,
                "Root": {"Path": root, "Readonly": false},
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
