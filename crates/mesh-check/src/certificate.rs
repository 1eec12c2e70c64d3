//! What a certificate says that explains why it is refused.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, SecondsFormat, Utc};
use der::Decode as _;
use rustls::{
    Error, RootCertStore, client::verify_server_cert_signed_by_trust_anchor, crypto::aws_lc_rs,
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_cert::{
    Certificate,
    ext::pkix::{AuthorityKeyIdentifier, SubjectAltName, SubjectKeyIdentifier, name::GeneralName},
};

/// Common name of the mesh CA, whatever its key.
const MESH_CA_NAME: &str = "CN=system:coordinator:intermediate";

/// The facts of one certificate.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) issuer: String,
    pub(crate) issuer_key: Option<String>,
    pub(crate) own_key: Option<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) dns: Vec<String>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) uris: Vec<String>,
}

impl Facts {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, der::Error> {
        let certificate = Certificate::from_der(certificate)?;
        let tbs = certificate.tbs_certificate();
        let issuer_key = tbs
            .get_extension::<AuthorityKeyIdentifier>()?
            .and_then(|(_, extension)| extension.key_identifier)
            .map(|id| hex(id.as_bytes()));
        let own_key = tbs
            .get_extension::<SubjectKeyIdentifier>()?
            .map(|(_, extension)| hex(extension.0.as_bytes()));
        let mut facts = Self {
            issuer: tbs.issuer().to_string(),
            issuer_key,
            own_key,
            not_before: tbs.validity().not_before.to_system_time(),
            not_after: tbs.validity().not_after.to_system_time(),
            dns: Vec::new(),
            ips: Vec::new(),
            uris: Vec::new(),
        };
        let names = tbs.get_extension::<SubjectAltName>()?;
        for name in names.into_iter().flat_map(|(_, names)| names.0) {
            match name {
                GeneralName::DnsName(name) => facts.dns.push(name.to_string()),
                GeneralName::UniformResourceIdentifier(uri) => facts.uris.push(uri.to_string()),
                GeneralName::IpAddress(bytes) => facts.ips.extend(ip(bytes.as_bytes())),
                _ => {}
            }
        }
        Ok(facts)
    }

    /// Whether a mesh CA issued it, of this deployment or another.
    pub(crate) fn is_of_a_mesh(&self) -> bool {
        self.issuer == MESH_CA_NAME
    }

    /// All names, URIs first.
    pub(crate) fn names(&self) -> String {
        let ips = self.ips.iter().map(IpAddr::to_string);
        let names: Vec<String> = [&self.uris, &self.dns]
            .into_iter()
            .flatten()
            .map(|name| name.escape_debug().to_string())
            .chain(ips)
            .collect();
        match names.is_empty() {
            true => "no names".to_owned(),
            false => names.join(", "),
        }
    }

    pub(crate) fn issuer_text(&self) -> String {
        let issuer = match self.issuer.is_empty() {
            true => "an issuer without a name".to_owned(),
            false => self.issuer.escape_debug().to_string(),
        };
        format!("{issuer}, key {}", short(self.issuer_key.as_deref()))
    }
}

/// The first digits of a key identifier, enough to tell generations apart.
pub(crate) fn short(key: Option<&str>) -> String {
    key.map_or_else(
        || "not named".to_owned(),
        |key| key.chars().take(12).collect(),
    )
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| v6()).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a moment lies in a certificate's validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validity {
    NotYet,
    Now,
    Expired,
}

pub(crate) fn validity(facts: &Facts, now: SystemTime) -> Validity {
    if now < facts.not_before {
        Validity::NotYet
    } else if now > facts.not_after {
        Validity::Expired
    } else {
        Validity::Now
    }
}

/// A moment in UTC and how far it is from `now`.
pub(crate) struct Moment {
    pub(crate) at: SystemTime,
    pub(crate) now: SystemTime,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = DateTime::<Utc>::from(self.at).to_rfc3339_opts(SecondsFormat::Secs, true);
        match self.at.duration_since(self.now) {
            Ok(left) => write!(f, "{at} (in {})", rough(left)),
            Err(error) => write!(f, "{at} ({} ago)", rough(error.duration())),
        }
    }
}

fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Whether a chain leads to one of `roots`, at a moment at which its leaf is valid: validity is judged apart, because an expired
/// certificate of a foreign CA is foreign first.
pub(crate) fn leads_to(
    chain: &[CertificateDer<'_>],
    facts: &Facts,
    roots: &RootCertStore,
) -> Result<(), Error> {
    let (leaf, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    let at = facts
        .not_after
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(leaf)?,
        roots,
        intermediates,
        UnixTime::since_unix_epoch(at),
        algorithms.all,
    )
}

/// A store of these certificates; those that cannot be trust anchors are left out.
pub(crate) fn store(certificates: &[CertificateDer<'static>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates.iter().cloned());
    store
}
