//! Intel TDX quotes, version 4 and 5, with the collateral of their platform.
//!
//! Formats: "Intel TDX DCAP Quoting Library API", appendix A (quote); "Intel SGX PCK Certificate and CRL Profile
//! Specification" (certificates); Intel PCS API version 4 (TCB info, QE identity).
//!
//! The chain of signatures, the match of the platform with Intel's TCB levels, and the fixed rules for TD attributes are
//! verified by [`dcap_qvl`], with primitives of aws-lc-rs underneath. What it leaves to its caller is done here:
//!
//! | left to the caller | where |
//! | --- | --- |
//! | which root is trusted; that the root certificate itself is within its validity | `root` |
//! | that unsigned lengths and types in the quote are exact | `quote` |
//! | *which* piece of collateral is stale, when one is | `validity` |
//! | that the TCB info is for the PCK certificate's PCEID (Intel's own library checks it beside the FMSPC) | `verify` |
//! | whether the TCB status is good enough, and how long an outdated one is | `tcb` |
//! | debug, profiling and unnamed attributes, measurements, report data, platform | `demands` |
//! | that a platform verified a moment ago need not be verified again | `cache` |
//!
//! Comparisons are made, and reported, even when a signature is wrong; facts are returned only when every signature holds.

mod cache;
mod demands;
mod details;
mod provider;
mod quote;
mod root;
mod tcb;
mod validity;
mod verify;

use std::time::SystemTime;

use crate::{
    CheckList, Claim, ClaimValue, PolicyHash, ReportData, Root, TdxEvidence, Tee,
    appraisal::{TdxDemands, TdxTcbPolicy},
    proof::Facts,
    vcpus::Reference,
};
use dcap_qvl::QuoteClaims;

pub use cache::PlatformCache;
pub use details::{
    CollateralKey, PckDetails, PckIssuer, QuoteDetails, QuoteFormatError, TdDetails15,
};
pub use root::signed_crl as root_signed_crl;

/// Chain (PEM, signer first) of the key that signed Intel's TCB info and QE identities from 2018 to 2025. PCS sends it in an
/// HTTP header, which collected answers often lack; it is verified like one that came along.
pub const INTEL_TCB_SIGNING_CHAIN_2018: &str = include_str!("vendor/intel_tcb_signing_2018.pem");

/// Compares `evidence` with `demands` at the time `now`. Facts are returned when the signatures hold up to `root`, even if
/// other checks failed.
pub(crate) fn appraise(
    evidence: &TdxEvidence,
    reference: &Reference<'_, TdxDemands>,
    report_data: &ReportData,
    now: SystemTime,
    platforms: &PlatformCache,
    checks: &mut CheckList,
) -> Option<Facts> {
    let Reference {
        root,
        demands,
        vcpus,
    } = *reference;
    let quote = quote::parse(&evidence.quote, checks)?;
    let claims = verify::verify(evidence, &quote, root, now, platforms, checks);
    demands::check_attributes(&quote, checks);
    let policy = quote.td_report().mr_config_id.first_chunk::<32>();
    let vcpus = policy.and_then(|policy| vcpus.get(&PolicyHash(*policy)).copied());
    demands::check_report(quote.td_report(), demands, vcpus, report_data, checks);
    let claims = claims?;
    tcb::check(&claims, &demands.tcb_policy, now, checks);
    demands::check_platform(&claims, demands, checks);
    facts(&quote, &claims)
}

/// Checks everything about `evidence` that needs no reference value: all signatures from `root` down to the TD report, and the
/// platform's TCB status, which must be `UpToDate`. What the report says about its guest is not judged, except for attributes that
/// no TD may have.
pub(crate) fn authenticate(
    evidence: &TdxEvidence,
    root: Root,
    now: SystemTime,
    checks: &mut CheckList,
) -> Option<Facts> {
    let quote = quote::parse(&evidence.quote, checks)?;
    let platforms = PlatformCache::default();
    let claims = verify::verify(evidence, &quote, root, now, &platforms, checks);
    demands::check_attributes(&quote, checks);
    let claims = claims?;
    tcb::check(&claims, &TdxTcbPolicy::default(), now, checks);
    facts(&quote, &claims)
}

/// What makes a genuine quote worth little.
pub(crate) fn cautions(quote: &[u8]) -> Vec<&'static str> {
    let quote = quote::parse(quote, &mut CheckList::default());
    let attributes = quote.as_ref().map(|quote| quote.td_report().td_attributes);
    match attributes {
        Some([0, ..]) | None => Vec::new(),
        Some(_) => vec!["debugging or profiling is on: the host can look into the guest"],
    }
}

/// REPORTDATA of a quote; none when it is no TDX quote. Not verified.
pub(crate) fn report_data(quote: &[u8]) -> Option<ReportData> {
    let quote = quote::parse(quote, &mut CheckList::default())?;
    Some(ReportData(quote.td_report().report_data))
}

/// Claims under 1.3.9901.2.2:
///
/// | arc | claim | type |
/// | --- | --- | --- |
/// | 1 | quote version | INTEGER |
/// | 2 | TEE_TCB_SVN, 16 bytes | OCTET STRING |
/// | 3 | MRSEAM, 48 bytes | OCTET STRING |
/// | 4 | TD attributes, 8 bytes | OCTET STRING |
/// | 5 | XFAM, 8 bytes | OCTET STRING |
/// | 6 | MRTD, 48 bytes | OCTET STRING |
/// | 7 | MRCONFIGID, 48 bytes | OCTET STRING |
/// | 8 to 11 | RTMR0 to RTMR3, 48 bytes each | OCTET STRING |
/// | 12 | REPORTDATA, 64 bytes | OCTET STRING |
/// | 13 | FMSPC, 6 bytes | OCTET STRING |
/// | 14 | platform instance id, 16 bytes; absent when the PCK certificate has none | OCTET STRING |
/// | 15 | TCB evaluation data number | INTEGER |
fn facts(quote: &quote::TdQuote, claims: &QuoteClaims) -> Option<Facts> {
    let report = quote.td_report();
    let (policy_hash, _) = report.mr_config_id.split_first_chunk::<32>()?;
    let integer = |arc, value: u64| Claim {
        arc,
        value: ClaimValue::Integer(value),
    };
    let bytes = |arc, value: &[u8]| Claim {
        arc,
        value: ClaimValue::Bytes(value.to_vec()),
    };
    let mut listed = vec![
        integer(1, quote.version().into()),
        bytes(2, &report.tee_tcb_svn),
        bytes(3, &report.mr_seam),
        bytes(4, &report.td_attributes),
        bytes(5, &report.xfam),
        bytes(6, &report.mr_td),
        bytes(7, &report.mr_config_id),
        bytes(8, &report.rt_mr0),
        bytes(9, &report.rt_mr1),
        bytes(10, &report.rt_mr2),
        bytes(11, &report.rt_mr3),
        bytes(12, &report.report_data),
        bytes(13, &claims.platform.pck.fmspc),
    ];
    let instance = claims.platform.pck.platform_instance_id;
    listed.extend(instance.map(|id| bytes(14, &id)));
    listed.push(integer(15, claims.tcb.eval_data_number.into()));
    Some(Facts {
        tee: Tee::Tdx,
        policy_hash: PolicyHash(*policy_hash),
        measurement: report.mr_td,
        hardware_id: instance.map(|id| id.to_vec()).unwrap_or_default(),
        claims: listed,
    })
}
