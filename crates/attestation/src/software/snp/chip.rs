//! One chip: the key that signs reports and its certificate.

use std::{path::Path, time::SystemTime};

use aws_lc_rs::{
    digest::{SHA512, digest},
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use der::asn1::Ia5StringRef;
use x509_cert::ext::Extensions;

use crate::{
    appraisal::SnpTcb,
    snp::{SigningKey, certificate::oid},
    software::{
        SoftwareTeeError,
        certificate::{self, extension, raw_extension},
        directory::{self, CERTIFICATE, PRIVATE_KEY},
    },
};

use super::{
    authority::{Authority, Validity, certificate_file, key_file},
    guest::{DEFAULT_TCB, PRODUCT},
};

/// What the certificate of the key that signs a report says. A real one is made by AMD from what the chip is; this one says
/// whatever a test puts into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpCertificate {
    /// The kind of key: [`SigningKey::Vlek`] makes a VLEK certificate with a CSP id, anything else a VCEK's.
    pub kind: SigningKey,
    /// Extension productName, for example `Milan-B0`.
    pub product_name: String,
    /// The extensions blSPL, teeSPL, snpSPL, ucodeSPL and, when there is one, fmcSPL.
    pub tcb: SnpTcb,
    /// Extension hwID of a VCEK: 64 bytes, for Turin 8.
    pub hardware_id: Vec<u8>,
    /// Start of the validity, to the second.
    pub not_before: SystemTime,
    /// End of the validity, to the second.
    pub not_after: SystemTime,
}

/// An endorsement key and the certificate that an unchanged guest shows.
pub(super) struct Chip {
    key: EcdsaKeyPair,
    pub(super) certificate: SnpCertificate,
    certificate_der: Vec<u8>,
}

impl Chip {
    /// A new chip, endorsed by `ask`.
    pub(super) fn generate(ask: &Authority, validity: Validity) -> Result<Self, SoftwareTeeError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).map_err(|_| {
            SoftwareTeeError::Crypto {
                action: "generate a P-384 key",
            }
        })?;
        let certificate = default_certificate(&key, validity);
        let certificate_der = endorse(ask, &certificate, &key)?;
        Ok(Self {
            key,
            certificate,
            certificate_der,
        })
    }

    /// The chip is whatever holds the key: SHA-512 of its public half.
    pub(super) fn id(&self) -> [u8; 64] {
        chip_id(&self.key)
    }

    /// The certificate in DER that says what `wanted` says.
    pub(super) fn certified(
        &self,
        ask: &Authority,
        wanted: &SnpCertificate,
    ) -> Result<Vec<u8>, SoftwareTeeError> {
        match *wanted == self.certificate {
            true => Ok(self.certificate_der.clone()),
            false => endorse(ask, wanted, &self.key),
        }
    }

    /// R || S over SHA-384, big-endian, 48 bytes each.
    pub(super) fn sign(&self, message: &[u8]) -> Result<[u8; 96], SoftwareTeeError> {
        let signature = self.key.sign(&SystemRandom::new(), message).ok();
        signature
            .and_then(|signature| signature.as_ref().try_into().ok())
            .ok_or(SoftwareTeeError::Crypto {
                action: "sign a report",
            })
    }

    /// Writes `snp-vcek.key.pem` and `snp-vcek.crt.pem`.
    pub(super) fn save(&self, directory: &Path) -> Result<(), SoftwareTeeError> {
        let key = self
            .key
            .to_pkcs8v1()
            .map_err(|_| SoftwareTeeError::Crypto {
                action: "export a P-384 key",
            })?;
        directory::write(directory, &key_file("vcek"), PRIVATE_KEY, key.as_ref())?;
        directory::write(
            directory,
            &certificate_file("vcek"),
            CERTIFICATE,
            &self.certificate_der,
        )
    }

    /// Reads what [`Chip::save`] wrote.
    pub(super) fn open(directory: &Path) -> Result<Self, SoftwareTeeError> {
        let der = directory::read(directory, &key_file("vcek"), PRIVATE_KEY)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der)
            .map_err(|_| directory::content(directory, &key_file("vcek"), "P-384 key in PKCS#8"))?;
        let public_key = certificate::spki(key.public_key())?;
        let file = certificate_file("vcek");
        let (certificate_der, parsed) = directory::read_certificate(directory, &file, &public_key)?;
        let validity = parsed.tbs_certificate().validity();
        let validity = (
            validity.not_before.to_system_time(),
            validity.not_after.to_system_time(),
        );
        Ok(Self {
            certificate: default_certificate(&key, validity),
            key,
            certificate_der,
        })
    }
}

fn default_certificate(key: &EcdsaKeyPair, (not_before, not_after): Validity) -> SnpCertificate {
    SnpCertificate {
        kind: SigningKey::Vcek,
        product_name: format!("{PRODUCT}-B0"),
        tcb: DEFAULT_TCB,
        hardware_id: chip_id(key).to_vec(),
        not_before,
        not_after,
    }
}

fn endorse(
    ask: &Authority,
    certificate: &SnpCertificate,
    key: &EcdsaKeyPair,
) -> Result<Vec<u8>, SoftwareTeeError> {
    let is_vlek = certificate.kind == SigningKey::Vlek;
    let common_name = if is_vlek { "SEV-VLEK" } else { "SEV-VCEK" };
    let validity = (certificate.not_before, certificate.not_after);
    let public_key = certificate::spki(key.public_key())?;
    ask.endorse(
        common_name,
        validity,
        public_key,
        extensions(certificate, is_vlek)?,
    )
}

fn extensions(certificate: &SnpCertificate, is_vlek: bool) -> Result<Extensions, SoftwareTeeError> {
    let product = Ia5StringRef::new(&certificate.product_name).map_err(certificate::encoding)?;
    let provider = Ia5StringRef::new("insecure-software-tee").map_err(certificate::encoding)?;
    let tcb = &certificate.tcb;
    let mut extensions = vec![
        extension(oid::PRODUCT_NAME, false, &product)?,
        extension(oid::BOOTLOADER_SPL, false, &tcb.bootloader)?,
        extension(oid::TEE_SPL, false, &tcb.tee)?,
        extension(oid::SNP_SPL, false, &tcb.snp)?,
        extension(oid::MICROCODE_SPL, false, &tcb.microcode)?,
    ];
    if let Some(fmc) = &tcb.fmc {
        extensions.push(extension(oid::FMC_SPL, false, fmc)?);
    }
    extensions.push(match is_vlek {
        true => extension(oid::CSP_ID, false, &provider)?,
        false => raw_extension(oid::HARDWARE_ID, false, certificate.hardware_id.clone())?,
    });
    Ok(extensions)
}

fn chip_id(key: &EcdsaKeyPair) -> [u8; 64] {
    let mut id = [0; 64];
    id.copy_from_slice(digest(&SHA512, key.public_key().as_ref()).as_ref());
    id
}
