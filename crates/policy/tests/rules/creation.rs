//! CreateContainer, StartContainer and RemoveContainer.

use serde_json::{Value, json};

use crate::host::{DIGEST, Host, PATH, POD, create, of, sandbox};

#[test]
fn declared_pod_starts_in_its_order() {
    let mut host = Host::new();
    host.set_up();
    host.run("gate");
    host.run("app");
}

#[test]
fn container_before_its_turn_is_refused() {
    let mut host = Host::new();
    let kind = "CreateContainerRequest";
    host.refused(
        kind,
        &create("gate"),
        "C09 order: container setup must have ended before gate is created, it is absent",
    );
    host.allowed(kind, &sandbox());
    host.run("setup");
    host.refused(
        kind,
        &create("gate"),
        "must have ended before gate is created, it is started",
    );
    host.remove("setup");
    host.refused(
        kind,
        &create("app"),
        "C09 order: container gate must have started before app is created, it is absent",
    );
    host.allowed(kind, &create("gate"));
    host.refused(kind, &create("app"), "it is created");
    host.allowed("StartContainerRequest", &of("gate"));
    host.run("app");
    host.refused(
        "StartContainerRequest",
        &of("other"),
        "R01 no container has the id other-id",
    );
    host.refused(
        "StartContainerRequest",
        &of("app"),
        "R02 container app-id was started already",
    );
}

/// A container that was created and removed without ever running has done nothing.
#[test]
fn init_container_that_never_ran_opens_no_door() {
    let mut host = Host::new();
    host.allowed("CreateContainerRequest", &create("setup"));
    host.remove("setup");
    host.refused("CreateContainerRequest", &create("gate"), "it is created");
}

#[test]
fn container_exists_once_and_may_come_back_after_its_removal() {
    let mut host = Host::new();
    host.set_up();
    host.run("gate");
    let mut again = create("gate");
    let text = again.to_string().replace("gate-id", "again-id");
    again = serde_json::from_str(&text).expect("JSON");
    host.refused(
        "CreateContainerRequest",
        &again,
        "C08 order: container gate exists already, as gate-id",
    );
    host.refused(
        "CreateContainerRequest",
        &create("gate"),
        "C08 order: container gate-id was started already",
    );
    host.remove("gate");
    host.allowed("CreateContainerRequest", &again);
}

#[test]
fn containers_cannot_take_each_others_ids() {
    let mut host = Host::new();
    host.set_up();
    host.run("gate");
    let take = |name: &str, id: &str| -> Value {
        let text = create(name).to_string().replace(&format!("{name}-id"), id);
        serde_json::from_str(&text).expect("JSON")
    };
    host.refused("CreateContainerRequest", &take("app", "gate-id"), "C08");
    host.refused("CreateContainerRequest", &take("app", "sandbox-id"), "C08");
    let mut split = create("app");
    split["container_id"] = json!("other-id");
    host.refused(
        "CreateContainerRequest",
        &split,
        "C03 container_id: expected that of the root directory, app-id",
    );
}

#[test]
fn pod_keeps_its_name_addresses_and_volumes() {
    let mut host = Host::new();
    host.set_up();
    let other = |from: &str, to: &str| -> Value {
        serde_json::from_str(&create("gate").to_string().replace(from, to)).expect("JSON")
    };
    host.refused(
        "CreateContainerRequest",
        &other(POD, "web-7b4c5d-b4b4b"),
        "C07 name: expected web-7b4c5d-x2x4z",
    );
    host.refused(
        "CreateContainerRequest",
        &other("10.0.0.7", "10.0.0.8"),
        "C07 pod-ip: expected 10.0.0.7",
    );
    host.refused(
        "CreateContainerRequest",
        &other("ephemeral/memory", "ephemeral/other"),
        "C30",
    );
    host.allowed("CreateContainerRequest", &create("gate"));
}

#[test]
fn every_deviation_is_refused_with_its_reason() {
    let other = format!("docker.io/library/setup@{}", DIGEST.replace("0a", "0b"));
    let doubled = format!("docker.io/library/setup@{DIGEST}@{DIGEST}");
    let deviations = [
        (
            "/storages/0/source",
            json!(other),
            "C11 image: expected docker.io/library/setup@sha256:0a0a",
        ),
        ("/storages/0/source", json!(doubled), "C11"),
        ("/storages/0/options", json!(["x"]), "C12"),
        (
            "/storages/0/driver_options/0",
            json!(
                "image_guest_pull={\"metadata\":{\"io.kubernetes.cri-o.ContainerType\":\"sandbox\"}}"
            ),
            "C12",
        ),
        (
            "/OCI/Annotations/io.kubernetes.cri.image-name",
            json!(other),
            "C10",
        ),
        (
            "/OCI/Process/Args/1",
            json!("--ip=10.0.0.8"),
            "C16 arguments: expected",
        ),
        (
            "/OCI/Process/Env",
            json!([PATH, "COLOR=blue", "IP=10.0.0.7", "LD_PRELOAD=/x"]),
            "C13 environment: LD_PRELOAD=/x is not declared",
        ),
        (
            "/OCI/Process/Env",
            json!([
                PATH,
                "COLOR=blue",
                "IP=10.0.0.7",
                "A_SERVICE_HOST=10.0.0.1\nB_SERVICE_HOST=10.0.0.1"
            ]),
            "C13",
        ),
        (
            "/OCI/Process/Env",
            json!([PATH, "IP=10.0.0.7"]),
            "C14 environment: expected COLOR=blue, which is missing",
        ),
        (
            "/OCI/Process/Env",
            json!([PATH, "COLOR=blue", "COLOR=blue", "IP=10.0.0.7"]),
            "C15",
        ),
        (
            "/OCI/Process/Env",
            json!([PATH, "COLOR=blue", "IP=$(evil)"]),
            "C13",
        ),
        (
            "/OCI/Mounts/1/destination",
            json!("/bin"),
            "C30 mount at /bin",
        ),
        ("/OCI/Mounts/1/source", json!("/etc"), "C30 mount at /data"),
        (
            "/OCI/Mounts/1/options",
            json!(["rbind", "rshared", "rw"]),
            "C30",
        ),
        (
            "/OCI/Mounts/2/source",
            json!("/run/kata-containers/shared/containers/other-id-0123456789abcdef-config"),
            "C30",
        ),
        (
            "/OCI/Mounts",
            json!([]),
            "C32 mount at /data: it is declared and missing",
        ),
        ("/storages/1/mount_point", json!("/etc"), "C30"),
        ("/storages/1/driver", json!("virtio-fs"), "C30"),
        (
            "/OCI/Process/Capabilities/Effective",
            json!(["CAP_SYS_ADMIN"]),
            "C20 effective capabilities",
        ),
        (
            "/OCI/Process/Capabilities/Ambient",
            json!(["CAP_CHOWN"]),
            "C20 ambient capabilities",
        ),
        (
            "/OCI/Process/User/UID",
            json!(1),
            "C19 user: expected UID 0, found 1",
        ),
        (
            "/OCI/Process/User/AdditionalGids",
            json!([0, 1]),
            "C19 groups",
        ),
        (
            "/OCI/Process/Terminal",
            json!(true),
            "C17 Terminal: expected false",
        ),
        ("/OCI/Process/NoNewPrivileges", json!(true), "C17"),
        ("/OCI/Process/Cwd", json!("/tmp"), "C17"),
        ("/OCI/Process/Rlimits", json!([{}]), "C02"),
        (
            "/OCI/Process",
            json!("text"),
            "C01 OCI.Process: expected object, found string",
        ),
        ("/OCI/Root/Readonly", json!(true), "C18"),
        ("/OCI/Root/Path", json!("/"), "C03"),
        (
            "/OCI/Root/Path",
            json!("/run/kata-containers/shared/rootfs"),
            "C03",
        ),
        ("/OCI/Hooks", json!({"Prestart": []}), "C02 OCI.Hooks"),
        ("/OCI/Linux/Seccomp", json!({"x": 1}), "C02"),
        (
            "/OCI/Linux/Namespaces/0/Path",
            json!("/proc/1/ns/ipc"),
            "C22",
        ),
        ("/OCI/Linux/Namespaces/0/Type", json!("pid"), "C22"),
        (
            "/OCI/Linux/Sysctl",
            json!({"kernel.core_pattern": "|/bin/sh"}),
            "C23 sysctl kernel.core_pattern",
        ),
        (
            "/OCI/Linux/MaskedPaths/2",
            json!("/contrast/tls-config"),
            "C24",
        ),
        ("/OCI/Linux/ReadonlyPaths", json!([]), "C24 read-only paths"),
        ("/OCI/Linux/CgroupsPath", json!("../../gate-id"), "C25"),
        ("/OCI/Hostname", json!("evil"), "C26"),
        ("/sandbox_pidns", json!(true), "C02 sandbox_pidns"),
        ("/shared_mounts", json!([{}]), "C02 shared_mounts"),
        (
            "/devices",
            json!([{"container_path": "/dev/sda", "type_": "blk"}]),
            "C35 device /dev/sda",
        ),
        (
            "/OCI/Annotations/io.kubernetes.cri.sandbox-namespace",
            json!("other"),
            "C06 namespace: expected ^shop$",
        ),
        (
            "/OCI/Annotations/io.kubernetes.cri.sandbox-name",
            json!("evil"),
            "C06 pod name",
        ),
        (
            "/OCI/Annotations/io.kubernetes.cri.container-name",
            json!("evil"),
            "C05 container name: expected one of setup, gate, app, found evil",
        ),
    ];
    for (pointer, value, reason) in deviations {
        let mut host = Host::new();
        host.allowed("CreateContainerRequest", &sandbox());
        let mut request = create("setup");
        *request.pointer_mut(pointer).expect(pointer) = value;
        host.refused("CreateContainerRequest", &request, reason);
        // A refused request changes no state.
        host.allowed("CreateContainerRequest", &create("setup"));
    }
}

#[test]
fn request_that_leaves_out_what_is_checked_is_refused() {
    for left_out in [
        "/OCI/Process",
        "/OCI/Root",
        "/OCI/Annotations",
        "/storages",
        "/OCI/Mounts",
        "/OCI/Process/Env",
    ] {
        let mut host = Host::new();
        let mut request = create("setup");
        let (parent, key) = left_out.rsplit_once('/').expect("a path");
        let parent = request
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .expect("an object");
        parent.remove(key);
        assert!(
            !host.ask("CreateContainerRequest", &request).allowed,
            "{left_out}"
        );
    }
}
