use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Evidence, IssueError, Issuer, ReportData, SnpCertificates, SnpEvidence, TdxEvidence, Tee,
    VtpmEvidence, VtpmHardware, snp,
    vtpm::{HclReport, HclReportError, TpmQuote},
};

use super::{
    Unusable,
    answer::chain,
    tpm::{self, Tpm, TpmCommandError, TpmDevice},
};

/// NV index of the HCL report.
pub const HCL_REPORT_INDEX: u32 = 0x0140_0001;
/// Persistent handle of the attestation key that the runtime data names.
pub const ATTESTATION_KEY_HANDLE: u32 = 0x8100_0003;
/// The PCRs that cannot be reset while the guest runs, and that a manifest can list.
const QUOTED_PCRS: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// How often PCRs are read again when one was extended between the quote and the reading.
const ATTEMPTS: u32 = 3;

/// What the cloud provider hands out beside the HCL report. Nothing of it is trusted: it is signed by the CPU vendor or by the
/// CPU, and the verifier checks that.
pub trait CloudHost: std::fmt::Debug + Send + Sync {
    /// Certificates of the chip that this guest runs on; parts that the provider does not have are empty.
    ///
    /// # Errors
    /// When the provider does not answer.
    fn snp_certificates(&self) -> Result<SnpCertificates, CloudHostError>;

    /// A quote over `td_report` (TDREPORT, 1024 bytes) by the platform's quoting enclave.
    ///
    /// # Errors
    /// When the provider does not answer.
    fn td_quote(&self, td_report: &[u8]) -> Result<Vec<u8>, CloudHostError>;
}

/// The provider gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {what} from the cloud provider: {reason}")]
pub struct CloudHostError {
    /// What was asked for.
    pub what: &'static str,
    /// Why there is none.
    pub reason: String,
}

/// For guests whose provider is not asked: SNP certificates must then be fetched by the verifier, and there is no TDX quote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoCloudHost;

impl CloudHost for NoCloudHost {
    fn snp_certificates(&self) -> Result<SnpCertificates, CloudHostError> {
        Ok(SnpCertificates::default())
    }

    fn td_quote(&self, _: &[u8]) -> Result<Vec<u8>, CloudHostError> {
        Err(CloudHostError {
            what: "TDX quote",
            reason: "this program asks none".to_owned(),
        })
    }
}

/// The virtual TPM gave no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VtpmError {
    /// The TPM refused.
    #[error("the virtual TPM did not {action}")]
    Tpm {
        /// What was asked for.
        action: &'static str,
        /// Why.
        source: TpmCommandError,
    },
    /// The NV index holds something else.
    #[error("NV index {HCL_REPORT_INDEX:#x} holds no HCL report")]
    Hcl(#[source] HclReportError),
    /// The runtime data names no usable key.
    #[error("the runtime data names no attestation key: {0}")]
    Key(String),
    /// The provider gave no quote.
    #[error("the TDREPORT in the HCL report cannot be made verifiable")]
    CloudHost(#[source] CloudHostError),
    /// The provider's quote is over something else.
    #[error(
        "expected a TDX quote over the TDREPORT in the HCL report, found one with other report data"
    )]
    TdQuote,
    /// The quote is by another key.
    #[error(
        "the key at {ATTESTATION_KEY_HANDLE:#x} is not the one that the HCL report names; this TPM is not the paravisor's"
    )]
    Signature,
    /// The quote is over something else.
    #[error("the TPM quote is not over what was asked for")]
    Quote,
    /// PCRs change all the time.
    #[error(
        "PCRs were extended during each of {ATTEMPTS} attempts to quote them; measure what starts later into another PCR"
    )]
    Pcrs,
}

/// Issues evidence through the virtual TPM of a paravisor (Azure). The HCL report that is there is used as it is: the TPM quote
/// binds the connection, so nothing has to be written to the TPM.
#[derive(Debug)]
pub struct VtpmIssuer<T> {
    tpm: T,
    tee: Tee,
    host: Arc<dyn CloudHost>,
    /// The hardware's report and what the provider gave for it: as long as the report stays, so does that.
    known: Mutex<Option<(Vec<u8>, VtpmHardware)>>,
}

impl<T: Tpm> VtpmIssuer<T> {
    /// Reads the HCL report of `tpm` to learn which TEE is below; `host` is the provider's side.
    ///
    /// # Errors
    /// When the TPM has no HCL report.
    pub fn probe(tpm: T, host: Arc<dyn CloudHost>) -> Result<Self, VtpmError> {
        let bytes = hcl_report(&tpm)?;
        let tee = HclReport::parse(&bytes).map_err(VtpmError::Hcl)?.tee;
        Ok(Self {
            tpm,
            tee,
            host,
            known: Mutex::default(),
        })
    }

    /// The TEE below the paravisor.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// Evidence that is bound to `report_data`. Quotes PCRs 0 to 15.
    ///
    /// # Errors
    /// When the TPM refuses, is not the one that the HCL report names, or the provider gives no TDX quote.
    pub fn evidence(&self, report_data: &ReportData) -> Result<Evidence, VtpmError> {
        let hcl_report = hcl_report(&self.tpm)?;
        let hcl = HclReport::parse(&hcl_report).map_err(VtpmError::Hcl)?;
        let key = hcl.attestation_key().map_err(VtpmError::Key)?;
        let hardware = self.hardware(&hcl)?;
        let extra_data = TpmQuote::expected_extra_data(report_data);
        for _ in 0..ATTEMPTS {
            let tpm::QuoteResponse { quoted, signature } =
                tpm::quote(&self.tpm, ATTESTATION_KEY_HANDLE, &extra_data, &QUOTED_PCRS).map_err(
                    |source| VtpmError::Tpm {
                        action: "quote its PCRs",
                        source,
                    },
                )?;
            let values = tpm::pcr_read(&self.tpm, &QUOTED_PCRS);
            let values = values.map_err(|source| VtpmError::Tpm {
                action: "read its PCRs",
                source,
            })?;
            if !key.signed(&quoted, &signature) {
                return Err(VtpmError::Signature);
            }
            let quote = TpmQuote::parse(&quoted).map_err(|_| VtpmError::Quote)?;
            if quote.extra_data != extra_data || quote.pcrs != QUOTED_PCRS {
                return Err(VtpmError::Quote);
            }
            let pcr_values: Vec<[u8; 32]> = values.into_values().collect();
            if quote.pcr_digest == TpmQuote::digest_of(&pcr_values) {
                return Ok(Evidence::Vtpm(VtpmEvidence {
                    hcl_report,
                    hardware,
                    tpm_quote: quoted,
                    tpm_signature: signature,
                    pcr_values,
                }));
            }
        }
        Err(VtpmError::Pcrs)
    }

    fn hardware(&self, hcl: &HclReport<'_>) -> Result<VtpmHardware, VtpmError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((report, hardware)) = &*known
            && report == hcl.hardware_report
        {
            return Ok(hardware.clone());
        }
        let hardware = match hcl.tee {
            Tee::Snp => match self.host.snp_certificates() {
                Ok(certificates) => VtpmHardware::Snp(with_vendors(hcl, certificates)),
                Err(error) => {
                    // The verifier can fetch them from AMD. They are asked for again with the next request.
                    tracing::warn!(
                        "evidence goes out without the certificates of its chip: {error}"
                    );
                    return Ok(VtpmHardware::Snp(with_vendors(
                        hcl,
                        SnpCertificates::default(),
                    )));
                }
            },
            Tee::Tdx => {
                let quote = self.host.td_quote(hcl.hardware_report);
                let quote = quote.map_err(VtpmError::CloudHost)?;
                let hardware = VtpmHardware::Tdx(TdxEvidence {
                    quote,
                    collateral: None,
                });
                if hardware.evidence(hcl).report_data() != Some(hcl.expected_report_data()) {
                    return Err(VtpmError::TdQuote);
                }
                hardware
            }
        };
        *known = Some((hcl.hardware_report.to_vec(), hardware.clone()));
        Ok(hardware)
    }
}

impl<T: Tpm> Issuer for VtpmIssuer<T> {
    fn issue(&self, report_data: &ReportData) -> Result<Evidence, IssueError> {
        self.evidence(report_data).map_err(|error| IssueError {
            tee: "virtual TPM",
            reason: chain(&error),
        })
    }
}

/// The issuer of a guest whose TPM, at `device`, is a paravisor's. Any machine may have a TPM; only a paravisor's has an HCL
/// report.
pub(crate) fn vtpm_issuer(
    device: &Path,
    host: Arc<dyn CloudHost>,
) -> Result<Arc<dyn Issuer>, Unusable> {
    let unusable = |reason| Unusable {
        interface: device.display().to_string(),
        reason,
    };
    let tpm = TpmDevice::open(device).map_err(|error| {
        unusable(format!(
            "cannot open the TPM; expected the virtual TPM of a paravisor (Azure), and the device inside the container: {error}"
        ))
    })?;
    let issuer = VtpmIssuer::probe(tpm, host).map_err(|error| unusable(chain(&error)))?;
    tracing::info!(tee = %issuer.tee(), interface = %device.display(), exposure = "public", "evidence comes from hardware, through a virtual TPM");
    Ok(Arc::new(issuer))
}

fn hcl_report(tpm: &dyn Tpm) -> Result<Vec<u8>, VtpmError> {
    tpm::nv_read(tpm, HCL_REPORT_INDEX).map_err(|source| VtpmError::Tpm {
        action: "give the HCL report (NV index 0x01400001)",
        source,
    })
}

/// AMD's own ASK and ARK where the provider left both out; its guests' reports are signed by VCEKs.
fn with_vendors(hcl: &HclReport<'_>, certificates: SnpCertificates) -> SnpCertificates {
    if !certificates.ask.is_empty() || !certificates.ark.is_empty() {
        return certificates;
    }
    let product = snp::claimed_product(&SnpEvidence {
        report: hcl.hardware_report.to_vec(),
        vek: certificates.vek.clone(),
        ..SnpEvidence::default()
    });
    match product {
        Some(product) => {
            let chain = snp::vendor_chain(product);
            SnpCertificates {
                ask: chain.ask.to_vec(),
                ark: chain.ark.to_vec(),
                ..certificates
            }
        }
        None => certificates,
    }
}
