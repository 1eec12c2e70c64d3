//! An independent reading of a finished certificate: does it say all that its kind must say, and nothing else?
//!
//! It shares no code with `profile` but the two CA names: times, object identifiers, flags and the meaning of a requested name
//! are written down here a second time. It runs on every certificate before it leaves the crate, and on a root certificate
//! that comes back from a disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::SystemTime,
};

use aws_lc_rs::digest::{SHA256, digest};
use der::{
    Decode, Encode as _,
    asn1::{ObjectIdentifier, OctetString},
};
use x509_cert::{
    Certificate, TbsCertificate,
    certificate::Version,
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
            SubjectAltName, SubjectKeyIdentifier, name::GeneralName,
        },
    },
    spki::SubjectPublicKeyInfoOwned,
};

use crate::{
    CertificateError, LeafRequest,
    profile::{MESH_CA_NAME, ROOT_NAME},
    verify_p384_sha384,
};

const HOUR_S: u64 = 3600;
const YEAR_S: u64 = 31_536_000;
const SERIAL_BYTES: usize = 16;
const KEY_ID_BYTES: usize = 20;
const COMMON_NAME_BYTES_MAX: usize = 64;

/// Extensions of RFC 5280, section 4.2.1.
const SUBJECT_KEY_ID: &str = "2.5.29.14";
const KEY_USAGE: &str = "2.5.29.15";
const ALTERNATIVE_NAMES: &str = "2.5.29.17";
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const AUTHORITY_KEY_ID: &str = "2.5.29.35";
const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
/// Ours.
const WORKLOAD_SECRET_ID: &str = "1.3.9901.3.1";
/// Purposes of RFC 5280, section 4.2.1.12: server authentication, client authentication.
const PURPOSES: [&str; 2] = ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"];
/// ecdsa-with-SHA384 without parameters, `AlgorithmIdentifier` DER (RFC 5758, section 3.2).
const ECDSA_WITH_SHA384: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03,
];

/// What a certificate must say.
pub(crate) struct Expected<'a> {
    pub(crate) issuer_spki: &'a [u8],
    pub(crate) issuer_name: &'static str,
    pub(crate) subject_spki: &'a [u8],
    pub(crate) kind: Kind<'a>,
    pub(crate) now: SystemTime,
    pub(crate) start: Start,
}

/// The three kinds of certificates.
pub(crate) enum Kind<'a> {
    Root,
    MeshCa,
    Leaf { request: &'a LeafRequest<'a> },
}

/// When the certificate was made.
#[derive(PartialEq, Eq)]
pub(crate) enum Start {
    Now,
    Earlier,
}

/// Refuses a certificate that differs from `expected`.
pub(crate) fn check(der: &[u8], expected: &Expected<'_>) -> Result<(), CertificateError> {
    let certificate = Certificate::from_der(der)?;
    let tbs = certificate.tbs_certificate();
    rule("DER without alternatives", certificate.to_der()? == der)?;
    check_fields(&certificate, expected)?;
    check_validity(tbs, expected)?;

    let mut extensions = Extensions::new(tbs)?;
    check_key_ids(&mut extensions, expected)?;
    match expected.kind {
        Kind::Root => check_ca(&mut extensions, None)?,
        Kind::MeshCa => check_ca(&mut extensions, Some(0))?,
        Kind::Leaf { request } => check_leaf(&mut extensions, request)?,
    }
    rule("no further extension", extensions.0.is_empty())?;

    let signature = certificate.signature().as_bytes().unwrap_or_default();
    let verdict = verify_p384_sha384(expected.issuer_spki, &tbs.to_der()?, signature);
    rule("a signature by the issuer", verdict.is_ok())
}

fn rule(rule: &'static str, holds: bool) -> Result<(), CertificateError> {
    match holds {
        true => Ok(()),
        false => Err(CertificateError::NotConforming { rule }),
    }
}

fn check_fields(
    certificate: &Certificate,
    expected: &Expected<'_>,
) -> Result<(), CertificateError> {
    let tbs = certificate.tbs_certificate();
    rule("version 3", tbs.version() == Version::V3)?;
    rule(
        "ecdsa-with-SHA384, inside and outside",
        tbs.signature().to_der()? == ECDSA_WITH_SHA384
            && certificate.signature_algorithm().to_der()? == ECDSA_WITH_SHA384,
    )?;
    rule(
        "no unique identifiers",
        tbs.issuer_unique_id().is_none() && tbs.subject_unique_id().is_none(),
    )?;
    let serial = tbs.serial_number().as_bytes();
    let positive = serial
        .first()
        .is_some_and(|first| (1..0x80).contains(first));
    rule(
        "a positive serial number of 16 bytes",
        serial.len() == SERIAL_BYTES && positive,
    )?;
    rule(
        "the issuer's name",
        tbs.issuer().to_der()? == name_der(Some(expected.issuer_name)),
    )?;
    let subject = match expected.kind {
        Kind::Root => Some(ROOT_NAME),
        Kind::MeshCa => Some(MESH_CA_NAME),
        Kind::Leaf { request } => leaf_subject(request),
    };
    rule(
        "the subject's name",
        tbs.subject().to_der()? == name_der(subject),
    )?;
    rule(
        "the requested public key",
        tbs.subject_public_key_info().to_der()? == expected.subject_spki,
    )
}

fn leaf_subject<'a>(request: &LeafRequest<'a>) -> Option<&'a str> {
    let mut dns_names = request
        .sans
        .iter()
        .filter(|san| matches!(Subject::requested(san), Subject::Dns(_)));
    let first = dns_names.next()?;
    (first.len() <= COMMON_NAME_BYTES_MAX).then_some(first)
}

/// DER of a `Name` with one common name as UTF8String, or of an empty one. All lengths are below 128.
fn name_der(common_name: Option<&str>) -> Vec<u8> {
    let tagged = |tag: u8, contents: &[u8]| {
        let length = u8::try_from(contents.len()).unwrap_or(u8::MAX);
        [&[tag, length], contents].concat()
    };
    let relative_names = common_name.map(|name| {
        let value = tagged(0x0c, name.as_bytes());
        let attribute = tagged(
            0x30,
            &[&[0x06, 0x03, 0x55, 0x04, 0x03], value.as_slice()].concat(),
        );
        tagged(0x31, &attribute)
    });
    tagged(0x30, &relative_names.unwrap_or_default())
}

fn check_validity(tbs: &TbsCertificate, expected: &Expected<'_>) -> Result<(), CertificateError> {
    let now = expected.now.duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_err(|_| CertificateError::Time)?.as_secs();
    let not_before = tbs.validity().not_before.to_unix_duration().as_secs();
    let not_after = tbs.validity().not_after.to_unix_duration().as_secs();
    rule("a validity that has begun", not_before <= now)?;
    rule("a validity that has not ended", now < not_after)?;
    if expected.start == Start::Now {
        rule(
            "a validity from one hour before now",
            now.checked_sub(HOUR_S) == Some(not_before),
        )?;
    }
    let lifetime = match expected.kind {
        Kind::Root | Kind::MeshCa => YEAR_S.saturating_mul(10),
        Kind::Leaf { request } => request.lifetime.as_secs(),
    };
    rule(
        "the lifetime of its kind",
        not_after.checked_sub(not_before) == Some(lifetime.saturating_add(HOUR_S)),
    )
}

fn check_key_ids(
    extensions: &mut Extensions<'_>,
    expected: &Expected<'_>,
) -> Result<(), CertificateError> {
    let own: SubjectKeyIdentifier = extensions.take(SUBJECT_KEY_ID, false)?;
    rule(
        "the subject's key identifier",
        own.0 == key_id(expected.subject_spki)?,
    )?;
    let authority: AuthorityKeyIdentifier = extensions.take(AUTHORITY_KEY_ID, false)?;
    rule(
        "the issuer's key identifier and nothing beside it",
        authority.key_identifier == Some(key_id(expected.issuer_spki)?)
            && authority.authority_cert_issuer.is_none()
            && authority.authority_cert_serial_number.is_none(),
    )
}

/// RFC 7093, section 2, method 1.
fn key_id(spki: &[u8]) -> Result<OctetString, CertificateError> {
    let spki = SubjectPublicKeyInfoOwned::from_der(spki).map_err(CertificateError::SubjectKey)?;
    let hash = digest(&SHA256, spki.subject_public_key.raw_bytes());
    let id = hash.as_ref().get(..KEY_ID_BYTES).unwrap_or_default();
    Ok(OctetString::new(id)?)
}

fn check_ca(
    extensions: &mut Extensions<'_>,
    path_length: Option<u8>,
) -> Result<(), CertificateError> {
    let constraints: BasicConstraints = extensions.take(BASIC_CONSTRAINTS, true)?;
    rule("a CA", constraints.ca)?;
    rule(
        "the path length of its kind",
        constraints.path_len_constraint == path_length,
    )?;
    let usage: KeyUsage = extensions.take(KEY_USAGE, true)?;
    rule(
        "key usage for certificates and CRLs only",
        usage.0 == KeyUsages::KeyCertSign | KeyUsages::CRLSign,
    )
}

fn check_leaf(
    extensions: &mut Extensions<'_>,
    request: &LeafRequest<'_>,
) -> Result<(), CertificateError> {
    let constraints: BasicConstraints = extensions.take(BASIC_CONSTRAINTS, true)?;
    rule(
        "not a CA",
        !constraints.ca && constraints.path_len_constraint.is_none(),
    )?;
    let usage: KeyUsage = extensions.take(KEY_USAGE, true)?;
    rule(
        "key usage for signatures only",
        usage.0 == KeyUsages::DigitalSignature,
    )?;
    let purposes: ExtendedKeyUsage = extensions.take(EXTENDED_KEY_USAGE, false)?;
    let purposes = purposes.0.iter().map(ObjectIdentifier::to_string);
    rule(
        "server and client authentication only",
        purposes.eq(PURPOSES.map(str::to_owned)),
    )?;
    check_names(extensions, request)?;

    if let Some(id) = request.workload_secret_id {
        let found: String = extensions.take(WORKLOAD_SECRET_ID, false)?;
        rule("the workload secret id", found == id)?;
    }
    for requested in request.extensions {
        let found = extensions.take_value(&requested.oid, false)?;
        rule("the requested extension values", found == requested.value)?;
    }
    Ok(())
}

fn check_names(
    extensions: &mut Extensions<'_>,
    request: &LeafRequest<'_>,
) -> Result<(), CertificateError> {
    // RFC 5280 section 4.2.1.6: critical exactly when the subject is empty.
    let critical = leaf_subject(request).is_none();
    let names: SubjectAltName = extensions.take(ALTERNATIVE_NAMES, critical)?;
    let found: Option<BTreeSet<Subject>> = names.0.iter().map(Subject::found).collect();
    let peer = request
        .peer_ip
        .map(|address| Subject::Ip(address.to_canonical()));
    let requested: BTreeSet<Subject> = request
        .sans
        .iter()
        .map(|san| Subject::requested(san))
        .chain(peer)
        .chain(request.spiffe_id.map(|id| Subject::Uri(id.to_owned())))
        .collect();
    rule("each requested name once", names.0.len() == requested.len())?;
    if let Some(id) = request.spiffe_id {
        let uris = names.0.iter().filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
            _ => None,
        });
        rule(
            "the SPIFFE ID and no other URI",
            uris.eq([id]) && id.starts_with("spiffe://"),
        )?;
    }
    rule("the requested names", found == Some(requested))
}

/// A name that a certificate is for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Ip(IpAddr),
    Uri(String),
    Dns(String),
}

impl Subject {
    /// What the text of a policy entry means.
    fn requested(text: &str) -> Self {
        match text.parse() {
            Ok(address) => Self::Ip(address),
            Err(_) if text.contains("://") => Self::Uri(text.to_owned()),
            Err(_) => Self::Dns(text.to_owned()),
        }
    }

    /// What a certificate says; `None` for kinds of names that we never use.
    fn found(name: &GeneralName) -> Option<Self> {
        match name {
            GeneralName::DnsName(text) => Some(Self::Dns(text.to_string())),
            GeneralName::UniformResourceIdentifier(text) => Some(Self::Uri(text.to_string())),
            GeneralName::IpAddress(octets) => {
                let bytes = octets.as_bytes();
                let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
                v4.or(v6).ok().map(Self::Ip)
            }
            _ => None,
        }
    }
}

/// The extensions that nobody has looked at yet.
struct Extensions<'a>(BTreeMap<String, &'a Extension>);

impl<'a> Extensions<'a> {
    fn new(tbs: &'a TbsCertificate) -> Result<Self, CertificateError> {
        let all = tbs.extensions().map_or(&[][..], Vec::as_slice);
        let by_oid: BTreeMap<_, _> = all
            .iter()
            .map(|extension| (extension.extn_id.to_string(), extension))
            .collect();
        rule("each extension once", by_oid.len() == all.len())?;
        Ok(Self(by_oid))
    }

    fn take_value(&mut self, oid: &str, critical: bool) -> Result<&'a [u8], CertificateError> {
        let extension = self.0.remove(oid).ok_or(CertificateError::NotConforming {
            rule: "all extensions of its kind",
        })?;
        rule(
            "critical extensions where its kind has them",
            extension.critical == critical,
        )?;
        Ok(extension.extn_value.as_bytes())
    }

    fn take<T>(&mut self, oid: &str, critical: bool) -> Result<T, CertificateError>
    where
        T: Decode<'a>,
        CertificateError: From<T::Error>,
    {
        Ok(T::from_der(self.take_value(oid, critical)?)?)
    }
}

#[cfg(test)]
#[path = "conform_tests.rs"]
mod tests;
