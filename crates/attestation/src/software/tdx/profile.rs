//! X.509 in the shape of the "Intel SGX PCK Certificate and CRL Profile Specification": P-256, ECDSA with SHA-256.

use std::time::SystemTime;

use der::{
    Decode as _, Encode as _, Tag,
    asn1::{Any, ObjectIdentifier, OctetString, SetOfVec, Uint},
    oid::{
        AssociatedOid,
        db::rfc5912::{ECDSA_WITH_SHA_256, ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE},
    },
};
use x509_cert::{
    AlgorithmIdentifier, Certificate, SubjectPublicKeyInfo, Version,
    attr::AttributeTypeAndValue,
    crl::{RevokedCert, TbsCertList},
    ext::{
        Extension, Extensions,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, CrlNumber, KeyUsage, KeyUsages,
            SubjectKeyIdentifier,
        },
    },
    name::Name,
};

use crate::software::{
    SoftwareTeeError,
    certificate::{
        CertificateSigner, Contents, certificate, encode_time, encoding, extension, raw_extension,
        sign,
    },
};

use super::{
    TdxPck,
    authority::{Certified, P256Key},
    collateral::{CPU_SVN, FMSPC, PCE_ID, PCE_SVN},
    sha256,
};

/// id-at-commonName.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// The SGX extension; the arcs of its values are below it.
const SGX: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");

/// One value of the SGX extension.
#[derive(der::Sequence)]
struct SgxValue {
    id: ObjectIdentifier,
    value: Any,
}

/// Who signs, and under which name.
pub(super) struct Issuer<'a> {
    pub(super) key: &'a P256Key,
    pub(super) name: &'static str,
}

/// Whom a certificate is for.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) name: &'static str,
    pub(super) key: &'a P256Key,
    /// Path length of a CA; `None` for a key that signs no certificates.
    pub(super) path_length: Option<u8>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl CertificateSigner for P256Key {
    fn algorithm(&self) -> Result<AlgorithmIdentifier, der::Error> {
        Ok(AlgorithmIdentifier {
            oid: ECDSA_WITH_SHA_256,
            parameters: None,
        })
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SoftwareTeeError> {
        self.sign_der(message)
    }
}

/// A certificate, DER.
pub(super) fn issue(
    issuer: &Issuer<'_>,
    subject: Subject<'_>,
    further: Option<Extension>,
) -> Result<Vec<u8>, SoftwareTeeError> {
    let usages = match subject.path_length {
        Some(_) => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
        None => KeyUsages::DigitalSignature | KeyUsages::NonRepudiation,
    };
    let constraints = BasicConstraints {
        ca: subject.path_length.is_some(),
        path_len_constraint: subject.path_length,
    };
    let mut extensions = vec![
        authority(issuer.key)?,
        extension(
            SubjectKeyIdentifier::OID,
            false,
            &SubjectKeyIdentifier(key_id(subject.key).map_err(encoding)?),
        )?,
        extension(ID_CE_KEY_USAGE, true, &KeyUsage(usages))?,
        extension(ID_CE_BASIC_CONSTRAINTS, true, &constraints)?,
    ];
    extensions.extend(further);
    let contents = Contents {
        serial: serial_number(issuer, subject.key),
        issuer: &common_name(issuer.name).map_err(encoding)?,
        subject: &common_name(subject.name).map_err(encoding)?,
        not_before: subject.not_before,
        not_after: subject.not_after,
        public_key: subject.key.spki().to_vec(),
        extensions,
    };
    certificate(contents, issuer.key)
}

/// A CRL, DER, that lists `revoked` (a certificate, DER).
pub(super) fn crl(
    issuer: &Certified,
    from: SystemTime,
    to: SystemTime,
    revoked: Option<&[u8]>,
) -> Result<Vec<u8>, SoftwareTeeError> {
    let this_update = encode_time(from)?;
    let next_update = Some(encode_time(to)?);
    let aki = authority(&issuer.key)?;
    let encode = || -> Result<Vec<u8>, der::Error> {
        let number = CrlNumber(Uint::new(&[1])?);
        let number = Extension {
            extn_id: CrlNumber::OID,
            critical: false,
            extn_value: OctetString::new(number.to_der()?)?,
        };
        let extensions: Extensions = vec![number, aki];
        let revoked_certificates = match revoked {
            None => None,
            Some(certificate) => Some(vec![RevokedCert {
                serial_number: Certificate::from_der(certificate)?
                    .tbs_certificate()
                    .serial_number()
                    .clone(),
                revocation_date: this_update,
                crl_entry_extensions: None,
            }]),
        };
        let list: TbsCertList = TbsCertList {
            version: Version::V2,
            signature: issuer.key.algorithm()?,
            issuer: common_name(issuer.name)?,
            this_update,
            next_update,
            revoked_certificates,
            crl_extensions: Some(extensions),
        };
        list.to_der()
    };
    sign(encode().map_err(encoding)?, &issuer.key)
}

/// The SGX extension of a PCK certificate that Intel's Platform CA issues.
pub(super) fn sgx_extension(
    facts: &TdxPck,
    ppid: &[u8; 16],
) -> Result<Extension, SoftwareTeeError> {
    raw_extension(SGX, false, sgx_values(facts, ppid).map_err(encoding)?)
}

fn sgx_values(facts: &TdxPck, ppid: &[u8; 16]) -> Result<Vec<u8>, der::Error> {
    // TCB: components 1 to 16, then PCESVN (17) and CPUSVN (18).
    let tcb_arc = below(SGX, 2)?;
    let mut tcb = Vec::new();
    for (arc, svn) in (1..).zip(CPU_SVN) {
        tcb.push(SgxValue {
            id: below(tcb_arc, arc)?,
            value: Any::encode_from(&svn)?,
        });
    }
    tcb.push(SgxValue {
        id: below(tcb_arc, 17)?,
        value: Any::encode_from(&PCE_SVN)?,
    });
    tcb.push(SgxValue {
        id: below(tcb_arc, 18)?,
        value: octets(&CPU_SVN)?,
    });
    let configuration_arc = below(SGX, 7)?;
    let mut configuration = Vec::new();
    // Dynamic platform, cached keys, SMT enabled.
    for (arc, flag) in (1..).zip([facts.dynamic_platform, false, facts.smt_enabled]) {
        let value = Any::encode_from(&flag)?;
        configuration.push(SgxValue {
            id: below(configuration_arc, arc)?,
            value,
        });
    }
    let mut values = vec![
        SgxValue {
            id: below(SGX, 1)?,
            value: octets(ppid)?,
        },
        SgxValue {
            id: tcb_arc,
            value: Any::from_der(&tcb.to_der()?)?,
        },
        SgxValue {
            id: below(SGX, 3)?,
            value: octets(&PCE_ID)?,
        },
        SgxValue {
            id: below(SGX, 4)?,
            value: octets(&FMSPC)?,
        },
        SgxValue {
            id: below(SGX, 5)?,
            value: Any::new(Tag::Enumerated, vec![facts.sgx_type])?,
        },
    ];
    if let Some(instance_id) = facts.instance_id {
        values.push(SgxValue {
            id: below(SGX, 6)?,
            value: octets(&instance_id)?,
        });
    }
    let configuration = Any::from_der(&configuration.to_der()?)?;
    values.push(SgxValue {
        id: configuration_arc,
        value: configuration,
    });
    values.to_der()
}

fn below(parent: ObjectIdentifier, arc: u32) -> Result<ObjectIdentifier, der::Error> {
    Ok(parent.push_arc(arc)?)
}

fn octets(bytes: &[u8]) -> Result<Any, der::Error> {
    Any::encode_from(&OctetString::new(bytes)?)
}

/// Follows from issuer and key, so that the PCK certificate keeps it when it is made anew and a CRL can name it.
fn serial_number(issuer: &Issuer<'_>, key: &P256Key) -> u32 {
    let hash = sha256(&[issuer.name.as_bytes(), key.spki()].concat());
    // Positive, and never zero (RFC 5280 section 4.1.2.2).
    hash.first_chunk::<4>()
        .map_or(1, |bytes| (u32::from_be_bytes(*bytes) >> 1).max(1))
}

/// A name of one common name (RFC 5280 section 4.1.2.4).
fn common_name(name: &str) -> Result<Name, der::Error> {
    let value = Any::encode_from(&name.to_owned())?;
    let names: Vec<SetOfVec<AttributeTypeAndValue>> = vec![
        vec![AttributeTypeAndValue {
            oid: COMMON_NAME,
            value,
        }]
        .try_into()?,
    ];
    Name::from_der(&names.to_der()?)
}

fn authority(key: &P256Key) -> Result<Extension, SoftwareTeeError> {
    let identifier = AuthorityKeyIdentifier {
        key_identifier: Some(key_id(key).map_err(encoding)?),
        authority_cert_issuer: None,
        authority_cert_serial_number: None,
    };
    extension(AuthorityKeyIdentifier::OID, false, &identifier)
}

/// Leftmost 160 bits of the SHA-256 of the public key's bits (RFC 7093 section 2, method 1).
fn key_id(key: &P256Key) -> Result<OctetString, der::Error> {
    let info = SubjectPublicKeyInfo::from_der(key.spki())?;
    let hash = sha256(info.subject_public_key.raw_bytes());
    OctetString::new(hash.first_chunk::<20>().map_or(&[][..], |id| id))
}
