//! Who is let in, and to which key.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use contrast_clock::{FixedWallClock, SystemEntropy, WallClock};
use contrast_collateral::Collateral;
use contrast_coordinator::state::Observer;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::{
    support::{
        Deployment, WEB_INITDATA, now, policy_hash,
        transit::{Connection, Credentials},
    },
    world::{ID, Made, NAME, PLAIN_INITDATA, ask, document, fetch, parsed, set, system_clock},
};

/// The server ends a connection whose client it does not accept before it answers anything.
async fn refuses(
    address: std::net::SocketAddr,
    credentials: &Credentials,
    clock: &Arc<dyn WallClock>,
) {
    let request = ("GET", "/v1/sys/health", Bytes::new());
    let answer = match Connection::open(address, credentials, clock).await {
        Ok(mut connection) => connection.ask(request).await,
        Err(error) => Err(error),
    };
    answer.expect_err("refused");
}

#[tokio::test]
async fn only_members_of_the_mesh_are_let_in_and_only_to_their_own_key() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let place = (&deployment, &coordinator);
    let address = coordinator.addresses.transit_api;
    let mut document_with_plain = deployment.document("web");
    let web = policy_hash(WEB_INITDATA).to_string();
    let mut plain = document_with_plain.policies[&web].clone();
    plain.workload_secret_id = String::new();
    let hash = policy_hash(PLAIN_INITDATA).to_string();
    document_with_plain.policies.insert(hash, plain);
    let manifest = parsed(&document_with_plain);
    let transition = set(place, &manifest, &[], &[PLAIN_INITDATA]).await;
    let own = fetch(place, &manifest).await;
    let clock = system_clock();
    let mut api = document();
    let connection = Connection::open(address, &own, &clock).await;
    let mut connection = connection.expect("connects");
    let made = Made::with(&mut api, &mut connection).await;

    // Another name, which exists, does not exist, or begins or ends like the own one.
    for name in [
        "another",
        "apps%2Fv1%2FDeployment%2Fdefault",
        "apps%2Fv1%2FDeployment%2Fdefault%2Fweb%2F",
        "Apps%2Fv1%2FDeployment%2Fdefault%2Fweb",
        "1_apps%2Fv1%2FDeployment%2Fdefault%2Fweb",
    ] {
        let keys = made.others(name).into_iter().take(2);
        for (path, body) in made.batches(name).into_iter().chain(keys) {
            let request = ("POST", path.as_str(), &*body.to_string());
            let answer = ask(&mut api, &mut connection, request).await;
            assert_eq!(answer.status, 403, "{path}");
        }
    }

    // A member without a secret has no key, but draws random bytes.
    let guest = deployment.guest(PLAIN_INITDATA);
    let plain = Credentials::fetch(coordinator.addresses.mesh_api, &manifest, guest).await;
    let connected = Connection::open(address, &plain, &clock).await;
    let mut connected = connected.expect("connects");
    let encrypt = format!("/v1/transit/encrypt/{NAME}");
    let key = format!("/v1/transit/keys/{NAME}");
    for (request, expected) in [
        (("POST", encrypt.as_str(), r#"{"plaintext": ""}"#), 403),
        (("GET", key.as_str(), ""), 403),
        (("POST", "/v1/transit/random", ""), 200),
        (("GET", "/v1/sys/health", ""), 200),
    ] {
        let answer = ask(&mut api, &mut connected, request).await;
        assert_eq!(answer.status, expected, "{request:?}");
    }
    let nameless = ("POST", "/v1/transit/encrypt/", Bytes::new());
    let answer = connected.ask(nameless).await.expect("answers");
    assert_eq!(answer.status, 404);

    refuses(address, &own.of_another_mesh(ID), &clock).await;
    let anonymous = Credentials {
        own: None,
        mesh_ca: own.mesh_ca.clone(),
    };
    refuses(address, &anonymous, &clock).await;

    // A new manifest without the workload's secret: its certificate is of a superseded mesh CA then, which chains to the root CA.
    document_with_plain.policies.remove(&web);
    let mut other = document_with_plain.policies[&policy_hash(PLAIN_INITDATA).to_string()].clone();
    other.workload_secret_id = "other".to_owned();
    document_with_plain.policies.insert(web, other);
    let manifest = parsed(&document_with_plain);
    set(place, &manifest, &transition, &[PLAIN_INITDATA]).await;
    let request = ("POST", encrypt.as_str(), r#"{"plaintext": ""}"#);
    let answer = ask(&mut api, &mut connection, request).await;
    assert_eq!(answer.status, 403);
    let renewed = fetch(place, &manifest).await;
    let superseded = Credentials {
        mesh_ca: renewed.mesh_ca.clone(),
        ..own
    };
    refuses(address, &superseded, &clock).await;
    let connected = Connection::open(address, &renewed, &clock).await;
    let mut connected = connected.expect("connects");
    let answer = ask(&mut api, &mut connected, request).await;
    assert_eq!(answer.status, 403, "the key of another id than its own");
    // Nobody asks on it, and its place is for others.
    let ended = timeout(Duration::from_secs(60), connection.ended());
    ended.await.expect("a connection that is refused ends");
    let answer = ask(&mut api, &mut connected, ("GET", "/v1/sys/health", "")).await;
    assert_eq!(answer.status, 200, "one that is accepted stays");
    drop(connected);
    coordinator.stop().await.expect("stops");
}

#[tokio::test]
async fn expired_certificate_is_refused_on_old_and_new_connections() {
    let deployment = Deployment::new();
    let fixed = Arc::new(FixedWallClock::new(now()));
    let clock: Arc<dyn WallClock> = Arc::clone(&fixed) as _;
    let rest = (
        Observer::default(),
        Arc::new(SystemEntropy) as _,
        Collateral::offline(),
    );
    let coordinator = deployment.start_at(Arc::clone(&clock), rest);
    let place = (&deployment, &coordinator);
    let address = coordinator.addresses.transit_api;
    let mut manifest = deployment.document("web");
    manifest.mesh_cert_lifetime = Some("1h".to_owned());
    let manifest = parsed(&manifest);
    set(place, &manifest, &[], &[]).await;
    let credentials = fetch(place, &manifest).await;
    let mut api = document();
    let connection = Connection::open(address, &credentials, &clock).await;
    let mut connection = connection.expect("connects");
    let encrypt = format!("/v1/transit/encrypt/{NAME}");
    let request = ("POST", encrypt.as_str(), r#"{"plaintext": ""}"#);

    // The server's certificate is a new one by now, and the client's still valid.
    fixed.advance(Duration::from_mins(45));
    let connected = Connection::open(address, &credentials, &clock).await;
    let mut connected = connected.expect("connects");
    for one in [&mut connection, &mut connected] {
        assert_eq!(ask(&mut api, one, request).await.status, 200);
    }
    fixed.advance(Duration::from_mins(30));
    for one in [&mut connection, &mut connected] {
        assert_eq!(ask(&mut api, one, request).await.status, 403);
    }
    refuses(address, &credentials, &clock).await;
    drop((connection, connected));
    coordinator.stop().await.expect("stops");
}

#[tokio::test]
async fn nobody_is_let_in_before_there_is_a_manifest() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let connected = TcpStream::connect(coordinator.addresses.transit_api).await;
    let mut connected = connected.expect("connects");
    let mut received = Vec::new();
    let ended = connected.read_to_end(&mut received);
    timeout(Duration::from_secs(20), ended)
        .await
        .expect("is closed without a handshake")
        .expect("ends");
    assert!(received.is_empty());
    coordinator.stop().await.expect("stops");
}
