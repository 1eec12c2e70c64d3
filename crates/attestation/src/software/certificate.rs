//! X.509 certificates and CRLs of the software TEE.

use std::time::SystemTime;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use der::{
    DateTime, Encode, Sequence,
    asn1::{BitString, Null, ObjectIdentifier, OctetString},
    oid::db::rfc5912::{
        ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE, ID_MGF_1, ID_RSASSA_PSS, ID_SHA_384,
    },
};
use x509_cert::{
    AlgorithmIdentifier, SubjectPublicKeyInfo, Version,
    der::{Any, Decode},
    ext::{
        Extension, Extensions,
        pkix::{BasicConstraints, KeyUsage, KeyUsages},
    },
    name::Name,
    serial_number::SerialNumber,
    time::{Time, Validity},
};

use super::SoftwareTeeError;

/// What a certificate is to say.
#[derive(Debug, Clone)]
pub(super) struct Contents<'a> {
    pub(super) serial: u32,
    pub(super) issuer: &'a Name,
    pub(super) subject: &'a Name,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// SubjectPublicKeyInfo, DER.
    pub(super) public_key: Vec<u8>,
    pub(super) extensions: Extensions,
}

/// A key that signs certificates.
pub(super) trait CertificateSigner {
    /// What goes into the certificate's algorithm fields.
    fn algorithm(&self) -> Result<AlgorithmIdentifier, der::Error>;
    /// The signature as it goes into the BIT STRING.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SoftwareTeeError>;
}

/// TBSCertificate of RFC 5280 section 4.1, without the fields that are never used.
#[derive(Sequence)]
struct Tbs {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial_number: SerialNumber,
    signature: AlgorithmIdentifier,
    issuer: Name,
    validity: Validity,
    subject: Name,
    subject_public_key_info: SubjectPublicKeyInfo,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Extensions,
}

/// `SEQUENCE { toBeSigned, signatureAlgorithm, signature }`.
#[derive(Sequence)]
struct Signed {
    to_be_signed: Any,
    algorithm: AlgorithmIdentifier,
    signature: BitString,
}

/// Signs a certificate; DER.
pub(super) fn certificate(
    contents: Contents<'_>,
    signer: &dyn CertificateSigner,
) -> Result<Vec<u8>, SoftwareTeeError> {
    let validity = Validity::new(
        encode_time(contents.not_before)?,
        encode_time(contents.not_after)?,
    );
    let encode = || -> Result<Vec<u8>, der::Error> {
        Tbs {
            version: Version::V3,
            serial_number: SerialNumber::from(contents.serial),
            signature: signer.algorithm()?,
            issuer: contents.issuer.clone(),
            validity,
            subject: contents.subject.clone(),
            subject_public_key_info: SubjectPublicKeyInfo::from_der(&contents.public_key)?,
            extensions: contents.extensions.clone(),
        }
        .to_der()
    };
    sign(encode().map_err(encoding)?, signer)
}

/// Wraps and signs what is to be signed: a TBSCertificate or a TBSCertList.
pub(super) fn sign(
    to_be_signed: Vec<u8>,
    signer: &dyn CertificateSigner,
) -> Result<Vec<u8>, SoftwareTeeError> {
    let signature = signer.sign(&to_be_signed)?;
    let encode = || -> Result<Vec<u8>, der::Error> {
        Signed {
            to_be_signed: Any::from_der(&to_be_signed)?,
            algorithm: signer.algorithm()?,
            signature: BitString::from_bytes(&signature)?,
        }
        .to_der()
    };
    encode().map_err(encoding)
}

/// The Time of RFC 5280: UTCTime through 2049, GeneralizedTime after.
pub(super) fn encode_time(time: SystemTime) -> Result<Time, SoftwareTeeError> {
    DateTime::from_system_time(time)
        .map(Time::from)
        .map_err(|_| SoftwareTeeError::Time { found: time })
}

/// basicConstraints and keyUsage of a CA.
pub(super) fn ca_extensions() -> Result<Extensions, SoftwareTeeError> {
    let constraints = BasicConstraints {
        ca: true,
        path_len_constraint: None,
    };
    let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
    Ok(vec![
        extension(ID_CE_BASIC_CONSTRAINTS, true, &constraints)?,
        extension(ID_CE_KEY_USAGE, true, &usage)?,
    ])
}

/// An extension whose value is the DER of `value`.
pub(super) fn extension(
    id: ObjectIdentifier,
    critical: bool,
    value: &impl Encode,
) -> Result<Extension, SoftwareTeeError> {
    raw_extension(id, critical, value.to_der().map_err(encoding)?)
}

/// An extension whose value is not DER but `value` itself.
pub(super) fn raw_extension(
    id: ObjectIdentifier,
    critical: bool,
    value: Vec<u8>,
) -> Result<Extension, SoftwareTeeError> {
    let extn_value = OctetString::new(value).map_err(encoding)?;
    Ok(Extension {
        extn_id: id,
        critical,
        extn_value,
    })
}

/// RSASSA-PSS with SHA-384, MGF1 with SHA-384, a salt of 48 bytes (RFC 4055 section 3.1), as AMD's certificates state it.
pub(super) fn rsa_pss_sha384() -> Result<AlgorithmIdentifier, der::Error> {
    #[derive(Sequence)]
    struct Parameters {
        #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
        hash: AlgorithmIdentifier,
        #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
        mask: AlgorithmIdentifier,
        #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
        salt_bytes: u8,
        #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
        trailer: u8,
    }
    let sha384 = AlgorithmIdentifier {
        oid: ID_SHA_384,
        parameters: Some(Null.into()),
    };
    let mask = AlgorithmIdentifier {
        oid: ID_MGF_1,
        parameters: Some(Any::encode_from(&sha384)?),
    };
    let parameters = Parameters {
        hash: sha384,
        mask,
        salt_bytes: 48,
        trailer: 1,
    };
    Ok(AlgorithmIdentifier {
        oid: ID_RSASSA_PSS,
        parameters: Some(Any::encode_from(&parameters)?),
    })
}

/// SubjectPublicKeyInfo, DER.
pub(super) fn spki(
    key: &impl AsDer<PublicKeyX509Der<'static>>,
) -> Result<Vec<u8>, SoftwareTeeError> {
    match key.as_der() {
        Ok(der) => Ok(der.as_ref().to_vec()),
        Err(_) => Err(SoftwareTeeError::Crypto {
            action: "export a public key",
        }),
    }
}

pub(super) fn encoding(source: der::Error) -> SoftwareTeeError {
    SoftwareTeeError::Certificate {
        action: "encode a certificate",
        source,
    }
}
