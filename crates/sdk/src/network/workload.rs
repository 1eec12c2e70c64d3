use std::{
    fmt, io,
    net::{TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::{Duration, SystemTime},
};

use contrast_clock::WallClock;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, client::Resumption,
    crypto::aws_lc_rs, time_provider::TimeProvider, version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};

/// A connection to a workload. Reads and writes block.
pub type WorkloadStream = StreamOwned<ClientConnection, TcpStream>;

/// No connection to the workload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No name that a certificate can have.
    #[error(
        "expected a DNS name or an IP address that the manifest gives to the workload, found `{found}`"
    )]
    Name {
        /// What was found.
        found: String,
    },
    /// Not certificates.
    #[error("expected the mesh CA certificate in PEM")]
    MeshCa(#[source] Option<rustls_pki_types::pem::Error>),
    /// The TLS library refuses the certificate.
    #[error("the mesh CA certificate cannot be used for TLS")]
    Tls(#[source] rustls::Error),
    /// No TCP connection.
    #[error("cannot reach the workload at {address}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not prove to be a workload of the verified manifest, or it demands a client certificate.
    #[error(
        "the peer at {address} has no certificate of this mesh CA for `{name}`, or did not accept this client"
    )]
    Handshake {
        /// Where.
        address: String,
        /// As whom.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Connects to a workload at `address` (`HOST:PORT`) with TLS 1.3 and finishes the handshake: its certificate must be for `name`, in force now, and
/// issued by `mesh_ca`, the only CA that is trusted ([`crate::Verified::mesh_ca`], PEM). No client certificate is shown; a workload that wants
/// one ends the connection, which the first read finds.
///
/// Connecting, and each read of the handshake, may take `patience`; the stream has no time limits then.
///
/// # Errors
/// When there is no connection, or it is not to such a workload.
pub fn dial(
    address: &str,
    name: &str,
    mesh_ca: &str,
    clock: &Arc<dyn WallClock>,
    patience: Duration,
) -> Result<WorkloadStream, DialError> {
    let server = ServerName::try_from(name).map_err(|_| DialError::Name {
        found: contrast_attestation::printable(name).into_owned(),
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(mesh_ca.as_bytes()) {
        let certificate = certificate.map_err(|error| DialError::MeshCa(Some(error)))?;
        roots.add(certificate).map_err(DialError::Tls)?;
    }
    if roots.is_empty() {
        return Err(DialError::MeshCa(None));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let time = Arc::new(Time(Arc::clone(clock)));
    let mut config = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])
        .map_err(DialError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A session that goes on later would skip the check of a certificate that may have ended.
    config.resumption = Resumption::disabled();
    let mut tls =
        ClientConnection::new(Arc::new(config), server.to_owned()).map_err(DialError::Tls)?;
    let mut tcp = connect(address, patience).map_err(|source| DialError::Unreachable {
        address: address.to_owned(),
        source,
    })?;
    let handshake = |tcp: &mut TcpStream| {
        while tls.is_handshaking() {
            tls.complete_io(tcp)?;
        }
        tcp.set_read_timeout(None)?;
        tcp.set_write_timeout(None)
    };
    let outcome = { handshake }(&mut tcp);
    match outcome {
        Ok(()) => Ok(StreamOwned::new(tls, tcp)),
        Err(source) => Err(DialError::Handshake {
            address: address.to_owned(),
            name: name.to_owned(),
            source,
        }),
    }
}

/// Tries the host's addresses one after the other.
fn connect(address: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for target in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&target, patience) {
            Ok(tcp) => {
                tcp.set_read_timeout(Some(patience))?;
                tcp.set_write_timeout(Some(patience))?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The caller's clock for the TLS library.
#[derive(Clone)]
struct Time(Arc<dyn WallClock>);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}
