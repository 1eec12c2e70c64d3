use serde_json::{Value, json};

use super::{Basis, ContainerRole, PodError, PodVcpus};

fn container(limit: Value, request: Value) -> Value {
    json!({"name": "c", "resources": {"limits": {"cpu": limit}, "requests": {"cpu": request}}})
}

fn sidecar(limit: Value) -> Value {
    let mut container = container(limit, Value::Null);
    container["restartPolicy"] = json!("Always");
    container
}

fn of(spec: Value) -> PodVcpus {
    PodVcpus::of(&spec).unwrap()
}

fn summary(spec: Value) -> (u32, Basis, u64) {
    let pod = of(spec);
    (pod.vcpus.get(), pod.basis, pod.by_kata)
}

#[test]
fn documented_examples() {
    let none = Value::Null;
    let one = |limit: Value| json!({"containers": [container(limit, Value::Null)]});
    assert_eq!(summary(one(none.clone())), (1, Basis::Nothing, 1));
    assert_eq!(summary(one(json!("0"))), (1, Basis::Nothing, 1));
    assert_eq!(summary(one(json!("100m"))), (2, Basis::Containers, 2));
    assert_eq!(summary(one(json!(1))), (2, Basis::Containers, 2));
    assert_eq!(summary(one(json!(1.5))), (3, Basis::Containers, 3));
    let two = json!({"containers": [container(json!("600m"), none.clone()), container(json!("600m"), none)]});
    assert_eq!(summary(two.clone()), (3, Basis::Containers, 3));
    let mut pod = two;
    pod["resources"] = json!({"limits": {"cpu": 4}, "requests": {"cpu": "100m"}});
    assert_eq!(summary(pod), (5, Basis::Pod, 5));
}

#[test]
fn requests_count_where_they_are_larger_but_kata_does_not_know_them() {
    let spec = json!({"containers": [container(json!("500m"), json!(2)), container(Value::Null, json!("1100m"))]});
    assert_eq!(summary(spec.clone()), (5, Basis::Containers, 2));
    let pod = of(spec);
    assert_eq!((pod.launched.get(), pod.default_vcpus()), (5, 4));
}

#[test]
fn init_containers_are_added_up_beside_the_others() {
    let none = Value::Null;
    let init = |limits: &[Value]| {
        let init: Vec<_> = limits
            .iter()
            .map(|limit| container(limit.clone(), Value::Null))
            .collect();
        json!({"containers": [container(json!(1), none.clone())], "initContainers": init})
    };
    assert_eq!(summary(init(&[json!(3)])), (4, Basis::InitContainers, 4));
    assert_eq!(summary(init(&[json!(1)])), (2, Basis::Containers, 2));
    // Kata learns of the largest only, since they run one after another.
    assert_eq!(
        summary(init(&[json!(2), json!(2)])),
        (5, Basis::InitContainers, 3)
    );
}

#[test]
fn sidecars_run_beside_containers_and_later_init_containers() {
    let none = Value::Null;
    let init = container(json!(3), none.clone());
    let regular = container(json!(2), none);
    let spec = json!({"containers": [regular], "initContainers": [sidecar(json!(1)), init]});
    assert_eq!(summary(spec.clone()), (4, Basis::Containers, 5));
    // Kata cannot be given a base below one.
    let pod = of(spec.clone());
    assert_eq!((pod.launched.get(), pod.default_vcpus()), (5, 1));
    assert_eq!(of(spec).containers[0].role, ContainerRole::Sidecar);
    let after = json!({"containers": [regular], "initContainers": [init, sidecar(json!(1))]});
    assert_eq!(summary(after), (4, Basis::Containers, 4));
}

#[test]
fn a_vm_has_at_most_220_vcpus_and_no_fewer_than_gpus() {
    let pod = |cpu: Value| json!({"containers": [container(cpu, Value::Null)]});
    assert_eq!(of(pod(json!(219))).vcpus.get(), 220);
    for cpu in [json!("219001m"), json!("1E18"), json!("18446744073709551")] {
        let refused = PodVcpus::of(&pod(cpu)).unwrap_err();
        assert!(matches!(
            refused,
            PodError::Vcpus { .. } | PodError::Quantity { .. }
        ));
    }
    let gpus = |cpu: Value, gpus: Value| {
        let resources = json!({"limits": {"cpu": cpu, "nvidia.com/pgpu": gpus}});
        PodVcpus::of(&json!({"containers": [{"name": "c", "resources": resources}]}))
    };
    assert_eq!(gpus(json!(1), json!("2")).unwrap().gpus, 2);
    assert!(matches!(
        gpus(json!(1), json!(3)).unwrap_err(),
        PodError::Gpus { gpus: 3, .. }
    ));
    assert!(matches!(
        gpus(json!(1), json!(1.5)).unwrap_err(),
        PodError::GpuCount { .. }
    ));
}

#[test]
fn refusals_name_what_each_container_contributes() {
    let none = Value::Null;
    let mut app = container(json!(200), none.clone());
    app["resources"]["limits"]["nvidia.com/pgpu"] = json!(250);
    let mut log = container(none.clone(), json!("19500m"));
    log["name"] = json!("log");
    let mut idle = container(none.clone(), none);
    idle["name"] = json!("idle");
    let mut spec =
        json!({"containers": [app, log, idle], "initContainers": [sidecar(json!("500m"))]});
    let refused = PodVcpus::of(&spec).unwrap_err().to_string();
    assert_eq!(
        refused,
        "the pod's CPU resources, 220000m in all, need too many vCPUs (sidecar `c`: 500m; container `c`: 200000m and 250 GPUs; \
         container `log`: 19500m)"
    );
    spec["containers"][1]["resources"]["requests"]["cpu"] = json!(18);
    let refused = PodVcpus::of(&spec).unwrap_err().to_string();
    assert!(
        refused.starts_with("expected at least as many vCPUs as GPUs, found 220 vCPUs and 250 GPUs; raise a CPU limit (sidecar `c`: 500m; "),
        "{refused}"
    );
    // What Kata would add up is too much, too.
    let init = container(json!(200), Value::Null);
    let spec = json!({"containers": [container(json!(1), Value::Null)], "initContainers": [sidecar(json!(50)), init]});
    assert!(matches!(PodVcpus::of(&spec), Err(PodError::Vcpus { .. })));
}

#[test]
fn what_is_no_pod_is_refused_with_its_place() {
    assert_eq!(PodVcpus::of(&Value::Null), Err(PodError::NoContainers));
    assert_eq!(
        PodVcpus::of(&json!({"containers": []})),
        Err(PodError::NoContainers)
    );
    for bad in [json!("1 CPU"), json!(-1), json!(true), json!([1])] {
        let spec = json!({"containers": [container(Value::Null, bad)]});
        let error = PodVcpus::of(&spec).unwrap_err().to_string();
        assert_eq!(error, "container `c`: `resources.requests.cpu` is unusable");
    }
}
