//! Pods that are not what the manifest says get nothing, and clients without a mesh certificate get no answer.

#![allow(clippy::expect_used, reason = "a test may panic")]

use std::{net::SocketAddr, time::Duration};

use contrast_e2e::harness::{Cluster, MeshClient, PodSpec, envoy};

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
