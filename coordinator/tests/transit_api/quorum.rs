//! What a replica answers that no quorum confirms.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    support::{
        Deployment, WEB_INITDATA,
        transit::{Connection, Credentials},
        trio::ReplicaProcess,
    },
    world::{METHODS, Made, NAME, ask, compare, document, system_clock},
};

/// Replicas that stand still keep what they know; after an end they would have to be admitted by a quorum.
fn signal(processes: [u32; 2], signal: Signal) {
    for process in processes {
        let process = i32::try_from(process).expect("a process");
        kill(Pid::from_raw(process), signal).expect("is told");
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_replica_without_quorum_is_sealed_until_it_has_one_again() {
    let replicas = ReplicaProcess::start_all(3);
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let mut user = replicas[0].client(&manifest).await;
    let set = user.set_manifest(deployment.request(&manifest, &[])).await;
    set.expect("sets");
    for replica in &replicas {
        replica.serves(&manifest).await;
    }
    let guest = deployment.guest(WEB_INITDATA);
    let credentials = Credentials::fetch(replicas[0].mesh_api, &manifest, guest).await;
    let address = replicas[0].transit_api;
    let clock = system_clock();
    let connection = Connection::open(address, &credentials, &clock).await;
    let mut connection = connection.expect("connects");
    let mut api = document();
    let made = Made::with(&mut api, &mut connection).await;
    let health = ("GET", "/v1/sys/health", "");
    assert_eq!(ask(&mut api, &mut connection, health).await.status, 200);

    let others = [replicas[1].pid(), replicas[2].pid()];
    signal(others, Signal::SIGSTOP);
    let start = Instant::now();
    while ask(&mut api, &mut connection, health).await.status != 503 {
        assert!(start.elapsed() < PATIENCE, "{}", replicas[0].log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Whoever connects now is told so, too.
    let connected = Connection::open(address, &credentials, &clock).await;
    let mut connected = connected.expect("connects");
    for one in [&mut connection, &mut connected] {
        let answer = ask(&mut api, one, health).await;
        assert_eq!(
            (answer.status, &answer.json()["sealed"]),
            (503, &true.into())
        );
    }
    let asked = ("GET", "/v1/sys/health?sealedcode=299&activecode=298", "");
    assert_eq!(ask(&mut api, &mut connection, asked).await.status, 299);
    let head = ("HEAD", "/v1/sys/health", "");
    assert_eq!(ask(&mut api, &mut connection, head).await.status, 503);
    let status = ("GET", "/v1/sys/seal-status", "");
    let answer = ask(&mut api, &mut connection, status).await;
    assert_eq!(
        (answer.status, &answer.json()["sealed"]),
        (200, &true.into())
    );
    // All at once, since each asks for a quorum, and connects anew.
    let renew = ("/v1/auth/token/renew-self".to_owned(), json!({}));
    let with_bodies = made.batches(NAME).into_iter().chain(made.others(NAME));
    let with_bodies = with_bodies
        .chain([renew])
        .flat_map(|(path, body)| METHODS.map(|method| (method, path.clone(), body.to_string())));
    let key = format!("/v1/transit/keys/{NAME}");
    let without = [key, "/v1/auth/token/lookup-self".to_owned()];
    let without = without.map(|path| ("GET", path, String::new()));
    let (credentials, clock) = (&credentials, &clock);
    let requests = with_bodies.chain(without).map(|request| async move {
        let (method, path, body) = request;
        let connected = Connection::open(address, credentials, clock).await;
        let mut connected = connected.expect("connects");
        let asked = connected.ask((method, &path, Bytes::from(body.clone())));
        let answer = asked.await.expect("answers");
        (method, path, body, answer)
    });
    for (method, path, body, answer) in join_all(requests).await {
        compare(&mut api, (method, &path, &body), &answer);
        assert_eq!(answer.status, 503, "{path}");
        let errors = answer.json()["errors"].clone();
        let error = errors[0].as_str().expect("text");
        assert!(error.contains("sealed"), "{error}");
    }
    let unseen = api.unseen().into_iter();
    let unseen: Vec<_> = unseen.filter(|(_, _, status)| status == "503").collect();
    assert_eq!(unseen, []);

    signal(others, Signal::SIGCONT);
    let start = Instant::now();
    while ask(&mut api, &mut connection, health).await.status != 200 {
        assert!(start.elapsed() < PATIENCE, "{}", replicas[0].log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let decrypt = format!("/v1/transit/decrypt/{NAME}");
    let body = json!({ "ciphertext": made.ciphertext }).to_string();
    for one in [&mut connection, &mut connected] {
        let answer = ask(&mut api, one, ("POST", &decrypt, &body)).await;
        assert_eq!(answer.json()["data"]["plaintext"], "dW5zZWFsIG1l");
    }
}
