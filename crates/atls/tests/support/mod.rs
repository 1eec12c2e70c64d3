//! A peer made by hand from `docs/protocol.md`, without a line of the crate under test (except for key generation), so that
//! it can cheat; and honest parties with a software TEE.

#![allow(
    dead_code,
    reason = "each test program uses its own part of this module"
)]

use std::{
    future::Future,
    io,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA512, digest};
use contrast_atls::{
    AtlsError, AtlsStream, ClientConfig, Identity, Limits, Misbehaviour, ServerConfig, accept,
    connect,
};
use contrast_attestation::{
    Evidence, EvidenceVerifier, Issuer, PolicyHash, ReportData, Tee, Verifier,
    software::SoftwareTee,
};
use contrast_clock::FixedWallClock;
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme, SupportedProtocolVersion,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs as provider,
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

pub(crate) const HELLO: u8 = 1;
pub(crate) const EVIDENCE: u8 = 2;
pub(crate) const VERDICT: u8 = 3;

/// `Hello { version: 1, requires_evidence: false }` and `{ version: 1, requires_evidence: true }`.
pub(crate) const HELLO_OPEN: &[u8] = &[0x08, 1];
pub(crate) const HELLO_STRICT: &[u8] = &[0x08, 1, 0x10, 1];
/// `Verdict { accepted: true }`.
pub(crate) const ACCEPTED: &[u8] = &[0x08, 1];

pub(crate) const POLICY: PolicyHash = PolicyHash([7; 32]);

/// Some time at which the software TEE's certificates are valid.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A software TEE with guests, and a verifier that accepts exactly them.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) tee: Arc<SoftwareTee>,
    pub(crate) verifier: Arc<dyn EvidenceVerifier>,
}

impl World {
    pub(crate) fn new() -> Self {
        let tee = SoftwareTee::generate(now()).expect("software TEE");
        let references = vec![tee.reference_value(Tee::Snp), tee.reference_value(Tee::Tdx)];
        Self {
            tee: Arc::new(tee),
            verifier: Arc::new(Verifier::new(references, [POLICY])),
        }
    }

    /// One world for all tests of a program: its RSA keys take a while.
    pub(crate) fn shared() -> Self {
        static WORLD: LazyLock<World> = LazyLock::new(World::new);
        WORLD.clone()
    }

    pub(crate) fn issuer(&self) -> Arc<dyn Issuer> {
        Arc::new(self.tee.snp_guest(POLICY))
    }

    pub(crate) fn evidence(&self, report_data: [u8; 64]) -> Evidence {
        self.issuer()
            .issue(&ReportData(report_data))
            .expect("evidence")
    }

    /// A client that proves itself and requires that of the server.
    pub(crate) fn client(&self) -> ClientConfig {
        ClientConfig {
            identity: identity(),
            issuer: Some(self.issuer()),
            verifier: Some(Arc::clone(&self.verifier)),
            clock: Arc::new(FixedWallClock::new(now())),
            limits: Limits::client(),
        }
    }

    /// A server that proves itself when asked and requires that of the client.
    pub(crate) fn server(&self) -> ServerConfig {
        ServerConfig {
            identity: identity(),
            issuer: Some(self.issuer()),
            verifier: Some(Arc::clone(&self.verifier)),
            clock: Arc::new(FixedWallClock::new(now())),
            limits: Limits::server(),
        }
    }
}

pub(crate) fn identity() -> Arc<Identity> {
    Arc::new(Identity::generate(now()).expect("identity"))
}

/// Report data as section 4 of the protocol defines it.
pub(crate) fn report_data(role: &str, spki: &[u8], exporter: &[u8; 64]) -> [u8; 64] {
    let mut text = Vec::new();
    for field in [
        b"contrast-atls-v1 report data",
        role.as_bytes(),
        spki,
        exporter,
    ] {
        text.extend((field.len() as u32).to_be_bytes());
        text.extend(field);
    }
    digest(&SHA512, &text)
        .as_ref()
        .try_into()
        .expect("64 bytes")
}

/// Body of an `EvidenceFrame`: field 1, length, message.
pub(crate) fn evidence_body(evidence: &Evidence) -> Vec<u8> {
    let inner = evidence.encode();
    let mut body = vec![0x0a];
    let mut rest = inner.len();
    while rest >= 0x80 {
        body.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    body.push(rest as u8);
    body.extend(inner);
    body
}

/// How the hand-made peer speaks TLS.
pub(crate) struct RawTls {
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    pub(crate) alpn: &'static [u8],
    pub(crate) key: Key,
}

/// What the hand-made peer presents as its key.
pub(crate) enum Key {
    Own,
    None,
    /// The certificate of somebody else, with signatures of the own key.
    StolenCertificate(Vec<u8>),
}

impl Default for RawTls {
    fn default() -> Self {
        Self {
            versions: vec![&TLS13],
            alpn: b"contrast-atls/1",
            key: Key::Own,
        }
    }
}

/// The hand-made peer after the TLS handshake.
pub(crate) struct Raw {
    tls: TlsStream<DuplexStream>,
    pub(crate) spki: Vec<u8>,
}

impl RawTls {
    pub(crate) async fn connect(self, io: DuplexStream) -> io::Result<Raw> {
        let identity = identity();
        let builder =
            rustls::ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
                .with_protocol_versions(&self.versions)
                .expect("versions")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyPeer));
        let mut config = match self.resolver(&identity) {
            Some(resolver) => builder.with_client_cert_resolver(resolver),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn_protocols();
        let name = ServerName::try_from("anything.example").expect("name");
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, io)
            .await?;
        Ok(Raw {
            tls: tls.into(),
            spki: identity.spki().to_vec(),
        })
    }

    pub(crate) async fn accept(self, io: DuplexStream) -> io::Result<Raw> {
        let identity = identity();
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
                .with_protocol_versions(&self.versions)
                .expect("versions")
                .with_client_cert_verifier(Arc::new(AnyPeer))
                .with_cert_resolver(self.resolver(&identity).expect("a server has a key"));
        config.alpn_protocols = self.alpn_protocols();
        let tls = TlsAcceptor::from(Arc::new(config)).accept(io).await?;
        Ok(Raw {
            tls: tls.into(),
            spki: identity.spki().to_vec(),
        })
    }

    fn alpn_protocols(&self) -> Vec<Vec<u8>> {
        if self.alpn.is_empty() {
            Vec::new()
        } else {
            vec![self.alpn.to_vec()]
        }
    }

    fn resolver(&self, identity: &Identity) -> Option<Arc<SingleCertAndKey>> {
        let certificate = match &self.key {
            Key::Own => identity.certificate_der().to_vec(),
            Key::StolenCertificate(stolen) => stolen.clone(),
            Key::None => return None,
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.private_key_pkcs8()));
        let signer = provider::sign::any_ecdsa_type(&key).expect("key");
        let certified = CertifiedKey::new(vec![CertificateDer::from(certificate)], signer);
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        assert!(resolver.has_certs());
        Some(resolver)
    }
}

impl Raw {
    pub(crate) fn exporter(&self) -> [u8; 64] {
        let label = b"EXPORTER-contrast-atls-v1";
        match &self.tls {
            TlsStream::Client(tls) => tls.get_ref().1.export_keying_material([0; 64], label, None),
            TlsStream::Server(tls) => tls.get_ref().1.export_keying_material([0; 64], label, None),
        }
        .expect("exporter")
    }

    pub(crate) async fn send(&mut self, kind: u8, body: &[u8]) {
        let header = [&[kind], &(body.len() as u32).to_be_bytes()[..]].concat();
        self.send_bytes(&[&header, body].concat()).await;
    }

    /// Sends any bytes. That the other side may have closed already is its verdict, not a failure of the test.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.tls.write_all(bytes).await;
        let _ = self.tls.flush().await;
    }

    pub(crate) async fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let kind = self.tls.read_u8().await?;
        let length = self.tls.read_u32().await?;
        let mut body = vec![0; length as usize];
        self.tls.read_exact(&mut body).await?;
        Ok((kind, body))
    }

    /// Receives a frame that must come.
    pub(crate) async fn expect(&mut self, kind: u8) -> Vec<u8> {
        let (found, body) = self.receive().await.expect("a frame");
        assert_eq!(found, kind);
        body
    }

    pub(crate) async fn close(mut self) {
        let _ = self.tls.shutdown().await;
    }

    pub(crate) fn own_report_data(&self, role: &str) -> [u8; 64] {
        report_data(role, &self.spki, &self.exporter())
    }
}

pub(crate) type Outcome = Result<AtlsStream<DuplexStream>, AtlsError>;

/// Lets `cheat` talk to an honest server that requires evidence.
pub(crate) async fn against_server<F: Future>(
    cheat: impl FnOnce(Raw) -> F,
) -> (Outcome, F::Output) {
    let server = World::shared().server();
    let (near, far) = duplex(64 * 1024);
    let cheat = async { cheat(RawTls::default().connect(near).await.expect("TLS")).await };
    tokio::join!(accept(far, None, &server), cheat)
}

/// Lets `cheat` talk to an honest client that requires evidence and gives some.
pub(crate) async fn against_client<F: Future>(
    cheat: impl FnOnce(Raw) -> F,
) -> (Outcome, F::Output) {
    let client = World::shared().client();
    let (near, far) = duplex(64 * 1024);
    let cheat = async { cheat(RawTls::default().accept(far).await.expect("TLS")).await };
    tokio::join!(connect(near, &client), cheat)
}

pub(crate) fn misbehaviour(outcome: Outcome) -> Misbehaviour {
    match outcome {
        Err(AtlsError::PeerMisbehaved(misbehaviour)) => misbehaviour,
        other => panic!("expected misbehaviour, found {other:?}"),
    }
}

/// The failed checks of a refusal by this side.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, AtlsError>) -> String {
    match result {
        Err(AtlsError::RefusedPeer(error)) => error.to_string(),
        other => panic!("expected that the evidence is refused, found {other:?}"),
    }
}

/// Accepts every certificate and every signature.
#[derive(Debug)]
struct AnyPeer;

impl ServerCertVerifier for AnyPeer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

impl ClientCertVerifier for AnyPeer {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
