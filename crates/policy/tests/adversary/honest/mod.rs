//! What an honest host sends: containerd 2 and the Kata shim, for a pod of Kubernetes. Written from recorded requests, and
//! without any of the code that makes policies.

mod processes;
mod volumes;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::pods::Pod;
use processes::{arguments, capabilities};

/// One request of the host.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) kind: &'static str,
    /// The container that it is about, for messages.
    pub(crate) container: String,
    /// What it is about, where rules differ: `pause`, `privileged` or `container`; what is copied.
    pub(crate) role: &'static str,
    pub(crate) body: Value,
}

/// What differs between hosts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flavour {
    /// emptyDirs are encrypted disks, not directories in the guest.
    pub(crate) disks: bool,
    /// systemd names the cgroups; newer kernel and containerd.
    pub(crate) modern: bool,
    /// Distinguishes pods of one workload.
    pub(crate) instance: u8,
}

const DEFAULT_CAPABILITIES: &str = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP \
    NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE";
const ALL_CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT \
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP \
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";
const SHARE: &str = "/run/kata-containers/shared/containers/";
const UID: &str = "9c64c5bf-298f-46c4-ad63-e2270a2ff44c";

pub(crate) struct Host<'a> {
    pod: &'a Pod,
    flavour: Flavour,
    sandbox: String,
    name: String,
    requests: Vec<Request>,
    copies: u64,
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn id(value: &Value) -> Option<u64> {
    value.as_u64()
}

fn names(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|name| format!("CAP_{name}"))
        .collect()
}

/// SHA-256, hex.
fn hashed(data: &[u8]) -> String {
    let hash = digest(&SHA256, data);
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn hex64(seed: &str) -> String {
    hashed(seed.as_bytes())
}

impl<'a> Host<'a> {
    pub(crate) fn new(pod: &'a Pod, flavour: Flavour) -> Self {
        let random = ["x2x4z", "b4b4b"][usize::from(flavour.instance % 2)];
        let own = &pod.name;
        let name = match pod.kind.as_str() {
            "Pod" if pod.generated => format!("{own}{random}"),
            "Pod" => own.clone(),
            "Deployment" => format!("{own}-7b4c5d6f7-{random}"),
            "StatefulSet" => format!("{own}-{}", flavour.instance),
            "CronJob" => format!("{own}-29384756-{random}"),
            _ => format!("{own}-{random}"),
        };
        let sandbox = hex64(&format!("{name}/sandbox"));
        Self {
            pod,
            flavour,
            sandbox,
            name,
            requests: Vec::new(),
            copies: 0,
        }
    }

    /// A pod's life: start, probes, a restart of its last container, a refresh of its volumes, the end.
    pub(crate) fn life(mut self) -> Vec<Request> {
        self.boot();
        let spec = self.pod.spec().clone();
        let mut running = Vec::new();
        for container in list(&spec, "initContainers") {
            let id = self.run(container, 0);
            if container["name"] == "contrast-service-mesh" {
                self.mesh_check(container, &id);
            }
            match container["restartPolicy"] == "Always" {
                true => running.push(id),
                false => self.of("RemoveContainerRequest", &id),
            }
        }
        for container in list(&spec, "containers") {
            let id = self.run(container, 0);
            self.probes(container, &id);
            running.push(id);
        }
        if let (Some(container), Some(old)) = (list(&spec, "containers").last(), running.pop()) {
            self.of("RemoveContainerRequest", &old);
            let id = self.run(container, 1);
            self.copy_volumes(container, &id, "..2026_11_25_11_00_00.987654321");
            self.probes(container, &id);
            running.push(id);
        }
        self.of("GetOOMEventRequest", "");
        self.of("GuestDetailsRequest", "");
        for id in running.iter().rev() {
            self.signal(id, 15);
            self.of("RemoveContainerRequest", id);
        }
        let sandbox = self.sandbox.clone();
        self.signal(&sandbox, 9);
        self.of("RemoveContainerRequest", &sandbox);
        self.of("DestroySandboxRequest", "");
        self.requests
    }

    fn push(&mut self, kind: &'static str, container: &str, body: Value) {
        let container = container.to_owned();
        let role = match (kind, container.as_str()) {
            ("CreateContainerRequest", "pause") => "pause",
            ("CreateContainerRequest", name) if self.pod.is_privileged(name) => "privileged",
            ("CreateContainerRequest", _) => "container",
            _ => "",
        };
        self.requests.push(Request {
            kind,
            container,
            role,
            body,
        });
    }

    fn of(&mut self, kind: &'static str, id: &str) {
        self.push(kind, id, json!({"container_id": id}));
    }

    fn signal(&mut self, id: &str, signal: u32) {
        let body = json!({"container_id": id, "exec_id": id, "signal": signal});
        self.push("SignalProcessRequest", id, body);
    }

    fn boot(&mut self) {
        let shm = json!({
            "driver": "ephemeral", "driver_options": [], "source": "shm", "fstype": "tmpfs", "fs_group": null, "shared": false,
            "mount_point": "/run/kata-containers/sandbox/shm",
            "options": ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"],
        });
        let body = json!({
            "hostname": self.name, "dns": ["nameserver 10.0.0.10"], "storages": [shm], "sandbox_pidns": false,
            "sandbox_id": self.sandbox, "guest_hook_path": "", "kernel_modules": [],
        });
        self.push("CreateSandboxRequest", "", body);
        let address = json!({"address": "10.244.0.14", "family": 0, "mask": "24"});
        let body = json!({"interface": {
            "IPAddresses": [address], "device": "eth0", "hwAddr": "66:74:9f:6a:96:01", "mtu": 1500, "name": "eth0", "pciPath": "",
            "raw_flags": 0, "type_": "",
        }});
        self.push("UpdateInterfaceRequest", "", body);
        let route = json!({"dest": "", "gateway": "10.244.0.1", "device": "eth0", "source": "", "scope": 0, "family": 0});
        self.push(
            "UpdateRoutesRequest",
            "",
            json!({"routes": {"Routes": [route]}}),
        );
        let neighbor = json!({
            "toIPAddress": {"family": 0, "address": "10.244.0.1", "mask": ""}, "device": "eth0", "lladdr": "00:00:5e:00:53:01",
            "state": 128, "flags": 0,
        });
        self.push(
            "AddARPNeighborsRequest",
            "",
            json!({"neighbors": {"ARPNeighbors": [neighbor]}}),
        );
        let sandbox = self.sandbox.clone();
        let resolv = self.copy_file(
            &sandbox,
            "resolv.conf",
            b"nameserver 10.0.0.10\n",
            "free file",
        );
        let mut mounts = self.kernel_mounts(false);
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        mounts.push(json!({
            "destination": "/etc/resolv.conf", "options": ["rbind", "ro", "nosuid", "nodev", "noexec"], "source": resolv,
            "type_": "bind",
        }));
        let pod_security = &self.pod.spec()["securityContext"];
        let user = id(&pod_security["runAsUser"]).unwrap_or(65535);
        let group = id(&pod_security["runAsGroup"]).unwrap_or(65535);
        let process = self.process(
            &["/pause".into()],
            &[path_of("")],
            "/",
            user,
            group,
            &[group],
            &names(DEFAULT_CAPABILITIES),
            true,
        );
        let mut annotations = self.annotations("sandbox", &sandbox);
        annotations["io.kubernetes.cri.podsandbox.image-name"] =
            json!("registry.k8s.io/pause:3.10");
        annotations["io.kubernetes.cri.sandbox-cpu-period"] = json!("100000");
        annotations["io.kubernetes.cri.sandbox-cpu-quota"] = json!("0");
        annotations["io.kubernetes.cri.sandbox-cpu-shares"] = json!("102");
        annotations["io.kubernetes.cri.sandbox-memory"] = json!("0");
        annotations["io.kubernetes.cri.sandbox-log-directory"] = json!(format!(
            "/var/log/pods/{}_{}_{UID}",
            self.pod.namespace, self.name
        ));
        annotations["nerdctl/network-namespace"] =
            json!("/var/run/netns/cni-22190131-6f68-2878-6d7b-418baf176cdf");
        let pull = self.pull(&sandbox, "pause", &annotations);
        let mut request = self.creation(
            &sandbox,
            annotations,
            process,
            mounts,
            vec![pull],
            true,
            false,
        );
        request["OCI"]["Hostname"] = json!(self.hostname());
        for sysctl in list(pod_security, "sysctls") {
            let name = sysctl["name"].as_str().unwrap_or_default();
            request["OCI"]["Linux"]["Sysctl"][name] = sysctl["value"].clone();
        }
        self.push("CreateContainerRequest", "pause", request);
        self.of("StartContainerRequest", &sandbox);
        self.of("WaitProcessRequest", &sandbox);
    }

    fn hostname(&self) -> String {
        let own = self.pod.spec()["hostname"].as_str();
        own.map_or_else(|| self.name.clone(), str::to_owned)
    }

    /// Creates and starts a container, returns its id.
    fn run(&mut self, container: &Value, restart: u32) -> String {
        let name = container["name"].as_str().unwrap_or_default();
        let id = hex64(&format!("{}/{name}/{restart}", self.name));
        let request = self.container(container, &id);
        self.push("CreateContainerRequest", name, request);
        self.of("StartContainerRequest", &id);
        self.of("WaitProcessRequest", &id);
        self.of("StatsContainerRequest", &id);
        id
    }

    fn container(&mut self, container: &Value, id_: &str) -> Value {
        let spec = self.pod.spec().clone();
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        let security = &container["securityContext"];
        let privileged = security["privileged"] == true;
        let mut mounts = self.kernel_mounts(privileged);
        for (destination, content) in [
            ("/etc/hosts", "127.0.0.1 localhost\n"),
            ("/dev/termination-log", ""),
            ("/etc/hostname", "host\n"),
            ("/etc/resolv.conf", "nameserver 10.0.0.10\n"),
        ] {
            let file = destination.rsplit('/').next().unwrap_or_default();
            let source = self.copy_file(id_, file, content.as_bytes(), "free file");
            mounts.push(bind(destination, &source, "rprivate", "rw"));
        }
        if spec["automountServiceAccountToken"] != false {
            let files = [("ca.crt", "ca"), ("namespace", "ns"), ("token", "jwt")];
            let files = files
                .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
                .into();
            let source = self.copy_directory(
                id_,
                "serviceaccount",
                &files,
                "..2026_11_25_10_00_00.123456789",
                |_| true,
            );
            mounts.push(bind(
                "/var/run/secrets/kubernetes.io/serviceaccount",
                &source,
                "rprivate",
                "ro",
            ));
        }
        let mut storages = Vec::new();
        for mount in list(container, "volumeMounts") {
            let (source, access, storage) =
                self.volume(mount, id_, "..2026_11_25_10_00_00.123456789");
            storages.extend(
                storage
                    .into_iter()
                    .filter(|storage| !storages.contains(storage))
                    .collect::<Vec<_>>(),
            );
            let propagation = match mount["mountPropagation"].as_str() {
                Some("Bidirectional") => "rshared",
                Some("HostToContainer") => "rslave",
                _ => "rprivate",
            };
            let access = if mount["readOnly"] == true {
                "ro"
            } else {
                access
            };
            mounts.push(bind(
                mount["mountPath"].as_str().unwrap_or_default(),
                &source,
                propagation,
                access,
            ));
        }
        let image = self.pod.image(container);
        let env = self.environment(container, image);
        let args = arguments(container, image, &env);
        let pod_security = &spec["securityContext"];
        let image_user = image["User"].as_str().and_then(|user| user.parse().ok());
        let either = |field: &str| id(&security[field]).or_else(|| id(&pod_security[field]));
        let user = either("runAsUser").or(image_user).unwrap_or(0);
        let group = either("runAsGroup").unwrap_or(0);
        let mut groups = vec![group];
        groups.extend(id(&pod_security["fsGroup"]));
        groups.extend(
            list(pod_security, "supplementalGroups")
                .iter()
                .filter_map(id),
        );
        groups.dedup();
        let directories = [&container["workingDir"], &image["WorkingDir"]];
        let cwd = directories.into_iter().find_map(Value::as_str);
        let cwd = cwd.unwrap_or("/").to_owned();
        let variables: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let capabilities = capabilities(security);
        let no_new = security["allowPrivilegeEscalation"] == false;
        let mut process = self.process(
            &args,
            &variables,
            &cwd,
            user,
            group,
            &groups,
            &capabilities,
            no_new,
        );
        process["Terminal"] = json!(container["tty"] == true);
        process["OOMScoreAdj"] = json!(994);
        let mut annotations = self.annotations("container", id_);
        let reference = full_reference(container["image"].as_str().unwrap_or_default());
        annotations["io.kubernetes.cri.container-name"] = json!(name);
        annotations["io.kubernetes.cri.image-name"] = json!(reference);
        let mut all = vec![self.pull(id_, &reference, &annotations)];
        all.extend(storages);
        if container["resources"]["limits"]["nvidia.com/pgpu"] == 1 {
            annotations["cdi.k8s.io/vfio17"] = json!("nvidia.com/gpu=0");
        }
        let read_only = security["readOnlyRootFilesystem"] == true;
        let mut request = self.creation(
            id_,
            annotations,
            process,
            mounts,
            all,
            read_only,
            privileged,
        );
        for device in list(container, "volumeDevices") {
            let path = &device["devicePath"];
            let of_agent = json!({"id": "drive-1", "type_": "blk", "vm_path": "/dev/vdb", "container_path": path, "options": []});
            request["devices"] = json!([of_agent]);
            request["OCI"]["Linux"]["Devices"] =
                json!([{"Path": path, "Type": "b", "Major": 254, "Minor": 16}]);
        }
        request
    }

    fn kernel_mounts(&self, privileged: bool) -> Vec<Value> {
        let access = if privileged { "rw" } else { "ro" };
        let mount = |destination: &str, source: &str, options: &[&str]| json!({"destination": destination, "options": options, "source": source, "type_": source});
        let mut cgroup = vec!["nosuid", "noexec", "nodev", "relatime", access];
        if self.flavour.modern {
            cgroup.extend(["nsdelegate", "memory_recursiveprot"]);
        }
        vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount(
                "/dev",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            mount(
                "/dev/pts",
                "devpts",
                &[
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            ),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
            mount("/sys/fs/cgroup", "cgroup", &cgroup),
            json!({"destination": "/dev/shm", "options": ["rbind"], "source": "/run/kata-containers/sandbox/shm", "type_": "bind"}),
        ]
    }

    fn annotations(&self, kind: &str, id_: &str) -> Value {
        json!({
            "io.katacontainers.pkg.oci.bundle_path": format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id_}"),
            "io.katacontainers.pkg.oci.container_type": format!("pod_{kind}"),
            "io.kubernetes.cri.container-type": kind,
            "io.kubernetes.cri.sandbox-id": self.sandbox,
            "io.kubernetes.cri.sandbox-name": self.name,
            "io.kubernetes.cri.sandbox-namespace": self.pod.namespace,
            "io.kubernetes.cri.sandbox-uid": UID,
        })
    }

    fn pull(&self, id_: &str, source: &str, annotations: &Value) -> Value {
        json!({
            "driver": "image_guest_pull",
            "driver_options": [format!("image_guest_pull={}", json!({"metadata": annotations}))],
            "fs_group": null, "fstype": "overlay", "mount_point": format!("/run/kata-containers/{id_}/rootfs"), "options": [],
            "source": source, "shared": false,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "fields of the OCI process")]
    fn process(
        &self,
        args: &[String],
        env: &[String],
        cwd: &str,
        user: u64,
        group: u64,
        groups: &[u64],
        capabilities: &[String],
        no_new: bool,
    ) -> Value {
        json!({
            "ApparmorProfile": if self.flavour.modern { "cri-containerd.apparmor.d" } else { "" },
            "Args": args,
            "Capabilities": {"Ambient": [], "Bounding": capabilities, "Effective": capabilities, "Inheritable": [], "Permitted": capabilities},
            "ConsoleSize": null, "Cwd": cwd, "Env": env, "NoNewPrivileges": no_new, "OOMScoreAdj": -998, "Rlimits": [],
            "SelinuxLabel": "", "Terminal": false,
            "User": {"AdditionalGids": groups, "GID": group, "UID": user, "Username": ""},
        })
    }

    #[expect(clippy::too_many_arguments, reason = "parts of one request")]
    fn creation(
        &self,
        id_: &str,
        annotations: Value,
        process: Value,
        mounts: Vec<Value>,
        storages: Vec<Value>,
        read_only: bool,
        privileged: bool,
    ) -> Value {
        let uid = UID.replace('-', "_");
        // As containerd derives it from the mounts.
        let has = |way: &str| {
            mounts
                .iter()
                .any(|mount| list(mount, "options").contains(&json!(way)))
        };
        let propagation = match (has("rshared"), has("rslave")) {
            (true, _) => "rshared",
            (false, true) => "rslave",
            (false, false) => "",
        };
        let cgroup = match self.flavour.modern {
            true => format!("kubepods-burstable-pod{uid}.slice:cri-containerd:{id_}"),
            false => format!("/kubepods/burstable/pod{UID}/{id_}"),
        };
        let mut masked = vec![
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
        if self.flavour.modern {
            masked.push("/sys/devices/virtual/powercap");
        }
        let mut read_only_paths = vec![
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ];
        if privileged {
            masked.clear();
            read_only_paths.clear();
        }
        let namespaces = ["ipc", "uts", "mount"].map(|kind| json!({"Path": "", "Type": kind}));
        json!({
            "OCI": {
                "Annotations": annotations, "Hooks": null, "Hostname": "",
                "Linux": {
                    "CgroupsPath": cgroup, "Devices": [], "GIDMappings": [], "IntelRdt": null, "MaskedPaths": masked, "MountLabel": "",
                    "Namespaces": namespaces, "ReadonlyPaths": read_only_paths,
                    "Resources": {
                        "BlockIO": null,
                        "CPU": {"Cpus": "", "Mems": "", "Period": 100_000, "Quota": 0, "RealtimePeriod": 0, "RealtimeRuntime": 0, "Shares": 2},
                        "Devices": [], "HugepageLimits": [],
                        "Memory": {"DisableOOMKiller": false, "Kernel": 0, "KernelTCP": 0, "Limit": 0, "Reservation": 0, "Swap": 0, "Swappiness": 0},
                        "Network": null, "Pids": null,
                    },
                    "RootfsPropagation": propagation, "Seccomp": null, "Sysctl": {}, "UIDMappings": [],
                },
                "Mounts": mounts, "Process": process,
                "Root": {"Path": format!("/run/kata-containers/{id_}/rootfs"), "Readonly": read_only},
                "Solaris": null, "Version": "1.1.0", "Windows": null,
            },
            "container_id": id_, "devices": [], "exec_id": id_, "sandbox_pidns": false, "shared_mounts": [], "stderr_port": 0,
            "stdin_port": 0, "stdout_port": 0, "storages": storages, "string_user": null,
        })
    }
}

fn bind(destination: &str, source: &str, propagation: &str, access: &str) -> Value {
    json!({"destination": destination, "options": ["rbind", propagation, access], "source": source, "type_": "bind"})
}

fn path_of(_: &str) -> String {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()
}

/// containerd's form of a reference: full name, no tag beside a digest.
fn full_reference(image: &str) -> String {
    let (name, digest) = image.split_once('@').unwrap_or((image, ""));
    let name = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    let name = match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some(_) => name.to_owned(),
    };
    format!("{name}@{digest}")
}
