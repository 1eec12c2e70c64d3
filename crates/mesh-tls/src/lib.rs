//! The server side of TLS between members of the mesh: both sides show a certificate that a mesh CA issued.
//!
//! TLS 1.3 only, ALPN `h2` and `http/1.1`, a client certificate is demanded, sessions are not resumed: every connection verifies its client
//! against the mesh CAs of the moment. The root CA is no trust anchor here, so a certificate of a mesh CA that was superseded is refused although
//! it chains to the root.
//!
//! What this crate never does: decide what a member may ask, or keep a connection because it was accepted once;
//! [`MeshServer::still_accepts`] says whether it would be accepted again.

use std::{fmt, io, sync::Arc, time::SystemTime};

use contrast_clock::WallClock;
use contrast_pki::{CertificateError, LeafFacts};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    time_provider::TimeProvider,
    version::TLS13,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use zeroize::Zeroizing;

/// Protocols that are offered for the time after the handshake.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A server could not be configured, or a client is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeshTlsError {
    /// A certificate is not one.
    #[error("{what}: expected certificates in PEM")]
    Pem {
        /// Whose.
        what: &'static str,
        /// Why not.
        source: rustls_pki_types::pem::Error,
    },
    /// The TLS library refuses keys or certificates.
    #[error("the mesh CA or the server's certificate cannot be used for TLS")]
    Tls(#[source] rustls::Error),
    /// No certificates to verify clients with.
    #[error("cannot verify client certificates with the mesh CA")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The handshake failed; for instance the client has no certificate of an active mesh CA.
    #[error("the TLS handshake failed; expected a client with a certificate of the active mesh CA")]
    Handshake(#[source] io::Error),
    /// The client's certificate is not accepted (any more).
    #[error(
        "the client's certificate is not one of the active mesh CA, or has expired; fetch a new one"
    )]
    Refused(#[source] rustls::Error),
    /// The client's certificate has an extension that cannot be read.
    #[error("the client's certificate cannot be read")]
    Certificate(#[source] CertificateError),
}

/// A member of the mesh on the other side, whose certificate was verified when the connection was accepted.
#[derive(Debug, Clone)]
pub struct Member {
    chain: Vec<CertificateDer<'static>>,
    facts: LeafFacts,
}

impl Member {
    /// What its certificate says.
    pub fn facts(&self) -> &LeafFacts {
        &self.facts
    }
}

/// How connections are accepted under one set of mesh CAs.
pub struct MeshServer {
    config: Arc<rustls::ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for MeshServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshServer")
    }
}

impl MeshServer {
    /// A server that shows `chain` (PEM, leaf first) with its private key (PKCS#8 DER), and accepts clients whose certificates one of
    /// `mesh_cas` issued (self-signed form, PEM).
    ///
    /// # Errors
    /// When PEM or keys are unusable.
    pub fn new(
        chain: &str,
        key_pkcs8: &Zeroizing<Vec<u8>>,
        mesh_cas: &[&str],
        clock: Arc<dyn WallClock>,
    ) -> Result<Self, MeshTlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut anchors = RootCertStore::empty();
        for mesh_ca in mesh_cas {
            for certificate in certificates("the mesh CA", mesh_ca)? {
                anchors.add(certificate).map_err(MeshTlsError::Tls)?;
            }
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(&provider))
                .build()
                .map_err(MeshTlsError::Verifier)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8.as_slice())).clone_key();
        let builder = rustls::ServerConfig::builder_with_details(
            provider,
            Arc::new(Time(Arc::clone(&clock))),
        );
        let mut config = builder
            .with_protocol_versions(&[&TLS13])
            .map_err(MeshTlsError::Tls)?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(certificates("the server", chain)?, key)
            .map_err(MeshTlsError::Tls)?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            config: Arc::new(config),
            verifier,
        })
    }

    /// Does the handshake. The caller bounds its time.
    ///
    /// # Errors
    /// When the client shows no certificate of an active mesh CA, or goes away.
    pub async fn accept(
        &self,
        tcp: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Member), MeshTlsError> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let stream = acceptor
            .accept(tcp)
            .await
            .map_err(MeshTlsError::Handshake)?;
        let chain: Vec<_> = stream
            .get_ref()
            .1
            .peer_certificates()
            .into_iter()
            .flatten()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        // The verifier saw one, so this cannot be empty.
        let leaf = chain.first().map_or(&[][..], |leaf| leaf.as_ref());
        let facts = LeafFacts::read(leaf).map_err(MeshTlsError::Certificate)?;
        Ok((stream, Member { chain, facts }))
    }

    /// Whether a member whose connection was accepted before would be accepted at `now`.
    ///
    /// # Errors
    /// When its certificate is not one of the mesh CAs of this server, or not valid at that time.
    pub fn still_accepts(&self, member: &Member, now: SystemTime) -> Result<(), MeshTlsError> {
        let time = unix_time(now);
        let verified = match member.chain.split_first() {
            Some((leaf, intermediates)) => {
                self.verifier.verify_client_cert(leaf, intermediates, time)
            }
            None => Err(rustls::Error::NoCertificatesPresented),
        };
        verified.map(drop).map_err(MeshTlsError::Refused)
    }
}

fn certificates(
    what: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, MeshTlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| MeshTlsError::Pem { what, source })
}

fn unix_time(now: SystemTime) -> UnixTime {
    // Before 1970 no certificate is valid, as at that moment.
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

#[derive(Debug)]
struct Time(Arc<dyn WallClock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}
