//! A TLS handshake that takes whatever certificate the server shows, and remembers all that was said.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    },
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// First byte of a TLS record that a server may send first: change of cipher, alert, handshake (RFC 8446, section 5.1).
const RECORDS: std::ops::RangeInclusive<u8> = 20..=22;
/// An empty line: most protocols wait for more behind it or ignore it.
const PROBE: &[u8] = b"\r\n";
/// Records read before the check gives up on a server that talks without end.
const RECORDS_MAX: usize = 64;

/// How an exchange ended that did not end as it should.
#[derive(Debug)]
pub(crate) enum End {
    /// The server sent a TLS alert.
    Alert(AlertDescription),
    /// The server closed the connection.
    Closed,
    /// The server sent something that is not TLS.
    Plain(Vec<u8>),
    /// The server sent nothing in time.
    Silent,
    /// TLS that breaks the protocol, or TLS without a version or algorithm in common.
    Broken(Error),
    /// The connection failed.
    Io(io::Error),
}

/// What the handshake showed.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The server's certificates, its own first; empty when it did not come that far.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Whether the server asked for a certificate.
    pub(crate) asked: bool,
}

/// When the connection ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Before the handshake was finished.
    Handshake(End),
    /// Behind the handshake, before any data.
    Refused(End),
    /// Behind the first data.
    RefusedData(End),
    /// Not at all.
    Open,
}

#[derive(Debug)]
struct Recorder {
    seen: Mutex<Seen>,
    algorithms: WebPkiSupportedAlgorithms,
    identity: Option<Arc<CertifiedKey>>,
}

impl Recorder {
    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let chain = chain
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        self.note(|seen| seen.chain = chain);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ResolvesClientCert for Recorder {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.note(|seen| seen.asked = true);
        self.identity.clone()
    }

    fn has_certs(&self) -> bool {
        self.identity.is_some()
    }
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    pub(crate) handshake: Duration,
    pub(crate) refusal: Duration,
}

/// Does the handshake with the server that `stream` leads to, under the name `host`, and waits for a refusal behind it.
pub(crate) fn run(
    stream: TcpStream,
    host: &str,
    address: IpAddr,
    identity: Option<Arc<CertifiedKey>>,
    waits: Waits,
) -> (Seen, Outcome) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let recorder = Arc::new(Recorder {
        seen: Mutex::default(),
        algorithms: provider.signature_verification_algorithms,
        identity,
    });
    let name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| ServerName::from(address));
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map(|builder| {
            let verifier: Arc<dyn ServerCertVerifier> = Arc::<Recorder>::clone(&recorder);
            let resolver: Arc<dyn ResolvesClientCert> = Arc::<Recorder>::clone(&recorder);
            let mut config = builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_client_cert_resolver(resolver);
            config.resumption = Resumption::disabled();
            config
        });
    let outcome = match config.and_then(|config| ClientConnection::new(Arc::new(config), name)) {
        Ok(tls) => Exchange { stream, tls }.run(waits),
        Err(error) => Outcome::Handshake(End::Broken(error)),
    };
    let seen = std::mem::take(&mut *recorder.seen.lock().unwrap_or_else(PoisonError::into_inner));
    (seen, outcome)
}

struct Exchange {
    stream: TcpStream,
    tls: ClientConnection,
}

impl Exchange {
    fn run(mut self, waits: Waits) -> Outcome {
        match self.handshake(waits.handshake) {
            Ok(()) => {}
            Err(end) => return Outcome::Handshake(end),
        }
        // Before data: data that the server has not read when it closes would make the kernel throw its alert away.
        if let Some(end) = self.wait(waits.refusal) {
            return Outcome::Refused(end);
        }
        let sent = self.tls.writer().write_all(PROBE);
        if let Err(end) = sent.map_err(End::Io).and_then(|()| self.flush()) {
            return Outcome::RefusedData(end);
        }
        match self.wait(waits.refusal) {
            Some(end) => Outcome::RefusedData(end),
            None => Outcome::Open,
        }
    }

    fn handshake(&mut self, patience: Duration) -> Result<(), End> {
        self.flush()?;
        self.stream
            .set_read_timeout(Some(patience))
            .map_err(End::Io)?;
        let mut first = [0; 32];
        let length = self.stream.peek(&mut first).map_err(End::of)?;
        let first = first.get(..length).unwrap_or_default();
        match first.first() {
            None => return Err(End::Closed),
            // What a server that only echoes sends is a handshake too, but a client's.
            Some(byte) if !RECORDS.contains(byte) || is_client_hello(first) => {
                return Err(End::Plain(first.to_vec()));
            }
            Some(_) => {}
        }
        for _ in 0..RECORDS_MAX {
            if !self.tls.is_handshaking() {
                return self.flush();
            }
            self.read()?;
            self.flush()?;
        }
        Err(End::Silent)
    }

    /// Waits for the end of the connection; `None` when it stays open.
    fn wait(&mut self, patience: Duration) -> Option<End> {
        if let Err(error) = self.stream.set_read_timeout(Some(patience)) {
            return Some(End::Io(error));
        }
        for _ in 0..RECORDS_MAX {
            match self.read() {
                Ok(()) => {}
                Err(End::Silent) => return None,
                Err(end) => return Some(end),
            }
        }
        None
    }

    /// Reads once and throws away what is data.
    fn read(&mut self) -> Result<(), End> {
        if self.tls.read_tls(&mut self.stream).map_err(End::of)? == 0 {
            return Err(End::Closed);
        }
        let state = match self.tls.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // The alert that says so is a courtesy.
                let _ = self.flush();
                return Err(End::of_tls(error));
            }
        };
        let mut data = vec![0; state.plaintext_bytes_to_read()];
        self.tls.reader().read_exact(&mut data).map_err(End::of)?;
        match state.peer_has_closed() {
            true => Err(End::Closed),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), End> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream).map_err(End::of)?;
        }
        Ok(())
    }
}

fn is_client_hello(record: &[u8]) -> bool {
    matches!(record, [22, _, _, _, _, 1, ..])
}

impl End {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }

    fn of_tls(error: Error) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::Alert(alert),
            error => Self::Broken(error),
        }
    }
}
