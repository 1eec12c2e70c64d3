//! RSA-4096 authorities of the software TEE: ARK and ASK.

use std::{path::Path, str::FromStr, time::SystemTime};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{KeyPair, RSA_PSS_SHA384},
};
use der::Encode;
use x509_cert::{
    AlgorithmIdentifier, Version,
    crl::{RevokedCert, TbsCertList},
    ext::Extensions,
    name::Name,
    serial_number::SerialNumber,
};

use crate::software::{
    SoftwareTeeError,
    certificate::{self, CertificateSigner, Contents},
    directory::{self, CERTIFICATE, PRIVATE_KEY},
};

const ARK_SERIAL: u32 = 0x01_0000;
const ASK_SERIAL: u32 = 0x01_0001;
/// AMD's endorsement key certificates all have serial 0.
const ENDORSEMENT_KEY_SERIAL: u32 = 0;

/// Start and end of a certificate's validity, whole seconds.
pub(super) type Validity = (SystemTime, SystemTime);

/// A key that signs certificates, and its own.
pub(super) struct Authority {
    key: rsa::KeyPair,
    name: Name,
    pub(super) certificate_der: Vec<u8>,
}

impl Authority {
    /// A self-signed ARK.
    pub(super) fn root(common_name: &str, validity: Validity) -> Result<Self, SoftwareTeeError> {
        let (key, name) = (generate()?, name(common_name)?);
        let extensions = certificate::ca_extensions()?;
        let contents = contents(ARK_SERIAL, &name, &name, validity, spki(&key)?, extensions);
        let certificate_der = certificate::certificate(contents, &key)?;
        Ok(Self {
            key,
            name,
            certificate_der,
        })
    }

    /// An ASK under this ARK.
    pub(super) fn intermediate(
        &self,
        common_name: &str,
        validity: Validity,
    ) -> Result<Self, SoftwareTeeError> {
        let (key, name) = (generate()?, name(common_name)?);
        let extensions = certificate::ca_extensions()?;
        let contents = contents(
            ASK_SERIAL,
            &self.name,
            &name,
            validity,
            spki(&key)?,
            extensions,
        );
        let certificate_der = certificate::certificate(contents, &self.key)?;
        Ok(Self {
            key,
            name,
            certificate_der,
        })
    }

    /// Signs the certificate of an endorsement key; DER.
    pub(super) fn endorse(
        &self,
        common_name: &str,
        validity: Validity,
        public_key: Vec<u8>,
        extensions: Extensions,
    ) -> Result<Vec<u8>, SoftwareTeeError> {
        let (serial, subject) = (ENDORSEMENT_KEY_SERIAL, name(common_name)?);
        let contents = contents(
            serial, &self.name, &subject, validity, public_key, extensions,
        );
        certificate::certificate(contents, &self.key)
    }

    /// Signs a CRL that lists the ASK or nobody; DER.
    pub(super) fn crl(
        &self,
        revokes_ask: bool,
        (this_update, next_update): Validity,
    ) -> Result<Vec<u8>, SoftwareTeeError> {
        let this_update = certificate::encode_time(this_update)?;
        let revoked = RevokedCert {
            serial_number: SerialNumber::from(ASK_SERIAL),
            revocation_date: this_update,
            crl_entry_extensions: None,
        };
        let list = TbsCertList {
            version: Version::V2,
            signature: self.key.algorithm().map_err(certificate::encoding)?,
            issuer: self.name.clone(),
            this_update,
            next_update: Some(certificate::encode_time(next_update)?),
            revoked_certificates: revokes_ask.then(|| vec![revoked]),
            crl_extensions: None,
        };
        certificate::sign(list.to_der().map_err(certificate::encoding)?, &self.key)
    }

    /// Writes `snp-NAME.key.pem` and `snp-NAME.crt.pem`.
    pub(super) fn save(&self, directory: &Path, name: &str) -> Result<(), SoftwareTeeError> {
        let key: Pkcs8V1Der<'_> = self.key.as_der().map_err(|_| SoftwareTeeError::Crypto {
            action: "export an RSA key",
        })?;
        directory::write(directory, &key_file(name), PRIVATE_KEY, key.as_ref())?;
        directory::write(
            directory,
            &certificate_file(name),
            CERTIFICATE,
            &self.certificate_der,
        )
    }

    /// Reads what [`Authority::save`] wrote.
    pub(super) fn open(directory: &Path, name: &str) -> Result<Self, SoftwareTeeError> {
        let der = directory::read(directory, &key_file(name), PRIVATE_KEY)?;
        let key = rsa::KeyPair::from_pkcs8(&der)
            .map_err(|_| directory::content(directory, &key_file(name), "RSA key in PKCS#8"))?;
        let (certificate_der, parsed) =
            directory::read_certificate(directory, &certificate_file(name), &spki(&key)?)?;
        Ok(Self {
            key,
            name: parsed.tbs_certificate().subject().clone(),
            certificate_der,
        })
    }
}

impl CertificateSigner for rsa::KeyPair {
    fn algorithm(&self) -> Result<AlgorithmIdentifier, der::Error> {
        certificate::rsa_pss_sha384()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SoftwareTeeError> {
        let mut signature = vec![0; self.public_modulus_len()];
        let random = SystemRandom::new();
        Self::sign(self, &RSA_PSS_SHA384, &random, message, &mut signature).map_err(|_| {
            SoftwareTeeError::Crypto {
                action: "sign a certificate",
            }
        })?;
        Ok(signature)
    }
}

pub(super) fn key_file(name: &str) -> String {
    format!("snp-{name}.key.pem")
}

pub(super) fn certificate_file(name: &str) -> String {
    format!("snp-{name}.crt.pem")
}

fn contents<'a>(
    serial: u32,
    issuer: &'a Name,
    subject: &'a Name,
    (not_before, not_after): Validity,
    public_key: Vec<u8>,
    extensions: Extensions,
) -> Contents<'a> {
    Contents {
        serial,
        issuer,
        subject,
        not_before,
        not_after,
        public_key,
        extensions,
    }
}

fn generate() -> Result<rsa::KeyPair, SoftwareTeeError> {
    rsa::KeyPair::generate(KeySize::Rsa4096).map_err(|_| SoftwareTeeError::Crypto {
        action: "generate an RSA-4096 key",
    })
}

fn name(common_name: &str) -> Result<Name, SoftwareTeeError> {
    Name::from_str(&format!("CN={common_name},O=Insecure software TEE"))
        .map_err(certificate::encoding)
}

fn spki(key: &rsa::KeyPair) -> Result<Vec<u8>, SoftwareTeeError> {
    certificate::spki(key.public_key())
}
