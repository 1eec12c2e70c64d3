//! Who gets through the handshake, over real connections.

#![allow(
    clippy::expect_used,
    reason = "a test that meets the unexpected has to stop there"
)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use contrast_clock::{FixedWallClock, SystemEntropy};
use contrast_mesh_tls::{Member, MeshServer, MeshTlsError};
use contrast_pki::{LeafRequest, MeshCa, RootCa, SigningKey};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs::default_provider,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

const LIFETIME: Duration = Duration::from_hours(1);
const ID: &str = "apps/v1/Deployment/default/web";

/// Certificate chain (PEM) and private key (PKCS#8 DER).
type Own = (String, Zeroizing<Vec<u8>>);

/// A root CA with its mesh CA, and a clock.
struct World {
    root: RootCa,
    mesh_ca: MeshCa,
    clock: Arc<FixedWallClock>,
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn leaf(mesh_ca: &MeshCa, id: Option<&str>, now: SystemTime) -> Own {
    let key = SigningKey::generate(&SystemEntropy).expect("key");
    let request = LeafRequest {
        public_key_spki: key.public_key_spki(),
        sans: &["coordinator".to_owned()],
        spiffe_id: None,
        peer_ip: None,
        workload_secret_id: id,
        extensions: &[],
        lifetime: LIFETIME,
    };
    let leaf = mesh_ca.issue_leaf(&request, &SystemEntropy, now);
    (
        leaf.expect("issues").chain_pem,
        key.to_pkcs8_der().expect("key"),
    )
}

impl World {
    fn new() -> Self {
        let key = SigningKey::generate(&SystemEntropy).expect("key");
        let root = RootCa::new(key, start()).expect("root CA");
        let mesh_ca = MeshCa::generate(&SystemEntropy, &root, start()).expect("mesh CA");
        Self {
            root,
            mesh_ca,
            clock: Arc::new(FixedWallClock::new(start())),
        }
    }

    /// Another mesh CA under the same root, as after a change of the manifest.
    fn other_mesh_ca(&self) -> MeshCa {
        MeshCa::generate(&SystemEntropy, &self.root, start()).expect("mesh CA")
    }

    fn own(&self) -> Own {
        leaf(&self.mesh_ca, Some(ID), start())
    }

    /// A server with a certificate of this mesh, valid for an hour.
    fn server(&self, trusted: &[&MeshCa]) -> MeshServer {
        let (chain, key) = leaf(&self.mesh_ca, None, start());
        let trusted: Vec<_> = trusted.iter().map(|ca| ca.self_signed_pem()).collect();
        let trusted: Vec<_> = trusted.iter().map(String::as_str).collect();
        let clock = Arc::clone(&self.clock) as _;
        MeshServer::new(&chain, &key, &trusted, clock).expect("a server")
    }

    fn client(
        &self,
        own: Option<&Own>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.mesh_ca.self_signed_pem()) {
            roots.add(certificate).expect("a CA");
        }
        let time = Arc::new(ClientTime(start()));
        let builder = ClientConfig::builder_with_details(Arc::new(default_provider()), time)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match own {
            Some((chain, key)) => {
                let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
                let built = builder.with_client_auth_cert(certificates(chain), key);
                built.expect("a key")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// The client's clock stands still: these tests are about the server's.
#[derive(Debug)]
struct ClientTime(SystemTime);

impl rustls::time_provider::TimeProvider for ClientTime {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(rustls_pki_types::UnixTime::since_unix_epoch(since))
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
    read.expect("PEM")
}

/// Two ends of a connection: the client's first.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connects"), server.expect("accepts").0)
}

/// What the server thinks of the client; and the client's side of a connection on which a byte of the server arrived.
async fn meet(
    server: &MeshServer,
    client: &Arc<ClientConfig>,
) -> (Result<Member, MeshTlsError>, Option<TlsStream<TcpStream>>) {
    let (near, far) = connected().await;
    let serving = async {
        let (mut stream, member) = server.accept(far).await?;
        stream.write_all(b"x").await.expect("sends");
        Ok(member)
    };
    let asking = async {
        let name = ServerName::try_from("coordinator").expect("a name");
        let connector = TlsConnector::from(Arc::clone(client));
        let mut stream = connector.connect(name, near).await.ok()?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.ok()?;
        Some(stream)
    };
    tokio::join!(serving, asking)
}

/// The server refuses during the handshake, and the client gets nothing.
async fn refused(server: &MeshServer, client: &Arc<ClientConfig>, because: &str) {
    let (outcome, stream) = meet(server, client).await;
    assert!(stream.is_none(), "{because}");
    let error = outcome.map(|_| ()).expect_err(because);
    let MeshTlsError::Handshake(cause) = error else {
        unreachable!("expected a failed handshake, found {error}");
    };
    assert!(
        cause.to_string().contains(because),
        "{because}: found {cause}"
    );
}

#[tokio::test]
async fn member_is_accepted_and_known_by_its_certificate() {
    let world = World::new();
    let server = world.server(&[&world.mesh_ca]);
    for id in [Some(ID), None] {
        let own = leaf(&world.mesh_ca, id, start());
        let (member, stream) = meet(&server, &world.client(Some(&own), &[&TLS13])).await;
        let member = member.expect("accepted");
        assert_eq!(member.facts().workload_secret_id.as_deref(), id);
        assert_eq!(member.facts().not_after, start() + LIFETIME);
        let stream = stream.expect("a byte");
        let (_, tls) = stream.get_ref();
        assert_eq!(tls.alpn_protocol(), Some(b"h2".as_slice()));
    }
}

#[tokio::test]
async fn whoever_is_no_member_is_refused() {
    let world = World::new();
    let server = world.server(&[&world.mesh_ca]);
    refused(
        &server,
        &world.client(None, &[&TLS13]),
        "sent no certificates",
    )
    .await;

    let stranger = World::new().own();
    let stranger = world.client(Some(&stranger), &[&TLS13]);
    refused(&server, &stranger, "invalid peer certificate").await;

    // It chains to the same root CA, but to a mesh CA that is not trusted any more.
    let superseded = leaf(&world.other_mesh_ca(), Some(ID), start());
    let superseded = world.client(Some(&superseded), &[&TLS13]);
    refused(&server, &superseded, "invalid peer certificate").await;

    // Another key than the certificate's.
    let (chain, _) = world.own();
    let (_, key) = leaf(&world.other_mesh_ca(), Some(ID), start());
    let stolen = unmatched(&world, &chain, &key);
    refused(&server, &stolen, "invalid peer certificate").await;
}

/// A client that shows `chain` and signs with another key.
fn unmatched(world: &World, chain: &str, key: &Zeroizing<Vec<u8>>) -> Arc<ClientConfig> {
    #[derive(Debug)]
    struct Always(Arc<rustls::sign::CertifiedKey>);

    impl rustls::client::ResolvesClientCert for Always {
        fn resolve(
            &self,
            _: &[&[u8]],
            _: &[rustls::SignatureScheme],
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("a key");
    let shown = rustls::sign::CertifiedKey::new(certificates(chain), key);
    let mut config = (*world.client(None, &[&TLS13])).clone();
    config.client_auth_cert_resolver = Arc::new(Always(Arc::new(shown)));
    Arc::new(config)
}

#[tokio::test]
async fn certificates_are_accepted_within_their_validity_only() {
    let world = World::new();
    let server = world.server(&[&world.mesh_ca]);
    let client = world.client(Some(&world.own()), &[&TLS13]);
    let (member, _) = meet(&server, &client).await;
    let member = member.expect("accepted");
    let second = Duration::from_secs(1);
    let at = |time| server.still_accepts(&member, time);
    at(start() + LIFETIME - second).expect("valid");
    let expired = at(start() + LIFETIME + second).expect_err("expired");
    assert!(matches!(expired, MeshTlsError::Refused(_)), "{expired}");
    at(SystemTime::UNIX_EPOCH - second).expect_err("not valid yet");

    world.clock.set(start() + LIFETIME + second);
    refused(
        &server,
        &client,
        "invalid peer certificate: certificate expired",
    )
    .await;
    world.clock.set(start() - Duration::from_hours(24));
    refused(
        &server,
        &client,
        "invalid peer certificate: certificate not valid yet",
    )
    .await;
    world.clock.set(start());
    let (member, _) = meet(&server, &client).await;
    member.expect("accepted again");
}

#[tokio::test]
async fn connections_are_judged_by_the_mesh_cas_of_the_moment() {
    let world = World::new();
    let next = world.other_mesh_ca();
    let client = world.client(Some(&world.own()), &[&TLS13]);
    let (member, _) = meet(&world.server(&[&world.mesh_ca]), &client).await;
    let member = member.expect("accepted");

    let both = world.server(&[&next, &world.mesh_ca]);
    both.still_accepts(&member, start())
        .expect("the one before");
    let (again, _) = meet(&both, &client).await;
    again.expect("accepted while both are trusted");

    let newer = world.server(&[&next]);
    let error = newer
        .still_accepts(&member, start())
        .expect_err("superseded");
    assert!(matches!(error, MeshTlsError::Refused(_)), "{error}");
    refused(&newer, &client, "invalid peer certificate").await;
}

#[tokio::test]
async fn only_tls_1_3_is_spoken() {
    let world = World::new();
    let server = world.server(&[&world.mesh_ca]);
    let own = world.own();
    let old = world.client(Some(&own), &[&TLS12]);
    refused(&server, &old, "peer is incompatible").await;
    let (member, stream) = meet(&server, &world.client(Some(&own), &[&TLS12, &TLS13])).await;
    member.expect("accepted");
    let stream = stream.expect("a byte");
    let (_, tls) = stream.get_ref();
    assert_eq!(
        tls.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );

    let (mut near, far) = connected().await;
    let plain = async {
        near.write_all(b"GET /v1/sys/health HTTP/1.1\r\n\r\n")
            .await
            .expect("sends");
        near
    };
    let (outcome, _near) = tokio::join!(server.accept(far), plain);
    outcome.map(|_| ()).expect_err("no TLS");
}

#[tokio::test]
async fn no_session_outlives_its_connection() {
    let world = World::new();
    let server = world.server(&[&world.mesh_ca]);
    // The same configuration, which would keep tickets.
    let client = world.client(Some(&world.own()), &[&TLS13]);
    for _ in 0..2 {
        let (member, stream) = meet(&server, &client).await;
        member.expect("accepted");
        let stream = stream.expect("a byte");
        let (_, tls) = stream.get_ref();
        assert_ne!(tls.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(tls.tls13_tickets_received(), 0);
    }
}

#[test]
fn unusable_certificates_and_keys_are_named() {
    let world = World::new();
    let (chain, key) = world.own();
    let pem = world.mesh_ca.self_signed_pem();
    let new = |chain: &str, key: &Zeroizing<Vec<u8>>, trusted: &[&str]| {
        let clock = Arc::clone(&world.clock) as _;
        MeshServer::new(chain, key, trusted, clock).expect_err("refused")
    };
    let broken = "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n";
    let error = new(&chain, &key, &[broken]);
    assert!(error.to_string().contains("the mesh CA"), "{error}");
    let error = new(broken, &key, &[&pem]);
    assert!(error.to_string().contains("the server"), "{error}");
    let error = new(&chain, &key, &[]);
    assert!(matches!(error, MeshTlsError::Verifier(_)), "{error}");
    let (_, other) = world.own();
    for key in [&other, &Zeroizing::new(vec![0; 8])] {
        let error = new(&chain, key, &[&pem]);
        assert!(matches!(error, MeshTlsError::Tls(_)), "{error}");
    }
}
