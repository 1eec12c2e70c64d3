//! Reference values: from the file's JSON to the verifier's demands, and back ([`document`]).

mod document;
mod tdx;

use contrast_attestation::{
    Demands, ReferenceValue, Root,
    appraisal::{SnpDemands, SnpGuestPolicy, SnpMeasurement, SnpPlatformInfo, SnpProduct, SnpTcb},
};

use crate::{
    InsecureReferenceValue, JsonPath, MinimumTcb, ReferenceValues, SnpGuestPolicyDocument,
    SnpPlatformInfoDocument, SnpReferenceValue, problem::Problems, validate::hex_array, vcpus,
    vtpm,
};

const SHA384: &str = "a SHA-384 digest";

pub(crate) fn check(
    values: &ReferenceValues,
    path: &JsonPath,
    problems: &mut Problems,
) -> Vec<ReferenceValue> {
    let mut references = Vec::new();
    for (index, value) in values.snp.iter().enumerate() {
        let path = path.key("snp").index(index);
        let demands = snp_demands(value, &path, problems);
        let vtpm = vtpm::check(value.vtpm.as_ref(), &path.key("VTPM"), problems);
        references.extend(demands.zip(vtpm).map(|(demands, vtpm)| ReferenceValue {
            name: name("snp", index, &value.platform),
            root: Root::Vendor,
            demands: Demands::Snp(demands),
            vtpm,
        }));
    }
    for (index, value) in values.tdx.iter().enumerate() {
        let path = path.key("tdx").index(index);
        let demands = tdx::demands(value, &path, problems);
        let vtpm = vtpm::check(value.vtpm.as_ref(), &path.key("VTPM"), problems);
        references.extend(demands.zip(vtpm).map(|(demands, vtpm)| ReferenceValue {
            name: name("tdx", index, &value.platform),
            root: Root::Vendor,
            demands: Demands::Tdx(demands),
            vtpm,
        }));
    }
    for (index, value) in values.insecure.iter().enumerate() {
        references.extend(insecure(
            value,
            index,
            &path.key("insecure").index(index),
            problems,
        ));
    }
    if values.snp.is_empty() && values.tdx.is_empty() && values.insecure.is_empty() {
        problems.malformed(
            path,
            "expected at least one entry in `snp`, `tdx` or `insecure`; nothing can be attested without one",
        );
    }
    references
}

fn name(list: &str, index: usize, platform: &str) -> String {
    format!("{list}[{index}] {platform}").trim_end().to_owned()
}

fn insecure(
    value: &InsecureReferenceValue,
    index: usize,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<ReferenceValue> {
    let what = "the SHA-256 of a root certificate";
    let sha256 = hex_array(&value.root_sha256, what, &path.key("RootSHA256"), problems);
    let (demands, document, path, platform) = match (&value.snp, &value.tdx) {
        (Some(snp), None) => {
            let path = path.key("snp");
            let demands = snp_demands(snp, &path, problems).map(Demands::Snp);
            (demands, &snp.vtpm, path, &snp.platform)
        }
        (None, Some(tdx)) => {
            let path = path.key("tdx");
            let demands = tdx::demands(tdx, &path, problems).map(Demands::Tdx);
            (demands, &tdx.vtpm, path, &tdx.platform)
        }
        (snp, _) => {
            let found = if snp.is_some() { "both" } else { "neither" };
            problems.malformed(
                path,
                format!("expected exactly one of `snp` and `tdx`, found {found}"),
            );
            return None;
        }
    };
    let vtpm = vtpm::check(document.as_ref(), &path.key("VTPM"), problems);
    Some(ReferenceValue {
        name: name("insecure", index, platform),
        root: Root::Insecure { sha256: sha256? },
        demands: demands?,
        vtpm: vtpm?,
    })
}

fn snp_demands(
    value: &SnpReferenceValue,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<SnpDemands> {
    let product = match value.product_name.as_str() {
        "Milan" => Some(SnpProduct::Milan),
        "Genoa" => Some(SnpProduct::Genoa),
        "Turin" => Some(SnpProduct::Turin),
        other => {
            let message = format!("expected Milan, Genoa or Turin, found `{other}`");
            problems.malformed(&path.key("ProductName"), message);
            None
        }
    };
    let measurement = measurement(value, path, problems);
    let minimum_tcb = tcb(
        &value.minimum_tcb,
        product,
        &path.key("MinimumTCB"),
        problems,
    );
    let guest_policy = guest_policy(
        value.guest_policy.as_ref(),
        &path.key("GuestPolicy"),
        problems,
    );
    let platform_info = match &value.platform_info {
        Some(info) => Some(SnpPlatformInfo::from(info)),
        None => {
            problems.fill_in(
                &path.key("PlatformInfo"),
                "missing; say what the platform must report",
            );
            None
        }
    };
    let allowed_chip_ids = list(
        &value.allowed_chip_ids,
        "a chip id",
        &path.key("AllowedChipIDs"),
        problems,
    );
    let trusted_id_key_digests = key_digests(
        &value.trusted_id_key_digests,
        &path.key("TrustedIDKeyDigests"),
        problems,
    );
    let trusted_author_key_digests = key_digests(
        &value.trusted_author_key_digests,
        &path.key("TrustedAuthorKeyDigests"),
        problems,
    );
    Some(SnpDemands {
        product: product?,
        measurement: measurement?,
        minimum_tcb: minimum_tcb?,
        guest_policy: guest_policy?,
        platform_info: platform_info?,
        minimum_mitigation_vector: value.minimum_mitigation_vector,
        allowed_chip_ids: allowed_chip_ids?,
        trusted_id_key_digests: trusted_id_key_digests?,
        trusted_author_key_digests: trusted_author_key_digests?,
    })
}

/// Exactly one of the two fields says it.
fn measurement(
    value: &SnpReferenceValue,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<SnpMeasurement> {
    let one = value.trusted_measurement.as_deref().unwrap_or_default();
    let one_path = path.key("TrustedMeasurement");
    let many = &value.trusted_measurements;
    let many_path = path.key("TrustedMeasurements");
    match (one.is_empty(), many.is_empty()) {
        (true, true) => {
            problems.fill_in(
                &one_path,
                "missing; fill in 96 hex digits, or in its place `TrustedMeasurements` with such a digest for each number of vCPUs",
            );
            None
        }
        (false, true) => hex_array(one, SHA384, &one_path, problems).map(SnpMeasurement::Any),
        (true, false) => {
            let accepted = vcpus::measurements(many, &many_path, problems);
            if value.vtpm.is_some() {
                problems.malformed(
                    &many_path,
                    "expected `TrustedMeasurement` beside `VTPM`; the hardware's report does not name the policy of such guests, so it \
                     does not say how many vCPUs they should have",
                );
                return None;
            }
            accepted.map(SnpMeasurement::ByVcpus)
        }
        (false, false) => {
            problems.malformed(
                &many_path,
                "expected exactly one of `TrustedMeasurement` and `TrustedMeasurements`, found both; keep the first when all VMs have the same \
                 number of vCPUs, else the second",
            );
            None
        }
    }
}

fn tcb(
    tcb: &MinimumTcb,
    product: Option<SnpProduct>,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<SnpTcb> {
    let mut part = |number: Option<i64>, field: &str| match number {
        Some(number) => byte(number, &path.key(field), problems),
        None => {
            problems.fill_in(
                &path.key(field),
                "missing; fill in the lowest version, 0 to 255, that you accept on your machines",
            );
            None
        }
    };
    let bootloader = part(tcb.bootloader, "BootloaderVersion");
    let tee = part(tcb.tee, "TEEVersion");
    let snp = part(tcb.snp, "SNPVersion");
    let microcode = part(tcb.microcode, "MicrocodeVersion");
    let fmc = match (product, tcb.fmc) {
        (Some(SnpProduct::Turin), number) => Some(Some(part(number, "FMCVersion")?)),
        (_, None) => Some(None),
        (Some(other), Some(_)) => {
            let message = format!("only Turin has an FMC version; remove it for {other}");
            problems.malformed(&path.key("FMCVersion"), message);
            None
        }
        (None, Some(_)) => None,
    };
    Some(SnpTcb {
        bootloader: bootloader?,
        tee: tee?,
        snp: snp?,
        microcode: microcode?,
        fmc: fmc?,
    })
}

fn guest_policy(
    policy: Option<&SnpGuestPolicyDocument>,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<SnpGuestPolicy> {
    let Some(policy) = policy else {
        problems.fill_in(path, "missing; say which guest policy the report must show");
        return None;
    };
    if policy.debug {
        problems.malformed(
            &path.key("Debug"),
            "expected false, found true; the host can read the memory of a guest that allows debugging",
        );
    }
    if policy.migrate_ma {
        problems.malformed(
            &path.key("MigrateMA"),
            "expected false, found true; a migration agent of the host's choice could take the guest's memory",
        );
    }
    let abi_minor = byte(policy.abi_minor, &path.key("ABIMinor"), problems);
    let abi_major = byte(policy.abi_major, &path.key("ABIMajor"), problems);
    Some(SnpGuestPolicy {
        abi_minor: abi_minor?,
        abi_major: abi_major?,
        smt: policy.smt,
        migrate_ma: policy.migrate_ma,
        debug: policy.debug,
        single_socket: policy.single_socket,
        cxl_allowed: policy.cxl_allowed,
        mem_aes_256_xts: policy.mem_aes_256_xts,
        rapl_dis: policy.rapl_dis,
        ciphertext_hiding_dram: policy.ciphertext_hiding_dram,
        page_swap_disable: policy.page_swap_disable,
    })
}

/// SHA-384 digests of keys. Zero is what a report shows when there is no key, so it stands for none.
fn key_digests(
    texts: &[String],
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<Vec<[u8; 48]>> {
    let digests: Vec<[u8; 48]> = list(texts, SHA384, path, problems)?;
    let zero = digests.iter().position(|digest| *digest == [0; 48]);
    if let Some(index) = zero {
        problems.malformed(
            &path.index(index),
            "expected the digest of a key, found zeros; a report shows them when there is no key",
        );
        return None;
    }
    Some(digests)
}

fn digest(text: &str, path: &JsonPath, problems: &mut Problems) -> Option<[u8; 48]> {
    if text.is_empty() {
        problems.fill_in(path, "missing; fill in 96 hex digits");
        return None;
    }
    hex_array(text, SHA384, path, problems)
}

/// All entries, or none when one is wrong.
fn list<const N: usize>(
    texts: &[String],
    what: &str,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<Vec<[u8; N]>> {
    let entries: Vec<Option<[u8; N]>> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| hex_array(text, what, &path.index(index), problems))
        .collect();
    entries.into_iter().collect()
}

fn byte(number: i64, path: &JsonPath, problems: &mut Problems) -> Option<u8> {
    let byte = u8::try_from(number).ok();
    if byte.is_none() {
        problems.malformed(
            path,
            format!("expected a number from 0 to 255, found {number}"),
        );
    }
    byte
}

impl From<&SnpPlatformInfoDocument> for SnpPlatformInfo {
    fn from(info: &SnpPlatformInfoDocument) -> Self {
        Self {
            smt_enabled: info.smt_enabled,
            tsme_enabled: info.tsme_enabled,
            ecc_enabled: info.ecc_enabled,
            rapl_disabled: info.rapl_disabled,
            ciphertext_hiding_dram_enabled: info.ciphertext_hiding_dram_enabled,
            alias_check_complete: info.alias_check_complete,
            tio_enabled: info.tio_enabled,
        }
    }
}
