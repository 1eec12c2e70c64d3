//! AMD SEV-SNP: attestation reports of version 2 to 5 from Milan, Genoa and Turin, signed by a VCEK or a VLEK.
//!
//! A report is accepted when
//! 1. its chain starts with the pinned ARK, and every certificate is signed, a CA where it must be one, and valid;
//! 2. the CRL, when the attester sent one, is signed by the ARK, current, and does not list the ASK;
//! 3. the endorsement key's P-384 signature over the report holds;
//! 4. certificate and report agree about chip, product and TCB;
//! 5. the report shows everything that the reference value demands.
//!
//! An attester can leave the CRL out, so revocation protects only together with a minimum TCB. Nothing here fetches.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub(crate) mod abi;
mod cache;
pub(crate) mod certificate;
mod certificate_table;
mod chain;
mod claims;
mod report_file;
mod roots;
mod tcb;
#[cfg(test)]
mod tests;
mod validate;
pub(crate) mod verify;

use std::{sync::Arc, time::SystemTime};

use aws_lc_rs::digest::{SHA256, digest};

use crate::{
    CheckList, PolicyHash, ReportData, Root, SnpEvidence, Tee,
    appraisal::{SnpDemands, SnpProduct, SnpTcb},
    proof::Facts,
    vcpus::Reference,
};

pub use abi::{
    Cpuid, FirmwareVersion, MitigationVectors, REPORT_BYTES, Report, ReportFormatError, SigningKey,
};
pub use cache::ChainCache;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use certificate_table::TABLE_BYTES_MAX;
#[cfg(any(test, all(feature = "software-tee", not(target_arch = "wasm32"))))]
pub use certificate_table::encode_certificate_table;
pub use certificate_table::{CertificateGuid, CertificateTable, CertificateTableError};
pub use report_file::ReportFile;
pub use roots::{VendorChain, vendor_chain};
pub use tcb::TcbVersion;

/// Compares `evidence` with the demands of one reference value. All comparisons go to `checks`; the facts, which are
/// returned when the report's signature holds under the key in the evidence, mean nothing unless every check passed.
pub(crate) fn appraise(
    evidence: &SnpEvidence,
    reference: &Reference<'_, SnpDemands>,
    report_data: &ReportData,
    now: SystemTime,
    chains: &ChainCache,
    checks: &mut CheckList,
) -> Option<Facts> {
    let Reference {
        root,
        demands,
        vcpus,
    } = *reference;
    let Opened { report, chain } = open(evidence, root, demands.product, now, chains, checks)?;
    let endorsement = chain.as_deref().map(|chain| &chain.endorsement);
    let vcpus = vcpus.get(&PolicyHash(report.host_data)).copied();
    validate::validate(&report, endorsement, demands, vcpus, report_data, checks);
    signed_facts(evidence, &report, endorsement?, checks)
}

/// Checks everything about `evidence` that needs no reference value: its chain up to the root of the product that it shows,
/// its signature, and that report and certificate agree. What the report says about its guest is not judged.
pub(crate) fn authenticate(
    evidence: &SnpEvidence,
    root: Root,
    now: SystemTime,
    checks: &mut CheckList,
) -> Option<Facts> {
    let Some(product) = claimed_product(evidence) else {
        let expected = "Milan, Genoa or Turin, by CPUID (report version 3 and later) or by the VEK certificate (version 2)";
        checks.fail("product", expected, "none of them");
        return None;
    };
    let chains = ChainCache::default();
    let Opened { report, chain } = open(evidence, root, product, now, &chains, checks)?;
    let endorsement = chain.as_deref().map(|chain| &chain.endorsement);
    validate::consistency(&report, endorsement, product, checks);
    signed_facts(evidence, &report, endorsement?, checks)
}

/// The product that unverified evidence shows, by the report's CPUID or else by the certificate.
pub fn claimed_product(evidence: &SnpEvidence) -> Option<SnpProduct> {
    let report = Report::parse(&evidence.report).ok()?;
    report
        .product()
        .or_else(|| Endorsement::read(&evidence.vek).map(|endorsement| endorsement.product))
}

/// What makes a genuine report worth little.
pub(crate) fn cautions(report: &[u8]) -> Vec<&'static str> {
    let Ok(report) = Report::parse(report) else {
        return Vec::new();
    };
    let bit = |number: u32| report.policy >> number & 1 == 1;
    let mut cautions = Vec::new();
    if bit(19) {
        cautions.push(
            "the guest policy allows debugging: the host can read and change the guest's memory",
        );
    }
    if bit(18) {
        cautions.push("the guest policy allows a migration agent: the host can have the guest's memory copied");
    }
    if report.vmpl != 0 {
        cautions.push(
            "the report was requested below VMPL 0: something more privileged runs in the guest",
        );
    }
    cautions
}

/// What a VCEK or VLEK certificate says. Nothing here is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endorsement {
    /// The product line that the key belongs to.
    pub product: SnpProduct,
    /// The chip of a VCEK: 64 bytes, on Turin 8; none for a VLEK.
    pub hardware_id: Option<Vec<u8>>,
    /// The TCB that the key was derived for.
    pub tcb: SnpTcb,
}

impl Endorsement {
    /// Reads a certificate in DER; nothing when it is no VCEK's and no VLEK's.
    pub fn read(der: &[u8]) -> Option<Self> {
        let certificate = certificate::SignedCertificate::parse(der).ok()?;
        let key = certificate::EndorsementKey::read(&certificate).ok()?;
        Some(Self {
            product: key.product,
            hardware_id: match key.kind {
                certificate::EndorsementKind::Vcek { hardware_id } => Some(hardware_id),
                certificate::EndorsementKind::Vlek => None,
            },
            tcb: key.tcb,
        })
    }
}

struct Opened {
    report: Report,
    chain: Option<Arc<chain::Chain>>,
}

/// Reads the report and verifies the chain under the ARK of `product`.
fn open(
    evidence: &SnpEvidence,
    root: Root,
    product: SnpProduct,
    now: SystemTime,
    chains: &ChainCache,
    checks: &mut CheckList,
) -> Option<Opened> {
    let ark_pin = roots::PinnedArk::of(root, product);
    let ark_sha256 = digest(&SHA256, &evidence.ark);
    let ark_is_pinned = ark_sha256.as_ref() == ark_pin.sha256.as_slice();
    let expected = format!("{}, SHA-256 {}", ark_pin.name, hex::encode(ark_pin.sha256));
    checks.record(
        "ARK",
        expected,
        format!("SHA-256 {}", hex::encode(ark_sha256)),
        ark_is_pinned,
    );
    // Under another root there is nothing to verify: its chain is neither evidence nor worth three RSA operations.
    let chain = match ark_is_pinned {
        true => chains.verify(evidence, &ark_pin, now, checks),
        false => None,
    };
    match Report::parse(&evidence.report) {
        Ok(report) => Some(Opened { report, chain }),
        Err(error) => {
            checks.fail("report", "an attestation report", error.to_string());
            None
        }
    }
}

/// The report's facts, once its signature holds.
fn signed_facts(
    evidence: &SnpEvidence,
    report: &Report,
    endorsement: &certificate::EndorsementKey,
    checks: &mut CheckList,
) -> Option<Facts> {
    if !verify::verify_signature(&evidence.report, report, &endorsement.key, checks) {
        return None;
    }
    Some(Facts {
        tee: Tee::Snp,
        policy_hash: PolicyHash(report.host_data),
        measurement: report.measurement,
        hardware_id: match report.chip_id {
            masked if masked == [0; 64] => Vec::new(),
            chip_id => chip_id.to_vec(),
        },
        claims: claims::claims(report, endorsement.product),
    })
}
