//! X.509 as AMD uses it: RSASSA-PSS with SHA-384 over exact bytes, and the extensions of endorsement keys.

use std::time::SystemTime;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use der::{
    DateTime, Decode, Encode, Reader, SliceReader,
    asn1::{BitStringRef, Ia5StringRef, ObjectIdentifier, OctetStringRef},
    oid::db::rfc5912::{ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE, ID_RSASSA_PSS},
};
use x509_cert::{
    AlgorithmIdentifier, Certificate, TbsCertificate,
    crl::CertificateList,
    ext::{
        Extensions,
        pkix::{BasicConstraints, KeyUsage},
    },
    name::Name,
};

use crate::{
    appraisal::{SnpProduct, SnpTcb},
    keys::ParsedPublicKey,
};

/// Object identifiers of endorsement key certificates (AMD publication 57230, table "VCEK Certificate Extensions").
pub(crate) mod oid {
    use der::asn1::ObjectIdentifier;

    pub(crate) const PRODUCT_NAME: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
    pub(crate) const BOOTLOADER_SPL: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
    pub(crate) const TEE_SPL: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
    pub(crate) const SNP_SPL: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
    pub(crate) const MICROCODE_SPL: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
    pub(crate) const FMC_SPL: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
    pub(crate) const HARDWARE_ID: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
    pub(crate) const CSP_ID: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");
}

/// A parsed certificate beside the bytes that its signature covers.
#[derive(Debug)]
pub(super) struct SignedCertificate<'a> {
    parsed: Certificate,
    signed: &'a [u8],
}

/// A parsed CRL beside the bytes that its signature covers.
#[derive(Debug)]
pub(super) struct SignedCrl<'a> {
    pub(super) parsed: CertificateList,
    signed: &'a [u8],
}

/// The time in which something is valid, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: SystemTime,
    pub(super) to: SystemTime,
}

impl Window {
    pub(super) fn contains(&self, now: SystemTime) -> bool {
        self.from <= now && now <= self.to
    }

    pub(super) fn intersection(self, other: Self) -> Self {
        Self {
            from: self.from.max(other.from),
            to: self.to.min(other.to),
        }
    }
}

/// RFC 3339 in UTC, to the second.
pub(super) fn timestamp(time: SystemTime) -> String {
    DateTime::from_system_time(time).map_or_else(|_| format!("{time:?}"), |time| time.to_string())
}

impl<'a> SignedCertificate<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, der::Error> {
        Ok(Self {
            parsed: Certificate::from_der(der)?,
            signed: signed_part(der)?,
        })
    }

    pub(super) fn tbs(&self) -> &TbsCertificate {
        self.parsed.tbs_certificate()
    }

    pub(super) fn window(&self) -> Window {
        let validity = self.tbs().validity();
        Window {
            from: validity.not_before.to_system_time(),
            to: validity.not_after.to_system_time(),
        }
    }

    /// The subject's public key: RSAPublicKey for RSA, an uncompressed point for EC.
    pub(super) fn public_key(&self) -> &[u8] {
        self.tbs()
            .subject_public_key_info()
            .subject_public_key
            .as_bytes()
            .unwrap_or_default()
    }

    pub(super) fn is_signed_by(&self, issuer: &SignedCertificate<'_>) -> Result<(), &'static str> {
        let (outer, inner) = (self.parsed.signature_algorithm(), self.tbs().signature());
        let signature = self.parsed.signature().as_bytes();
        verify_rsa_pss(
            issuer,
            self.tbs().issuer(),
            outer,
            inner,
            self.signed,
            signature,
        )
    }

    /// Whether basicConstraints makes this a CA.
    pub(super) fn is_ca(&self) -> Result<bool, der::Error> {
        let constraints = self.tbs().get_extension::<BasicConstraints>()?;
        Ok(constraints.is_some_and(|(_, constraints)| constraints.ca))
    }

    /// keyUsage, if there is one.
    pub(super) fn key_usage(&self) -> Result<Option<KeyUsage>, der::Error> {
        Ok(self
            .tbs()
            .get_extension::<KeyUsage>()?
            .map(|(_, usage)| usage))
    }

    /// Critical extensions that this module does not interpret. RFC 5280 demands that such a certificate is refused.
    pub(super) fn unknown_critical_extensions(&self) -> Vec<ObjectIdentifier> {
        unknown_critical(
            self.tbs().extensions(),
            &[ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE],
        )
    }

    fn extension(&self, id: ObjectIdentifier) -> Result<&[u8], EndorsementError> {
        let mut found = self
            .tbs()
            .extensions()
            .into_iter()
            .flatten()
            .filter(|extension| extension.extn_id == id);
        match (found.next(), found.next()) {
            (Some(extension), None) => Ok(extension.extn_value.as_bytes()),
            (None, _) => Err(EndorsementError::Missing(id)),
            (Some(_), Some(_)) => Err(EndorsementError::Repeated(id)),
        }
    }

    fn security_version(&self, id: ObjectIdentifier) -> Result<u8, EndorsementError> {
        u8::from_der(self.extension(id)?).map_err(|_| EndorsementError::Malformed(id))
    }
}

impl<'a> SignedCrl<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, der::Error> {
        Ok(Self {
            parsed: CertificateList::from_der(der)?,
            signed: signed_part(der)?,
        })
    }

    /// thisUpdate to nextUpdate; a CRL without nextUpdate says nothing about the present and has no window.
    pub(super) fn window(&self) -> Option<Window> {
        let list = &self.parsed.tbs_cert_list;
        let to = list.next_update?.to_system_time();
        Some(Window {
            from: list.this_update.to_system_time(),
            to,
        })
    }

    pub(super) fn is_signed_by(&self, issuer: &SignedCertificate<'_>) -> Result<(), &'static str> {
        let list = &self.parsed.tbs_cert_list;
        let (outer, inner) = (&self.parsed.signature_algorithm, &list.signature);
        let signature = self.parsed.signature.as_bytes();
        verify_rsa_pss(issuer, &list.issuer, outer, inner, self.signed, signature)
    }

    /// Critical extensions of the list, such as issuingDistributionPoint, that would narrow its scope.
    pub(super) fn unknown_critical_extensions(&self) -> Vec<ObjectIdentifier> {
        unknown_critical(self.parsed.tbs_cert_list.crl_extensions.as_ref(), &[])
    }
}

fn unknown_critical(
    extensions: Option<&Extensions>,
    known: &[ObjectIdentifier],
) -> Vec<ObjectIdentifier> {
    let extensions = extensions.into_iter().flatten();
    extensions
        .filter(|e| e.critical && !known.contains(&e.extn_id))
        .map(|e| e.extn_id)
        .collect()
}

/// The first element of `SEQUENCE { toBeSigned, signatureAlgorithm, signature }`, header included.
fn signed_part(der: &[u8]) -> Result<&[u8], der::Error> {
    SliceReader::new(der)?.sequence(|reader| {
        let signed = reader.tlv_bytes()?;
        AlgorithmIdentifier::decode(reader)?;
        BitStringRef::decode(reader)?;
        Ok(signed)
    })
}

/// The parameters in the algorithm identifiers are not consulted: whatever they say, only SHA-384, MGF1 with SHA-384 and a
/// salt of 48 bytes are accepted.
fn verify_rsa_pss(
    issuer: &SignedCertificate<'_>,
    named_issuer: &Name,
    outer: &AlgorithmIdentifier,
    inner: &AlgorithmIdentifier,
    message: &[u8],
    signature: Option<&[u8]>,
) -> Result<(), &'static str> {
    if named_issuer != issuer.tbs().subject() {
        return Err("it names another issuer");
    }
    if outer != inner {
        return Err("its two signature algorithms differ");
    }
    if outer.oid != ID_RSASSA_PSS {
        return Err("its signature algorithm is not RSASSA-PSS");
    }
    let signature = signature.ok_or("its signature has unused bits")?;
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, issuer.public_key())
        .verify(message, signature)
        .map_err(|_| "its signature is wrong")
}

/// The kind of an endorsement key, told by the extensions that only one of them has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EndorsementKind {
    /// Versioned chip endorsement key.
    Vcek {
        /// CHIP_ID that the key was derived for: 64 bytes, on Turin 8.
        hardware_id: Vec<u8>,
    },
    /// Versioned loaded endorsement key of a cloud provider.
    Vlek,
}

impl EndorsementKind {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Vcek { .. } => "VCEK",
            Self::Vlek => "VLEK",
        }
    }
}

/// What an endorsement key certificate says.
#[derive(Debug, Clone)]
pub(super) struct EndorsementKey {
    pub(super) kind: EndorsementKind,
    pub(super) product: SnpProduct,
    pub(super) tcb: SnpTcb,
    /// Verifies r || s, 48 bytes each, over SHA-384.
    pub(super) key: ParsedPublicKey,
}

/// A certificate that is no endorsement key's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EndorsementError {
    #[error("no extension {0}")]
    Missing(ObjectIdentifier),
    #[error("extension {0} twice")]
    Repeated(ObjectIdentifier),
    #[error("extension {0} is malformed")]
    Malformed(ObjectIdentifier),
    #[error("both a hardware id and a CSP id")]
    Ambiguous,
    #[error("product {0:?}")]
    UnknownProduct(String),
    #[error("a public key that is no point on P-384")]
    Key,
}

impl EndorsementKey {
    /// Reads the AMD extensions of a VCEK or VLEK certificate.
    pub(super) fn read(certificate: &SignedCertificate<'_>) -> Result<Self, EndorsementError> {
        let product = read_product(certificate.extension(oid::PRODUCT_NAME)?)?;
        let kind = match (
            certificate.extension(oid::HARDWARE_ID),
            certificate.extension(oid::CSP_ID),
        ) {
            (Ok(value), Err(EndorsementError::Missing(_))) => EndorsementKind::Vcek {
                hardware_id: read_hardware_id(value)?,
            },
            (Err(EndorsementError::Missing(_)), Ok(_)) => EndorsementKind::Vlek,
            (Ok(_), Ok(_)) => return Err(EndorsementError::Ambiguous),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let tcb = SnpTcb {
            bootloader: certificate.security_version(oid::BOOTLOADER_SPL)?,
            tee: certificate.security_version(oid::TEE_SPL)?,
            snp: certificate.security_version(oid::SNP_SPL)?,
            microcode: certificate.security_version(oid::MICROCODE_SPL)?,
            fmc: match product {
                SnpProduct::Turin => Some(certificate.security_version(oid::FMC_SPL)?),
                SnpProduct::Milan | SnpProduct::Genoa => None,
            },
        };
        let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, certificate.public_key())
            .map_err(|_| EndorsementError::Key)?;
        Ok(Self {
            kind,
            product,
            tcb,
            key,
        })
    }
}

/// `Milan-B0` on a VCEK (product line and stepping), `Milan` on a VLEK. Siena is a product of its own with the keys of Genoa (AMD 57230,
/// product names); Bergamo's certificates say Genoa.
fn read_product(value: &[u8]) -> Result<SnpProduct, EndorsementError> {
    let name = Ia5StringRef::from_der(value)
        .map_err(|_| EndorsementError::Malformed(oid::PRODUCT_NAME))?;
    let line = name.as_str().split('-').next().unwrap_or_default();
    match line {
        "Milan" => Ok(SnpProduct::Milan),
        "Genoa" | "Siena" => Ok(SnpProduct::Genoa),
        "Turin" => Ok(SnpProduct::Turin),
        _ => Err(EndorsementError::UnknownProduct(name.to_string())),
    }
}

/// The bare identifier is the extension's value on Milan and Genoa. A value that is one OCTET STRING is read as well; sizes
/// tell the two apart.
fn read_hardware_id(value: &[u8]) -> Result<Vec<u8>, EndorsementError> {
    let is_id = |bytes: &[u8]| matches!(bytes.len(), 8 | 64);
    if is_id(value) {
        return Ok(value.to_vec());
    }
    match <&OctetStringRef>::from_der(value) {
        Ok(inner) if is_id(inner.as_bytes()) => Ok(inner.as_bytes().to_vec()),
        _ => Err(EndorsementError::Malformed(oid::HARDWARE_ID)),
    }
}

/// A certificate's serial number in hex, for people.
pub(super) fn serial(certificate: &SignedCertificate<'_>) -> String {
    certificate
        .tbs()
        .serial_number()
        .to_der()
        .map(hex::encode)
        .unwrap_or_default()
}
