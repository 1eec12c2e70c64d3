//! What we put into certificates (RFC 5280), one function for each of the three kinds.
//!
//! | kind | subject common name | validity | basic constraints | key usage |
//! | --- | --- | --- | --- | --- |
//! | root CA | `system:coordinator:root` | 10 years | CA | certificate and CRL signing |
//! | mesh CA (intermediate under the root, and self-signed) | `system:coordinator:intermediate` | 10 years | CA, path length 0 | the same |
//! | leaf | first DNS name | as requested | not a CA | digital signature; client and server authentication |
//!
//! A leaf with a SPIFFE ID is an X509-SVID (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>): the ID is the only URI
//! among its names.
//!
//! All validity starts one hour in the past, for clocks that are behind. Serial numbers have 16 bytes: random for leafs, and
//! for CAs the beginning of a SHA-256 over issuer name, subject key and start of validity, so that a CA certificate that is
//! made again from the same key at the same time says the same.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use der::{
    Decode as _, Encode as _, Sequence,
    asn1::{Any, BitString, Ia5String, ObjectIdentifier, OctetString, SetOfVec},
    oid::AssociatedOid,
};
use x509_cert::{
    attr::AttributeTypeAndValue,
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
            SubjectAltName, SubjectKeyIdentifier, name::GeneralName,
        },
    },
    name::Name,
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};

use crate::{CertificateError, LeafRequest, SigningKey};

pub(crate) const ROOT_NAME: &str = "system:coordinator:root";
pub(crate) const MESH_CA_NAME: &str = "system:coordinator:intermediate";
/// id-at-commonName.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Workload secret id, UTF8String.
const WORKLOAD_SECRET_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9901.3.1");
/// Arc of the extensions that state facts.
const FACTS_ARC: &str = "1.3.9901.";
/// ecdsa-with-SHA384, RFC 5758 section 3.2.
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const BACKDATE: Duration = Duration::from_secs(3600);
/// Upper bound of a common name, RFC 5280 appendix A.1 (`ub-common-name`).
const COMMON_NAME_CHARS_MAX: usize = 64;

/// `TBSCertificate`, RFC 5280 section 4.1, with the fields that we use.
#[derive(Sequence)]
struct Tbs {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: u8,
    serial_number: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    subject_public_key_info: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

/// `Certificate`, RFC 5280 section 4.1.
#[derive(Sequence)]
struct Signed {
    tbs: Tbs,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// Who signs, and under which name.
pub(crate) struct Issuer<'a> {
    pub(crate) key: &'a SigningKey,
    pub(crate) name: &'static str,
}

/// Self-signed root CA certificate, DER.
pub(crate) fn root(key: &SigningKey, now: SystemTime) -> Result<Vec<u8>, CertificateError> {
    let issuer = Issuer {
        key,
        name: ROOT_NAME,
    };
    ca(&issuer, ROOT_NAME, key.public_key_spki(), None, now)
}

/// Mesh CA certificate, DER: under the root, or self-signed when the issuer's key is the mesh CA's own.
pub(crate) fn mesh_ca(
    issuer: &Issuer<'_>,
    spki: &[u8],
    now: SystemTime,
) -> Result<Vec<u8>, CertificateError> {
    ca(issuer, MESH_CA_NAME, spki, Some(0), now)
}

fn ca(
    issuer: &Issuer<'_>,
    name: &str,
    spki: &[u8],
    path_len_constraint: Option<u8>,
    now: SystemTime,
) -> Result<Vec<u8>, CertificateError> {
    let extensions = vec![
        extension(
            &BasicConstraints {
                ca: true,
                path_len_constraint,
            },
            true,
        )?,
        extension(&KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign), true)?,
        extension(&SubjectKeyIdentifier(key_id(spki)?), false)?,
        extension(&authority(issuer)?, false)?,
    ];
    // The start of validity is in it, for an issuer must not use a serial number twice (RFC 5280 section 4.1.2.2), and a root
    // certificate is made again after its file was lost.
    let not_before = time(now, BACKDATE, true)?.to_unix_duration().as_secs();
    let parts = [issuer.name.as_bytes(), spki, &not_before.to_be_bytes()];
    let mut serial = digest(&SHA256, &parts.concat()).as_ref().to_vec();
    serial.truncate(16);
    let subject = common_name(name)?;
    sign(issuer, subject, spki, &serial, CA_LIFETIME, extensions, now)
}

/// Leaf certificate, DER. `serial` are 16 random bytes.
pub(crate) fn leaf(
    issuer: &Issuer<'_>,
    request: &LeafRequest<'_>,
    serial: &[u8],
    now: SystemTime,
) -> Result<Vec<u8>, CertificateError> {
    let names = subject_names(request)?;
    let mut extensions = vec![
        extension(
            &BasicConstraints {
                ca: false,
                path_len_constraint: None,
            },
            true,
        )?,
        extension(&KeyUsage(KeyUsages::DigitalSignature.into()), true)?,
        extension(&ExtendedKeyUsage(vec![SERVER_AUTH, CLIENT_AUTH]), false)?,
        extension(
            &SubjectKeyIdentifier(key_id(request.public_key_spki)?),
            false,
        )?,
        extension(&authority(issuer)?, false)?,
    ];
    let subject = match first_dns_name(request.sans) {
        Some(name) => common_name(name)?,
        None => Name::default(),
    };
    // With an empty subject the alternative names are all there is, and must be critical (RFC 5280 section 4.2.1.6).
    match names.is_empty() {
        true => return Err(CertificateError::NoName),
        false => extensions.push(extension(&SubjectAltName(names), subject.is_empty())?),
    }
    if let Some(id) = request.workload_secret_id {
        extensions.push(raw_extension(WORKLOAD_SECRET_ID, &id.to_owned().to_der()?)?);
    }
    for further in request.extensions {
        let oid = ObjectIdentifier::new(&further.oid).map_err(|_| CertificateError::Oid {
            found: further.oid.clone(),
        })?;
        // The caller's extensions state facts about the subject; what it may do is only for this profile to say.
        let repeated = extensions.iter().any(|extension| extension.extn_id == oid);
        if repeated || oid == WORKLOAD_SECRET_ID || !further.oid.starts_with(FACTS_ARC) {
            return Err(CertificateError::ForeignExtension {
                found: further.oid.clone(),
            });
        }
        extensions.push(raw_extension(oid, &further.value)?);
    }
    sign(
        issuer,
        subject,
        request.public_key_spki,
        serial,
        request.lifetime,
        extensions,
        now,
    )
}

/// The first SAN that is a DNS name, as today's leafs carry it in their common name; names that are too long for that field
/// are only in the SAN extension.
fn first_dns_name(sans: &[String]) -> Option<&str> {
    sans.iter()
        .map(String::as_str)
        .find(|san| san.parse::<IpAddr>().is_err() && !san.contains("://"))
        .filter(|name| name.chars().count() <= COMMON_NAME_CHARS_MAX)
}

/// IP addresses become iPAddress, names with a scheme become URIs, everything else dNSName, also a lone `*`. An IPv4 address
/// that a dual-stack socket shows as IPv6 is added as IPv4: that is what others dial.
fn subject_names(request: &LeafRequest<'_>) -> Result<Vec<GeneralName>, CertificateError> {
    let mut names = Vec::new();
    for san in request.sans {
        let name = match san.parse::<IpAddr>() {
            Ok(address) => GeneralName::from(address),
            Err(_) => {
                if san.is_empty() || !san.chars().all(|c| c.is_ascii_graphic()) {
                    return Err(CertificateError::San { found: san.clone() });
                }
                let text = Ia5String::new(san)
                    .map_err(|_| CertificateError::San { found: san.clone() })?;
                match san.contains("://") {
                    true if request.spiffe_id.is_some() => {
                        return Err(CertificateError::UriBesideSpiffeId { found: san.clone() });
                    }
                    true => GeneralName::UniformResourceIdentifier(text),
                    false => GeneralName::DnsName(text),
                }
            }
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if let Some(id) = request.spiffe_id {
        names.push(spiffe_name(id)?);
    }
    let peer_ip = request.peer_ip;
    if let Some(address) = peer_ip.map(|address| GeneralName::from(address.to_canonical()))
        && !names.contains(&address)
    {
        names.push(address);
    }
    Ok(names)
}

fn spiffe_name(id: &str) -> Result<GeneralName, CertificateError> {
    let parts = id
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'));
    let named = parts.is_some_and(|(domain, path)| !domain.is_empty() && !path.is_empty());
    let text = (named && id.chars().all(|c| c.is_ascii_graphic()))
        .then(|| Ia5String::new(id).ok())
        .flatten();
    text.map(GeneralName::UniformResourceIdentifier)
        .ok_or_else(|| CertificateError::SpiffeId {
            found: id.to_owned(),
        })
}

fn sign(
    issuer: &Issuer<'_>,
    subject: Name,
    spki: &[u8],
    serial: &[u8],
    lifetime: Duration,
    extensions: Vec<Extension>,
    now: SystemTime,
) -> Result<Vec<u8>, CertificateError> {
    let algorithm = AlgorithmIdentifierOwned {
        oid: ECDSA_WITH_SHA384,
        parameters: None,
    };
    let tbs = Tbs {
        version: 2,
        serial_number: SerialNumber::new(&positive(serial))?,
        signature: algorithm.clone(),
        issuer: common_name(issuer.name)?,
        validity: Validity::new(time(now, BACKDATE, true)?, time(now, lifetime, false)?),
        subject,
        subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(spki)
            .map_err(CertificateError::SubjectKey)?,
        extensions,
    };
    let signature = issuer.key.sign_sha384(&tbs.to_der()?)?;
    Ok(Signed {
        tbs,
        algorithm,
        signature: BitString::from_bytes(&signature)?,
    }
    .to_der()?)
}

/// A serial number is a positive INTEGER of at most 20 bytes (RFC 5280 section 4.1.2.2).
fn positive(serial: &[u8]) -> Vec<u8> {
    let mut serial = serial.to_vec();
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    serial
}

fn time(now: SystemTime, offset: Duration, before: bool) -> Result<Time, CertificateError> {
    let moment = match before {
        true => now.checked_sub(offset),
        false => now.checked_add(offset),
    };
    let moment = moment.ok_or(CertificateError::Time)?;
    Time::try_from(moment).map_err(|_| CertificateError::Time)
}

fn common_name(name: &str) -> Result<Name, CertificateError> {
    let attribute = AttributeTypeAndValue {
        oid: COMMON_NAME,
        value: Any::encode_from(&name.to_owned())?,
    };
    // `Name` is a SEQUENCE of SETs of attributes (RFC 5280 section 4.1.2.4): here one of one.
    let names: Vec<SetOfVec<AttributeTypeAndValue>> = vec![vec![attribute].try_into()?];
    Ok(Name::from_der(&names.to_der()?)?)
}

fn authority(issuer: &Issuer<'_>) -> Result<AuthorityKeyIdentifier, CertificateError> {
    Ok(AuthorityKeyIdentifier {
        key_identifier: Some(key_id(issuer.key.public_key_spki())?),
        authority_cert_issuer: None,
        authority_cert_serial_number: None,
    })
}

/// Leftmost 160 bits of the SHA-256 of the public key's bits (RFC 7093 section 2, method 1).
fn key_id(spki: &[u8]) -> Result<OctetString, CertificateError> {
    let info = SubjectPublicKeyInfoOwned::from_der(spki).map_err(CertificateError::SubjectKey)?;
    let mut hash = digest(&SHA256, info.subject_public_key.raw_bytes())
        .as_ref()
        .to_vec();
    hash.truncate(20);
    Ok(OctetString::new(hash)?)
}

fn extension<E>(value: &E, critical: bool) -> Result<Extension, CertificateError>
where
    E: AssociatedOid + der::Encode,
{
    let extn_value = OctetString::new(value.to_der()?)?;
    Ok(Extension {
        extn_id: E::OID,
        critical,
        extn_value,
    })
}

fn raw_extension(oid: ObjectIdentifier, value: &[u8]) -> Result<Extension, CertificateError> {
    Ok(Extension {
        extn_id: oid,
        critical: false,
        extn_value: OctetString::new(value)?,
    })
}
