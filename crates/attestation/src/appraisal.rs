//! Reference values: what evidence is compared with.
//!
//! These are the verifier's own types; `contrast-manifest` makes them from `manifest.json`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::Tee;

/// Everything that one kind of platform must show to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceValue {
    /// Name for reports, for example `snp[0] Metal-QEMU-SNP`.
    pub name: String,
    /// The root that evidence must chain to.
    pub root: Root,
    /// What the signed evidence must say.
    pub demands: Demands,
    /// What the guest's virtual TPM must say. With it, only evidence that comes through a vTPM is accepted; without, only evidence
    /// that comes from the hardware itself.
    pub vtpm: Option<VtpmDemands>,
}

/// What a TPM quote must show, beside the policy in PCR 8.
///
/// The hardware's report measures the paravisor alone, which starts whatever the host gives it. The PCRs are what pins the guest:
/// without PCR 4, which measures the boot loader or unified kernel image, any guest could claim any policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VtpmDemands {
    /// Values of SHA-256 PCRs by index. PCR 8 is never among them: its value follows from the policies.
    pub pcrs: BTreeMap<u8, [u8; 32]>,
}

/// Trust anchor of a reference value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The CPU vendor's pinned root: AMD's ARK of the demanded product, or Intel's SGX root CA.
    Vendor,
    /// The root of one software TEE: SHA-256 of its root certificate's DER. Accepting it means that whoever holds that
    /// root's key can impersonate every workload.
    Insecure {
        /// SHA-256 of the root certificate's DER.
        sha256: [u8; 32],
    },
}

/// The demands of one reference value, by TEE.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a manifest has a handful of them"
)]
pub enum Demands {
    /// AMD SEV-SNP.
    Snp(SnpDemands),
    /// Intel TDX.
    Tdx(TdxDemands),
}

impl Demands {
    /// The TEE whose evidence can meet them.
    pub fn tee(&self) -> Tee {
        match self {
            Self::Snp(_) => Tee::Snp,
            Self::Tdx(_) => Tee::Tdx,
        }
    }
}

/// AMD product line; each has its own root and certificate chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SnpProduct {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 (also Bergamo and Siena).
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl fmt::Display for SnpProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        })
    }
}

/// Security version numbers of one TCB_VERSION; higher is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnpTcb {
    /// Bootloader.
    pub bootloader: u8,
    /// PSP operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode of all cores.
    pub microcode: u8,
    /// FMC firmware; only Turin reports one.
    pub fmc: Option<u8>,
}

impl fmt::Display for SnpTcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bootloader,
            tee,
            snp,
            microcode,
            fmc,
        } = self;
        write!(
            f,
            "bootloader {bootloader}, TEE {tee}, SNP {snp}, microcode {microcode}"
        )?;
        fmc.map_or(Ok(()), |fmc| write!(f, ", FMC {fmc}"))
    }
}

/// Guest policy that the report must show, bit by bit (SNP firmware ABI, table "Guest Policy").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnpGuestPolicy {
    /// Minimum ABI minor version that the guest demands of the firmware.
    pub abi_minor: u8,
    /// Minimum ABI major version.
    pub abi_major: u8,
    /// Bit 16: SMT may be on.
    pub smt: bool,
    /// Bit 18: association with a migration agent allowed.
    pub migrate_ma: bool,
    /// Bit 19: debugging allowed.
    pub debug: bool,
    /// Bit 20: only one socket.
    pub single_socket: bool,
    /// Bit 21: CXL devices and memory allowed.
    pub cxl_allowed: bool,
    /// Bit 22: AES-256-XTS memory encryption demanded.
    pub mem_aes_256_xts: bool,
    /// Bit 23: RAPL must be off.
    pub rapl_dis: bool,
    /// Bit 24: ciphertext hiding for DRAM demanded.
    pub ciphertext_hiding_dram: bool,
    /// Bit 25: page swap disabled.
    pub page_swap_disable: bool,
}

/// PLATFORM_INFO that the report must show, bit by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnpPlatformInfo {
    /// Bit 0.
    pub smt_enabled: bool,
    /// Bit 1.
    pub tsme_enabled: bool,
    /// Bit 2.
    pub ecc_enabled: bool,
    /// Bit 3.
    pub rapl_disabled: bool,
    /// Bit 4.
    pub ciphertext_hiding_dram_enabled: bool,
    /// Bit 5.
    pub alias_check_complete: bool,
    /// Bit 7.
    pub tio_enabled: bool,
}

/// Which launch measurements are accepted. A digest of SEV-SNP depends on how many vCPUs the VM was launched with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnpMeasurement {
    /// This one, whatever the number of vCPUs. SHA-384.
    Any([u8; 48]),
    /// One for each number of vCPUs. Of a policy with a number (see [`crate::Verifier::with_vcpus`]) the one for exactly that
    /// number is accepted, of other policies each of them.
    ByVcpus(ByVcpus),
}

/// Measurements (SHA-384) by the number of a VM's vCPUs.
pub type ByVcpus = BTreeMap<u32, [u8; 48]>;

/// What an SEV-SNP report must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpDemands {
    /// Product line.
    pub product: SnpProduct,
    /// MEASUREMENT.
    pub measurement: SnpMeasurement,
    /// Lower bound of committed, launch and reported TCB.
    pub minimum_tcb: SnpTcb,
    /// Guest policy, compared bit by bit.
    pub guest_policy: SnpGuestPolicy,
    /// Platform info, compared bit by bit.
    pub platform_info: SnpPlatformInfo,
    /// Bits that LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR must have set; 0 demands nothing.
    pub minimum_mitigation_vector: u64,
    /// CHIP_IDs that may answer; empty means any.
    pub allowed_chip_ids: Vec<[u8; 64]>,
    /// SHA-384 of the public keys that may have signed the ID block; empty means that ID_KEY_DIGEST is not compared.
    pub trusted_id_key_digests: Vec<[u8; 48]>,
    /// SHA-384 of the public keys that may have signed the ID key; empty means that AUTHOR_KEY_DIGEST is not compared.
    pub trusted_author_key_digests: Vec<[u8; 48]>,
}

/// What Intel's collateral says about the security versions of a platform, its TDX module and its quoting enclave together.
/// `Revoked` is not among them: nothing can accept it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TdxTcbStatus {
    /// Nothing is missing.
    UpToDate,
    /// Up to date, but software in the guest has to mitigate something itself.
    SwHardeningNeeded,
    /// Up to date, but the BIOS may be set insecurely.
    ConfigurationNeeded,
    /// Both of the former.
    ConfigurationAndSwHardeningNeeded,
    /// Updates are missing.
    OutOfDate,
    /// Updates are missing, and the BIOS may be set insecurely.
    OutOfDateConfigurationNeeded,
    /// TDX 1.5: the TDX module was updated while the TD ran; the TD was launched by an outdated one.
    TdRelaunchAdvised,
    /// The former, and the BIOS may be set insecurely.
    TdRelaunchAdvisedConfigurationNeeded,
}

impl TdxTcbStatus {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::UpToDate,
        Self::SwHardeningNeeded,
        Self::ConfigurationNeeded,
        Self::ConfigurationAndSwHardeningNeeded,
        Self::OutOfDate,
        Self::OutOfDateConfigurationNeeded,
        Self::TdRelaunchAdvised,
        Self::TdRelaunchAdvisedConfigurationNeeded,
    ];

    /// The name that Intel's collateral and library use, which is the name in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
        }
    }

    /// Whether updates are missing now, so that a grace period applies.
    pub fn is_out_of_date(self) -> bool {
        matches!(self, Self::OutOfDate | Self::OutOfDateConfigurationNeeded)
    }
}

impl fmt::Display for TdxTcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which TCB status is good enough. The default accepts `UpToDate` and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TdxTcbPolicy {
    /// What is accepted beside `UpToDate`.
    pub accepted: BTreeSet<TdxTcbStatus>,
    /// When an out-of-date status is accepted: for how many days after the date of its TCB level (`tcbDate`) that is so.
    pub platform_grace_period_days: u32,
}

impl TdxTcbPolicy {
    /// Whether `status` is accepted, its age aside.
    pub fn accepts(&self, status: TdxTcbStatus) -> bool {
        status == TdxTcbStatus::UpToDate || self.accepted.contains(&status)
    }
}

/// What a TDX quote must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxDemands {
    /// MRTD, SHA-384.
    pub mr_td: [u8; 48],
    /// MRSEAM, SHA-384.
    pub mr_seam: [u8; 48],
    /// RTMR0 to RTMR3, SHA-384 each.
    pub rtmrs: [[u8; 48]; 4],
    /// Further values of RTMR0 that are as good as `rtmrs[0]`.
    pub rtmr0_alternatives: Vec<[u8; 48]>,
    /// RTMR0 by the number of vCPUs. Unless it is empty, it alone decides about RTMR0, and the two former values are not looked at.
    pub rtmr0_by_vcpus: ByVcpus,
    /// XFAM, 8 bytes as in the quote.
    pub xfam: [u8; 8],
    /// Platform instance ids that may answer; empty means any.
    pub allowed_piids: Vec<[u8; 16]>,
    /// Whether the platform must have memory integrity (SGX type "scalable with integrity").
    pub memory_integrity: bool,
    /// Whether SMT must be off.
    pub smt_disabled: bool,
    /// Whether the platform must be static (no packages added after registration).
    pub static_platform: bool,
    /// Lower bound of the TCB evaluation data number of the collateral.
    pub min_tcb_evaluation_data_number: u32,
    /// MROWNER, which the host chooses at launch; QEMU and Kata leave it zero.
    pub mr_owner: [u8; 48],
    /// MROWNERCONFIG, which the host chooses at launch; QEMU and Kata leave it zero.
    pub mr_owner_config: [u8; 48],
    /// Which TCB status is good enough.
    pub tcb_policy: TdxTcbPolicy,
}
