//! The listener and the connector with a real gRPC service over TCP.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in helper functions, too"
)]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use contrast_atls::{
    AcceptLimits, AtlsError, AtlsStream, ClientConfig, Connector, Incoming, Limits, Peer, Phase,
    ServerConfig,
};
use contrast_attestation::PolicyHash;
use contrast_proto::mesh::{
    AdvanceVolumeRequest, GetVolumeRequest, NewMeshCertRequest, NewMeshCertResponse, Volume,
    WaitForTransitionRequest, WaitForTransitionResponse,
    mesh_api_client::MeshApiClient,
    mesh_api_server::{MeshApi, MeshApiServer},
};
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::StreamExt;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server, Uri},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers with the policy hash and the key of the attested caller.
struct WhoAmI;

#[tonic::async_trait]
impl MeshApi for WhoAmI {
    async fn new_mesh_cert(
        &self,
        request: Request<NewMeshCertRequest>,
    ) -> Result<Response<NewMeshCertResponse>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .ok_or_else(|| Status::internal("no peer"))?;
        let attested = peer
            .attested
            .as_ref()
            .ok_or_else(|| Status::internal("not attested"))?;
        assert!(peer.address.is_some());
        Ok(Response::new(NewMeshCertResponse {
            mesh_ca: attested.verified.policy_hash().to_string(),
            workload_secret: peer.spki.to_vec().into(),
            ..NewMeshCertResponse::default()
        }))
    }

    async fn wait_for_transition(
        &self,
        _: Request<WaitForTransitionRequest>,
    ) -> Result<Response<WaitForTransitionResponse>, Status> {
        Err(Status::unimplemented("no test waits for a transition"))
    }

    async fn get_volume(&self, _: Request<GetVolumeRequest>) -> Result<Response<Volume>, Status> {
        Err(Status::unimplemented("no test has a volume"))
    }

    async fn advance_volume(
        &self,
        _: Request<AdvanceVolumeRequest>,
    ) -> Result<Response<Volume>, Status> {
        Err(Status::unimplemented("no test has a volume"))
    }
}

type Failures = Arc<Mutex<Vec<String>>>;

/// A running service; dropping `tasks` ends it.
struct Service {
    address: SocketAddr,
    failures: Failures,
    tasks: JoinSet<()>,
}

async fn incoming(config: ServerConfig, limits: AcceptLimits) -> (Incoming, SocketAddr, Failures) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let failures = Failures::default();
    let record = Arc::clone(&failures);
    let incoming = Incoming::new(listener, config, limits).on_failure(Arc::new(
        move |peer: SocketAddr, error: &AtlsError| {
            assert!(peer.ip().is_loopback());
            record
                .lock()
                .expect("not poisoned")
                .push(error.kind().to_owned());
        },
    ));
    let address = incoming.local_addr().expect("address");
    (incoming, address, failures)
}

async fn serve(config: ServerConfig, limits: AcceptLimits) -> Service {
    let (incoming, address, failures) = incoming(config, limits).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let router = Server::builder().add_service(MeshApiServer::new(WhoAmI));
        router.serve_with_incoming(incoming).await.expect("serves");
    });
    Service {
        address,
        failures,
        tasks,
    }
}

fn uri(address: SocketAddr) -> Uri {
    format!("http://{address}").parse().expect("URI")
}

async fn dial(
    address: SocketAddr,
    connector: Connector,
) -> Result<MeshApiClient<Channel>, tonic::transport::Error> {
    let channel = Endpoint::from(uri(address))
        .connect_with_connector(connector)
        .await?;
    Ok(MeshApiClient::new(channel))
}

#[tokio::test]
async fn grpc_handler_sees_the_attested_peer() {
    let world = World::shared();
    let service = serve(world.server(), AcceptLimits::default()).await;
    let config = world.client();
    let spki = config.identity.spki().to_vec();
    let connector = Connector::new(config);
    let mut client = dial(service.address, connector.clone())
        .await
        .expect("connected");
    let answer = client
        .new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("answer")
        .into_inner();
    assert_eq!(answer.mesh_ca, POLICY.to_string());
    assert_eq!(answer.workload_secret, spki);
    let server = connector
        .last_peer()
        .expect("the connector knows the server");
    assert_eq!(
        server.attested.expect("attested").verified.policy_hash(),
        POLICY
    );
    assert!(connector.last_failure().is_none());
    assert!(service.failures.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn refused_client_never_reaches_the_handler_and_can_say_why() {
    let world = World::shared();
    let service = serve(world.server(), AcceptLimits::default()).await;
    let impostor = ClientConfig {
        issuer: Some(Arc::new(world.tee.snp_guest(PolicyHash([8; 32])))),
        ..world.client()
    };
    let connector = Connector::new(impostor);
    dial(service.address, connector.clone())
        .await
        .expect_err("refused");
    let failure = connector.last_failure().expect("recorded");
    let AtlsError::RefusedByPeer { reason } = failure.as_ref() else {
        panic!("{failure:?}")
    };
    assert!(reason.contains("HOSTDATA"), "{reason}");
    assert!(connector.last_peer().is_none());

    // The observer hears of it, and the service goes on.
    let mut client = dial(service.address, Connector::new(world.client()))
        .await
        .expect("serves");
    client
        .new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("answer");
    assert_eq!(
        *service.failures.lock().expect("not poisoned"),
        ["refused_peer"]
    );
    assert_eq!(service.tasks.len(), 1);
}

#[tokio::test]
async fn silent_peers_do_not_keep_an_honest_one_waiting() {
    let world = World::shared();
    let limits = AcceptLimits {
        handshakes: 9,
        ..AcceptLimits::default()
    };
    let (mut incoming, address, _) = incoming(world.server(), limits).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(address).await.expect("connect"));
    }
    let connector = Connector::new(world.client());
    let (client, accepted) = tokio::join!(
        timeout(PATIENCE, connector.connect(uri(address))),
        timeout(PATIENCE, incoming.next())
    );
    client.expect("in time").expect("connected");
    accepted
        .expect("in time")
        .expect("a connection")
        .expect("never an error");
}

#[tokio::test]
async fn handshakes_beyond_the_limit_wait_until_one_ends() {
    let world = World::shared();
    let deadline = Duration::from_millis(300);
    let server = ServerConfig {
        limits: Limits {
            handshake: deadline,
            ..Limits::server()
        },
        ..world.server()
    };
    let limits = AcceptLimits {
        handshakes: 1,
        ..AcceptLimits::default()
    };
    let (mut incoming, address, failures) = incoming(server, limits).await;
    let _silent = TcpStream::connect(address).await.expect("connect");
    let connector = Connector::new(world.client());
    let start = tokio::time::Instant::now();
    let (client, accepted) = tokio::join!(
        timeout(PATIENCE, connector.connect(uri(address))),
        timeout(PATIENCE, incoming.next())
    );
    accepted
        .expect("in time")
        .expect("a connection")
        .expect("never an error");
    client.expect("in time").expect("connected");
    assert!(
        start.elapsed() >= deadline,
        "the silent peer had the only place until its deadline"
    );
    assert_eq!(*failures.lock().expect("not poisoned"), ["deadline"]);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_is_dropped() {
    let world = World::shared();
    let limits = AcceptLimits {
        connections: 1,
        ..AcceptLimits::default()
    };
    let (mut incoming, address, _) = incoming(world.server(), limits).await;
    let connector = Connector::new(world.client());
    let (first, accepted) = tokio::join!(connector.connect(uri(address)), incoming.next());
    let _first = first.expect("connected");
    let accepted = accepted.expect("a connection").expect("never an error");

    let second = connector.connect(uri(address));
    tokio::pin!(second);
    let waiting = timeout(Duration::from_millis(300), async {
        tokio::join!(second.as_mut(), incoming.next())
    });
    assert!(waiting.await.is_err(), "the only place is taken");

    drop(accepted);
    let (second, accepted) = tokio::join!(
        timeout(PATIENCE, second),
        timeout(PATIENCE, incoming.next())
    );
    second.expect("in time").expect("connected");
    accepted
        .expect("in time")
        .expect("a connection")
        .expect("never an error");
}

#[tokio::test]
async fn unreachable_server_is_a_dial_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let connector = Connector::new(World::shared().client());
    let error = connector
        .connect(uri(address))
        .await
        .expect_err("nobody listens");
    assert!(
        matches!(
            *error,
            AtlsError::Io {
                phase: Phase::Dial,
                ..
            }
        ),
        "{error:?}"
    );

    let error = connector
        .connect(Uri::from_static("http://host"))
        .await
        .expect_err("no port");
    assert!(
        error
            .causes()
            .to_string()
            .contains("expected an address with host and port")
    );
}

#[tokio::test]
async fn each_connection_is_accepted_as_the_source_says_when_it_arrives() {
    let world = World::shared();
    let strict = Arc::new(AtomicBool::new(false));
    let (open, known) = (
        Arc::new(ServerConfig {
            verifier: None,
            ..world.server()
        }),
        Arc::new(world.server()),
    );
    let decide = Arc::clone(&strict);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let mut incoming = Incoming::with_configs(
        listener,
        Arc::new(move || match decide.load(Ordering::SeqCst) {
            true => Arc::clone(&known),
            false => Arc::clone(&open),
        }),
        AcceptLimits::default(),
    );
    let address = incoming.local_addr().expect("address");
    let without_tee = ClientConfig {
        issuer: None,
        ..world.client()
    };
    let connector = Connector::new(without_tee);
    let (client, accepted) = tokio::join!(connector.connect(uri(address)), incoming.next());
    let mut client = client.expect("no evidence is required yet");
    let mut accepted = accepted.expect("a connection").expect("never an error");
    assert!(accepted.peer().attested.is_none());

    strict.store(true, Ordering::SeqCst);
    let refused = tokio::select! {
        refused = connector.connect(uri(address)) => refused,
        _ = incoming.next() => panic!("the second client cannot prove itself"),
    };
    assert!(matches!(
        *refused.expect_err("evidence is required now"),
        AtlsError::NoIssuer
    ));
    // The connection from before is as it was.
    accepted.write_all(b"still").await.expect("writes");
    accepted.flush().await.expect("flushes");
    let mut read = [0; 5];
    client.read_exact(&mut read).await.expect("reads");
    assert_eq!(&read, b"still");
}

#[tokio::test]
async fn connection_without_any_evidence_needs_the_permission_of_both_sides() {
    let world = World::shared();
    for (by_client, by_server) in [(false, false), (true, false), (false, true), (true, true)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let server = ServerConfig {
            verifier: None,
            ..world.server()
        };
        let mut incoming = Incoming::new(listener, server, AcceptLimits::default());
        let mut connector = Connector::new(ClientConfig {
            verifier: None,
            ..world.client()
        });
        if by_server {
            incoming = incoming.permit_unattested();
        }
        if by_client {
            connector = connector.permit_unattested();
        }
        let address = incoming.local_addr().expect("address");
        let accepted = async {
            let limit = Duration::from_millis(500);
            timeout(limit, incoming.next()).await.ok().flatten()
        };
        let (client, accepted) = tokio::join!(connector.connect(uri(address)), accepted);
        // Each side closes for itself, after the other's Hello.
        assert_eq!(client.is_ok(), by_client, "{client:?}");
        assert_eq!(accepted.is_some(), by_server, "{accepted:?}");
        for peer in client.iter().map(AtlsStream::peer) {
            assert!(peer.attested.is_none());
        }
        if let Some(Ok(server)) = accepted {
            assert!(server.peer().attested.is_none());
        }
    }
}
