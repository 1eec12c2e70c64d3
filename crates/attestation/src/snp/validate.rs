//! What a report says, compared with the demands of a reference value. Every comparison is recorded; none stops another.

use std::fmt;

use crate::{
    CheckList, ReportData,
    appraisal::{SnpDemands, SnpMeasurement, SnpProduct, SnpTcb},
    vcpus,
};

use super::{
    abi::{
        PLATFORM_INFO_UNKNOWN_BITS, POLICY_RESERVED_ONE, POLICY_UNKNOWN_BITS, Report, SigningKey,
    },
    certificate::{EndorsementKey, EndorsementKind},
    tcb,
};

/// Compares `report` with `demands` and, when its chain was verified, with the certificate of the key that signed it. `vcpus` is how
/// many vCPUs the VMs of the report's policy have, if the policy says so.
pub(super) fn validate(
    report: &Report,
    endorsement: Option<&EndorsementKey>,
    demands: &SnpDemands,
    vcpus: Option<u32>,
    report_data: &ReportData,
    checks: &mut CheckList,
) {
    let product = check_product(report, endorsement, demands.product, checks);
    checks.equal_bytes("REPORT_DATA", &report_data.0, &report.report_data);
    const MEASUREMENT: &str = "MEASUREMENT";
    let found = &report.measurement;
    match &demands.measurement {
        SnpMeasurement::Any(expected) => checks.equal_bytes(MEASUREMENT, expected, found),
        SnpMeasurement::ByVcpus(accepted) => {
            vcpus::check(MEASUREMENT, accepted, vcpus, found, checks);
        }
    }
    checks.equal("VMPL", &0, &report.vmpl);
    check_guest_policy(report, demands, checks);
    check_platform_info(report, demands, checks);
    check_key_info(report, endorsement, checks);
    for (name, version) in [
        ("committed TCB", report.committed_tcb),
        ("launch TCB", report.launch_tcb),
        ("reported TCB", report.reported_tcb),
    ] {
        check_minimum_tcb(
            name,
            &demands.minimum_tcb,
            &version.components(product),
            checks,
        );
    }
    check_mitigations(report, demands.minimum_mitigation_vector, checks);
    check_chip_id(report, &demands.allowed_chip_ids, checks);
    for (field, trusted, found) in [
        (
            "ID_KEY_DIGEST",
            &demands.trusted_id_key_digests,
            &report.id_key_digest,
        ),
        (
            "AUTHOR_KEY_DIGEST",
            &demands.trusted_author_key_digests,
            &report.author_key_digest,
        ),
    ] {
        check_key_digest(field, trusted, found, checks);
    }
    if let Some(endorsement) = endorsement {
        let reported = report.reported_tcb.components(product);
        check_endorsement(report, &reported, product, endorsement, checks);
    }
}

/// Checks that report and certificate are about the same chip, product and TCB, and that the firmware did sign.
pub(super) fn consistency(
    report: &Report,
    endorsement: Option<&EndorsementKey>,
    product: SnpProduct,
    checks: &mut CheckList,
) {
    let product = check_product(report, endorsement, product, checks);
    check_key_info(report, endorsement, checks);
    if let Some(endorsement) = endorsement {
        let reported = report.reported_tcb.components(product);
        check_endorsement(report, &reported, product, endorsement, checks);
    }
}

/// The product that the report itself shows: by CPUID from version 3 on, before that by its certificate. It decides how
/// TCB_VERSIONs are read; when it cannot be told, they are read as the demanded product's.
fn check_product(
    report: &Report,
    endorsement: Option<&EndorsementKey>,
    demanded: SnpProduct,
    checks: &mut CheckList,
) -> SnpProduct {
    let (product, source) = match (report.cpuid, endorsement) {
        (Some(cpuid), _) => (
            tcb::product_of(cpuid),
            format!(
                "CPUID family {:#04x}, model {:#04x}",
                cpuid.family, cpuid.model
            ),
        ),
        (None, Some(key)) => (
            Some(key.product),
            format!("{} certificate", key.kind.name()),
        ),
        (None, None) => {
            // Without a verified chain nothing in a version 2 report tells; the chain's own failure is recorded.
            return demanded;
        }
    };
    let name = product.map_or_else(|| "unknown".to_owned(), |product| product.to_string());
    let passed = product == Some(demanded);
    checks.record(
        "product",
        demanded.to_string(),
        format!("{name} ({source})"),
        passed,
    );
    product.unwrap_or(demanded)
}

fn check_guest_policy(report: &Report, demands: &SnpDemands, checks: &mut CheckList) {
    let (expected, found) = (&demands.guest_policy, &report.guest_policy());
    for (bit, expected, found) in [
        ("SMT", expected.smt, found.smt),
        ("MIGRATE_MA", expected.migrate_ma, found.migrate_ma),
        ("DEBUG", expected.debug, found.debug),
        ("SINGLE_SOCKET", expected.single_socket, found.single_socket),
        ("CXL_ALLOW", expected.cxl_allowed, found.cxl_allowed),
        (
            "MEM_AES_256_XTS",
            expected.mem_aes_256_xts,
            found.mem_aes_256_xts,
        ),
        ("RAPL_DIS", expected.rapl_dis, found.rapl_dis),
        (
            "CIPHERTEXT_HIDING_DRAM",
            expected.ciphertext_hiding_dram,
            found.ciphertext_hiding_dram,
        ),
        (
            "PAGE_SWAP_DISABLE",
            expected.page_swap_disable,
            found.page_swap_disable,
        ),
    ] {
        checks.equal(&format!("guest policy {bit}"), &expected, &found);
    }
    checks.equal(
        "guest policy ABI_MAJOR",
        &expected.abi_major,
        &found.abi_major,
    );
    checks.equal(
        "guest policy ABI_MINOR",
        &expected.abi_minor,
        &found.abi_minor,
    );
    let reserved = report.policy & (POLICY_UNKNOWN_BITS | POLICY_RESERVED_ONE);
    let passed = reserved == POLICY_RESERVED_ONE;
    let expected = format!("{POLICY_RESERVED_ONE:#x} (bit 17 set, all above bit 25 clear)");
    checks.record(
        "guest policy reserved bits",
        expected,
        format!("{reserved:#x}"),
        passed,
    );
}

fn check_platform_info(report: &Report, demands: &SnpDemands, checks: &mut CheckList) {
    let (expected, found) = (&demands.platform_info, &report.platform_info());
    for (bit, expected, found) in [
        ("SMT_EN", expected.smt_enabled, found.smt_enabled),
        ("TSME_EN", expected.tsme_enabled, found.tsme_enabled),
        ("ECC_EN", expected.ecc_enabled, found.ecc_enabled),
        ("RAPL_DIS", expected.rapl_disabled, found.rapl_disabled),
        (
            "CIPHERTEXT_HIDING_DRAM_EN",
            expected.ciphertext_hiding_dram_enabled,
            found.ciphertext_hiding_dram_enabled,
        ),
        (
            "ALIAS_CHECK_COMPLETE",
            expected.alias_check_complete,
            found.alias_check_complete,
        ),
        ("TIO_EN", expected.tio_enabled, found.tio_enabled),
    ] {
        checks.equal(&format!("platform info {bit}"), &expected, &found);
    }
    let unknown = report.platform_info & PLATFORM_INFO_UNKNOWN_BITS;
    checks.record(
        "platform info reserved bits",
        "0x0",
        format!("{unknown:#x}"),
        unknown == 0,
    );
}

fn check_key_info(report: &Report, endorsement: Option<&EndorsementKey>, checks: &mut CheckList) {
    let masked = report.chip_key_masked();
    checks.equal("MASK_CHIP_KEY", &false, &masked);

    let author_key = report.author_key_present();
    let has_digest = report.author_key_digest != [0; 48];
    let describe = |present: bool| if present { "a digest" } else { "zero" };
    let (expected, found) = (describe(author_key), describe(has_digest));
    let field = format!("AUTHOR_KEY_DIGEST (AUTHOR_KEY_EN is {author_key})");
    checks.record(field, expected, found, author_key == has_digest);

    let signing_key = report.signing_key();
    let expected = endorsement.map(|key| match key.kind {
        EndorsementKind::Vcek { .. } => SigningKey::Vcek,
        EndorsementKind::Vlek => SigningKey::Vlek,
    });
    let passed = match expected {
        Some(expected) => expected == signing_key,
        None => matches!(signing_key, SigningKey::Vcek | SigningKey::Vlek),
    };
    let expected = match expected {
        Some(expected) => format!("{expected}, the key in the certificate"),
        None => "VCEK or VLEK".to_owned(),
    };
    checks.record("SIGNING_KEY", expected, signing_key.to_string(), passed);
}

fn check_minimum_tcb(name: &str, minimum: &SnpTcb, found: &SnpTcb, checks: &mut CheckList) {
    for (component, minimum, found) in [
        ("bootloader", minimum.bootloader, found.bootloader),
        ("TEE", minimum.tee, found.tee),
        ("SNP", minimum.snp, found.snp),
        ("microcode", minimum.microcode, found.microcode),
    ] {
        checks.at_least(&format!("{name} {component}"), &minimum, &found);
    }
    if let Some(minimum) = minimum.fmc {
        // A product without FMC reports none, which meets a minimum of 0 and nothing else.
        checks.at_least(
            &format!("{name} FMC"),
            &minimum,
            &found.fmc.unwrap_or_default(),
        );
    }
}

fn check_mitigations(report: &Report, demanded: u64, checks: &mut CheckList) {
    let Some(vectors) = report.mitigations else {
        let found = format!("none (report version {})", report.version);
        let passed = demanded == 0;
        checks.record(
            "mitigation vectors",
            format!("bits {demanded:#x} set"),
            found,
            passed,
        );
        return;
    };
    for (field, found) in [
        ("LAUNCH_MIT_VECTOR", vectors.launch),
        ("CURRENT_MIT_VECTOR", vectors.current),
    ] {
        let passed = found & demanded == demanded;
        checks.record(
            field,
            format!("bits {demanded:#x} set"),
            format!("{found:#x}"),
            passed,
        );
    }
}

fn check_chip_id(report: &Report, allowed: &[[u8; 64]], checks: &mut CheckList) {
    let expected = match allowed {
        [] => "any".to_owned(),
        [chip] => hex::encode(chip),
        chips => format!("one of the {} allowed chips", chips.len()),
    };
    let found = match report.chip_id {
        masked if masked == [0; 64] => "none (masked by the host)".to_owned(),
        chip => hex::encode(chip),
    };
    // A masked CHIP_ID is no identity, even when somebody put 64 zero bytes on the list.
    let listed = report.chip_id != [0; 64] && allowed.contains(&report.chip_id);
    checks.record("CHIP_ID", expected, found, allowed.is_empty() || listed);
}

/// Keys that signed the ID block that the VM was launched with. An empty list demands nothing; a VM without such a key has a
/// digest of zeros, which is on no list.
fn check_key_digest(field: &str, trusted: &[[u8; 48]], found: &[u8; 48], checks: &mut CheckList) {
    let expected = match trusted {
        [] => return,
        [digest] => hex::encode(digest),
        digests => format!("one of the {} trusted keys", digests.len()),
    };
    let absent = *found == [0; 48];
    let shown = match absent {
        true => "none (launched without that key)".to_owned(),
        false => hex::encode(found),
    };
    checks.record(field, expected, shown, !absent && trusted.contains(found));
}

fn check_endorsement(
    report: &Report,
    reported: &SnpTcb,
    product: SnpProduct,
    endorsement: &EndorsementKey,
    checks: &mut CheckList,
) {
    let name = endorsement.kind.name();
    checks.equal(
        &format!("product in the {name} certificate"),
        &product,
        &endorsement.product,
    );
    let field = format!("reported TCB in the {name} certificate");
    checks.equal(&field, reported, &endorsement.tcb);
    if let EndorsementKind::Vcek { hardware_id } = &endorsement.kind {
        let masked = report.chip_id == [0; 64];
        let (start, rest) = report
            .chip_id
            .split_at(hardware_id.len().min(report.chip_id.len()));
        let same = start == hardware_id.as_slice() && rest.iter().all(|byte| *byte == 0);
        let expected = if masked {
            "any (CHIP_ID is masked)".to_owned()
        } else {
            hex::encode(start)
        };
        let found = hex::encode(hardware_id);
        checks.record(
            "hardware id in the VCEK certificate",
            expected,
            found,
            same || masked,
        );
    }
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcek => f.write_str("VCEK"),
            Self::Vlek => f.write_str("VLEK"),
            Self::Other(7) => f.write_str("none (unsigned)"),
            Self::Other(encoding) => write!(f, "reserved encoding {encoding}"),
        }
    }
}
