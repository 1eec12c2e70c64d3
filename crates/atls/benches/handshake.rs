//! What a handshake costs, beside the plain TLS handshake it is built on and the bare cryptography it cannot avoid.
//!
//! Both peers run on one thread over an in-memory pipe, so a number is the sum of both sides' work. Chains are warm, as in
//! a Coordinator after its first client.

#![allow(clippy::expect_used, reason = "a bench that cannot run stops")]

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    agreement, kem,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
        ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        EcdsaVerificationAlgorithm, KeyPair, UnparsedPublicKey,
    },
};
use contrast_atls::{ClientConfig, Identity, Limits, ServerConfig, accept, connect};
use contrast_attestation::{
    EvidenceVerifier, Issuer, PolicyHash, ReportData, Tee, Verifier, software::SoftwareTee,
};
use contrast_clock::FixedWallClock;
use divan::{Bencher, black_box};
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    runtime::{Builder, Runtime},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const POLICY: PolicyHash = PolicyHash([7; 32]);
const PIPE_BYTES: usize = 64 * 1024;

fn main() {
    divan::main();
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

struct World {
    tee: SoftwareTee,
    verifier: Arc<dyn EvidenceVerifier>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let tee = SoftwareTee::generate(now()).expect("software TEE");
    let references = vec![tee.reference_value(Tee::Snp)];
    World {
        verifier: Arc::new(Verifier::new(references, [POLICY])),
        tee,
    }
});

fn configs(client_proves: bool) -> (ClientConfig, ServerConfig) {
    let identity = || Arc::new(Identity::generate(now()).expect("identity"));
    let issuer = || -> Option<Arc<dyn Issuer>> { Some(Arc::new(WORLD.tee.snp_guest(POLICY))) };
    let clock = Arc::new(FixedWallClock::new(now()));
    let client = ClientConfig {
        identity: identity(),
        issuer: if client_proves { issuer() } else { None },
        verifier: Some(Arc::clone(&WORLD.verifier)),
        clock: clock.clone(),
        limits: Limits::client(),
    };
    let server = ServerConfig {
        identity: identity(),
        issuer: issuer(),
        verifier: client_proves.then(|| Arc::clone(&WORLD.verifier)),
        clock,
        limits: Limits::server(),
    };
    (client, server)
}

/// Attested TLS; `true`: both sides prove themselves, `false`: only the server does.
#[divan::bench(args = [true, false])]
fn atls(bencher: Bencher<'_, '_>, mutual: bool) {
    let runtime = runtime();
    let (client, server) = configs(mutual);
    bencher.bench_local(|| {
        runtime.block_on(async {
            let (near, far) = duplex(PIPE_BYTES);
            let (client, server) = tokio::join!(connect(near, &client), accept(far, None, &server));
            (client.expect("client"), server.expect("server"))
        })
    });
}

/// The same TLS handshake without attestation: TLS 1.3, X25519MLKEM768, P-256 certificates on both sides.
#[divan::bench]
fn plain_tls(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let (connector, acceptor) = plain();
    bencher.bench_local(|| {
        runtime.block_on(async {
            let (near, far) = duplex(PIPE_BYTES);
            let name = ServerName::try_from("peer").expect("name");
            let client = async {
                let mut tls = connector.connect(name, near).await?;
                // One byte each way, so that both sides know that the other is done.
                tls.write_all(&[1]).await?;
                tls.flush().await?;
                tls.read_u8().await
            };
            let server = async {
                let mut tls = acceptor.accept(far).await?;
                tls.read_u8().await?;
                tls.write_all(&[1]).await?;
                tls.flush().await
            };
            let (client, server) = tokio::join!(client, server);
            (client.expect("client"), server.expect("server"))
        })
    });
}

/// Key generation, encapsulation and agreement of X25519MLKEM768, and one P-256 signature made and checked by each side.
#[divan::bench]
fn bare_crypto_of_tls(bencher: Bencher<'_, '_>) {
    let keys = Signer::new(&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P256_SHA256_ASN1);
    bencher.bench_local(|| {
        let decapsulation = kem::DecapsulationKey::generate(&kem::ML_KEM_768).expect("key");
        let encapsulation = decapsulation.encapsulation_key().expect("key");
        let (ciphertext, _) = encapsulation.encapsulate().expect("encapsulates");
        black_box(decapsulation.decapsulate(ciphertext).expect("decapsulates"));
        x25519();
        keys.sign_and_check();
        keys.sign_and_check();
    });
}

/// What evidence adds for both sides: two P-384 signatures by the software TEE and their verification.
#[divan::bench]
fn bare_crypto_of_evidence(bencher: Bencher<'_, '_>) {
    let keys = Signer::new(&ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1);
    bencher.bench_local(|| {
        keys.sign_and_check();
        keys.sign_and_check();
    });
}

/// Issuing by the software TEE (hardware takes milliseconds) and appraisal with a warm chain, once.
#[divan::bench]
fn evidence_once(bencher: Bencher<'_, '_>) {
    let guest = WORLD.tee.snp_guest(POLICY);
    bencher.bench_local(|| {
        let evidence = guest.issue(&ReportData([1; 64])).expect("evidence");
        WORLD
            .verifier
            .verify(&evidence, &ReportData([1; 64]), now())
            .expect("accepted")
    });
}

fn x25519() {
    let random = SystemRandom::new();
    let key =
        || agreement::EphemeralPrivateKey::generate(&agreement::X25519, &random).expect("key");
    let (a, b) = (key(), key());
    let public = |key: &agreement::EphemeralPrivateKey| {
        agreement::UnparsedPublicKey::new(
            &agreement::X25519,
            key.compute_public_key().expect("public key"),
        )
    };
    let (public_a, public_b) = (public(&a), public(&b));
    for (private, public) in [(a, public_b), (b, public_a)] {
        let secret = agreement::agree_ephemeral(private, public, (), |secret| Ok(secret.to_vec()));
        black_box(secret.expect("agrees"));
    }
}

struct Signer {
    key: EcdsaKeyPair,
    public: UnparsedPublicKey<Vec<u8>>,
}

impl Signer {
    fn new(
        signing: &'static EcdsaSigningAlgorithm,
        verification: &'static EcdsaVerificationAlgorithm,
    ) -> Self {
        let key = EcdsaKeyPair::generate(signing).expect("key");
        let public = UnparsedPublicKey::new(verification, key.public_key().as_ref().to_vec());
        Self { key, public }
    }

    fn sign_and_check(&self) {
        let message = [5; 130];
        let signature = self
            .key
            .sign(&SystemRandom::new(), &message)
            .expect("signs");
        self.public
            .verify(&message, signature.as_ref())
            .expect("verifies");
    }
}

fn plain() -> (TlsConnector, TlsAcceptor) {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![provider::cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![provider::kx_group::X25519MLKEM768],
        ..provider::default_provider()
    });
    let verifier = Arc::new(OwnsKey(Arc::clone(&provider)));
    let presented = || {
        let identity = Identity::generate(now()).expect("identity");
        let certificate = CertificateDer::from(identity.certificate_der().to_vec());
        let key = PrivatePkcs8KeyDer::from(identity.private_key_pkcs8().to_vec());
        (vec![certificate], PrivateKeyDer::from(key))
    };
    let (chain, key) = presented();
    let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_client_auth_cert(chain, key)
        .expect("key");
    client.resumption = rustls::client::Resumption::disabled();
    let (chain, key) = presented();
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("key");
    server.send_tls13_tickets = 0;
    (
        TlsConnector::from(Arc::new(client)),
        TlsAcceptor::from(Arc::new(server)),
    )
}

/// Checks the signature of the handshake and nothing else, as attested TLS does.
#[derive(Debug)]
struct OwnsKey(Arc<CryptoProvider>);

impl OwnsKey {
    fn check(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("TLS 1.3 only".into()))
}

impl ServerCertVerifier for OwnsKey {
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
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

impl ClientCertVerifier for OwnsKey {
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
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
