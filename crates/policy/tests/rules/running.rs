//! What can be asked of a running pod, and the size of its policy.

use contrast_images::ImageCache;
use contrast_policy::{ConfigObjects, Initdata, PodName, PodSource};
use serde_json::{Value, json};

use crate::host::{Host, PATH, of, template};

#[test]
fn only_declared_probes_are_executed_and_as_the_container() {
    let mut host = Host::new();
    host.set_up();
    host.run("gate");
    let exec = |id: &str, field: &str, value: Value| {
        let mut request = json!({"container_id": id, "process": {
            "Args": ["/bin/check"], "Cwd": "/", "Env": [PATH, "COLOR=blue", "IP=10.0.0.7"], "Terminal": false,
            "User": {"UID": 0, "GID": 0, "AdditionalGids": [0]},
        }});
        request["process"][field] = value;
        request
    };
    let kind = "ExecProcessRequest";
    host.allowed(kind, &exec("gate-id", "Terminal", json!(false)));
    host.refused(kind, &exec("gate-id", "Args", json!(["/bin/sh"])), "E02");
    host.refused(kind, &exec("app-id", "Terminal", json!(false)), "E00");
    host.refused(kind, &exec("sandbox-id", "Terminal", json!(false)), "E01");
    host.refused(kind, &exec("gate-id", "Terminal", json!(true)), "E03");
    host.refused(kind, &exec("gate-id", "User", json!({"UID": 7})), "E05");
    host.refused(
        kind,
        &exec("gate-id", "Env", json!(["LD_PRELOAD=/x"])),
        "E07",
    );
    host.refused(kind, &exec("gate-id", "Env", json!(["IP=10.0.0.8"])), "E07");
    host.refused(
        kind,
        &exec(
            "gate-id",
            "Capabilities",
            json!({"Effective": ["CAP_SYS_ADMIN"]}),
        ),
        "E06",
    );
}

#[test]
fn streams_are_closed_unless_the_pod_opens_them() {
    let mut host = Host::new();
    host.set_up();
    host.refused("ReadStreamRequest", &of("sandbox"), "R04");
    host.refused("WriteStreamRequest", &of("sandbox"), "R05");
    let mut open = template();
    open["metadata"] = json!({"annotations": {"contrast.edgeless.systems/streams": "read"}});
    let mut host = Host::with(&open);
    host.set_up();
    host.allowed("ReadStreamRequest", &of("sandbox"));
    host.refused("WriteStreamRequest", &of("sandbox"), "R05");
    host.refused("CloseStdinRequest", &of("sandbox"), "R05");
    host.refused("ReadStreamRequest", &of("other"), "R01");
}

#[test]
fn what_no_rule_allows_is_denied() {
    let mut host = Host::new();
    host.set_up();
    for kind in [
        "SetPolicyRequest",
        "ReseedRandomDevRequest",
        "UpdateContainerRequest",
        "AllowRequestsFailingPolicy",
        "NewRequestOf2030",
    ] {
        let decision = host.ask(kind, &of("sandbox"));
        assert!(!decision.allowed && decision.reasons.is_empty(), "{kind}");
    }
    host.allowed("SignalProcessRequest", &of("sandbox"));
    host.refused("SignalProcessRequest", &of("other"), "R01");
    host.refused(
        "CreateSandboxRequest",
        &json!({}),
        "B01 the pod runs already",
    );
}

/// kata-agent of the 3.x line takes at most 64 KiB for a line, and 16 MiB for a policy.
#[test]
fn policy_is_small() {
    let template = template();
    let source = PodSource {
        kind: "Deployment",
        name: PodName::Fixed("web"),
        namespace: Some("shop"),
        template: &template,
        claims: &[],
        images: &ImageCache::default(),
        config: &{
            let mut config = ConfigObjects::default();
            config.insert(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {}}));
            config
        },
    };
    let policy = source.policy().expect("policy");
    let rego = policy.to_rego().expect("rego");
    assert_eq!(
        contrast_policy::PodPolicy::from_rego(&rego).expect("reads"),
        policy
    );
    let annotation = Initdata::with_policy(&rego)
        .expect("initdata")
        .to_annotation()
        .expect("annotation");
    assert!(annotation.len() < 24 * 1024, "{} bytes", annotation.len());
}
