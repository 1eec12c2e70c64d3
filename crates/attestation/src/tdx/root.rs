use std::time::SystemTime;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use der::{DateTime, Decode as _, Encode as _};
use x509_cert::{Certificate, certificate::Rfc5280, crl::CertificateList};

use crate::{CheckList, Root, TdxEvidence};

use super::provider::sha256;

/// SHA-256 of the "Intel SGX Root CA" certificate's DER, as Intel publishes it at
/// <https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer> (valid 2018 to 2049).
const INTEL_SGX_ROOT_CA_SHA256: [u8; 32] = [
    0x44, 0xa0, 0x19, 0x6b, 0x2b, 0x99, 0xf8, 0x89, 0xb8, 0xe1, 0x49, 0xe9, 0x5b, 0x80, 0x7a, 0x35,
    0x0e, 0x74, 0x24, 0x96, 0x43, 0x99, 0xe8, 0x85, 0xa7, 0xcb, 0xb8, 0xcc, 0xfa, 0xb6, 0x74, 0xd3,
];

/// That certificate. It counts, like every other, only for its hash.
const INTEL_SGX_ROOT_CA: &str = include_str!("vendor/intel_sgx_root_ca.pem");

/// Whether a certificate (DER) is Intel's root.
fn is_intels(der: &[u8]) -> bool {
    sha256(der) == INTEL_SGX_ROOT_CA_SHA256
}

/// Whether Intel's root signed a revocation list (DER). Says nothing about its validity.
pub fn signed_crl(list: &[u8]) -> bool {
    let chain = certificates(INTEL_SGX_ROOT_CA);
    let root = chain.iter().find(|der| is_intels(der));
    let Some(Ok(root)) = root.map(|der| Certificate::from_der(der)) else {
        return false;
    };
    let Ok(list) = CertificateList::<Rfc5280>::from_der(list) else {
        return false;
    };
    let key = root.tbs_certificate().subject_public_key_info();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.subject_public_key.raw_bytes());
    // A list in DER is the same after it was read and written.
    let signed = list.tbs_cert_list.to_der();
    signed.is_ok_and(|signed| key.verify(&signed, list.signature.raw_bytes()).is_ok())
}

/// SHA-256 of the DER of the only root that counts.
pub(super) fn pin(root: Root) -> [u8; 32] {
    match root {
        Root::Vendor => INTEL_SGX_ROOT_CA_SHA256,
        Root::Insecure { sha256 } => sha256,
    }
}

/// The root certificate (DER), taken from the evidence only because its hash is the pinned one.
pub(super) fn pinned(
    evidence: &TdxEvidence,
    pck_chain: &[Vec<u8>],
    root: Root,
    now: SystemTime,
    checks: &mut CheckList,
) -> Option<Vec<u8>> {
    const FIELD: &str = "root certificate";
    let pin = pin(root);
    let name = match root {
        Root::Vendor => "Intel SGX Root CA",
        Root::Insecure { .. } => "software TEE",
    };
    let expected = format!("SHA-256 {} ({name})", hex::encode(pin));
    let issuers = evidence
        .collateral
        .as_ref()
        .map(|c| certificates(&c.tcb_info_issuer_chain));
    let mut found = pck_chain.iter().chain(issuers.iter().flatten());
    if let Some(certificate) = found.find(|der| sha256(der) == pin) {
        checks.record(FIELD, expected.clone(), expected, true);
        check_validity(certificate, now, checks);
        return Some(certificate.clone());
    }
    let found = match pck_chain.last() {
        Some(last) => format!(
            "a PCK chain that ends in SHA-256 {}",
            hex::encode(sha256(last))
        ),
        None => "no certificate".to_owned(),
    };
    checks.fail(FIELD, expected, found);
    None
}

fn check_validity(certificate: &[u8], now: SystemTime, checks: &mut CheckList) {
    const FIELD: &str = "root certificate validity";
    let validity = match Certificate::from_der(certificate) {
        Ok(certificate) => *certificate.tbs_certificate().validity(),
        Err(error) => return checks.fail(FIELD, "an X.509 certificate", error.to_string()),
    };
    let (from, to) = (validity.not_before, validity.not_after);
    let passed = from.to_system_time() <= now && now <= to.to_system_time();
    checks.record(
        FIELD,
        format!("valid at {}", moment(now)),
        format!("{from} to {to}"),
        passed,
    );
}

/// The certificates of a PEM chain, DER; none when it is not PEM.
fn certificates(chain: &str) -> Vec<Vec<u8>> {
    let parsed = pem::parse_many(chain).unwrap_or_default();
    parsed.into_iter().map(pem::Pem::into_contents).collect()
}

/// A moment for people, RFC 3339 in UTC.
pub(super) fn moment(time: SystemTime) -> String {
    DateTime::from_system_time(time).map_or_else(
        |_| "a time outside the years 1970 to 9999".to_owned(),
        |time| time.to_string(),
    )
}
