//! The JSON as it is written. Field names are those of the file; every field may be absent here, so that incomplete
//! manifests can be read, edited and written by tools. Only [`crate::Manifest::parse`] says whether one is valid.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::{ManifestError, shape};

/// A manifest file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ManifestDocument {
    /// Key: SHA-256 of an initdata document, 64 lower-case hex digits.
    pub policies: BTreeMap<String, PolicyDocument>,
    /// What evidence is compared with; at least one.
    pub reference_values: ReferenceValues,
    /// Older form of [`Self::workload_owner_pub_keys`]: SHA-256 of the same bytes, 64 hex digits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workload_owner_key_digests: Vec<String>,
    /// Who may replace this manifest: hex of SubjectPublicKeyInfo DER, ECDSA P-384. None at all: nobody, for ever.
    pub workload_owner_pub_keys: Vec<String>,
    /// How many workload owners must sign an update; absent means 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_owner_threshold: Option<i64>,
    /// Who can recover the deployment: hex of PKCS#1 DER (RSA-4096) or SubjectPublicKeyInfo DER (X25519).
    pub seedshare_owner_pub_keys: Vec<String>,
    /// How many seed share owners it takes to recover; absent means 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seedshare_threshold: Option<i64>,
    /// Trust domain of all SPIFFE IDs; absent: SHA-256 of the root CA's SubjectPublicKeyInfo, 64 lower-case hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// How long mesh certificates are valid, a duration such as `168h`; absent: 7 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_cert_lifetime: Option<String>,
    /// How long the mesh CA of the manifest before stays trusted beside the new one, a duration such as `10m`; absent: not at all.
    #[serde(rename = "MeshCAOverlap", skip_serializing_if = "Option::is_none")]
    pub mesh_ca_overlap: Option<String>,
    /// Whose keys get no certificate: SHA-256 of SubjectPublicKeyInfo DER, 64 hex digits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied_certificate_keys: Vec<String>,
    /// Secrets that are encrypted to the deployment's sealing key. Key: their name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sealed_secrets: BTreeMap<String, SealedSecretDocument>,
}

impl ManifestDocument {
    /// Reads a manifest that may be incomplete, for editing.
    ///
    /// # Errors
    /// Lists every unknown or duplicate field and every value of a wrong type.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        let (document, problems) = shape::read(bytes)?;
        let found = problems.into_found();
        if found.is_empty() {
            Ok(document)
        } else {
            Err(ManifestError::new(found))
        }
    }

    /// The file's text: two spaces of indentation, newline at the end, policies in the order of their hashes. The same
    /// document always gives the same bytes.
    pub fn to_json(&self) -> String {
        // Serialisation fails only for maps with keys that are no strings, or a failing `Serialize`; there is neither.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// What the pods with one policy are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyDocument {
    /// Subject alternative names of their certificates: IP addresses, URIs (anything with `://`), else DNS names.
    #[serde(rename = "SANs")]
    pub sans: Vec<String>,
    /// Name from which their workload secret is derived; empty: they get none.
    #[serde(rename = "WorkloadSecretID")]
    pub workload_secret_id: String,
    /// `coordinator` for at least one policy, else empty.
    #[serde(rename = "Role")]
    pub role: String,
    /// How many vCPUs their VMs have, 1 to 220. It decides which of the measurements by number their evidence must show; absent:
    /// any of them.
    #[serde(rename = "VCPUs", skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<i64>,
    /// Path of their SPIFFE ID, `ns/<namespace>/<kind>/<name>`; empty: their certificates have none.
    #[serde(rename = "SPIFFEPath", skip_serializing_if = "String::is_empty")]
    pub spiffe_path: String,
    /// Names of the sealed secrets that they get.
    #[serde(rename = "SealedSecrets", skip_serializing_if = "Vec::is_empty")]
    pub sealed_secrets: Vec<String>,
}

/// A secret that is encrypted to the deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SealedSecretDocument {
    /// `Files` for the application, or `Registry` for the guest that pulls images.
    pub kind: String,
    /// Encapsulated key, ciphertext and tag, hex.
    pub ciphertext: String,
}

/// Reference values by TEE.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReferenceValues {
    /// AMD SEV-SNP under AMD's roots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snp: Vec<SnpReferenceValue>,
    /// Intel TDX under Intel's root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tdx: Vec<TdxReferenceValue>,
    /// Software TEEs under pinned roots. For development only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub insecure: Vec<InsecureReferenceValue>,
}

/// Reference value for one kind of SEV-SNP platform.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SnpReferenceValue {
    /// Display name, for example `Metal-QEMU-SNP`; used in reports only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// `Milan`, `Genoa` or `Turin`.
    pub product_name: String,
    /// MEASUREMENT, 96 hex digits, for any number of vCPUs. Either this or [`Self::trusted_measurements`] must be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_measurement: Option<String>,
    /// MEASUREMENT by the VM's number of vCPUs. Key: `1` to `220`; value: 96 hex digits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(serialize_with = "in_numeric_order")]
    pub trusted_measurements: BTreeMap<String, String>,
    /// Lower bounds of the TCB.
    #[serde(rename = "MinimumTCB")]
    pub minimum_tcb: MinimumTcb,
    /// Guest policy that the report must show.
    pub guest_policy: Option<SnpGuestPolicyDocument>,
    /// Platform info that the report must show.
    pub platform_info: Option<SnpPlatformInfoDocument>,
    /// Bits that the mitigation vectors must have set; 0 demands nothing.
    pub minimum_mitigation_vector: u64,
    /// CHIP_IDs, 128 hex digits each; none means any.
    #[serde(rename = "AllowedChipIDs")]
    pub allowed_chip_ids: Vec<String>,
    /// ID_KEY_DIGESTs, 96 hex digits each; none means that it is not compared.
    #[serde(rename = "TrustedIDKeyDigests", skip_serializing_if = "Vec::is_empty")]
    pub trusted_id_key_digests: Vec<String>,
    /// AUTHOR_KEY_DIGESTs, 96 hex digits each; none means that it is not compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_author_key_digests: Vec<String>,
    /// Set when the guests' evidence comes through a virtual TPM; then HOSTDATA is not compared with policies, PCR 8 is.
    #[serde(rename = "VTPM", skip_serializing_if = "Option::is_none")]
    pub vtpm: Option<VtpmDocument>,
}

/// Of two numbers without leading zeros the longer one is larger.
fn in_numeric_order<S: Serializer>(
    map: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| (key.len(), *key));
    serializer.collect_map(entries)
}

/// What the virtual TPM below a paravisor must show, beside the policy in PCR 8.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VtpmDocument {
    /// SHA-256 PCRs, 64 hex digits each. Key: `0` to `15`, but not `8`; `4` must be there.
    #[serde(rename = "PCRs")]
    pub pcrs: BTreeMap<String, String>,
}

/// Security version numbers, 0 to 255 each. All must be given, except the FMC's, which only Turin has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MinimumTcb {
    /// Bootloader.
    #[serde(rename = "BootloaderVersion")]
    pub bootloader: Option<i64>,
    /// PSP operating system.
    #[serde(rename = "TEEVersion")]
    pub tee: Option<i64>,
    /// SNP firmware.
    #[serde(rename = "SNPVersion")]
    pub snp: Option<i64>,
    /// Microcode.
    #[serde(rename = "MicrocodeVersion")]
    pub microcode: Option<i64>,
    /// FMC firmware, Turin only.
    #[serde(rename = "FMCVersion", skip_serializing_if = "Option::is_none")]
    pub fmc: Option<i64>,
}

/// Guest policy (SNP firmware ABI, table "Guest Policy"). Absent bits are false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SnpGuestPolicyDocument {
    /// Minimum ABI minor version, 0 to 255.
    #[serde(rename = "ABIMinor")]
    pub abi_minor: i64,
    /// Minimum ABI major version, 0 to 255.
    #[serde(rename = "ABIMajor")]
    pub abi_major: i64,
    /// SMT may be on.
    #[serde(rename = "SMT")]
    pub smt: bool,
    /// Migration agent; must be false.
    #[serde(rename = "MigrateMA")]
    pub migrate_ma: bool,
    /// Debugging; must be false.
    #[serde(rename = "Debug")]
    pub debug: bool,
    /// Only one socket.
    #[serde(rename = "SingleSocket")]
    pub single_socket: bool,
    /// CXL devices and memory.
    #[serde(rename = "CXLAllowed")]
    pub cxl_allowed: bool,
    /// AES-256-XTS demanded.
    #[serde(rename = "MemAES256XTS")]
    pub mem_aes_256_xts: bool,
    /// RAPL must be off.
    #[serde(rename = "RAPLDis")]
    pub rapl_dis: bool,
    /// Ciphertext hiding demanded.
    #[serde(rename = "CipherTextHidingDRAM")]
    pub ciphertext_hiding_dram: bool,
    /// Page swap disabled.
    #[serde(rename = "PageSwapDisable")]
    pub page_swap_disable: bool,
}

/// Platform info (SNP firmware ABI, field PLATFORM_INFO). Absent bits are false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SnpPlatformInfoDocument {
    /// SMT is on.
    #[serde(rename = "SMTEnabled")]
    pub smt_enabled: bool,
    /// TSME is on.
    #[serde(rename = "TSMEEnabled")]
    pub tsme_enabled: bool,
    /// ECC memory.
    #[serde(rename = "ECCEnabled")]
    pub ecc_enabled: bool,
    /// RAPL is off.
    #[serde(rename = "RAPLDisabled")]
    pub rapl_disabled: bool,
    /// Ciphertext hiding is on.
    #[serde(rename = "CiphertextHidingDRAMEnabled")]
    pub ciphertext_hiding_dram_enabled: bool,
    /// The alias check ran since the last reset.
    #[serde(rename = "AliasCheckComplete")]
    pub alias_check_complete: bool,
    /// Trusted I/O is on.
    #[serde(rename = "TIOEnabled")]
    pub tio_enabled: bool,
}

/// Reference value for one kind of TDX platform.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TdxReferenceValue {
    /// Display name, for example `Metal-QEMU-TDX`; used in reports only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// MRTD, 96 hex digits.
    pub mr_td: String,
    /// MRSEAM, 96 hex digits.
    pub mr_seam: String,
    /// RTMR0 to RTMR3, 96 hex digits each. With [`Self::rtmr0_by_vcpus`] the first one is an empty string.
    pub rtmrs: Vec<String>,
    /// Further values of RTMR0, 96 hex digits each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rtmr0_alternatives: Vec<String>,
    /// RTMR0 by the VM's number of vCPUs. Key: `1` to `220`; value: 96 hex digits. It stands in place of the first of
    /// [`Self::rtmrs`] and of [`Self::rtmr0_alternatives`].
    #[serde(rename = "Rtmr0ByVCPUs", skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(serialize_with = "in_numeric_order")]
    pub rtmr0_by_vcpus: BTreeMap<String, String>,
    /// XFAM, 16 hex digits, bytes in the quote's order.
    pub xfam: String,
    /// Platform instance ids, 32 hex digits each; none means any.
    #[serde(rename = "AllowedPIIDs")]
    pub allowed_piids: Vec<String>,
    /// Memory integrity demanded.
    pub memory_integrity: bool,
    /// SMT must be off.
    #[serde(rename = "SMTDisabled")]
    pub smt_disabled: bool,
    /// The platform must be static.
    pub static_platform: bool,
    /// Lower bound of the collateral's TCB evaluation data number, 0 to 2^32 - 1.
    #[serde(rename = "MinTCBEvaluationDataNumber")]
    pub min_tcb_evaluation_data_number: i64,
    /// MROWNER, 96 hex digits; absent means zero.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mr_owner: String,
    /// MROWNERCONFIG, 96 hex digits; absent means zero.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mr_owner_config: String,
    /// TCB statuses that are accepted, by the names in Intel's collateral; absent means `UpToDate` alone.
    #[serde(rename = "AcceptedTCBStatus", skip_serializing_if = "Vec::is_empty")]
    pub accepted_tcb_status: Vec<String>,
    /// When an out-of-date status is accepted: for how many days after the date of its TCB level, 1 to 3650.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_grace_period_days: Option<i64>,
    /// Set when the guests' evidence comes through a virtual TPM; then MRCONFIGID is not compared with policies, PCR 8 is.
    #[serde(rename = "VTPM", skip_serializing_if = "Option::is_none")]
    pub vtpm: Option<VtpmDocument>,
}

/// Reference value for a software TEE: exactly one of `snp` and `tdx`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InsecureReferenceValue {
    /// SHA-256 of the software TEE's root certificate (DER), 64 hex digits.
    #[serde(rename = "RootSHA256")]
    pub root_sha256: String,
    /// What its SNP reports must show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snp: Option<SnpReferenceValue>,
    /// What its TDX quotes must show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tdx: Option<TdxReferenceValue>,
}
