//! A deployment's certificates, a pod's directory with them, and servers of rustls that answer once.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use contrast_clock::{SystemEntropy, SystemWallClock, WallClock as _};
use contrast_mesh_check::{Patience, Pod, Reason, Report, State, Target};
use contrast_pki::{LeafRequest, MeshCa, RootCa, SigningKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme, StreamOwned,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn now() -> SystemTime {
    SystemWallClock.now()
}

/// One deployment: a root CA, under which mesh CAs come and go.
pub(crate) struct Deployment(RootCa);

impl Deployment {
    pub(crate) fn new() -> Self {
        let key = SigningKey::generate(&SystemEntropy).expect("key");
        Self(RootCa::new(key, now() - 30 * DAY).expect("root CA"))
    }

    pub(crate) fn generation(&self) -> Generation {
        let mesh = MeshCa::generate(&SystemEntropy, &self.0, now() - 20 * DAY);
        Generation {
            mesh: mesh.expect("mesh CA"),
            root: self.0.certificate_pem(),
        }
    }
}

pub(crate) struct Generation {
    mesh: MeshCa,
    root: String,
}

/// What the Initializer writes.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) bundle: String,
    pub(crate) root: String,
}

impl Generation {
    pub(crate) fn ca(&self) -> String {
        self.mesh.self_signed_pem()
    }

    /// A certificate for the workload `name` in the namespace `shop`, issued now.
    pub(crate) fn issue(&self, name: &str) -> Files {
        self.issue_at(name, now())
    }

    /// A certificate for a day from `start` on.
    pub(crate) fn issue_at(&self, name: &str, start: SystemTime) -> Files {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("key");
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().expect("public key");
        let request = LeafRequest {
            public_key_spki: spki.as_ref(),
            sans: &[name.to_owned(), "localhost".to_owned()],
            spiffe_id: Some(&format!("spiffe://example/ns/shop/deployment/{name}")),
            peer_ip: Some(Ipv4Addr::LOCALHOST.into()),
            workload_secret_id: None,
            extensions: &[],
            lifetime: DAY,
        };
        let leaf = self.mesh.issue_leaf(&request, &SystemEntropy, start);
        let pkcs8 = key.to_pkcs8v1().expect("key");
        Files {
            chain: leaf.expect("certificate").chain_pem,
            key: pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.as_ref())),
            bundle: self.ca(),
            root: self.root.clone(),
        }
    }
}

/// A server certificate of an ordinary CA.
pub(crate) fn foreign() -> Files {
    let names = vec!["localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("certificate");
    Files {
        chain: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
        bundle: made.cert.pem(),
        root: String::new(),
    }
}

/// A pod's directory.
pub(crate) struct Directory(tempfile::TempDir);

impl Directory {
    pub(crate) fn with(files: &Files) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let put = |name: &str, text: &str| {
            fs::write(directory.path().join(name), text).expect("file");
        };
        put("certChain.pem", &files.chain);
        put("key.pem", &files.key);
        put("mesh-ca.pem", &files.bundle);
        put("coordinator-root-ca.pem", &files.root);
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn pod(&self) -> Pod {
        Pod {
            tls_config: self.path().to_owned(),
            ready_file: None,
            transparent: false,
            namespace: Some("shop".to_owned()),
        }
    }

    pub(crate) fn check_alone(&self) -> Report {
        contrast_mesh_check::check(&self.pod(), None, Patience::default(), now())
    }

    /// Checks the way to `address`, whose identity the egress entry says; the default is its address.
    pub(crate) fn check(&self, address: SocketAddr, option: &str) -> Report {
        let egress = format!("server#127.9.9.9:1#{address}{option}");
        let egress = egress.parse().expect("egress entry");
        let target = Target::find("server", &egress).expect("target");
        let patience = Patience {
            handshake: Duration::from_secs(2),
            ..Patience::default()
        };
        contrast_mesh_check::check(&self.pod(), Some(&target), patience, now())
    }
}

/// Whom a server asks for a certificate.
#[derive(Clone, Copy)]
pub(crate) enum Clients<'a> {
    Anybody,
    /// Members under this bundle, PEM.
    Members(&'a str),
    /// Members under this bundle with this SPIFFE ID; others get the alert that Envoy sends.
    Only(&'a str, &'a str),
}

/// What a server does with a connection behind the handshake.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    Stay,
    Close,
    CloseOnData,
}

/// Serves one connection with rustls.
pub(crate) fn serve(files: &Files, clients: Clients<'_>, then: Then) -> SocketAddr {
    let provider: Arc<CryptoProvider> = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3");
    let builder = match clients {
        Clients::Anybody => builder.with_no_client_auth(),
        Clients::Members(bundle) => builder.with_client_cert_verifier(members(bundle, provider)),
        Clients::Only(bundle, spiffe_id) => builder.with_client_cert_verifier(Arc::new(Choosy {
            members: members(bundle, provider),
            spiffe_id: spiffe_id.to_owned(),
        })),
    };
    let chain = CertificateDer::pem_slice_iter(files.chain.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("chain");
    let key = PrivateKeyDer::from_pem_slice(files.key.as_bytes()).expect("key");
    let config = builder.with_single_cert(chain, key).expect("certificate");
    let config = Arc::new(config);
    once(move |stream| {
        let tls = ServerConnection::new(config).expect("server");
        let mut stream = StreamOwned::new(tls, stream);
        while stream.conn.is_handshaking() {
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                return;
            }
        }
        let mut byte = [0];
        if matches!(then, Then::Close) || stream.read(&mut byte).is_err() {
            return;
        }
        if matches!(then, Then::Stay) {
            // Until the client goes.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    })
}

fn members(bundle: &str, provider: Arc<CryptoProvider>) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("root");
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.expect("verifier")
}

/// Lets in one workload only.
#[derive(Debug)]
struct Choosy {
    members: Arc<dyn ClientCertVerifier>,
    spiffe_id: String,
}

impl ClientCertVerifier for Choosy {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.members.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .members
            .verify_client_cert(end_entity, intermediates, now)?;
        // Strings of DER stand in it as they are.
        let wanted = self.spiffe_id.as_bytes();
        let mut windows = end_entity.windows(wanted.len());
        match windows.any(|window| window == wanted) {
            true => Ok(verified),
            false => {
                let why = OtherError(Arc::new(std::io::Error::other("not allowed")));
                Err(CertificateError::Other(why).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.members
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.members
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.members.supported_verify_schemes()
    }
}

/// Answers one connection with `answer`, without TLS, and keeps it open.
pub(crate) fn plain(answer: &'static [u8]) -> SocketAddr {
    once(move |mut stream| {
        let mut hello = [0; 4096];
        let _ = stream.read(&mut hello);
        let _ = stream.write_all(answer);
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

/// Sends back what it gets.
pub(crate) fn echo() -> SocketAddr {
    once(|mut stream| {
        let mut reader = stream.try_clone().expect("stream");
        let _ = std::io::copy(&mut reader, &mut stream);
    })
}

fn once(serve: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        serve(stream);
    });
    address
}

/// Reasons of the rows that are not ok.
pub(crate) fn reasons(report: &Report) -> Vec<Reason> {
    let bad = report.checks.iter().filter(|row| row.state != State::Ok);
    bad.map(|row| row.reason.expect("a reason")).collect()
}
