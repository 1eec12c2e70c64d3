//! Signals, draining, and what a process logs at its start and end.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::time::{Duration, Instant};

use contrast_proto::user::{GetManifestsRequest, GetSeedSharesRequest};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{Deployment, Process, get, user_client, wait_for};
use tonic::Code;

fn signal(process: &Process, signal: Signal) {
    kill(Pid::from_raw(process.0.id().cast_signed()), signal).expect("signals");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_and_sigint_end_a_serving_process_gracefully() {
    for stop in [Signal::SIGTERM, Signal::SIGINT] {
        let deployment = Deployment::new();
        let manifest = deployment.manifest("web");
        let mut process = Process::spawn(deployment.command());
        let addresses = process.addresses(&deployment.address_file());
        wait_for(addresses["ops"], "/probe/startup", 200);
        let mut client = user_client(addresses["user_api"], &manifest).await;
        client
            .set_manifest(deployment.request(&manifest, &[]))
            .await
            .expect("sets");
        let scraper = std::net::TcpStream::connect(addresses["ops"]).expect("an idle connection");

        let start = Instant::now();
        signal(&process, stop);
        let status = process.0.wait().expect("waits");
        assert!(status.success(), "{stop}: {status}: {}", process.log());
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{stop}: {:?}",
            start.elapsed()
        );
        drop((client, scraper));

        let log = process.log();
        let serving = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON lines"))
            .find(|line| line["message"] == "coordinator is serving")
            .expect("one line with the addresses");
        for name in ["user_api", "mesh_api", "ops"] {
            assert_eq!(serving[name], addresses[name].to_string());
        }
        assert!(log.contains("INSECURE: the active manifest accepts evidence of a software TEE"));
        assert!(log.contains("INSECURE: this Coordinator proves itself with a software TEE"));
        assert!(log.contains("coordinator stopped"), "{log}");
    }
}

#[tokio::test]
async fn peer_that_does_not_answer_delays_the_end_until_the_deadline_only() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let mut command = deployment.command();
    command.env("CONTRAST_DRAIN_DEADLINE", "1");
    let mut process = Process::spawn(command);
    let addresses = process.addresses(&deployment.address_file());
    let mut client = user_client(addresses["user_api"], &manifest).await;
    // An answer, whichever, shows that the server's side of the handshake has ended too.
    let answer = client.get_manifests(GetManifestsRequest {}).await;
    assert_eq!(
        answer.map(drop).expect_err("nothing set").code(),
        Code::FailedPrecondition
    );
    signal(&process, Signal::SIGTERM);
    // This blocks the only thread of the client's runtime, so the client cannot close its connection.
    let start = Instant::now();
    let status = process.0.wait().expect("waits");
    assert!(status.success(), "{status}: {}", process.log());
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert!(process.log().contains("connections were closed by force"));
    drop(client);
}

#[tokio::test]
async fn after_sigkill_the_answered_manifest_is_still_there() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let (set, shares) = {
        let mut process = Process::spawn(deployment.command());
        let addresses = process.addresses(&deployment.address_file());
        let mut client = user_client(addresses["user_api"], &manifest).await;
        let set = client
            .set_manifest(deployment.request(&manifest, &[]))
            .await
            .expect("sets");
        signal(&process, Signal::SIGKILL);
        process.0.wait().expect("waits");
        let set = set.into_inner();
        (set.clone(), set.seed_shares.expect("first"))
    };
    std::fs::remove_file(deployment.address_file()).expect("removes");
    let mut process = Process::spawn(deployment.command());
    let addresses = process.addresses(&deployment.address_file());
    let mut client = user_client(addresses["user_api"], &manifest).await;
    let served = client
        .get_seed_shares(GetSeedSharesRequest {})
        .await
        .expect("shares")
        .into_inner();
    assert_eq!(served, shares);
    client
        .recover(deployment.recover_request(&shares, &set.transition))
        .await
        .expect("recovers");
    let history = client
        .get_manifests(GetManifestsRequest {})
        .await
        .expect("history")
        .into_inner();
    assert_eq!(history.root_ca, set.root_ca);
}

#[tokio::test]
async fn damaged_store_stops_the_start_with_its_name() {
    let deployment = Deployment::new();
    let store = deployment.data.path().join("history.redb");
    std::fs::write(&store, b"cut off").expect("writes");
    let mut process = Process::spawn(deployment.command());
    let status = process.0.wait().expect("waits");
    assert_eq!(status.code(), Some(1));
    let log = process.log();
    assert!(
        log.contains("history.redb is no intact Coordinator store"),
        "{log}"
    );
    assert_eq!(std::fs::read(&store).expect("reads"), b"cut off");
}

#[test]
fn missing_tee_stops_the_start_with_the_variable_to_set() {
    let deployment = Deployment::new();
    let mut command = deployment.command();
    command.env_remove("CONTRAST_INSECURE_SOFTWARE_TEE");
    let mut process = Process::spawn(command);
    assert_eq!(process.0.wait().expect("waits").code(), Some(1));
    assert!(process.log().contains("CONTRAST_INSECURE_SOFTWARE_TEE"));
}

#[tokio::test]
async fn drain_lets_a_second_coordinator_take_over_the_directory() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    assert_eq!(get(coordinator.addresses.ops, "/probe/liveness").0, 200);
    coordinator.stop().await.expect("stops");
    deployment.start().stop().await.expect("starts and stops");
}
