use std::{fmt, path::Path, time::SystemTime};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    },
};
use der::{Decode as _, Encode as _};
use x509_cert::Certificate;
use zeroize::Zeroizing;

use crate::{
    TdxCollateral,
    software::{
        SoftwareTeeError,
        directory::{self, CERTIFICATE, PRIVATE_KEY},
    },
};

use super::{
    HOUR, LIFETIME, TdxCollateralFacts, TdxPck,
    kept::Kept,
    profile::{self, Issuer, Subject},
    sha256,
};

const ROOT: &str = "Software TEE Root CA (insecure)";
const PLATFORM_CA: &str = "Software TEE PCK Platform CA (insecure)";
const TCB_SIGNING: &str = "Software TEE TCB Signing (insecure)";
const PCK: &str = "Software TEE PCK Certificate (insecure)";

/// A P-256 key that signs both ways that Intel's formats need: DER in certificates, r || s in quotes and for JSON.
pub(super) struct P256Key {
    pkcs8: Zeroizing<Vec<u8>>,
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
    spki: Vec<u8>,
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("P256Key")
            .field("spki", &hex::encode(&self.spki))
            .finish_non_exhaustive()
    }
}

impl P256Key {
    fn generate() -> Result<Self, SoftwareTeeError> {
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).map_err(|_| {
                SoftwareTeeError::Crypto {
                    action: "generate a P-256 key",
                }
            })?;
        Self::from_pkcs8(pkcs8.as_ref()).ok_or(SoftwareTeeError::Crypto {
            action: "load a P-256 key",
        })
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let asn1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).ok()?;
        let fixed = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?;
        let spki: PublicKeyX509Der<'_> = asn1.public_key().as_der().ok()?;
        let spki = spki.as_ref().to_vec();
        Some(Self {
            pkcs8: Zeroizing::new(pkcs8.to_vec()),
            asn1,
            fixed,
            spki,
        })
    }

    /// Public key, `SubjectPublicKeyInfo` DER.
    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Public key, x || y, 64 bytes.
    pub(super) fn coordinates(&self) -> Result<[u8; 64], SoftwareTeeError> {
        // An uncompressed point is 04 || x || y (SEC 1 section 2.3.3).
        let point = self.fixed.public_key().as_ref().split_first();
        point
            .and_then(|(_, coordinates)| coordinates.try_into().ok())
            .ok_or(SoftwareTeeError::Crypto {
                action: "encode a P-256 public key",
            })
    }

    /// ECDSA with SHA-256, DER.
    pub(super) fn sign_der(&self, message: &[u8]) -> Result<Vec<u8>, SoftwareTeeError> {
        sign(&self.asn1, message)
    }

    /// ECDSA with SHA-256, r || s, 64 bytes.
    pub(super) fn sign_fixed(&self, message: &[u8]) -> Result<Vec<u8>, SoftwareTeeError> {
        sign(&self.fixed, message)
    }
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Result<Vec<u8>, SoftwareTeeError> {
    match key.sign(&SystemRandom::new(), message) {
        Ok(signature) => Ok(signature.as_ref().to_vec()),
        Err(_) => Err(SoftwareTeeError::Crypto {
            action: "sign with a P-256 key",
        }),
    }
}

/// A key with the certificate that stays the same for the life of a software TEE.
#[derive(Debug)]
pub(super) struct Certified {
    pub(super) key: P256Key,
    pub(super) name: &'static str,
    /// DER.
    pub(super) certificate: Vec<u8>,
}

/// Everything that Intel holds for a platform, and the platform's own keys.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) root: Certified,
    pub(super) platform_ca: Certified,
    pub(super) tcb_signing: Certified,
    pub(super) pck: P256Key,
    /// The quoting enclave's key; not kept, since a quoting enclave makes one when it likes.
    pub(super) attestation: P256Key,
    pub(super) valid_from: SystemTime,
    pub(super) valid_to: SystemTime,
    /// PCK certificate, DER.
    pub(super) kept_pck: Kept<TdxPck, Vec<u8>>,
    /// Signature over a QE report.
    pub(super) kept_qe: Kept<Vec<u8>, Vec<u8>>,
    /// Collateral; a PCK certificate (DER) that it revokes.
    pub(super) kept_collateral: Kept<(TdxCollateralFacts, Option<Vec<u8>>), TdxCollateral>,
}

impl Authority {
    pub(super) fn generate(now: SystemTime) -> Result<Self, SoftwareTeeError> {
        let out_of_range = || SoftwareTeeError::Time { found: now };
        let not_before = now.checked_sub(HOUR).ok_or_else(out_of_range)?;
        let not_after = now.checked_add(LIFETIME).ok_or_else(out_of_range)?;
        let root = P256Key::generate()?;
        let certify = |name, key: &P256Key, path_length| {
            let subject = Subject {
                name,
                key,
                path_length,
                not_before,
                not_after,
            };
            profile::issue(
                &Issuer {
                    key: &root,
                    name: ROOT,
                },
                subject,
                None,
            )
        };
        let certified = |name, path_length| {
            let key = P256Key::generate()?;
            Ok(Certified {
                certificate: certify(name, &key, path_length)?,
                name,
                key,
            })
        };
        let platform_ca = certified(PLATFORM_CA, Some(0))?;
        let tcb_signing = certified(TCB_SIGNING, None)?;
        let certificate = certify(ROOT, &root, Some(1))?;
        Ok(Self {
            root: Certified {
                key: root,
                name: ROOT,
                certificate,
            },
            platform_ca,
            tcb_signing,
            pck: P256Key::generate()?,
            attestation: P256Key::generate()?,
            valid_from: not_before,
            valid_to: not_after,
            kept_pck: Kept::default(),
            kept_qe: Kept::default(),
            kept_collateral: Kept::default(),
        })
    }

    pub(super) fn save(&self, dir: &Path) -> Result<(), SoftwareTeeError> {
        for (stem, certified) in [
            ("tdx-root-ca", &self.root),
            ("tdx-platform-ca", &self.platform_ca),
            ("tdx-tcb-signing", &self.tcb_signing),
        ] {
            directory::write(dir, &key_name(stem), PRIVATE_KEY, &certified.key.pkcs8)?;
            directory::write(
                dir,
                &certificate_name(stem),
                CERTIFICATE,
                &certified.certificate,
            )?;
        }
        directory::write(dir, &key_name("tdx-pck"), PRIVATE_KEY, &self.pck.pkcs8)
    }

    pub(super) fn open(dir: &Path) -> Result<Self, SoftwareTeeError> {
        let root = read_certified(dir, "tdx-root-ca", ROOT)?;
        let parsed = Certificate::from_der(&root.certificate).map_err(|source| {
            SoftwareTeeError::Certificate {
                action: "decode the TDX root certificate",
                source,
            }
        })?;
        let validity = *parsed.tbs_certificate().validity();
        Ok(Self {
            platform_ca: read_certified(dir, "tdx-platform-ca", PLATFORM_CA)?,
            tcb_signing: read_certified(dir, "tdx-tcb-signing", TCB_SIGNING)?,
            pck: read_key(dir, "tdx-pck")?,
            attestation: P256Key::generate()?,
            valid_from: validity.not_before.to_system_time(),
            valid_to: validity.not_after.to_system_time(),
            kept_pck: Kept::default(),
            kept_qe: Kept::default(),
            kept_collateral: Kept::default(),
            root,
        })
    }

    /// A certificate of the platform, DER, that says what `facts` say.
    pub(super) fn pck_certificate(&self, facts: &TdxPck) -> Result<Vec<u8>, SoftwareTeeError> {
        let subject = Subject {
            name: PCK,
            key: &self.pck,
            path_length: None,
            not_before: self.valid_from,
            not_after: self.valid_to,
        };
        let issuer = Issuer {
            key: &self.platform_ca.key,
            name: PLATFORM_CA,
        };
        let ppid = truncated_hash(b"platform provisioning id", self.pck.spki());
        profile::issue(
            &issuer,
            subject,
            Some(profile::sgx_extension(facts, &ppid)?),
        )
    }

    /// Platform instance id: as random as the platform's key, and as stable.
    pub(super) fn instance_id(&self) -> [u8; 16] {
        truncated_hash(b"platform instance id", self.pck.spki())
    }
}

fn truncated_hash(label: &[u8], data: &[u8]) -> [u8; 16] {
    let hash = sha256(&[label, data].concat());
    hash.first_chunk().copied().unwrap_or_default()
}

fn key_name(stem: &str) -> String {
    format!("{stem}.key.pem")
}

fn certificate_name(stem: &str) -> String {
    format!("{stem}.crt.pem")
}

fn read_key(dir: &Path, stem: &str) -> Result<P256Key, SoftwareTeeError> {
    let name = key_name(stem);
    let pkcs8 = directory::read(dir, &name, PRIVATE_KEY)?;
    P256Key::from_pkcs8(&pkcs8).ok_or_else(|| SoftwareTeeError::Content {
        path: dir.join(&name),
        expected: "P-256 private key",
    })
}

fn read_certified(
    dir: &Path,
    stem: &str,
    name: &'static str,
) -> Result<Certified, SoftwareTeeError> {
    let key = read_key(dir, stem)?;
    let file = certificate_name(stem);
    let certificate = directory::read(dir, &file, CERTIFICATE)?.to_vec();
    match public_key(&certificate) {
        Ok(spki) if spki == key.spki() => Ok(Certified {
            key,
            name,
            certificate,
        }),
        _ => Err(SoftwareTeeError::Content {
            path: dir.join(&file),
            expected: "certificate of the key beside it",
        }),
    }
}

/// A certificate's public key, `SubjectPublicKeyInfo` DER.
fn public_key(certificate: &[u8]) -> Result<Vec<u8>, der::Error> {
    Certificate::from_der(certificate)?
        .tbs_certificate()
        .subject_public_key_info()
        .to_der()
}
