//! An independent reading of a finished certificate: does it say what its kind must say, and nothing that it must not?
//!
//! It shares no code with `profile` but the constants, and runs on every certificate before it leaves the crate.

use std::time::SystemTime;

use der::{Decode as _, Encode as _};
use x509_cert::{
    Certificate,
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName, name::GeneralName},
};

use crate::{
    CertificateError,
    profile::{CLIENT_AUTH, ECDSA_WITH_SHA384, SERVER_AUTH},
    verify_p384_sha384,
};

/// What a certificate must say.
pub(crate) struct Expected<'a> {
    pub(crate) issuer_spki: &'a [u8],
    pub(crate) issuer_name: &'static str,
    pub(crate) subject_spki: &'a [u8],
    pub(crate) kind: Kind<'a>,
    pub(crate) now: SystemTime,
}

pub(crate) enum Kind<'a> {
    Ca { path_length: Option<u8> },
    Leaf { names: &'a [GeneralName] },
}

/// Refuses a certificate that differs from `expected`.
pub(crate) fn check(der: &[u8], expected: &Expected<'_>) -> Result<(), CertificateError> {
    let certificate = Certificate::from_der(der)?;
    let tbs = certificate.tbs_certificate();
    let rule = |rule: &'static str, holds: bool| match holds {
        true => Ok(()),
        false => Err(CertificateError::NotConforming { rule }),
    };
    rule(
        "version 3",
        tbs.version() == x509_cert::certificate::Version::V3,
    )?;
    rule(
        "ecdsa-with-SHA384",
        certificate.signature_algorithm().oid == ECDSA_WITH_SHA384,
    )?;
    rule(
        "equal algorithms inside and outside",
        tbs.signature() == certificate.signature_algorithm(),
    )?;
    rule(
        "the issuer's name",
        tbs.issuer().to_string().replace('\\', "") == format!("CN={}", expected.issuer_name),
    )?;
    rule(
        "the requested public key",
        tbs.subject_public_key_info().to_der()? == expected.subject_spki,
    )?;
    rule(
        "a positive serial number of 16 bytes",
        tbs.serial_number().as_bytes().len() == 16,
    )?;
    let validity = tbs.validity();
    rule(
        "validity around now",
        validity.not_before.to_system_time() < expected.now
            && validity.not_after.to_system_time() > expected.now,
    )?;
    let constraints = extension::<BasicConstraints>(tbs)?;
    let usage = extension::<KeyUsage>(tbs)?;
    match &expected.kind {
        Kind::Ca { path_length } => {
            rule("a CA", constraints.ca)?;
            rule(
                "the path length",
                constraints.path_len_constraint == *path_length,
            )?;
            rule(
                "key usage of a CA",
                usage.key_cert_sign() && !usage.digital_signature(),
            )?;
        }
        Kind::Leaf { names } => {
            rule("not a CA", !constraints.ca)?;
            rule(
                "key usage of a leaf",
                usage.digital_signature() && !usage.key_cert_sign(),
            )?;
            let purposes = extension::<ExtendedKeyUsage>(tbs)?.0;
            rule(
                "client and server authentication",
                purposes == [SERVER_AUTH, CLIENT_AUTH],
            )?;
            let found = match tbs.get_extension::<SubjectAltName>()? {
                Some((_, found)) => found.0,
                None => Vec::new(),
            };
            rule("the requested names", found == *names)?;
        }
    }
    let signature = certificate
        .signature()
        .as_bytes()
        .ok_or(CertificateError::NotConforming {
            rule: "a signature of whole bytes",
        })?;
    verify_p384_sha384(expected.issuer_spki, &tbs.to_der()?, signature).map_err(|_| {
        CertificateError::NotConforming {
            rule: "a signature by the issuer",
        }
    })
}

fn extension<'a, E>(tbs: &'a x509_cert::TbsCertificate) -> Result<E, CertificateError>
where
    E: der::Decode<'a> + der::oid::AssociatedOid,
    CertificateError: From<<E as der::Decode<'a>>::Error>,
{
    match tbs.get_extension::<E>()? {
        Some((_, value)) => Ok(value),
        None => Err(CertificateError::NotConforming {
            rule: "all extensions of its kind",
        }),
    }
}
