use std::time::SystemTime;

use der::{DateTime, Decode as _};
use x509_cert::Certificate;

use crate::{CheckList, Root, TdxEvidence};

use super::provider::sha256;

/// SHA-256 of the "Intel SGX Root CA" certificate's DER, as Intel publishes it at
/// <https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer> (valid 2018 to 2049).
const INTEL_SGX_ROOT_CA_SHA256: [u8; 32] = [
    0x44, 0xa0, 0x19, 0x6b, 0x2b, 0x99, 0xf8, 0x89, 0xb8, 0xe1, 0x49, 0xe9, 0x5b, 0x80, 0x7a, 0x35,
    0x0e, 0x74, 0x24, 0x96, 0x43, 0x99, 0xe8, 0x85, 0xa7, 0xcb, 0xb8, 0xcc, 0xfa, 0xb6, 0x74, 0xd3,
];

/// Whether a certificate (DER) is Intel's root.
pub(super) fn is_intels(der: &[u8]) -> bool {
    sha256(der) == INTEL_SGX_ROOT_CA_SHA256
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
