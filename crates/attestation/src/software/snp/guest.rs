//! A guest of the software TEE and the reports it gets.

use aws_lc_rs::digest::{SHA256, SHA384, digest};

use crate::{
    Evidence, IssueError, Issuer, PolicyHash, ReportData, SnpEvidence,
    appraisal::{SnpDemands, SnpGuestPolicy, SnpMeasurement, SnpPlatformInfo, SnpProduct, SnpTcb},
    snp::{
        Cpuid, FirmwareVersion, MitigationVectors, Report, TcbVersion,
        abi::{self, encode_guest_policy, encode_platform_info},
        verify::encode_signature,
    },
    software::SoftwareTeeError,
};

use super::{SnpCertificate, SnpPlatform};

pub(super) const PRODUCT: SnpProduct = SnpProduct::Milan;
const MEASUREMENT_LABEL: &[u8] = b"Contrast software TEE: SEV-SNP guest";
pub(super) const DEFAULT_TCB: SnpTcb = SnpTcb {
    bootloader: 4,
    tee: 0,
    snp: 24,
    microcode: 219,
    fmc: None,
};
const DEFAULT_POLICY: SnpGuestPolicy = SnpGuestPolicy {
    abi_minor: 0,
    abi_major: 0,
    smt: true,
    migrate_ma: false,
    debug: false,
    single_socket: false,
    cxl_allowed: false,
    mem_aes_256_xts: false,
    rapl_dis: false,
    ciphertext_hiding_dram: false,
    page_swap_disable: false,
};
const DEFAULT_PLATFORM_INFO: SnpPlatformInfo = SnpPlatformInfo {
    smt_enabled: true,
    tsme_enabled: false,
    ecc_enabled: true,
    rapl_disabled: false,
    ciphertext_hiding_dram_enabled: false,
    alias_check_complete: true,
    tio_enabled: false,
};

/// A guest of the software TEE. [`SoftwareTee::snp_guest`](crate::software::SoftwareTee::snp_guest) makes one that meets
/// [`SoftwareTee::reference_value`](crate::software::SoftwareTee::reference_value); tests change fields to get evidence that does
/// not.
#[derive(Debug, Clone)]
pub struct SnpGuest {
    pub(super) platform: SnpPlatform,
    /// VERSION, 2 to 5; the default is 3, the first with CPUID fields.
    pub version: u32,
    /// Decides the CPUID fields and the layout of TCB_VERSIONs; the default is Milan.
    pub product: SnpProduct,
    /// HOST_DATA.
    pub policy_hash: PolicyHash,
    /// MEASUREMENT; the default is the SHA-384 of a fixed label.
    pub measurement: [u8; 48],
    /// VMPL, default 0.
    pub vmpl: u32,
    /// POLICY.
    pub guest_policy: SnpGuestPolicy,
    /// PLATFORM_INFO.
    pub platform_info: SnpPlatformInfo,
    /// CURRENT_TCB.
    pub current_tcb: SnpTcb,
    /// COMMITTED_TCB.
    pub committed_tcb: SnpTcb,
    /// LAUNCH_TCB.
    pub launch_tcb: SnpTcb,
    /// REPORTED_TCB.
    pub reported_tcb: SnpTcb,
    /// CHIP_ID.
    pub chip_id: [u8; 64],
    /// LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR; only version 5 shows them.
    pub mitigations: MitigationVectors,
    /// KEY_INFO; the default 0 says VCEK, no author key, not masked.
    pub key_info: u32,
    /// ID_KEY_DIGEST; zero, the default, for a guest without ID block.
    pub id_key_digest: [u8; 48],
    /// AUTHOR_KEY_DIGEST.
    pub author_key_digest: [u8; 48],
    /// The certificate of the key that signs.
    pub certificate: SnpCertificate,
    /// CRL in DER that travels along; empty by default.
    pub crl: Vec<u8>,
}

impl SnpGuest {
    /// A guest that meets [`demands`].
    pub(super) fn new(platform: SnpPlatform, policy_hash: PolicyHash) -> Self {
        let chip = platform.chip();
        Self {
            version: abi::VERSION_WITH_CPUID,
            product: PRODUCT,
            policy_hash,
            measurement: default_measurement(),
            vmpl: 0,
            guest_policy: DEFAULT_POLICY,
            platform_info: DEFAULT_PLATFORM_INFO,
            current_tcb: DEFAULT_TCB,
            committed_tcb: DEFAULT_TCB,
            launch_tcb: DEFAULT_TCB,
            reported_tcb: DEFAULT_TCB,
            chip_id: chip.id(),
            mitigations: MitigationVectors::default(),
            key_info: 0,
            id_key_digest: [0; 48],
            author_key_digest: [0; 48],
            certificate: chip.certificate.clone(),
            crl: Vec::new(),
            platform,
        }
    }

    /// The same guest on firmware whose TCB is `tcb` in every respect, with the certificate that such a chip has.
    #[must_use]
    pub fn with_tcb(mut self, tcb: SnpTcb) -> Self {
        self.current_tcb = tcb;
        self.committed_tcb = tcb;
        self.launch_tcb = tcb;
        self.reported_tcb = tcb;
        self.certificate.tcb = tcb;
        self
    }

    fn evidence(&self, report_data: &ReportData) -> Result<SnpEvidence, SoftwareTeeError> {
        let (ark, ask, chip) = (
            self.platform.ark(),
            self.platform.ask(),
            self.platform.chip(),
        );
        let mut report = self.unsigned_report(report_data);
        let unsigned = report.encode();
        let signed = unsigned.get(..abi::SIGNED_BYTES).unwrap_or_default();
        report.signature = encode_signature(&chip.sign(signed)?);
        Ok(SnpEvidence {
            report: report.encode(),
            vek: chip.certified(ask, &self.certificate)?,
            ask: ask.certificate_der.clone(),
            ark: ark.certificate_der.clone(),
            crl: self.crl.clone(),
        })
    }

    fn unsigned_report(&self, report_data: &ReportData) -> Report {
        let firmware = FirmwareVersion {
            build: 1,
            minor: 55,
            major: 1,
        };
        let tcb = |tcb| TcbVersion::from_components(self.product, tcb);
        let mut report_id = [0; 32];
        report_id.copy_from_slice(digest(&SHA256, &self.policy_hash.0).as_ref());
        Report {
            version: self.version,
            guest_svn: 0,
            policy: encode_guest_policy(&self.guest_policy),
            family_id: [0; 16],
            image_id: [0; 16],
            vmpl: self.vmpl,
            signature_algo: abi::ECDSA_P384_SHA384,
            current_tcb: tcb(self.current_tcb),
            platform_info: encode_platform_info(&self.platform_info),
            key_info: self.key_info,
            report_data: report_data.0,
            measurement: self.measurement,
            host_data: self.policy_hash.0,
            id_key_digest: self.id_key_digest,
            author_key_digest: self.author_key_digest,
            report_id,
            // No migration agent.
            report_id_ma: [0xff; 32],
            reported_tcb: tcb(self.reported_tcb),
            cpuid: (self.version >= abi::VERSION_WITH_CPUID).then_some(cpuid_of(self.product)),
            chip_id: self.chip_id,
            committed_tcb: tcb(self.committed_tcb),
            current_firmware: firmware,
            committed_firmware: firmware,
            launch_tcb: tcb(self.launch_tcb),
            mitigations: (self.version >= abi::VERSION_WITH_MITIGATIONS)
                .then_some(self.mitigations),
            signature: [0; 512],
        }
    }
}

impl Issuer for SnpGuest {
    fn issue(&self, report_data: &ReportData) -> Result<Evidence, IssueError> {
        self.evidence(report_data)
            .map(Evidence::Snp)
            .map_err(|error| IssueError {
                tee: "software SEV-SNP TEE",
                reason: error.to_string(),
            })
    }
}

/// What an unchanged guest meets.
pub(super) fn demands() -> SnpDemands {
    SnpDemands {
        product: PRODUCT,
        measurement: SnpMeasurement::Any(default_measurement()),
        minimum_tcb: DEFAULT_TCB,
        guest_policy: DEFAULT_POLICY,
        platform_info: DEFAULT_PLATFORM_INFO,
        minimum_mitigation_vector: 0,
        allowed_chip_ids: Vec::new(),
        trusted_id_key_digests: Vec::new(),
        trusted_author_key_digests: Vec::new(),
    }
}

fn default_measurement() -> [u8; 48] {
    let mut measurement = [0; 48];
    measurement.copy_from_slice(digest(&SHA384, MEASUREMENT_LABEL).as_ref());
    measurement
}

fn cpuid_of(product: SnpProduct) -> Cpuid {
    match product {
        SnpProduct::Milan => Cpuid {
            family: 0x19,
            model: 0x01,
            stepping: 1,
        },
        SnpProduct::Genoa => Cpuid {
            family: 0x19,
            model: 0x11,
            stepping: 1,
        },
        SnpProduct::Turin => Cpuid {
            family: 0x1A,
            model: 0x02,
            stepping: 1,
        },
    }
}
