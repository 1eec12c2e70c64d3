//! What a policy costs in the guest: loading, each kind of request for a pod of five containers, and memory.

#![allow(
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "a bench may panic, and shares the tests' host"
)]

#[path = "../tests/adversary/honest/mod.rs"]
mod honest;
#[path = "../tests/adversary/pods.rs"]
mod pods;

use contrast_policy::Engine;
use divan::Bencher;
use honest::{Flavour, Host, Request};

const FLAVOUR: Flavour = Flavour {
    disks: true,
    modern: true,
    instance: 0,
};
/// Allows everything without looking: what the engine costs by itself.
const BASELINE: &str = "package agent_policy\ndefault CreateContainerRequest := true\n";

fn main() {
    divan::main();
}

fn mesh() -> (String, Vec<Request>) {
    let pods = pods::all();
    let pod = pods
        .iter()
        .find(|pod| pod.file == "mesh.yaml")
        .expect("the pod");
    (pod.rego(), Host::new(pod, FLAVOUR).life())
}

#[divan::bench]
fn load(bencher: Bencher<'_, '_>) {
    let (rego, _) = mesh();
    bencher.bench(|| Engine::load(divan::black_box(&rego)).expect("loads"));
}

/// The last request of each kind, in the state in which it comes.
#[divan::bench(args = ["CreateContainerRequest", "StartContainerRequest", "CopyFileRequest", "ExecProcessRequest", "WaitProcessRequest"])]
fn request(bencher: Bencher<'_, '_>, kind: &str) {
    let pods = pods::all();
    // Only this pod has probes and copies with bound content.
    let file = if kind == "ExecProcessRequest" {
        "nginx.yaml"
    } else {
        "mesh.yaml"
    };
    let pod = pods.iter().find(|pod| pod.file == file).expect("the pod");
    let life = Host::new(pod, FLAVOUR).life();
    let last = life
        .iter()
        .rposition(|request| request.kind == kind)
        .expect("such a request");
    let mut engine = Engine::load(&pod.rego()).expect("loads");
    for request in &life[..last] {
        assert!(
            engine
                .allow(request.kind, &request.body)
                .expect("evaluates")
                .allowed
        );
    }
    bencher
        .with_inputs(|| engine.clone())
        .bench_local_values(|mut engine| {
            engine
                .allow(kind, &life[last].body)
                .expect("evaluates")
                .allowed
        });
}

#[divan::bench]
fn create_container_without_rules(bencher: Bencher<'_, '_>) {
    let (_, life) = mesh();
    let request = life
        .iter()
        .rfind(|request| request.kind == "CreateContainerRequest")
        .expect("one");
    let engine = Engine::load(BASELINE).expect("loads");
    bencher
        .with_inputs(|| engine.clone())
        .bench_local_values(|mut engine| {
            engine
                .allow(request.kind, &request.body)
                .expect("evaluates")
                .allowed
        });
}
