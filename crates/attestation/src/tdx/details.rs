use dcap_qvl::{
    config::PckCa,
    intel,
    quote::{Quote, TDReport10},
};

use der::Decode as _;
use x509_cert::Certificate;

use super::provider::AwsLc;

/// A quote's fields for people. Nothing here is verified; names are those of "Intel TDX DCAP Quoting Library API", appendix A.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteDetails {
    /// Version of the quote's format, 4 or 5.
    pub version: u16,
    /// Attestation key type; 2 is ECDSA P-256.
    pub attestation_key_type: u16,
    /// QE_VENDOR_ID.
    pub qe_vendor_id: [u8; 16],
    /// TEE_TCB_SVN.
    pub tee_tcb_svn: [u8; 16],
    /// MRSEAM, SHA-384.
    pub mr_seam: [u8; 48],
    /// MRSIGNERSEAM, SHA-384.
    pub mr_signer_seam: [u8; 48],
    /// SEAMATTRIBUTES.
    pub seam_attributes: [u8; 8],
    /// TDATTRIBUTES.
    pub td_attributes: [u8; 8],
    /// XFAM.
    pub xfam: [u8; 8],
    /// MRTD, SHA-384.
    pub mr_td: [u8; 48],
    /// MRCONFIGID; the policy hash fills its first 32 bytes.
    pub mr_config_id: [u8; 48],
    /// MROWNER.
    pub mr_owner: [u8; 48],
    /// MROWNERCONFIG.
    pub mr_owner_config: [u8; 48],
    /// RTMR0 to RTMR3, SHA-384 each.
    pub rtmrs: [[u8; 48]; 4],
    /// REPORTDATA.
    pub report_data: [u8; 64],
    /// What TDX 1.5 adds.
    pub td15: Option<TdDetails15>,
    /// What the PCK certificate says, when the quote carries a readable one.
    pub pck: Option<PckDetails>,
}

/// What a TD report of TDX 1.5 has beyond one of TDX 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdDetails15 {
    /// TEE_TCB_SVN_2: the TDX module that is loaded now.
    pub tee_tcb_svn2: [u8; 16],
    /// MRSERVICETD, SHA-384.
    pub mr_service_td: [u8; 48],
}

/// The platform, as the PCK certificate describes it ("Intel SGX PCK Certificate and CRL Profile Specification").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PckDetails {
    /// FMSPC: family, model, stepping, platform type and custom SKU.
    pub fmspc: [u8; 6],
    /// PCEID.
    pub pce_id: Vec<u8>,
    /// SVNs of the 16 TCB components.
    pub cpu_svn: [u8; 16],
    /// Security version of the PCE.
    pub pce_svn: u16,
    /// Platform instance id; only platforms with several packages have one.
    pub platform_instance_id: Option<Vec<u8>>,
    /// 0 standard, 1 scalable, 2 scalable with integrity.
    pub sgx_type: u64,
    /// Whether SMT is on, when the certificate says so.
    pub smt_enabled: Option<bool>,
    /// Whether packages may be added, when the certificate says so.
    pub dynamic_platform: Option<bool>,
}

/// Intel's CA that issued a PCK certificate; each has a revocation list of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PckIssuer {
    /// Platforms with one package.
    Processor,
    /// Platforms with several packages, registered with Intel.
    Platform,
}

/// Which collateral a quote needs. Nothing here is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollateralKey {
    /// The platform's FMSPC.
    pub fmspc: [u8; 6],
    /// The issuer of its PCK certificate.
    pub pck_issuer: PckIssuer,
    /// Whether the PCK certificate names one of Intel's CAs as its issuer: every quote does that is verified under Intel's root.
    pub is_intels: bool,
}

impl CollateralKey {
    /// Reads it from a quote's PCK certificate chain; nothing when the quote carries none.
    pub fn of(quote: &[u8]) -> Option<Self> {
        let chain = intel::extract_cert_chain(&Quote::parse(quote).ok()?).ok()?;
        let pck = chain.first()?;
        Some(Self {
            fmspc: intel::parse_pck_extension_with::<AwsLc>(pck).ok()?.fmspc,
            pck_issuer: match intel::pck_ca_with::<AwsLc>(pck).ok()? {
                PckCa::Processor => PckIssuer::Processor,
                PckCa::Platform => PckIssuer::Platform,
            },
            // The rest of the chain is the attester's to arrange, in the quote or beside it.
            is_intels: Certificate::from_der(pck).is_ok_and(|pck| {
                let issuer = pck.tbs_certificate().issuer().to_string();
                issuer.contains("Intel SGX PCK")
            }),
        })
    }
}

/// Bytes that are no TDX quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a TDX quote of version 4 or 5, found {found}")]
pub struct QuoteFormatError {
    found: String,
}

impl QuoteDetails {
    /// Reads a quote of version 4 or 5.
    ///
    /// # Errors
    /// When `bytes` are no such quote, or one of an SGX enclave.
    pub fn parse(bytes: &[u8]) -> Result<Self, QuoteFormatError> {
        let quote = Quote::parse(bytes).map_err(|error| QuoteFormatError {
            found: format!("{} bytes: {error:#}", bytes.len()),
        })?;
        let Some(report) = quote.report.as_td10() else {
            return Err(QuoteFormatError {
                found: format!("an SGX quote of version {}", quote.header.version),
            });
        };
        let TDReport10 {
            tee_tcb_svn,
            mr_seam,
            mr_signer_seam,
            seam_attributes,
            td_attributes,
            xfam,
            mr_td,
            mr_config_id,
            mr_owner,
            mr_owner_config,
            rt_mr0,
            rt_mr1,
            rt_mr2,
            rt_mr3,
            report_data,
        } = *report;
        let td15 = quote.report.as_td15().map(|report| TdDetails15 {
            tee_tcb_svn2: report.tee_tcb_svn2,
            mr_service_td: report.mr_service_td,
        });
        Ok(Self {
            version: quote.header.version,
            attestation_key_type: quote.header.attestation_key_type,
            qe_vendor_id: quote.header.qe_vendor_id,
            tee_tcb_svn,
            mr_seam,
            mr_signer_seam,
            seam_attributes,
            td_attributes,
            xfam,
            mr_td,
            mr_config_id,
            mr_owner,
            mr_owner_config,
            rtmrs: [rt_mr0, rt_mr1, rt_mr2, rt_mr3],
            report_data,
            td15,
            pck: PckDetails::of(&quote),
        })
    }
}

impl PckDetails {
    fn of(quote: &Quote) -> Option<Self> {
        let chain = intel::extract_cert_chain(quote).ok()?;
        let pck = intel::parse_pck_extension_with::<AwsLc>(chain.first()?).ok()?;
        Some(Self {
            fmspc: pck.fmspc,
            pce_id: pck.pce_id,
            cpu_svn: pck.cpu_svn,
            pce_svn: pck.pce_svn,
            platform_instance_id: pck.platform_instance_id,
            sgx_type: pck.sgx_type,
            smt_enabled: pck.smt_enabled,
            dynamic_platform: pck.dynamic_platform,
        })
    }
}
