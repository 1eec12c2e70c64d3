//! The file's form of a verifier's demands.

use std::{collections::BTreeMap, iter};

use contrast_attestation::{
    Demands, ReferenceValue, Root,
    appraisal::{
        SnpDemands, SnpGuestPolicy, SnpMeasurement, SnpPlatformInfo, TdxDemands, TdxTcbStatus,
    },
};

use crate::{
    InsecureReferenceValue, MinimumTcb, ReferenceValues, SnpGuestPolicyDocument,
    SnpPlatformInfoDocument, SnpReferenceValue, TdxReferenceValue, vcpus,
};

impl From<&SnpPlatformInfo> for SnpPlatformInfoDocument {
    fn from(info: &SnpPlatformInfo) -> Self {
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

impl From<&SnpGuestPolicy> for SnpGuestPolicyDocument {
    fn from(policy: &SnpGuestPolicy) -> Self {
        Self {
            abi_minor: policy.abi_minor.into(),
            abi_major: policy.abi_major.into(),
            smt: policy.smt,
            migrate_ma: policy.migrate_ma,
            debug: policy.debug,
            single_socket: policy.single_socket,
            cxl_allowed: policy.cxl_allowed,
            mem_aes_256_xts: policy.mem_aes_256_xts,
            rapl_dis: policy.rapl_dis,
            ciphertext_hiding_dram: policy.ciphertext_hiding_dram,
            page_swap_disable: policy.page_swap_disable,
        }
    }
}

impl From<&SnpDemands> for SnpReferenceValue {
    /// The file's form of `demands`, without a platform name and without a virtual TPM.
    fn from(demands: &SnpDemands) -> Self {
        let tcb = &demands.minimum_tcb;
        Self {
            platform: String::new(),
            product_name: demands.product.to_string(),
            trusted_measurement: match &demands.measurement {
                SnpMeasurement::Any(measurement) => Some(hex::encode(measurement)),
                SnpMeasurement::ByVcpus(_) => None,
            },
            trusted_measurements: match &demands.measurement {
                SnpMeasurement::Any(_) => BTreeMap::new(),
                SnpMeasurement::ByVcpus(accepted) => vcpus::document(accepted),
            },
            minimum_tcb: MinimumTcb {
                bootloader: Some(tcb.bootloader.into()),
                tee: Some(tcb.tee.into()),
                snp: Some(tcb.snp.into()),
                microcode: Some(tcb.microcode.into()),
                fmc: tcb.fmc.map(Into::into),
            },
            guest_policy: Some((&demands.guest_policy).into()),
            platform_info: Some((&demands.platform_info).into()),
            minimum_mitigation_vector: demands.minimum_mitigation_vector,
            allowed_chip_ids: demands.allowed_chip_ids.iter().map(hex::encode).collect(),
            trusted_id_key_digests: hex_all(&demands.trusted_id_key_digests),
            trusted_author_key_digests: hex_all(&demands.trusted_author_key_digests),
            vtpm: None,
        }
    }
}

impl From<&TdxDemands> for TdxReferenceValue {
    /// The file's form of `demands`, without a platform name and without a virtual TPM.
    fn from(demands: &TdxDemands) -> Self {
        Self {
            platform: String::new(),
            mr_td: hex::encode(demands.mr_td),
            mr_seam: hex::encode(demands.mr_seam),
            rtmrs: match demands.rtmr0_by_vcpus.is_empty() {
                true => hex_all(&demands.rtmrs),
                false => {
                    let [_, others @ ..] = &demands.rtmrs;
                    let others = others.iter().map(hex::encode);
                    iter::once(String::new()).chain(others).collect()
                }
            },
            rtmr0_alternatives: hex_all(&demands.rtmr0_alternatives),
            rtmr0_by_vcpus: vcpus::document(&demands.rtmr0_by_vcpus),
            xfam: hex::encode(demands.xfam),
            allowed_piids: demands.allowed_piids.iter().map(hex::encode).collect(),
            memory_integrity: demands.memory_integrity,
            smt_disabled: demands.smt_disabled,
            static_platform: demands.static_platform,
            min_tcb_evaluation_data_number: demands.min_tcb_evaluation_data_number.into(),
            mr_owner: hex_unless_zero(&demands.mr_owner),
            mr_owner_config: hex_unless_zero(&demands.mr_owner_config),
            accepted_tcb_status: match demands.tcb_policy.accepted.is_empty() {
                true => Vec::new(),
                false => TdxTcbStatus::ALL
                    .into_iter()
                    .filter(|status| demands.tcb_policy.accepts(*status))
                    .map(|status| status.name().to_owned())
                    .collect(),
            },
            platform_grace_period_days: match demands.tcb_policy.platform_grace_period_days {
                0 => None,
                days => Some(days.into()),
            },
            vtpm: None,
        }
    }
}

fn hex_all(digests: &[[u8; 48]]) -> Vec<String> {
    digests.iter().map(hex::encode).collect()
}

fn hex_unless_zero(value: &[u8; 48]) -> String {
    match *value == [0; 48] {
        true => String::new(),
        false => hex::encode(value),
    }
}

impl ReferenceValues {
    /// Appends the file's form of a verifier's reference value to the list that it belongs to. `platform` is the display
    /// name that the file shows.
    pub fn push(&mut self, reference: &ReferenceValue, platform: &str) {
        let platform = platform.to_owned();
        let vtpm = reference.vtpm.as_ref().map(Into::into);
        match (&reference.demands, reference.root) {
            (Demands::Snp(demands), Root::Vendor) => {
                self.snp.push(SnpReferenceValue {
                    platform,
                    vtpm,
                    ..demands.into()
                });
            }
            (Demands::Tdx(demands), Root::Vendor) => {
                self.tdx.push(TdxReferenceValue {
                    platform,
                    vtpm,
                    ..demands.into()
                });
            }
            (Demands::Snp(demands), Root::Insecure { sha256 }) => {
                self.insecure.push(InsecureReferenceValue {
                    root_sha256: hex::encode(sha256),
                    snp: Some(SnpReferenceValue {
                        platform,
                        vtpm,
                        ..demands.into()
                    }),
                    tdx: None,
                });
            }
            (Demands::Tdx(demands), Root::Insecure { sha256 }) => {
                self.insecure.push(InsecureReferenceValue {
                    root_sha256: hex::encode(sha256),
                    snp: None,
                    tdx: Some(TdxReferenceValue {
                        platform,
                        vtpm,
                        ..demands.into()
                    }),
                });
            }
        }
    }
}
