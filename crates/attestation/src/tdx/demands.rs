use dcap_qvl::{PckCertFlag, QuoteClaims, quote::TDReport10};

use crate::{CheckList, ReportData, appraisal::TdxDemands, vcpus};

use super::quote::TdQuote;

/// SGX type in the PCK certificate, extension 1.2.840.113741.1.13.1.5 (ENUMERATED).
const SCALABLE_WITH_INTEGRITY: u8 = 2;

/// Bits of ATTRIBUTES above TUD that a TD may have or not, since they give the guest a feature and the host nothing ("Intel TDX
/// Module ABI Specification" 348551, table of ATTRIBUTES).
const FREE_ATTRIBUTES: [u32; 5] = [
    16, // ICSSD: the module's defence against single-stepping by instruction count
    27, // LASS: linear address space separation
    30, // PKS: supervisor protection keys
    31, // KL: Key Locker
    63, // PERFMON: performance counters of the guest's own
];
const SERVTD_EXT: u32 = 17;
const SEPT_VE_DISABLE: u32 = 28;
const MIGRATABLE: u32 = 29;
const TPA: u32 = 62;

/// Checks what no TD may have, whatever the manifest says: attributes that let others in, and service TDs.
pub(super) fn check_attributes(quote: &TdQuote, checks: &mut CheckList) {
    let attributes = u64::from_le_bytes(quote.td_report().td_attributes);
    let bit = |position: u32| attributes >> position & 1 == 1;
    for (name, position, expected) in [
        ("SERVTD_EXT", SERVTD_EXT, false),
        ("SEPT_VE_DISABLE", SEPT_VE_DISABLE, true),
        ("MIGRATABLE", MIGRATABLE, false),
        ("TPA", TPA, false),
    ] {
        let field = format!("TD ATTRIBUTES {name}");
        checks.equal(&field, &expected, &bit(position));
    }
    let judged = [SERVTD_EXT, SEPT_VE_DISABLE, MIGRATABLE, TPA];
    let known = FREE_ATTRIBUTES.into_iter().chain(judged);
    // The lowest byte, TUD, is a check of its own.
    let mask = known.fold(0xff_u64, |mask, position| mask | 1 << position);
    let reserved = attributes & !mask;
    checks.record(
        "TD ATTRIBUTES reserved bits",
        "0x0",
        format!("{reserved:#x}"),
        reserved == 0,
    );
    if let Some(report) = quote.td_report_15() {
        checks.equal_bytes("MRSERVICETD", &[0; 48], &report.mr_service_td);
    }
}

/// Checks the TD report: measurements, attributes, report data. `vcpus` is how many vCPUs the VMs of its policy have, if the policy
/// says so.
pub(super) fn check_report(
    report: &TDReport10,
    demands: &TdxDemands,
    vcpus: Option<u32>,
    report_data: &ReportData,
    checks: &mut CheckList,
) {
    checks.equal_bytes("REPORTDATA", &report_data.0, &report.report_data);
    // ATTRIBUTES.TUD, the lowest byte. Any bit of it makes the TD untrusted: bit 0 is DEBUG, bits 4 to 6 are profiling, the
    // others are reserved.
    let under_debug = report.td_attributes.first().copied().unwrap_or(u8::MAX);
    checks.record(
        "TD ATTRIBUTES debug and profiling",
        "off (TUD byte 00)",
        format!("TUD byte {under_debug:02x}"),
        under_debug == 0,
    );
    checks.equal_bytes("MRTD", &demands.mr_td, &report.mr_td);
    checks.equal_bytes("MRSEAM", &demands.mr_seam, &report.mr_seam);
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &demands.rtmrs;
    match demands.rtmr0_alternatives.as_slice() {
        _ if !demands.rtmr0_by_vcpus.is_empty() => {
            let by_vcpus = &demands.rtmr0_by_vcpus;
            vcpus::check("RTMR0", by_vcpus, vcpus, &report.rt_mr0, checks);
        }
        [] => checks.equal_bytes("RTMR0", rtmr0, &report.rt_mr0),
        alternatives => {
            let mut accepted = std::iter::once(rtmr0).chain(alternatives);
            checks.record(
                "RTMR0",
                accepted
                    .clone()
                    .map(hex::encode)
                    .collect::<Vec<_>>()
                    .join(" or "),
                hex::encode(report.rt_mr0),
                accepted.any(|value| *value == report.rt_mr0),
            );
        }
    }
    checks.equal_bytes("RTMR1", rtmr1, &report.rt_mr1);
    checks.equal_bytes("RTMR2", rtmr2, &report.rt_mr2);
    checks.equal_bytes("RTMR3", rtmr3, &report.rt_mr3);
    checks.equal_bytes("XFAM", &demands.xfam, &report.xfam);
    checks.equal_bytes("MROWNER", &demands.mr_owner, &report.mr_owner);
    let found = &report.mr_owner_config;
    checks.equal_bytes("MROWNERCONFIG", &demands.mr_owner_config, found);
    // MRCONFIGID is 48 bytes, a policy hash 32. Which hashes are allowed is the verifier's to say.
    let padding = report.mr_config_id.get(32..).unwrap_or_default();
    checks.equal_bytes("MRCONFIGID after the policy hash", &[0; 16], padding);
}

/// Checks what the PCK certificate and the collateral say about the platform.
pub(super) fn check_platform(claims: &QuoteClaims, demands: &TdxDemands, checks: &mut CheckList) {
    checks.at_least(
        "TCB evaluation data number",
        &demands.min_tcb_evaluation_data_number,
        &claims.tcb.eval_data_number,
    );
    let pck = &claims.platform.pck;
    if !demands.allowed_piids.is_empty() {
        let expected: Vec<_> = demands.allowed_piids.iter().map(hex::encode).collect();
        let found = pck.platform_instance_id;
        checks.record(
            "platform instance id",
            expected.join(" or "),
            found.map_or_else(|| "none".to_owned(), hex::encode),
            found.is_some_and(|id| demands.allowed_piids.contains(&id)),
        );
    }
    if demands.memory_integrity {
        checks.record(
            "memory integrity",
            "SGX type 2 (scalable with integrity)",
            match pck.sgx_type {
                0 => "SGX type 0 (standard)".to_owned(),
                1 => "SGX type 1 (scalable)".to_owned(),
                2 => "SGX type 2 (scalable with integrity)".to_owned(),
                other => format!("SGX type {other}"),
            },
            pck.sgx_type == SCALABLE_WITH_INTEGRITY,
        );
    }
    if demands.smt_disabled {
        check_off("SMT", pck.smt_enabled, checks);
    }
    if demands.static_platform {
        check_off("dynamic platform", pck.dynamic_platform, checks);
    }
}

/// Flags of the PCK certificate's configuration (1.2.840.113741.1.13.1.7). One that the certificate does not have proves
/// nothing, so it does not satisfy a demand.
fn check_off(field: &str, flag: PckCertFlag, checks: &mut CheckList) {
    let found = match flag {
        PckCertFlag::False => "no",
        PckCertFlag::True => "yes",
        PckCertFlag::Undefined => "not stated by the PCK certificate",
    };
    checks.record(field, "no", found, flag == PckCertFlag::False);
}
