//! The rules, request by request, as a host would send them.

#![allow(clippy::expect_used, reason = "a test may panic")]

use contrast_images::ImageCache;
use contrast_policy::{Decision, Engine, Initdata, PodSource};
use serde_json::{Value, json};

const DIGEST: &str = "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn template() -> Value {
    let container = |name: &str| {
        json!({
            "name": name,
            "image": format!("{name}@{DIGEST}"),
            "command": [format!("/bin/{name}"), "--flag"],
            "env": [{"name": "COLOR", "value": "blue"}],
            "livenessProbe": {"exec": {"command": ["/bin/check"]}},
            "volumeMounts": [{"name": "v", "mountPath": "/data"}],
        })
    };
    json!({"spec": {"initContainers": [container("gate")], "containers": [container("app")]}})
}

struct Host(Engine);

impl Host {
    fn new() -> Self {
        let template = template();
        let source = PodSource {
            kind: "Deployment",
            name: "web",
            namespace: "shop",
            template: &template,
            images: &ImageCache::default(),
        };
        let rego = source.policy().expect("policy").to_rego().expect("rego");
        let initdata = Initdata::with_policy(&rego).expect("initdata");
        Self(Engine::load(initdata.policy()).expect("loads"))
    }

    fn ask(&mut self, kind: &str, request: &Value) -> Decision {
        self.0.allow(kind, request).expect("evaluates")
    }

    fn create_sandbox(&mut self) {
        let decision = self.ask("CreateContainerRequest", &sandbox());
        assert!(decision.allowed, "{:?}", decision.reasons);
    }

    fn create(&mut self, name: &str) -> Decision {
        self.ask("CreateContainerRequest", &create(name))
    }

    fn start(&mut self, id: &str) -> Decision {
        self.ask("StartContainerRequest", &json!({"container_id": id}))
    }
}

fn sandbox() -> Value {
    json!({
        "container_id": "sandbox-id",
        "sandbox_pidns": false,
        "shared_mounts": [],
        "storages": [],
        "OCI": {
            "Annotations": {
                "io.kubernetes.cri.container-type": "sandbox",
                "io.kubernetes.cri.sandbox-name": "web-7b4c5d-x2x4z",
                "io.kubernetes.cri.sandbox-namespace": "shop",
            },
            "Hooks": null,
            "Linux": {"Seccomp": null},
            "Root": {"Path": "/run/kata-containers/sandbox-id/rootfs", "Readonly": true},
            "Process": {"Args": ["/pause"]},
        },
    })
}

fn create(name: &str) -> Value {
    json!({
        "container_id": format!("{name}-id"),
        "sandbox_pidns": false,
        "shared_mounts": [],
        "devices": [],
        "storages": [{
            "driver": "image_guest_pull",
            "source": format!("docker.io/library/{name}@{DIGEST}"),
            "mount_point": format!("/run/kata-containers/{name}-id/rootfs"),
        }],
        "OCI": {
            "Annotations": {
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.container-name": name,
                "io.kubernetes.cri.image-name": format!("docker.io/library/{name}@{DIGEST}"),
                "io.kubernetes.cri.sandbox-name": "web-7b4c5d-x2x4z",
                "io.kubernetes.cri.sandbox-namespace": "shop",
            },
            "Hooks": null,
            "Linux": {"Seccomp": null},
            "Mounts": [
                {"destination": "/proc", "source": "proc"},
                {"destination": "/data", "source": "/run/kata-containers/shared/containers/x-data"},
            ],
            "Root": {"Path": format!("/run/kata-containers/{name}-id/rootfs"), "Readonly": false},
            "Process": {
                "Args": [format!("/bin/{name}"), "--flag"],
                "Cwd": "/",
                "Env": [PATH, "COLOR=blue", "HOSTNAME=web-7b4c5d-x2x4z", "API_SERVICE_HOST=10.0.0.1"],
                "Terminal": false,
                "User": {"UID": 0, "GID": 0},
                "Capabilities": {"Bounding": ["CAP_CHOWN"], "Effective": ["CAP_CHOWN"]},
            },
        },
    })
}

/// The request of `create("gate")` with one change is refused for exactly one reason, which contains `reason`.
fn refused(pointer: &str, value: Value, reason: &str) {
    let mut host = Host::new();
    host.create_sandbox();
    let mut request = create("gate");
    *request.pointer_mut(pointer).expect("pointer") = value;
    let decision = host.ask("CreateContainerRequest", &request);
    assert!(!decision.allowed, "{pointer} was allowed");
    assert_eq!(decision.reasons.len(), 1, "{:?}", decision.reasons);
    assert!(
        decision.reasons[0].contains(reason),
        "{:?}",
        decision.reasons
    );
    assert!(
        host.create("gate").allowed,
        "a refused request must not change the state"
    );
}

#[test]
fn declared_pod_starts_in_its_order() {
    let mut host = Host::new();
    host.create_sandbox();
    assert!(host.start("sandbox-id").allowed);
    let decision = host.create("gate");
    assert!(decision.allowed, "{:?}", decision.reasons);
    assert!(host.start("gate-id").allowed);
    assert!(host.create("app").allowed);
    assert!(host.start("app-id").allowed);
}

#[test]
fn container_before_its_turn_is_refused() {
    let mut host = Host::new();
    assert_eq!(
        host.create("gate").reasons,
        ["the pod's first container was not created yet"]
    );
    host.create_sandbox();
    assert_eq!(
        host.create("app").reasons,
        ["order: container gate must be created before app"]
    );
}

#[test]
fn nothing_starts_before_the_gate_did() {
    let mut host = Host::new();
    host.create_sandbox();
    assert!(host.create("gate").allowed);
    assert!(host.create("app").allowed);
    assert_eq!(
        host.start("app-id").reasons,
        ["container gate must be started first"]
    );
    assert!(host.start("gate-id").allowed);
    assert!(host.start("app-id").allowed);
    assert!(!host.start("other-id").allowed);
}

#[test]
fn container_exists_once_and_may_come_back_after_its_removal() {
    let mut host = Host::new();
    host.create_sandbox();
    assert!(host.create("gate").allowed);
    let mut again = create("gate");
    again["container_id"] = json!("another-id");
    let decision = host.ask("CreateContainerRequest", &again);
    assert_eq!(decision.reasons, ["container gate exists already"]);
    assert!(
        host.ask(
            "RemoveContainerRequest",
            &json!({"container_id": "gate-id"})
        )
        .allowed
    );
    assert!(host.create("gate").allowed);
}

#[test]
fn second_sandbox_and_foreign_name_are_refused() {
    let mut host = Host::new();
    let mut request = sandbox();
    request["OCI"]["Annotations"]["io.kubernetes.cri.sandbox-name"] = json!("evil");
    assert!(!host.ask("CreateContainerRequest", &request).allowed);
    host.create_sandbox();
    assert!(!host.ask("CreateContainerRequest", &sandbox()).allowed);
}

#[test]
fn every_deviation_is_refused_with_its_reason() {
    let other = format!("docker.io/library/gate@{}", DIGEST.replace("0a", "0b"));
    refused(
        "/storages/0/source",
        json!(other),
        "image: expected digest sha256:0a0a",
    );
    refused(
        "/OCI/Annotations/io.kubernetes.cri.image-name",
        json!(other),
        "image: expected digest",
    );
    refused(
        "/OCI/Process/Args/1",
        json!("--evil"),
        "arguments: expected",
    );
    refused(
        "/OCI/Process/Env",
        json!([PATH, "COLOR=blue", "LD_PRELOAD=/x"]),
        "LD_PRELOAD=/x is not declared",
    );
    refused(
        "/OCI/Process/Env",
        json!([PATH]),
        "declared variable COLOR is missing",
    );
    refused(
        "/OCI/Process/Env",
        json!([PATH, "COLOR=blue", "COLOR=blue"]),
        "COLOR is given twice",
    );
    refused("/OCI/Mounts/1/destination", json!("/bin"), "mount: /bin");
    refused(
        "/OCI/Mounts/1/source",
        json!("/etc"),
        "mount: /data from /etc",
    );
    refused(
        "/OCI/Mounts/1/source",
        json!("/run/kata-containers/shared/containers/../x"),
        "mount: /data",
    );
    refused(
        "/OCI/Process/Capabilities/Effective",
        json!(["CAP_SYS_ADMIN"]),
        "capability CAP_SYS_ADMIN",
    );
    refused(
        "/OCI/Process/Terminal",
        json!(true),
        "terminal: expected false",
    );
    refused("/OCI/Root/Readonly", json!(true), "read-only root");
    refused("/OCI/Root/Path", json!("/"), "root file system");
    refused("/OCI/Hooks", json!({}), "hooks must be absent");
    refused("/OCI/Linux/Seccomp", json!({}), "seccomp");
    refused("/sandbox_pidns", json!(true), "process namespace");
    refused("/shared_mounts", json!([{}]), "shared mounts");
    refused(
        "/devices",
        json!([{"container_path": "/dev/sda"}]),
        "device /dev/sda",
    );
    refused(
        "/OCI/Annotations/io.kubernetes.cri.sandbox-namespace",
        json!("other"),
        "namespace: expected shop",
    );
    refused(
        "/OCI/Annotations/io.kubernetes.cri.sandbox-name",
        json!("web-other-b4b4b"),
        "sandbox name: expected",
    );
}

#[test]
fn container_that_the_pod_does_not_declare_is_refused() {
    let mut host = Host::new();
    host.create_sandbox();
    let decision = host.create("evil");
    assert!(!decision.allowed);
    let expected = r#"container name: expected one of ["gate", "app"], found evil"#;
    assert!(
        decision.reasons.contains(&expected.to_owned()),
        "{:?}",
        decision.reasons
    );
}

/// A container under the sandbox's id could be started as if it were the sandbox, before the gate.
#[test]
fn container_cannot_take_the_id_of_another() {
    let mut host = Host::new();
    host.create_sandbox();
    let mut request = create("gate");
    request["container_id"] = json!("sandbox-id");
    let decision = host.ask("CreateContainerRequest", &request);
    assert_eq!(decision.reasons, ["container id: it is the sandbox's"]);
    assert!(host.create("gate").allowed);
    let mut request = create("app");
    request["container_id"] = json!("gate-id");
    let decision = host.ask("CreateContainerRequest", &request);
    assert_eq!(decision.reasons, ["container id: it is in use already"]);
}

#[test]
fn request_that_leaves_out_what_is_checked_is_refused() {
    for left_out in [
        "/OCI/Process",
        "/OCI/Root",
        "/OCI/Annotations",
        "/storages",
        "/container_id",
    ] {
        let mut host = Host::new();
        host.create_sandbox();
        let mut request = create("gate");
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

#[test]
fn only_declared_probes_are_executed() {
    let mut host = Host::new();
    host.create_sandbox();
    assert!(host.create("gate").allowed);
    let mut exec = |id: &str, args: Value| {
        let request = json!({"container_id": id, "process": {"Args": args, "Terminal": false}});
        host.ask("ExecProcessRequest", &request).allowed
    };
    assert!(exec("gate-id", json!(["/bin/check"])));
    assert!(!exec("gate-id", json!(["/bin/sh"])));
    assert!(!exec("app-id", json!(["/bin/check"])));
}

/// CVE-2026-41326: the host plants a symbolic link and then writes through it.
#[test]
fn files_are_never_copied_through_a_link() {
    let mut host = Host::new();
    let base = "/run/kata-containers/shared/containers/x-config";
    let mut copy = |path: &str, kind: &str, target: &str| {
        let request =
            json!({"path": format!("{base}{path}"), "file_type": kind, "symlink_target": target});
        host.ask("CopyFileRequest", &request).allowed
    };
    assert!(copy("", "Directory", ""));
    assert!(copy("/..2026_01_01", "Directory", ""));
    assert!(copy("/..2026_01_01/key", "Regular", ""));
    assert!(copy("/..data", "Symlink", "..2026_01_01"));
    assert!(copy("/key", "Symlink", "..data/key"));
    assert!(!copy("/..data/key", "Regular", ""), "through a link");
    assert!(!copy("/key", "Regular", ""), "over a link");
    assert!(!copy("/evil", "Symlink", "/etc"), "absolute target");
    assert!(!copy("/evil", "Symlink", "../../etc"), "target outside");
    assert!(!copy("/../x", "Regular", ""), "path outside");
    assert!(!copy("/x", "Unknown", ""), "other kind");
}

#[test]
fn what_no_rule_allows_is_denied() {
    let mut host = Host::new();
    for kind in [
        "SetPolicyRequest",
        "WriteStreamRequest",
        "ReseedRandomDevRequest",
        "UpdateContainerRequest",
    ] {
        assert!(!host.ask(kind, &json!({})).allowed, "{kind}");
    }
    assert!(host.ask("SignalProcessRequest", &json!({})).allowed);
}
