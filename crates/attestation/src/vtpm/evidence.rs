use crate::{Evidence, SnpEvidence, TdxEvidence, Tee};

use super::{HclReport, HclReportError};

/// Evidence of a guest below a paravisor; sizes and encodings as in `evidence.proto`. Nothing in it is trusted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VtpmEvidence {
    /// Contents of NV index 0x01400001, see [`HclReport`].
    pub hcl_report: Vec<u8>,
    /// What makes the hardware's report in it verifiable.
    pub hardware: VtpmHardware,
    /// TPM quote, TPMS_ATTEST.
    pub tpm_quote: Vec<u8>,
    /// Its signature, RSASSA-PKCS1-v1_5 with SHA-256, as long as the key's modulus.
    pub tpm_signature: Vec<u8>,
    /// Values of the quoted PCRs, in ascending order of their indices.
    pub pcr_values: Vec<[u8; 32]>,
}

/// What comes beside an HCL report, by TEE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VtpmHardware {
    /// The certificates of the SNP report.
    Snp(SnpCertificates),
    /// The quote over the TDREPORT.
    Tdx(TdxEvidence),
}

/// The certificates of an SNP report that stands elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnpCertificates {
    /// VCEK or VLEK, DER.
    pub vek: Vec<u8>,
    /// ASK or ASVK, DER.
    pub ask: Vec<u8>,
    /// ARK, DER.
    pub ark: Vec<u8>,
    /// CRL signed by the ARK, DER; empty when the attester had none.
    pub crl: Vec<u8>,
}

impl VtpmHardware {
    /// The TEE below the paravisor, as the evidence claims.
    pub fn tee(&self) -> Tee {
        match self {
            Self::Snp(_) => Tee::Snp,
            Self::Tdx(_) => Tee::Tdx,
        }
    }

    /// The hardware's evidence: the report in `hcl` with the certificates, or the quote.
    pub fn evidence(&self, hcl: &HclReport<'_>) -> Evidence {
        match self.clone() {
            Self::Snp(SnpCertificates { vek, ask, ark, crl }) => Evidence::Snp(SnpEvidence {
                report: hcl.hardware_report.to_vec(),
                vek,
                ask,
                ark,
                crl,
            }),
            Self::Tdx(evidence) => Evidence::Tdx(evidence),
        }
    }
}

impl VtpmEvidence {
    /// The hardware's evidence on its own, for example to complete it with what its vendor publishes.
    ///
    /// # Errors
    /// When the HCL report is none.
    pub fn hardware_evidence(&self) -> Result<Evidence, HclReportError> {
        HclReport::parse(&self.hcl_report).map(|hcl| self.hardware.evidence(&hcl))
    }

    /// The same evidence with the certificates or the quote of `hardware`; unchanged when that is vTPM evidence itself. An
    /// SNP report in it is not taken over: the one in the HCL report counts.
    #[must_use]
    pub fn with_hardware(mut self, hardware: Evidence) -> Self {
        match hardware {
            Evidence::Snp(SnpEvidence {
                vek, ask, ark, crl, ..
            }) => self.hardware = VtpmHardware::Snp(SnpCertificates { vek, ask, ark, crl }),
            Evidence::Tdx(evidence) => self.hardware = VtpmHardware::Tdx(evidence),
            Evidence::Vtpm(_) => {}
        }
        self
    }
}
