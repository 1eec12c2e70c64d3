//! The attestation report's bytes.
//!
//! Offsets are those of table ATTESTATION_REPORT in AMD publication 56860, "SEV Secure Nested Paging Firmware ABI
//! Specification", revision 1.58. All integers are little-endian. Bytes that the table reserves are not interpreted; they
//! are covered by the signature.

use crate::appraisal::{SnpGuestPolicy, SnpPlatformInfo, SnpProduct};

use super::tcb::TcbVersion;

/// Size of an attestation report in bytes, signature included.
pub const REPORT_BYTES: usize = 1184;
/// The first bytes of a report, which its signature covers.
pub(crate) const SIGNED_BYTES: usize = 0x2A0;
/// Width of R and of S in the signature; P-384 fills the first 48 bytes of each.
pub(super) const SCALAR_FIELD_BYTES: usize = 72;
/// SIGNATURE_ALGO of ECDSA P-384 with SHA-384, the only one that is defined.
pub(crate) const ECDSA_P384_SHA384: u32 = 1;
/// First report version with CPUID fields.
pub(crate) const VERSION_WITH_CPUID: u32 = 3;
/// First report version with mitigation vectors.
pub(crate) const VERSION_WITH_MITIGATIONS: u32 = 5;

const VERSION_MIN: u32 = 2;
const VERSION_MAX: u32 = 5;

/// A parsed attestation report. Parsing checks sizes and the version, nothing else: no field is trusted before the
/// signature and its certificates are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// VERSION, 0x000: 2 to 5.
    pub version: u32,
    /// GUEST_SVN, 0x004.
    pub guest_svn: u32,
    /// POLICY, 0x008: bit field, see [`Report::guest_policy`].
    pub policy: u64,
    /// FAMILY_ID, 0x010.
    pub family_id: [u8; 16],
    /// IMAGE_ID, 0x020.
    pub image_id: [u8; 16],
    /// VMPL, 0x030: privilege level of the code that asked for the report; 0 is the highest.
    pub vmpl: u32,
    /// SIGNATURE_ALGO, 0x034.
    pub signature_algo: u32,
    /// CURRENT_TCB, 0x038.
    pub current_tcb: TcbVersion,
    /// PLATFORM_INFO, 0x040: bit field, see [`Report::platform_info`].
    pub platform_info: u64,
    /// KEY_INFO, 0x048: bit field of AUTHOR_KEY_EN, MASK_CHIP_KEY and SIGNING_KEY.
    pub key_info: u32,
    /// REPORT_DATA, 0x050.
    pub report_data: [u8; 64],
    /// MEASUREMENT, 0x090: SHA-384 of the launched guest.
    pub measurement: [u8; 48],
    /// HOST_DATA, 0x0C0: what the host passed at launch; here the policy hash.
    pub host_data: [u8; 32],
    /// ID_KEY_DIGEST, 0x0E0.
    pub id_key_digest: [u8; 48],
    /// AUTHOR_KEY_DIGEST, 0x110.
    pub author_key_digest: [u8; 48],
    /// REPORT_ID, 0x140.
    pub report_id: [u8; 32],
    /// REPORT_ID_MA, 0x160.
    pub report_id_ma: [u8; 32],
    /// REPORTED_TCB, 0x180: the TCB that the signing key was derived from.
    pub reported_tcb: TcbVersion,
    /// CPUID_FAM_ID, CPUID_MOD_ID, CPUID_STEP, 0x188: from version 3 on.
    pub cpuid: Option<Cpuid>,
    /// CHIP_ID, 0x1A0: zero when the platform masks it; Turin fills only the first 8 bytes.
    pub chip_id: [u8; 64],
    /// COMMITTED_TCB, 0x1E0: the firmware cannot be rolled back below it.
    pub committed_tcb: TcbVersion,
    /// CURRENT_BUILD, CURRENT_MINOR, CURRENT_MAJOR, 0x1E8.
    pub current_firmware: FirmwareVersion,
    /// COMMITTED_BUILD, COMMITTED_MINOR, COMMITTED_MAJOR, 0x1EC.
    pub committed_firmware: FirmwareVersion,
    /// LAUNCH_TCB, 0x1F0: the current TCB when the guest was launched.
    pub launch_tcb: TcbVersion,
    /// LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR, 0x1F8: from version 5 on.
    pub mitigations: Option<MitigationVectors>,
    /// SIGNATURE, 0x2A0: R (72 bytes), S (72 bytes), both little-endian, then zeros.
    pub signature: [u8; 512],
}

/// Family, model and stepping of the processor, with the extended family and model added in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpuid {
    /// CPUID_FAM_ID.
    pub family: u8,
    /// CPUID_MOD_ID.
    pub model: u8,
    /// CPUID_STEP.
    pub stepping: u8,
}

/// Version of the SNP firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FirmwareVersion {
    /// Build number.
    pub build: u8,
    /// Minor version of the ABI.
    pub minor: u8,
    /// Major version of the ABI.
    pub major: u8,
}

/// Bit vectors of the vulnerabilities that the firmware has verified mitigations for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MitigationVectors {
    /// LAUNCH_MIT_VECTOR: CURRENT_MIT_VECTOR when the guest was launched.
    pub launch: u64,
    /// CURRENT_MIT_VECTOR.
    pub current: u64,
}

/// The key that signed a report (KEY_INFO bits 4 to 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningKey {
    /// Versioned chip endorsement key: one chip at one TCB.
    Vcek,
    /// Versioned loaded endorsement key: one cloud provider at one TCB.
    Vlek,
    /// Another encoding; 7 means that the report is unsigned.
    Other(u8),
}

/// Bytes that are no attestation report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportFormatError {
    /// The wrong number of bytes.
    #[error("an attestation report has {REPORT_BYTES} bytes, found {found}")]
    Size {
        /// Size found, in bytes.
        found: usize,
    },
    /// A version whose layout is unknown.
    #[error("this version reads report versions {VERSION_MIN} to {VERSION_MAX}, found {found}")]
    Version {
        /// VERSION.
        found: u32,
    },
}

impl Report {
    /// Reads a report of version 2 to 5.
    ///
    /// # Errors
    /// When `bytes` has not exactly [`REPORT_BYTES`] bytes or VERSION is unknown.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportFormatError> {
        if bytes.len() != REPORT_BYTES {
            return Err(ReportFormatError::Size { found: bytes.len() });
        }
        let report = Fields(bytes);
        let version = report.u32(0x000)?;
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(ReportFormatError::Version { found: version });
        }
        Ok(Self {
            version,
            guest_svn: report.u32(0x004)?,
            policy: report.u64(0x008)?,
            family_id: report.bytes(0x010)?,
            image_id: report.bytes(0x020)?,
            vmpl: report.u32(0x030)?,
            signature_algo: report.u32(0x034)?,
            current_tcb: report.tcb(0x038)?,
            platform_info: report.u64(0x040)?,
            key_info: report.u32(0x048)?,
            report_data: report.bytes(0x050)?,
            measurement: report.bytes(0x090)?,
            host_data: report.bytes(0x0C0)?,
            id_key_digest: report.bytes(0x0E0)?,
            author_key_digest: report.bytes(0x110)?,
            report_id: report.bytes(0x140)?,
            report_id_ma: report.bytes(0x160)?,
            reported_tcb: report.tcb(0x180)?,
            cpuid: match version {
                VERSION_WITH_CPUID.. => Some(report.cpuid(0x188)?),
                _ => None,
            },
            chip_id: report.bytes(0x1A0)?,
            committed_tcb: report.tcb(0x1E0)?,
            current_firmware: report.firmware(0x1E8)?,
            committed_firmware: report.firmware(0x1EC)?,
            launch_tcb: report.tcb(0x1F0)?,
            mitigations: match version {
                VERSION_WITH_MITIGATIONS.. => Some(MitigationVectors {
                    launch: report.u64(0x1F8)?,
                    current: report.u64(0x200)?,
                }),
                _ => None,
            },
            signature: report.bytes(0x2A0)?,
        })
    }

    /// Writes the report's bytes, reserved ones as zero; the inverse of [`Report::parse`].
    #[cfg(any(test, all(feature = "software-tee", not(target_arch = "wasm32"))))]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(REPORT_BYTES);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.guest_svn.to_le_bytes());
        bytes.extend(self.policy.to_le_bytes());
        bytes.extend(self.family_id);
        bytes.extend(self.image_id);
        bytes.extend(self.vmpl.to_le_bytes());
        bytes.extend(self.signature_algo.to_le_bytes());
        bytes.extend(self.current_tcb.0.to_le_bytes());
        bytes.extend(self.platform_info.to_le_bytes());
        bytes.extend(self.key_info.to_le_bytes());
        bytes.resize(0x050, 0);
        bytes.extend(self.report_data);
        bytes.extend(self.measurement);
        bytes.extend(self.host_data);
        bytes.extend(self.id_key_digest);
        bytes.extend(self.author_key_digest);
        bytes.extend(self.report_id);
        bytes.extend(self.report_id_ma);
        bytes.extend(self.reported_tcb.0.to_le_bytes());
        if let Some(Cpuid {
            family,
            model,
            stepping,
        }) = self.cpuid
        {
            bytes.extend([family, model, stepping]);
        }
        bytes.resize(0x1A0, 0);
        bytes.extend(self.chip_id);
        bytes.extend(self.committed_tcb.0.to_le_bytes());
        for FirmwareVersion {
            build,
            minor,
            major,
        } in [self.current_firmware, self.committed_firmware]
        {
            bytes.extend([build, minor, major, 0]);
        }
        bytes.extend(self.launch_tcb.0.to_le_bytes());
        if let Some(MitigationVectors { launch, current }) = self.mitigations {
            bytes.extend(launch.to_le_bytes());
            bytes.extend(current.to_le_bytes());
        }
        bytes.resize(SIGNED_BYTES, 0);
        bytes.extend(self.signature);
        bytes
    }

    /// POLICY, bit by bit (table "Guest Policy Structure").
    pub fn guest_policy(&self) -> SnpGuestPolicy {
        let [abi_minor, abi_major, ..] = self.policy.to_le_bytes();
        let bit = |position: u32| bit_of(self.policy, position);
        SnpGuestPolicy {
            abi_minor,
            abi_major,
            smt: bit(16),
            migrate_ma: bit(18),
            debug: bit(19),
            single_socket: bit(20),
            cxl_allowed: bit(21),
            mem_aes_256_xts: bit(22),
            rapl_dis: bit(23),
            ciphertext_hiding_dram: bit(24),
            page_swap_disable: bit(25),
        }
    }

    /// PLATFORM_INFO, bit by bit (table ATTESTATION_REPORT, field PLATFORM_INFO).
    pub fn platform_info(&self) -> SnpPlatformInfo {
        let bit = |position: u32| bit_of(self.platform_info, position);
        SnpPlatformInfo {
            smt_enabled: bit(0),
            tsme_enabled: bit(1),
            ecc_enabled: bit(2),
            rapl_disabled: bit(3),
            ciphertext_hiding_dram_enabled: bit(4),
            alias_check_complete: bit(5),
            tio_enabled: bit(7),
        }
    }

    /// The product line by the CPUID fields; none before version 3 and for processors that are none of them.
    pub fn product(&self) -> Option<SnpProduct> {
        self.cpuid.and_then(super::tcb::product_of)
    }

    /// KEY_INFO bit 0, AUTHOR_KEY_EN: AUTHOR_KEY_DIGEST holds a digest.
    pub fn author_key_present(&self) -> bool {
        bit_of(self.key_info.into(), 0)
    }

    /// KEY_INFO bit 1, MASK_CHIP_KEY: the firmware was told not to sign.
    pub fn chip_key_masked(&self) -> bool {
        bit_of(self.key_info.into(), 1)
    }

    /// KEY_INFO bits 4 to 2, SIGNING_KEY.
    pub fn signing_key(&self) -> SigningKey {
        let [byte, ..] = self.key_info.to_le_bytes();
        match (byte >> 2) & 0b111 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            other => SigningKey::Other(other),
        }
    }
}

/// Bits of POLICY that no field of [`SnpGuestPolicy`] stands for: everything above bit 25.
pub(super) const POLICY_UNKNOWN_BITS: u64 = !0 << 26;
/// Bit 17 of POLICY, which the specification demands to be 1.
pub(super) const POLICY_RESERVED_ONE: u64 = 1 << 17;
/// Bits of PLATFORM_INFO that no field of [`SnpPlatformInfo`] stands for: bit 6 and everything above bit 7.
pub(super) const PLATFORM_INFO_UNKNOWN_BITS: u64 = !0 << 8 | 1 << 6;

/// The inverse of [`Report::guest_policy`]; reserved bit 17 is set, as the specification demands.
#[cfg(any(test, all(feature = "software-tee", not(target_arch = "wasm32"))))]
pub(crate) fn encode_guest_policy(policy: &SnpGuestPolicy) -> u64 {
    let bit = |set: bool, position: u32| u64::from(set) << position;
    u64::from(policy.abi_minor)
        | u64::from(policy.abi_major) << 8
        | bit(policy.smt, 16)
        | POLICY_RESERVED_ONE
        | bit(policy.migrate_ma, 18)
        | bit(policy.debug, 19)
        | bit(policy.single_socket, 20)
        | bit(policy.cxl_allowed, 21)
        | bit(policy.mem_aes_256_xts, 22)
        | bit(policy.rapl_dis, 23)
        | bit(policy.ciphertext_hiding_dram, 24)
        | bit(policy.page_swap_disable, 25)
}

/// The inverse of [`Report::platform_info`].
#[cfg(any(test, all(feature = "software-tee", not(target_arch = "wasm32"))))]
pub(crate) fn encode_platform_info(info: &SnpPlatformInfo) -> u64 {
    let bit = |set: bool, position: u32| u64::from(set) << position;
    bit(info.smt_enabled, 0)
        | bit(info.tsme_enabled, 1)
        | bit(info.ecc_enabled, 2)
        | bit(info.rapl_disabled, 3)
        | bit(info.ciphertext_hiding_dram_enabled, 4)
        | bit(info.alias_check_complete, 5)
        | bit(info.tio_enabled, 7)
}

/// Reads fields at fixed offsets; a field beyond the end is an error, never a panic.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Result<[u8; N], ReportFormatError> {
        self.0
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .ok_or(ReportFormatError::Size {
                found: self.0.len(),
            })
    }

    fn u32(&self, offset: usize) -> Result<u32, ReportFormatError> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, ReportFormatError> {
        self.bytes(offset).map(u64::from_le_bytes)
    }

    fn tcb(&self, offset: usize) -> Result<TcbVersion, ReportFormatError> {
        self.u64(offset).map(TcbVersion)
    }

    fn cpuid(&self, offset: usize) -> Result<Cpuid, ReportFormatError> {
        self.bytes(offset).map(|[family, model, stepping]| Cpuid {
            family,
            model,
            stepping,
        })
    }

    fn firmware(&self, offset: usize) -> Result<FirmwareVersion, ReportFormatError> {
        self.bytes(offset)
            .map(|[build, minor, major]| FirmwareVersion {
                build,
                minor,
                major,
            })
    }
}

fn bit_of(word: u64, position: u32) -> bool {
    word.checked_shr(position)
        .is_some_and(|shifted| shifted & 1 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parser_never_panics_and_refuses_every_other_size(
            bytes in proptest::collection::vec(any::<u8>(), 0..2 * REPORT_BYTES),
        ) {
            let outcome = Report::parse(&bytes);
            prop_assert!(bytes.len() == REPORT_BYTES || outcome.is_err());
        }

        #[test]
        fn any_content_of_a_known_version_survives_parse_encode_parse(
            version in VERSION_MIN..=VERSION_MAX,
            mut bytes in proptest::collection::vec(any::<u8>(), REPORT_BYTES),
        ) {
            bytes[..4].copy_from_slice(&version.to_le_bytes());
            let report = Report::parse(&bytes).expect("right size and version");
            prop_assert_eq!(report.cpuid.is_some(), version >= 3);
            prop_assert_eq!(report.mitigations.is_some(), version >= 5);
            let encoded = report.encode();
            prop_assert_eq!(encoded.len(), REPORT_BYTES);
            prop_assert_eq!(Report::parse(&encoded).expect("own encoding"), report);
        }

        #[test]
        fn known_bits_survive_and_unknown_bits_are_covered_by_the_masks(word in any::<u64>()) {
            let mut report = Report::parse(&versioned(2)).expect("parses");
            report.policy = word;
            report.platform_info = word;
            let policy = encode_guest_policy(&report.guest_policy());
            prop_assert_eq!(policy, (word | POLICY_RESERVED_ONE) & !POLICY_UNKNOWN_BITS);
            let info = encode_platform_info(&report.platform_info());
            prop_assert_eq!(info, word & !PLATFORM_INFO_UNKNOWN_BITS);
        }
    }

    #[test]
    fn truncation_at_every_length_is_an_error() {
        let bytes = versioned(3);
        for length in 0..REPORT_BYTES {
            let error = Report::parse(&bytes[..length]).expect_err("truncated");
            assert_eq!(error, ReportFormatError::Size { found: length });
        }
    }

    #[test]
    fn unknown_versions_are_named() {
        for found in [0, 1, 6, u32::MAX] {
            let error = Report::parse(&versioned(found)).expect_err("unknown version");
            assert_eq!(error, ReportFormatError::Version { found });
        }
    }

    fn versioned(version: u32) -> Vec<u8> {
        let mut bytes = vec![0; REPORT_BYTES];
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        bytes
    }
}
