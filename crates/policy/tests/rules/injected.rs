//! Containers that `generate` injects with more rights than others: what they have, nobody else gets.

use serde_json::{Value, json};

use crate::host::{CAPABILITIES, Host, create, sandbox, template};

const FURTHER: [&str; 27] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];
const CREATE: &str = "CreateContainerRequest";

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().expect("a list").push(item);
}

fn all_capabilities() -> Value {
    json!([&CAPABILITIES[..], &FURTHER[..]].concat())
}

/// What a host sends for a privileged container with a device.
fn privileged(request: &mut Value, device: &str) {
    for set in ["Bounding", "Effective", "Permitted"] {
        request["OCI"]["Process"]["Capabilities"][set] = all_capabilities();
    }
    request["OCI"]["Linux"]["MaskedPaths"] = json!([]);
    request["OCI"]["Linux"]["ReadonlyPaths"] = json!([]);
    request["OCI"]["Linux"]["Devices"] =
        json!([{"Path": device, "Type": "b", "Major": 254, "Minor": 16}]);
    request["devices"] = json!([block(device)]);
}

fn block(path: &str) -> Value {
    json!({"id": "drive-1", "type_": "blk", "vm_path": "/dev/vdb", "container_path": path, "options": []})
}

/// `gate` opens an encrypted volume as the Initializer does, and `app` uses it.
fn with_encrypted_volume() -> Value {
    let mut pod = template();
    let gate = &mut pod["spec"]["initContainers"][1];
    gate["securityContext"] = json!({"privileged": true, "runAsUser": 0, "runAsGroup": 0});
    gate["volumeDevices"] = json!([{"name": "disk", "devicePath": "/dev/csi0"}]);
    push(
        &mut gate["volumeMounts"],
        json!({"name": "state", "mountPath": "/state", "mountPropagation": "Bidirectional"}),
    );
    push(
        &mut pod["spec"]["containers"][0]["volumeMounts"],
        json!({"name": "state", "mountPath": "/db", "mountPropagation": "HostToContainer"}),
    );
    push(
        &mut pod["spec"]["volumes"],
        json!({"name": "state", "emptyDir": {}}),
    );
    push(
        &mut pod["spec"]["volumes"],
        json!({"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}),
    );
    pod
}

fn mount_state(request: &mut Value, destination: &str, propagation: &str) {
    let place = format!(
        "/run/kata-containers/shared/containers/{}/rootfs/local/state",
        "5e".repeat(32)
    );
    push(
        &mut request["OCI"]["Mounts"],
        json!({"destination": destination, "source": place, "type_": "bind", "options": ["rbind", propagation, "rw"]}),
    );
    push(
        &mut request["storages"],
        json!({
            "driver": "local", "fstype": "local", "source": "local", "options": ["mode=0777"], "driver_options": [], "shared": true,
            "mount_point": place,
        }),
    );
    request["OCI"]["Linux"]["RootfsPropagation"] = json!(propagation);
}

fn gate() -> Value {
    let mut request = create("gate");
    privileged(&mut request, "/dev/csi0");
    mount_state(&mut request, "/state", "rshared");
    request
}

fn app() -> Value {
    let mut request = create("app");
    mount_state(&mut request, "/db", "rslave");
    request
}

/// A host that did what comes before `gate`.
fn before_gate(pod: &Value) -> Host {
    let mut host = Host::with(pod);
    host.set_up();
    host
}

fn refused(host: &mut Host, honest: &Value, deviations: &[(&str, Value, &str)]) {
    for (pointer, value, reason) in deviations {
        let mut request = honest.clone();
        *request.pointer_mut(pointer).expect(pointer) = value.clone();
        host.refused(CREATE, &request, reason);
    }
}

#[test]
fn initializer_gets_its_device_and_no_other() {
    let mut host = before_gate(&with_encrypted_volume());
    let node = |path: &str| json!([{"Path": path, "Type": "b", "Major": 254, "Minor": 16}]);
    let mut other_type = block("/dev/csi0");
    other_type["type_"] = json!("virtio-fs");
    let mut options = block("/dev/csi0");
    options["options"] = json!(["x"]);
    let deviations = [
        (
            "/devices",
            json!([block("/dev/csi1")]),
            "C35 device /dev/csi1",
        ),
        ("/devices", json!([]), "C35 devices: expected"),
        (
            "/devices",
            json!([block("/dev/csi0"), block("/dev/csi0")]),
            "C35 devices: expected",
        ),
        (
            "/devices",
            json!([block("/dev/csi0"), block("/dev/sda")]),
            "C35 device /dev/sda",
        ),
        ("/devices", json!([other_type]), "C35 device /dev/csi0"),
        ("/devices", json!([options]), "C35 device /dev/csi0"),
        (
            "/devices/0/vm_path",
            json!("/dev/../etc/passwd"),
            "C35 device /dev/csi0",
        ),
        (
            "/OCI/Linux/Devices",
            node("/dev/mem"),
            "C36 device node /dev/mem",
        ),
    ];
    refused(&mut host, &gate(), &deviations);
    host.allowed(CREATE, &gate());
}

#[test]
fn only_the_declared_mount_of_the_initializer_is_shared() {
    let mut host = before_gate(&with_encrypted_volume());
    let shared = json!(["rbind", "rshared", "rw"]);
    let deviations = [
        ("/OCI/Mounts/1/options", shared, "C30 mount at /data"),
        (
            "/OCI/Mounts/2/options",
            json!(["rbind", "rshared", "ro"]),
            "C30 mount at /etc/config",
        ),
        (
            "/OCI/Mounts/3/options",
            json!(["rbind", "rprivate", "rw"]),
            "C30 mount at /state",
        ),
        (
            "/OCI/Mounts/3/options",
            json!(["rbind", "rslave", "rw"]),
            "C30 mount at /state",
        ),
        (
            "/OCI/Mounts/3/destination",
            json!("/data/state"),
            "C30 mount at /data/state",
        ),
        (
            "/OCI/Mounts/3/source",
            json!("/run/kata-containers/sandbox/ephemeral/memory"),
            "C30",
        ),
        // Without it the encrypted volume would stay unseen, and the application would write beside it.
        ("/OCI/Linux/RootfsPropagation", json!(""), "C28"),
        ("/OCI/Linux/RootfsPropagation", json!("rslave"), "C28"),
        ("/OCI/Linux/RootfsPropagation", json!("shared"), "C28"),
    ];
    refused(&mut host, &gate(), &deviations);
    host.allowed(CREATE, &gate());
}

#[test]
fn other_containers_get_none_of_it() {
    let mut host = before_gate(&with_encrypted_volume());
    host.allowed(CREATE, &gate());
    host.allowed("StartContainerRequest", &crate::host::of("gate"));
    let node = json!([{"Path": "/dev/csi0", "Type": "b", "Major": 254, "Minor": 16}]);
    let last = app()["OCI"]["Mounts"]
        .as_array()
        .map_or(0, |mounts| mounts.len() - 1);
    let options = format!("/OCI/Mounts/{last}/options");
    let writable_system = json!([
        {"destination": "/sys", "source": "sysfs", "type_": "sysfs", "options": ["nosuid", "noexec", "nodev", "rw"]},
    ]);
    let deviations = [
        (
            "/devices",
            json!([block("/dev/csi0")]),
            "C35 device /dev/csi0",
        ),
        ("/OCI/Linux/Devices", node, "C36 device node /dev/csi0"),
        (
            "/OCI/Process/Capabilities/Effective",
            all_capabilities(),
            "C20 effective capabilities",
        ),
        (
            "/OCI/Process/Capabilities/Bounding",
            all_capabilities(),
            "C20 bounding capabilities",
        ),
        ("/OCI/Linux/MaskedPaths", json!([]), "C24 masked paths"),
        ("/OCI/Linux/ReadonlyPaths", json!([]), "C24 read-only paths"),
        ("/OCI/Mounts", writable_system, "C30 mount at /sys"),
        (
            options.as_str(),
            json!(["rbind", "rshared", "rw"]),
            "C30 mount at /db",
        ),
        ("/OCI/Linux/RootfsPropagation", json!("rshared"), "C28"),
    ];
    let mut request = app();
    request["OCI"]["Linux"]["Devices"] = json!([]);
    refused(&mut host, &request, &deviations);
    // The guest's default is the same.
    request["OCI"]["Linux"]["RootfsPropagation"] = json!("");
    host.allowed(CREATE, &request);
}

#[test]
fn root_of_a_container_without_such_mounts_is_not_shared() {
    let mut host = Host::new();
    host.allowed(CREATE, &sandbox());
    for propagation in ["rshared", "rslave", "private"] {
        let mut request = create("setup");
        request["OCI"]["Linux"]["RootfsPropagation"] = json!(propagation);
        host.refused(CREATE, &request, "C28 propagation of the root");
    }
    host.allowed(CREATE, &create("setup"));
}

/// `gate` holds the device of the image store and comes first.
#[test]
fn image_store_is_held_before_anything_else_runs_and_by_nobody_else() {
    let mut pod = template();
    let mut holder = pod["spec"]["initContainers"][1].take();
    holder["securityContext"] = json!({"privileged": true});
    holder["volumeDevices"] = json!([{"name": "image-store", "devicePath": "/dev/image_store"}]);
    pod["spec"]["initContainers"][1] = pod["spec"]["initContainers"][0].take();
    pod["spec"]["initContainers"][0] = holder;
    push(
        &mut pod["spec"]["volumes"],
        json!({"name": "image-store", "ephemeral": {"volumeClaimTemplate": {"spec": {"volumeMode": "Block"}}}}),
    );
    let mut host = Host::with(&pod);
    host.allowed(CREATE, &sandbox());
    host.allowed("StartContainerRequest", &crate::host::of("sandbox"));
    host.refused(
        CREATE,
        &create("setup"),
        "C09 order: container gate must have started",
    );
    let mut holder = create("gate");
    privileged(&mut holder, "/dev/image_store");
    let deviations = [
        ("/devices", json!([]), "C35 devices: expected"),
        (
            "/devices",
            json!([block("/dev/csi0")]),
            "C35 device /dev/csi0",
        ),
    ];
    refused(&mut host, &holder, &deviations);
    host.allowed(CREATE, &holder);
    host.allowed("StartContainerRequest", &crate::host::of("gate"));
    let mut setup = create("setup");
    setup["devices"] = json!([block("/dev/image_store")]);
    host.refused(CREATE, &setup, "C35 device /dev/image_store");
    host.allowed(CREATE, &create("setup"));
}
