//! What an honest host sends: containerd 2 and the Kata shim, for a pod of Kubernetes. Written from recorded requests, and
//! without any of the code that makes policies.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::pods::Pod;

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

    /// Where a volume is mounted from, how, and the storages behind it.
    fn volume(
        &mut self,
        mount: &Value,
        id_: &str,
        stamp: &str,
    ) -> (String, &'static str, Vec<Value>) {
        let name = mount["name"].as_str().unwrap_or_default();
        let volumes = self.pod.spec()["volumes"].clone();
        let volume = volumes
            .as_array()
            .into_iter()
            .flatten()
            .find(|volume| volume["name"] == name)
            .cloned();
        let group = id(&self.pod.spec()["securityContext"]["fsGroup"]);
        let owner = group.map(|group| json!({"group_id": group}));
        let options = |first: &[&str]| -> Vec<String> {
            let fsgid = group.map(|group| format!("fsgid={group}"));
            first.iter().map(ToString::to_string).chain(fsgid).collect()
        };
        let disk = |options: Value| {
            let place = format!("/run/kata-containers/sandbox/storage/{}", base(name));
            let storage = json!({
                "driver": "blk", "driver_options": options, "fs_group": owner, "fstype": "ext4", "mount_point": place, "options": [],
                "source": "00/01", "shared": true,
            });
            (place, "rw", vec![storage])
        };
        match volume {
            None => disk(json!([])),
            Some(volume) if volume["emptyDir"]["medium"] == "Memory" => {
                let place = format!("/run/kata-containers/sandbox/ephemeral/{name}");
                let storage = json!({
                    "driver": "ephemeral", "driver_options": [], "fs_group": null, "fstype": "tmpfs", "mount_point": place,
                    "options": options(&[]), "source": "tmpfs", "shared": true,
                });
                (place, "rw", vec![storage])
            }
            Some(volume) if volume.get("emptyDir").is_some() && self.flavour.disks => {
                disk(json!(["encryption_key=ephemeral", "create_filesystem"]))
            }
            Some(volume) if volume.get("emptyDir").is_some() => {
                let place = format!("{SHARE}{}/rootfs/local/{name}", self.sandbox);
                let storage = json!({
                    "driver": "local", "driver_options": [], "fs_group": null, "fstype": "local", "mount_point": place,
                    "options": options(&["mode=0777"]), "source": "local", "shared": true,
                });
                (place, "rw", vec![storage])
            }
            Some(volume) => {
                let files = self.pod.files(&volume);
                let path = mount["mountPath"].as_str().unwrap_or_default();
                let last = path.rsplit('/').next().unwrap_or_default();
                let source = match mount["subPath"].as_str() {
                    Some(key) => {
                        let data = files.get(key).cloned().unwrap_or_default();
                        self.copy_file(id_, last, &data, "bound file")
                    }
                    None => {
                        let mutable = self.pod.mutable(name);
                        let free = |file: &str| mutable || matches!(file, "token" | "labels");
                        self.copy_directory(id_, last, &files, stamp, free)
                    }
                };
                (source, "ro", Vec::new())
            }
        }
    }

    /// The kubelet writes the volumes again; nothing changed in them.
    fn copy_volumes(&mut self, container: &Value, id_: &str, stamp: &str) {
        for mount in list(container, "volumeMounts") {
            self.volume(mount, id_, stamp);
        }
    }

    fn copy_name(&mut self, id_: &str, name: &str) -> String {
        self.copies += 1;
        let random = &hex64(&format!("{}{id_}{name}", self.copies))[..16];
        format!("{SHARE}{id_}-{random}-{name}")
    }

    fn copy(&mut self, path: &str, kind: &str, target: &str, data: &[u8], role: &'static str) {
        let mut body = json!({
            "path": path, "file_type": kind, "symlink_target": target, "file_size": data.len(), "file_mode": 0o100_644,
            "dir_mode": 0o750, "uid": 0, "gid": 0, "offset": 0,
        });
        if kind == "Regular" {
            body["data_sha256"] = json!(hashed(data));
        }
        self.push("CopyFileRequest", path, body);
        if let Some(request) = self.requests.last_mut() {
            request.role = role;
        }
    }

    fn copy_file(&mut self, id_: &str, name: &str, data: &[u8], role: &'static str) -> String {
        let path = self.copy_name(id_, name);
        self.copy(&path, "Regular", "", data, role);
        path
    }

    /// As the kubelet's atomic writer lays it out.
    fn copy_directory(
        &mut self,
        id_: &str,
        name: &str,
        files: &BTreeMap<String, Vec<u8>>,
        stamp: &str,
        free: impl Fn(&str) -> bool,
    ) -> String {
        let path = self.copy_name(id_, name);
        self.copy(&path, "Directory", "", b"", "directory");
        self.copy(
            &format!("{path}/{stamp}"),
            "Directory",
            "",
            b"",
            "directory",
        );
        let mut links = Vec::new();
        for (file, data) in files {
            if let Some((directory, _)) = file.rsplit_once('/') {
                self.copy(
                    &format!("{path}/{stamp}/{directory}"),
                    "Directory",
                    "",
                    b"",
                    "directory",
                );
            }
            let role = if free(file) {
                "free file"
            } else {
                "bound file"
            };
            self.copy(&format!("{path}/{stamp}/{file}"), "Regular", "", data, role);
            let first = file.split('/').next().unwrap_or_default().to_owned();
            if !links.contains(&first) {
                links.push(first);
            }
        }
        self.copy(&format!("{path}/..data"), "Symlink", stamp, b"", "link");
        for link in links {
            self.copy(
                &format!("{path}/{link}"),
                "Symlink",
                &format!("..data/{link}"),
                b"",
                "link",
            );
        }
        path
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
                    "RootfsPropagation": "", "Seccomp": null, "Sysctl": {}, "UIDMappings": [],
                },
                "Mounts": mounts, "Process": process,
                "Root": {"Path": format!("/run/kata-containers/{id_}/rootfs"), "Readonly": read_only},
                "Solaris": null, "Version": "1.1.0", "Windows": null,
            },
            "container_id": id_, "devices": [], "exec_id": id_, "sandbox_pidns": false, "shared_mounts": [], "stderr_port": 0,
            "stdin_port": 0, "stdout_port": 0, "storages": storages, "string_user": null,
        })
    }

    fn environment(&self, container: &Value, image: &Value) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = Vec::new();
        let put = |env: &mut Vec<(String, String)>, name: &str, value: &str| {
            env.retain(|(other, _)| other != name);
            env.push((name.to_owned(), value.to_owned()));
        };
        put(
            &mut env,
            "PATH",
            path_of("").split_once('=').map_or("", |(_, value)| value),
        );
        if container["tty"] == true {
            put(&mut env, "TERM", "xterm");
        }
        for variable in list(image, "Env") {
            let (name, value) = variable
                .as_str()
                .unwrap_or_default()
                .split_once('=')
                .unwrap_or_default();
            put(&mut env, name, value);
        }
        put(&mut env, "HOSTNAME", &self.hostname());
        for from in list(container, "envFrom") {
            let name = from["configMapRef"]["name"].as_str().unwrap_or_default();
            for (key, value) in self.pod.config("ConfigMap", name) {
                put(&mut env, &key, &String::from_utf8_lossy(&value));
            }
        }
        let own: Vec<(String, String)> = Vec::new();
        let mut known = own;
        for variable in list(container, "env") {
            let name = variable["name"].as_str().unwrap_or_default();
            let value = match variable.get("valueFrom") {
                None => expand(variable["value"].as_str().unwrap_or_default(), &known),
                Some(from) => self.value(from),
            };
            put(&mut env, name, &value);
            known.push((name.to_owned(), value));
        }
        if self.pod.spec()["enableServiceLinks"] != false {
            put(&mut env, "API_SERVICE_HOST", "10.0.0.9");
            put(&mut env, "API_PORT_80_TCP", "tcp://10.0.0.9:80");
        }
        put(&mut env, "KUBERNETES_SERVICE_HOST", "10.0.0.1");
        put(&mut env, "KUBERNETES_PORT_443_TCP_PROTO", "tcp");
        env
    }

    fn value(&self, from: &Value) -> String {
        if let Some(key) = from.get("secretKeyRef") {
            let name = key["name"].as_str().unwrap_or_default();
            let values = self.pod.config("Secret", name);
            let value = values.get(key["key"].as_str().unwrap_or_default()).cloned();
            return String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
        }
        if from.get("resourceFieldRef").is_some() {
            return "4".to_owned();
        }
        match from["fieldRef"]["fieldPath"].as_str().unwrap_or_default() {
            "metadata.name" => self.name.clone(),
            "metadata.namespace" => self.pod.namespace.clone(),
            "metadata.uid" => UID.to_owned(),
            "spec.nodeName" => "node-1.example".to_owned(),
            "spec.serviceAccountName" => self.pod.spec()["serviceAccountName"]
                .as_str()
                .unwrap_or("default")
                .to_owned(),
            "metadata.labels['app']" => self.pod.template()["metadata"]["labels"]["app"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            "status.podIP" => "10.244.0.14".to_owned(),
            "status.hostIP" => "192.0.2.7".to_owned(),
            other => other.to_owned(),
        }
    }

    fn probes(&mut self, container: &Value, id_: &str) {
        let image = self.pod.image(container).clone();
        let env = self.environment(container, &image);
        let probes =
            ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
        let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
        let commands: Vec<Value> = probes
            .into_iter()
            .chain(hooks)
            .map(|handler| handler["exec"]["command"].clone())
            .collect();
        for command in commands.into_iter().filter(Value::is_array) {
            let created = self.requests.iter().rev().find(|request| {
                request.body["container_id"] == id_ && request.kind == "CreateContainerRequest"
            });
            let own = created
                .map(|request| request.body["OCI"]["Process"].clone())
                .unwrap_or_default();
            let variables: Vec<String> = env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let process = json!({
                "Args": command, "Cwd": own["Cwd"], "Env": variables, "NoNewPrivileges": own["NoNewPrivileges"], "Terminal": false,
                "User": own["User"], "SelinuxLabel": "", "ApparmorProfile": "", "Rlimits": [], "Capabilities": null,
            });
            let body = json!({"container_id": id_, "exec_id": "probe-1", "string_user": null, "process": process});
            self.push("ExecProcessRequest", id_, body);
            let body = json!({"container_id": id_, "exec_id": "probe-1"});
            self.push("WaitProcessRequest", id_, body);
        }
    }
}

fn base(name: &str) -> String {
    hex64(name)[..8].to_owned()
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

fn capabilities(security: &Value) -> Vec<String> {
    if security["privileged"] == true {
        return names(ALL_CAPABILITIES);
    }
    let given = |key: &str| -> Vec<String> {
        let names = security["capabilities"][key]
            .as_array()
            .cloned()
            .unwrap_or_default();
        names
            .iter()
            .filter_map(|name| name.as_str().map(|name| format!("CAP_{name}")))
            .collect()
    };
    let dropped = given("drop");
    let all = dropped.iter().any(|name| name == "CAP_ALL");
    let kept = names(DEFAULT_CAPABILITIES)
        .into_iter()
        .filter(|name| !all && !dropped.contains(name));
    kept.chain(given("add")).collect()
}

fn arguments(container: &Value, image: &Value, env: &[(String, String)]) -> Vec<String> {
    let own = |key: &str| -> Vec<String> {
        let words = container[key].as_array().cloned().unwrap_or_default();
        words
            .iter()
            .filter_map(Value::as_str)
            .map(|word| expand(word, env))
            .collect()
    };
    let of_image = |key: &str| -> Vec<String> {
        list(image, key)
            .iter()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    let (command, args) = (own("command"), own("args"));
    match (command.is_empty(), args.is_empty()) {
        (false, _) => [command, args].concat(),
        (true, false) => [of_image("Entrypoint"), args].concat(),
        (true, true) => [of_image("Entrypoint"), of_image("Cmd")].concat(),
    }
}

fn expand(text: &str, env: &[(String, String)]) -> String {
    let escaped = text.replace("$$", "\u{1}");
    let filled = env.iter().fold(escaped, |text, (name, value)| {
        text.replace(&format!("$({name})"), value)
    });
    filled.replace('\u{1}', "$")
}
