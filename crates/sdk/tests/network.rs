//! Connections to workloads: only what the verified mesh CA certified is reached.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has to stop there"
)]

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::Arc,
    thread,
    time::Duration,
};

use contrast_clock::{FixedWallClock, SeededEntropy, SystemWallClock, WallClock};
use contrast_pki::{LeafRequest, MeshCa, RootCa, SigningKey};
use contrast_sdk::network::{DialError, WorkloadStream, dial};
use rustls::{
    ServerConfig, ServerConnection, Stream,
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

const PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a workload demands of its clients.
#[derive(Clone, Copy)]
enum Demands {
    Nothing,
    Certificate,
    OldTls,
}

/// A workload named `web.example` under a mesh CA.
struct Workload {
    address: String,
    root: String,
    mesh_ca: String,
    intermediate: String,
}

impl Workload {
    fn start(seed: u64, demands: Demands) -> Self {
        let now = SystemWallClock.now();
        let entropy = SeededEntropy::new(seed);
        let generate = || SigningKey::generate(&entropy).expect("key");
        let root = RootCa::new(generate(), now).expect("root CA");
        let mesh = MeshCa::generate(&entropy, &root, now).expect("mesh CA");
        let key = generate();
        let names = ["web.example".to_owned(), "127.0.0.1".to_owned()];
        let request = LeafRequest {
            public_key_spki: key.public_key_spki(),
            sans: &names,
            spiffe_id: None,
            peer_ip: None,
            workload_secret_id: None,
            extensions: &[],
            lifetime: DAY,
        };
        let leaf = mesh.issue_leaf(&request, &entropy, now).expect("leaf");
        let read = |pem: &str| -> Vec<CertificateDer<'static>> {
            let list = CertificateDer::pem_slice_iter(pem.as_bytes());
            list.collect::<Result<_, _>>().expect("certificates")
        };
        let private = key.to_pkcs8_der().expect("PKCS#8").to_vec();
        let private = PrivateKeyDer::Pkcs8(private.into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let version = match demands {
            Demands::OldTls => &TLS12,
            _ => &TLS13,
        };
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .expect("version");
        let config = match demands {
            Demands::Certificate => {
                let mut roots = rustls::RootCertStore::empty();
                for certificate in read(&mesh.self_signed_pem()) {
                    roots.add(certificate).expect("adds");
                }
                let clients =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(clients.build().expect("verifier"))
            }
            _ => config.with_no_client_auth(),
        };
        let config = config.with_single_cert(read(&leaf.chain_pem), private);
        let config = Arc::new(config.expect("configuration"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("address").to_string();
        thread::spawn(move || {
            for tcp in listener.incoming() {
                let mut tcp = tcp.expect("accepts");
                let mut tls = ServerConnection::new(Arc::clone(&config)).expect("connection");
                // Clients that refuse it are the point of the test.
                let mut stream = Stream::new(&mut tls, &mut tcp);
                let _ = stream.write_all(b"hello");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Self {
            address,
            root: root.certificate_pem(),
            mesh_ca: mesh.self_signed_pem(),
            intermediate: mesh.intermediate_pem(),
        }
    }

    fn dial(&self, name: &str, mesh_ca: &str) -> Result<WorkloadStream, DialError> {
        let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
        dial(&self.address, name, mesh_ca, &clock, PATIENCE)
    }
}

fn is_refused(outcome: Result<WorkloadStream, DialError>) {
    match outcome {
        Err(DialError::Handshake { .. }) => {}
        other => panic!("expected a refused handshake, found {other:?}"),
    }
}

#[test]
fn workload_of_the_verified_mesh_ca_is_reached() {
    let workload = Workload::start(1, Demands::Nothing);
    for name in ["web.example", "127.0.0.1"] {
        let mut stream = workload.dial(name, &workload.mesh_ca).expect("reaches");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("reads");
        assert_eq!(said, "hello");
    }
}

#[test]
fn anything_else_is_refused() {
    let workload = Workload::start(2, Demands::Nothing);
    let other = Workload::start(3, Demands::Nothing);
    is_refused(workload.dial("api.example", &workload.mesh_ca));
    is_refused(workload.dial("web.example", &other.mesh_ca));
    is_refused(workload.dial("web.example", &other.root));
    // Both are roots of the deployment, and lead to the workload; which one is trusted is the caller's choice.
    for root in [&workload.root, &workload.intermediate] {
        workload.dial("web.example", root).expect("reaches");
    }
    let later = SystemWallClock.now() + 2 * DAY;
    let clock: Arc<dyn WallClock> = Arc::new(FixedWallClock::new(later));
    let (address, ca) = (&workload.address, &workload.mesh_ca);
    is_refused(dial(address, "web.example", ca, &clock, PATIENCE));
    let old = Workload::start(4, Demands::OldTls);
    is_refused(old.dial("web.example", &old.mesh_ca));
}

#[test]
fn what_cannot_be_tried_is_explained() {
    let workload = Workload::start(5, Demands::Nothing);
    let outcome = workload.dial("a b", &workload.mesh_ca);
    assert!(matches!(outcome, Err(DialError::Name { .. })));
    let outcome = workload.dial("web.example", "no PEM");
    assert!(matches!(outcome, Err(DialError::MeshCa(None))));
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    let closed = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = closed.local_addr().expect("address").to_string();
    drop(closed);
    let outcome = dial(&address, "web.example", &workload.mesh_ca, &clock, PATIENCE);
    assert!(matches!(outcome, Err(DialError::Unreachable { .. })));
}

#[test]
fn workload_that_wants_a_client_certificate_says_so_when_it_is_read() {
    let workload = Workload::start(6, Demands::Certificate);
    // In TLS 1.3 the client is done before the server has judged it.
    let mut stream = workload
        .dial("web.example", &workload.mesh_ca)
        .expect("is a workload");
    let error = stream.read(&mut [0; 8]).expect_err("is not let in");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}
