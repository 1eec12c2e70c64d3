//! A pod and the requests of its host.

use contrast_images::ImageCache;
use contrast_policy::{ConfigObjects, Decision, Engine, Initdata, PodName, PodSource};
use serde_json::{Value, json};

pub(crate) const DIGEST: &str =
    "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
pub(crate) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
pub(crate) const POD: &str = "web-7b4c5d-x2x4z";
pub(crate) const CAPABILITIES: [&str; 14] = [
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

/// An init container, a sidecar and an application that mount the same ConfigMap and memory.
pub(crate) fn template() -> Value {
    let container = |name: &str| {
        json!({
            "name": name,
            "image": format!("{name}:1@{DIGEST}"),
            "command": [format!("/bin/{name}"), "--ip=$(IP)"],
            "env": [
                {"name": "COLOR", "value": "blue"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "livenessProbe": {"exec": {"command": ["/bin/check"]}},
            "volumeMounts": [{"name": "memory", "mountPath": "/data"}, {"name": "config", "mountPath": "/etc/config"}],
        })
    };
    let mut sidecar = container("gate");
    sidecar["restartPolicy"] = json!("Always");
    json!({"spec": {
        "initContainers": [container("setup"), sidecar],
        "containers": [container("app")],
        "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}, {"name": "config", "configMap": {"name": "settings"}}],
    }})
}

pub(crate) struct Host(pub(crate) Engine);

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(&template())
    }

    pub(crate) fn with(template: &Value) -> Self {
        let mut config = ConfigObjects::default();
        config.insert(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "value"},
        }));
        let source = PodSource {
            kind: "Deployment",
            name: PodName::Fixed("web"),
            namespace: Some("shop"),
            template,
            claims: &[],
            images: &ImageCache::default(),
            config: &config,
        };
        let rego = source.policy().expect("policy").to_rego().expect("rego");
        let initdata = Initdata::with_policy(&rego).expect("initdata");
        Self(Engine::load(initdata.policy()).expect("loads"))
    }

    pub(crate) fn ask(&mut self, kind: &str, request: &Value) -> Decision {
        self.0.allow(kind, request).expect("evaluates")
    }

    pub(crate) fn allowed(&mut self, kind: &str, request: &Value) {
        let decision = self.ask(kind, request);
        assert!(decision.allowed, "{kind}: {:?}", decision.reasons);
    }

    /// Refused, with `reason` as the first one.
    pub(crate) fn refused(&mut self, kind: &str, request: &Value, reason: &str) {
        let decision = self.ask(kind, request);
        assert!(!decision.allowed, "{kind} was allowed, expected {reason}");
        let first = decision
            .reasons
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        assert!(first.contains(reason), "expected {reason}, found {first}");
    }

    pub(crate) fn run(&mut self, name: &str) {
        self.allowed("CreateContainerRequest", &create(name));
        self.allowed("StartContainerRequest", &of(name));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.allowed("RemoveContainerRequest", &of(name));
    }

    /// The pause container and the init container did their work.
    pub(crate) fn set_up(&mut self) {
        self.allowed("CreateContainerRequest", &sandbox());
        self.allowed("StartContainerRequest", &of("sandbox"));
        self.run("setup");
        self.remove("setup");
    }
}

pub(crate) fn of(name: &str) -> Value {
    json!({"container_id": format!("{name}-id")})
}

pub(crate) fn request(
    name: &str,
    kind: &str,
    process: &Value,
    mounts: &Value,
    storages: &[Value],
) -> Value {
    let id = format!("{name}-id");
    let root = format!("/run/kata-containers/{id}/rootfs");
    let image = format!("docker.io/library/{name}@{DIGEST}");
    let mut annotations = json!({
        "io.katacontainers.pkg.oci.container_type": format!("pod_{kind}"),
        "io.kubernetes.cri.container-type": kind,
        "io.kubernetes.cri.sandbox-id": "5e".repeat(32),
        "io.kubernetes.cri.sandbox-name": POD,
        "io.kubernetes.cri.sandbox-namespace": "shop",
    });
    let mut all = Vec::new();
    if kind == "container" {
        annotations["io.kubernetes.cri.container-name"] = json!(name);
        annotations["io.kubernetes.cri.image-name"] = json!(image);
        all.push(json!({
            "driver": "image_guest_pull",
            "driver_options": [format!("image_guest_pull={}", json!({"metadata": annotations}))],
            "fs_group": null,
            "fstype": "overlay",
            "mount_point": root,
            "options": [],
            "source": image,
        }));
        all.extend(storages.iter().cloned());
    }
    let namespaces = ["ipc", "uts", "mount"].map(|kind| json!({"Type": kind, "Path": ""}));
    json!({
        "container_id": id,
        "exec_id": id,
        "sandbox_pidns": false,
        "shared_mounts": [],
        "string_user": null,
        "devices": [],
        "storages": all,
        "OCI": {
            "Version": "1.1.0",
            "Annotations": annotations,
            "Hooks": null,
            "Hostname": "",
            "Linux": {
                "CgroupsPath": format!("kubepods-pod1.slice:cri-containerd:{id}"),
                "MaskedPaths": [
                    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                ],
                "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
                "Namespaces": namespaces,
                "Seccomp": null,
                "Sysctl": {},
            },
            "Mounts": mounts,
            "Root": {"Path": root, "Readonly": kind == "sandbox"},
            "Process": process,
        },
    })
}

pub(crate) fn sandbox() -> Value {
    let process = json!({
        "Args": ["/pause"],
        "Cwd": "/",
        "Env": [PATH],
        "NoNewPrivileges": true,
        "User": {"UID": 65535, "GID": 65535, "AdditionalGids": [65535]},
        "Capabilities": {"Bounding": CAPABILITIES, "Effective": CAPABILITIES, "Permitted": CAPABILITIES},
    });
    request("sandbox", "sandbox", &process, &json!([]), &[])
}

pub(crate) fn create(name: &str) -> Value {
    let process = json!({
        "Args": [format!("/bin/{name}"), "--ip=10.0.0.7"],
        "Cwd": "/",
        "Env": [PATH, "COLOR=blue", "IP=10.0.0.7", format!("HOSTNAME={POD}"), "API_SERVICE_HOST=10.0.0.1"],
        "NoNewPrivileges": false,
        "Rlimits": [],
        "Terminal": false,
        "User": {"UID": 0, "GID": 0, "AdditionalGids": [0], "Username": ""},
        "Capabilities": {
            "Ambient": [], "Inheritable": [], "Bounding": CAPABILITIES, "Effective": CAPABILITIES, "Permitted": CAPABILITIES,
        },
    });
    let mounts = json!([
        {"destination": "/proc", "source": "proc", "type_": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/data", "source": "/run/kata-containers/sandbox/ephemeral/memory", "type_": "bind",
            "options": ["rbind", "rprivate", "rw"],
        },
        {
            "destination": "/etc/config", "type_": "bind", "options": ["rbind", "rprivate", "ro"],
            "source": format!("/run/kata-containers/shared/containers/{name}-id-0123456789abcdef-config"),
        },
    ]);
    let memory = json!({
        "driver": "ephemeral", "fstype": "tmpfs", "source": "tmpfs", "options": [], "driver_options": [], "shared": true,
        "mount_point": "/run/kata-containers/sandbox/ephemeral/memory",
    });
    request(name, "container", &process, &mounts, &[memory])
}

pub(crate) fn copy(path: &str, kind: &str, target: &str, data: &str) -> Value {
    json!({
        "path": format!("/run/kata-containers/shared/containers/app-id-0123456789abcdef-{path}"),
        "file_type": kind,
        "symlink_target": target,
        "file_size": data.len(),
        "file_mode": 0o100_644,
        "offset": 0,
        "data": data.as_bytes(),
    })
}
