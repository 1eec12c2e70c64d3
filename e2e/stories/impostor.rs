//! Pods that are not what the manifest says get nothing, and clients without a mesh certificate get no answer.

#![allow(clippy::expect_used, reason = "a test may panic")]

use std::{
    fs, io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::spawn,
    time::Duration,
};

use contrast_e2e::harness::{Cluster, MeshClient, PodSpec, Process, envoy};

const DEADLINE: Duration = Duration::from_secs(30);

fn started(
    directory: &std::path::Path,
    number: u8,
) -> (Cluster, contrast_e2e::harness::CoordinatorPod) {
    let cluster = Cluster::create(directory, number).expect("cluster");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator().expect("starts");
    let address = coordinator.user_api();
    cluster
        .owner()
        .contrast(&["set", "-c", &address, "resources"])
        .expect("sets");
    (cluster, coordinator)
}

fn changed(genuine: &PodSpec, from: &str, to: &str) -> PodSpec {
    let text = String::from_utf8(genuine.initdata.clone()).expect("text");
    assert!(text.contains(from), "the policy does not mention {from}");
    let mut changed = genuine.clone();
    changed.name = "impostor".to_owned();
    changed.initdata = text.replacen(from, to, 1).into_bytes();
    changed
}

#[test]
fn pod_with_a_changed_policy_gets_no_certificate_and_is_told_why() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = started(directory.path(), 30);
    let genuine = cluster.workloads().expect("workloads")["votes"].clone();
    for (from, to) in [("/bin/votes", "/bin/evil"), ("sha256:3c3f", "sha256:3c3e")] {
        let mut pod = cluster
            .start_initializer(&changed(&genuine, from, to), &coordinator)
            .expect("starts");
        let initializer = pod.container("contrast-initializer").expect("runs");
        initializer
            .wait_until("the refusal", DEADLINE, |process| {
                process
                    .output()
                    .contains("HOSTDATA: expected one of the 5 policies in the manifest")
            })
            .expect("is refused");
        assert!(
            !pod.file("tls-config").exists(),
            "a certificate was installed"
        );
    }
}

#[test]
fn policy_in_the_guest_refuses_a_program_that_the_host_chose() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = started(directory.path(), 32);
    let genuine = cluster.workloads().expect("workloads")["store"].clone();
    let changed = genuine.with_program_of_the_host("contrast-initializer", "/bin/evil");
    let error = cluster
        .start_pod(&changed, &coordinator)
        .expect_err("is refused")
        .to_string();
    assert!(
        error.contains("the pod's policy refuses CreateContainerRequest"),
        "{error}"
    );
    assert!(
        error.contains(r#"arguments: expected ["/bin/initializer"]"#),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn application_answers_members_of_the_mesh_only() {
    if envoy().is_none() {
        println!("skipped: no Envoy; run `cargo xtask tools`");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = started(directory.path(), 31);
    let workloads = cluster.workloads().expect("workloads");
    let pods: Vec<_> = ["store", "votes", "api", "web"]
        .iter()
        .map(|name| {
            cluster
                .start_pod(&workloads[*name], &coordinator)
                .expect("starts")
        })
        .collect();
    let [_, _, api, web] = pods.as_slice() else {
        panic!("four pods")
    };
    let mesh_ca = cluster.owner().file("mesh-ca.pem");
    let (web_address, api_address) = (
        SocketAddr::from((web.address(), 8080)),
        SocketAddr::from((api.address(), 8081)),
    );

    let browser = MeshClient::anonymous(&mesh_ca).expect("client");
    browser
        .request(web_address, "web", "POST", "/vote/tabs")
        .await
        .expect("votes");
    let results = browser
        .request(web_address, "web", "GET", "/results")
        .await
        .expect("results");
    assert!(results.contains(r#""tabs":1"#), "{results}");

    MeshClient::plaintext(api_address, "/results")
        .await
        .expect_err("plain text is refused");
    MeshClient::plaintext(web_address, "/results")
        .await
        .expect_err("plain text is refused");
    browser
        .request(api_address, "api", "GET", "/results")
        .await
        .expect_err("no certificate");
    let (chain, key) = (
        web.file("tls-config/certChain.pem"),
        web.file("tls-config/key.pem"),
    );
    let member = MeshClient::with_certificate(&mesh_ca, &chain, &key).expect("client");
    member
        .request(api_address, "api", "GET", "/results")
        .await
        .expect("a member is answered");
}

/// Leads connections to where the host wants them.
struct Detour {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
}

impl Detour {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("has an address");
        let target = Arc::new(Mutex::new(target));
        let current = Arc::clone(&target);
        spawn(move || {
            for client in listener.incoming().flatten() {
                let target = *current.lock().expect("no panic");
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                let both = [&client, &server].map(|stream| stream.try_clone().expect("clones"));
                let [mut from_client, mut from_server] = both;
                let (mut to_client, mut to_server) = (client, server);
                // An end in one direction is an end of all: who is led elsewhere has to connect again.
                spawn(move || {
                    let _ = io::copy(&mut from_client, &mut to_server);
                    let _ = to_server.shutdown(Shutdown::Both);
                });
                spawn(move || {
                    let _ = io::copy(&mut from_server, &mut to_client);
                    let _ = to_client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, target }
    }
}

#[test]
fn running_pod_takes_nothing_from_a_coordinator_of_another_deployment() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, genuine) = started(directory.path(), 38);
    let detour = Detour::start(genuine.mesh_api);
    let spec = &cluster.workloads().expect("workloads")["store"];
    let mut pod = cluster.enrol(spec, detour.address).expect("enrols");
    let installed = [
        "tls-config/certChain.pem",
        "tls-config/mesh-ca.pem",
        "tls-config/coordinator-root-ca.pem",
        "secrets/workload-secret-seed",
    ]
    .map(|name| pod.file(name));
    let before = installed
        .each_ref()
        .map(|path| fs::read(path).expect("reads"));

    // It accepts the pod's evidence, and has a seed of its own.
    genuine.kill().expect("ends");
    fs::remove_dir_all(directory.path().join("pods/coordinator/state")).expect("removes");
    let impostor = cluster.start_coordinator().expect("starts");
    let address = impostor.user_api();
    let set = ["set", "-c", &address, "resources"];
    cluster.owner().contrast(&set).expect("sets");
    *detour.target.lock().expect("no panic") = impostor.mesh_api;

    let refusal = "the answer is of another deployment: expected the root CA key with SHA-256 ";
    let refused = |process: &Process| process.output().contains(refusal);
    let initializer = pod.container("contrast-initializer").expect("runs");
    initializer
        .wait_until("the refusal", DEADLINE, refused)
        .expect("refuses");
    let after = installed
        .each_ref()
        .map(|path| fs::read(path).expect("reads"));
    assert_eq!(after, before);

    // Nor does the container after a restart, which finds out what it belongs to from the pod's volume.
    drop(pod);
    let mut pod = cluster
        .start_initializer_at(spec, detour.address)
        .expect("starts");
    let refusals = |process: &Process| process.output().matches(refusal).count();
    let initializer = pod.container("contrast-initializer").expect("runs");
    let so_far = refusals(initializer);
    let again = initializer.wait_until("another refusal", DEADLINE, |process| {
        refusals(process) > so_far
    });
    again.expect("refuses");
    let after = installed
        .each_ref()
        .map(|path| fs::read(path).expect("reads"));
    assert_eq!(after, before);
}
