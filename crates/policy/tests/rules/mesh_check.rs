//! The one command that the host may execute in the sidecar of the service mesh, and what it may read of it.

use serde_json::{Value, json};

use crate::host::{Host, PATH, create, of, template};

const EXECUTE: &str = "ExecProcessRequest";
const READ: &str = "ReadStreamRequest";
const SIDECAR: &str = "contrast-service-mesh";
const SIDECAR_ID: &str = "contrast-service-mesh-id";

/// The usual pod, whose sidecar is that of the service mesh.
fn with_mesh() -> Value {
    let mut pod = template();
    let sidecar = &mut pod["spec"]["initContainers"][1];
    sidecar["name"] = json!(SIDECAR);
    sidecar["command"] = json!(["/bin/service-mesh"]);
    sidecar["livenessProbe"] = Value::Null;
    sidecar["startupProbe"] = json!({"exec": {"command": ["/bin/service-mesh", "--check-ready"]}});
    sidecar["image"] = json!(
        sidecar["image"]
            .as_str()
            .expect("image")
            .replace("gate", SIDECAR)
    );
    pod
}

/// A host whose pod runs, with its application.
fn running(pod: &Value) -> Host {
    let mut host = Host::with(pod);
    host.set_up();
    let mut sidecar = create(SIDECAR);
    sidecar["OCI"]["Process"]["Args"] = json!(["/bin/service-mesh"]);
    host.allowed("CreateContainerRequest", &sidecar);
    host.allowed("StartContainerRequest", &of(SIDECAR));
    host.run("app");
    host
}

fn check() -> Value {
    json!({"container_id": SIDECAR_ID, "exec_id": "check-1", "string_user": null, "process": {
        "Args": ["/bin/service-mesh", "check", "--json"], "Cwd": "/", "Env": [PATH, "COLOR=blue", "IP=10.0.0.7"], "Terminal": false,
        "User": {"UID": 0, "GID": 0, "AdditionalGids": [0]},
    }})
}

fn read(id: &str, exec_id: &str) -> Value {
    json!({"container_id": id, "exec_id": exec_id, "len": 32768})
}

#[test]
fn the_check_is_executed_and_nothing_that_resembles_it() {
    let mut host = running(&with_mesh());
    host.allowed(EXECUTE, &check());
    let deviations = [
        ("/process/Args", json!(["/bin/service-mesh"]), "E02"),
        (
            "/process/Args",
            json!(["/bin/service-mesh", "check"]),
            "E02",
        ),
        (
            "/process/Args",
            json!(["/bin/service-mesh", "check", "--json", "api"]),
            "E02",
        ),
        (
            "/process/Args",
            json!(["/bin/service-mesh", "check", "--json", "--", "api:80"]),
            "E02",
        ),
        (
            "/process/Args",
            json!(["/bin/service-mesh", "--json", "check"]),
            "E02",
        ),
        (
            "/process/Args",
            json!(["/bin/service-mesh", "--print-rules"]),
            "E02",
        ),
        (
            "/process/Args",
            json!(["service-mesh", "check", "--json"]),
            "E02",
        ),
        (
            "/process/Args",
            json!(["/bin/service-mesh check --json"]),
            "E02",
        ),
        (
            "/process/Args",
            json!(["/bin/sh", "-c", "/bin/service-mesh check --json"]),
            "E02",
        ),
        ("/process/Args", json!([]), "E02"),
        ("/process/Terminal", json!(true), "E03"),
        ("/string_user", json!("envoy"), "E03"),
        ("/process/Cwd", json!("/contrast"), "E04"),
        ("/process/User/UID", json!(15006), "E05"),
        ("/process/User/GID", json!(15006), "E05"),
        ("/process/User/AdditionalGids", json!([0, 7]), "E05"),
        (
            "/process/Capabilities",
            json!({"Effective": ["CAP_SYS_ADMIN"]}),
            "E06",
        ),
        (
            "/process/Env",
            json!(["CONTRAST_BASE_DIR=/elsewhere"]),
            "E07",
        ),
        ("/process/Env", json!(["LD_PRELOAD=/contrast/x"]), "E07"),
        ("/container_id", json!("app-id"), "E02"),
        ("/container_id", json!("sandbox-id"), "E01"),
        ("/container_id", json!("setup-id"), "E00"),
    ];
    for (place, value, reason) in deviations {
        let mut request = check();
        match request.pointer_mut(place) {
            Some(field) => *field = value,
            None => request["process"]["Capabilities"] = value,
        }
        host.refused(EXECUTE, &request, reason);
    }
}

#[test]
fn only_commands_of_the_sidecar_are_readable() {
    let mut host = running(&with_mesh());
    host.allowed(READ, &read(SIDECAR_ID, "check-1"));
    // The sidecar itself, by each name that the agent knows it by.
    host.refused(READ, &read(SIDECAR_ID, SIDECAR_ID), "R04");
    host.refused(READ, &read(SIDECAR_ID, ""), "R04");
    host.refused(READ, &of(SIDECAR), "R04");
    for no_text in [Value::Null, json!(7), json!(["check-1"])] {
        let mut request = read(SIDECAR_ID, "");
        request["exec_id"] = no_text;
        host.refused(READ, &request, "R04");
    }
    for exec_id in ["", "app-id", "check-1", SIDECAR_ID] {
        host.refused(READ, &read("app-id", exec_id), "R04");
        host.refused(READ, &read("sandbox-id", exec_id), "R04");
        host.refused(READ, &read("gone-id", exec_id), "R01");
    }
    for kind in ["WriteStreamRequest", "CloseStdinRequest"] {
        host.refused(kind, &read(SIDECAR_ID, "check-1"), "R05");
    }
}

#[test]
fn other_containers_get_no_check_by_its_name_or_program() {
    let mut by_name = with_mesh();
    by_name["spec"]["initContainers"][1]["command"] = json!(["/bin/gate"]);
    let mut host = Host::with(&by_name);
    host.set_up();
    let mut sidecar = create(SIDECAR);
    sidecar["OCI"]["Process"]["Args"] = json!(["/bin/gate"]);
    host.allowed("CreateContainerRequest", &sidecar);
    host.allowed("StartContainerRequest", &of(SIDECAR));
    host.refused(EXECUTE, &check(), "E02");
    host.refused(READ, &read(SIDECAR_ID, "check-1"), "R04");

    let mut by_program = template();
    by_program["spec"]["initContainers"][1]["command"] = json!(["/bin/service-mesh"]);
    let mut host = Host::with(&by_program);
    host.set_up();
    let mut gate = create("gate");
    gate["OCI"]["Process"]["Args"] = json!(["/bin/service-mesh"]);
    host.allowed("CreateContainerRequest", &gate);
    host.allowed("StartContainerRequest", &of("gate"));
    let mut request = check();
    request["container_id"] = json!("gate-id");
    host.refused(EXECUTE, &request, "E02");
    host.refused(READ, &read("gate-id", "check-1"), "R04");
}
