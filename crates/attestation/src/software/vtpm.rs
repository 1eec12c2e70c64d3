//! A guest of the software TEE below a "paravisor": an HCL report around its SNP report or TDX quote, and a virtual TPM with an
//! RSA-2048 attestation key that exists in memory only.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{SnpGuest, SoftwareTeeError, TdxGuest};
use crate::{
    Evidence, IssueError, Issuer, PolicyHash, ReportData, VtpmDemands, VtpmEvidence, VtpmHardware,
    snp::REPORT_BYTES,
    vtpm::{POLICY_PCR, TpmQuote},
};

const SIGN: &str = "make a TPM quote";
/// The PCR that measures what the firmware starts.
const BOOT_PCR: u8 = 4;
const TD_REPORT_BYTES: usize = 1024;
const TD_REPORT_DATA_OFFSET: usize = 128;

/// A software guest below a paravisor. Its fields are what its evidence says, so that tests can emit evidence that must be
/// refused.
#[derive(Debug, Clone)]
pub struct VtpmGuest {
    /// The hardware below the paravisor.
    pub hardware: VtpmGuestHardware,
    /// The JSON document that the hardware vouches for; the default names the public key of the attestation key.
    pub runtime_data: Vec<u8>,
    /// The SHA-256 PCRs that are quoted; the default has PCR 4 and PCR 8.
    pub pcrs: BTreeMap<u8, [u8; 32]>,
    key: Arc<KeyPair>,
}

/// The hardware below a software paravisor.
#[derive(Debug, Clone)]
pub enum VtpmGuestHardware {
    /// SEV-SNP.
    Snp(Box<SnpGuest>),
    /// TDX.
    Tdx(Box<TdxGuest>),
}

impl VtpmGuest {
    /// A guest that was "started" with `policy` and meets [`demands`]. `hardware` belongs to the paravisor.
    pub(super) fn new(
        hardware: VtpmGuestHardware,
        policy: PolicyHash,
    ) -> Result<Self, SoftwareTeeError> {
        let key = KeyPair::generate(KeySize::Rsa2048).map_err(|_| SoftwareTeeError::Crypto {
            action: "generate an RSA-2048 key",
        })?;
        let public = key.public_key();
        let (n, e) = (public.modulus(), public.exponent());
        let runtime_data = runtime_data(
            n.big_endian_without_leading_zero(),
            e.big_endian_without_leading_zero(),
        );
        let mut pcrs = demands().pcrs;
        pcrs.insert(POLICY_PCR, TpmQuote::policy_pcr(&policy));
        Ok(Self {
            hardware,
            runtime_data,
            pcrs,
            key: Arc::new(key),
        })
    }

    /// A quote over `pcrs`, TPMS_ATTEST, with its signature.
    ///
    /// # Errors
    /// When the cryptography library fails.
    pub fn quote(
        &self,
        extra_data: &[u8],
        pcrs: &BTreeMap<u8, [u8; 32]>,
    ) -> Result<(Vec<u8>, Vec<u8>), SoftwareTeeError> {
        let values: Vec<[u8; 32]> = pcrs.values().copied().collect();
        let quote = tpm_quote(extra_data, pcrs.keys(), &TpmQuote::digest_of(&values));
        let signature = self.sign(&quote)?;
        Ok((quote, signature))
    }

    /// The attestation key's signature over `message`.
    ///
    /// # Errors
    /// When the cryptography library fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SoftwareTeeError> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message,
                &mut signature,
            )
            .map_err(|_| SoftwareTeeError::Crypto { action: SIGN })?;
        Ok(signature)
    }
}

impl Issuer for VtpmGuest {
    fn issue(&self, report_data: &ReportData) -> Result<Evidence, IssueError> {
        let issuer: &dyn Issuer = match &self.hardware {
            VtpmGuestHardware::Snp(guest) => &**guest,
            VtpmGuestHardware::Tdx(guest) => &**guest,
        };
        let (hcl_report, hardware) = hcl_report(issuer, &self.runtime_data)?;
        let extra_data = TpmQuote::expected_extra_data(report_data);
        let (tpm_quote, tpm_signature) =
            self.quote(&extra_data, &self.pcrs)
                .map_err(|error| IssueError {
                    tee: "software vTPM",
                    reason: error.to_string(),
                })?;
        Ok(Evidence::Vtpm(VtpmEvidence {
            hcl_report,
            hardware,
            tpm_quote,
            tpm_signature,
            pcr_values: self.pcrs.values().copied().collect(),
        }))
    }
}

/// What an unchanged guest meets.
pub(super) fn demands() -> VtpmDemands {
    let mut value = [0; 32];
    value.copy_from_slice(digest(&SHA256, b"software vTPM PCR 4").as_ref());
    VtpmDemands {
        pcrs: BTreeMap::from([(BOOT_PCR, value)]),
    }
}

/// The runtime data that a paravisor would write for the RSA attestation key with this modulus and exponent, both big-endian.
pub fn runtime_data(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let number = |bytes| URL_SAFE_NO_PAD.encode(bytes);
    let document = serde_json::json!({
        "keys": [{
            "kid": "HCLAkPub",
            "key_ops": ["sign"],
            "kty": "RSA",
            "e": number(exponent),
            "n": number(modulus),
        }],
        "vm-configuration": { "secure-boot": true, "tpm-enabled": true },
        "user-data": "00".repeat(64),
    });
    document.to_string().into_bytes()
}

/// The HCL report that a paravisor on the hardware of `issuer` would write around `runtime_data`, SHA-256, and what comes beside it. The
/// TDREPORT of a TDX report holds zeros, except for REPORTDATA.
///
/// # Errors
/// When the software TEE fails, or gives vTPM evidence itself.
pub fn hcl_report(
    issuer: &dyn Issuer,
    runtime_data: &[u8],
) -> Result<(Vec<u8>, VtpmHardware), IssueError> {
    let mut bound = ReportData([0; 64]);
    let hash = digest(&SHA256, runtime_data);
    for (slot, byte) in bound.0.iter_mut().zip(hash.as_ref()) {
        *slot = *byte;
    }
    let (report_type, report, evidence) = match issuer.issue(&bound)? {
        Evidence::Snp(evidence) => (2, evidence.report.clone(), Evidence::Snp(evidence)),
        Evidence::Tdx(evidence) => {
            let mut report = vec![0; TD_REPORT_DATA_OFFSET];
            report.extend(bound.0);
            report.resize(TD_REPORT_BYTES, 0);
            (4, report, Evidence::Tdx(evidence))
        }
        Evidence::Vtpm(_) => {
            return Err(IssueError {
                tee: "software vTPM",
                reason: "expected SNP or TDX hardware below the paravisor, found another vTPM"
                    .to_owned(),
            });
        }
    };
    let bytes = encode_hcl_report(report_type, &report, 1, runtime_data);
    let evidence = VtpmEvidence {
        hcl_report: Vec::new(),
        hardware: VtpmHardware::Snp(crate::SnpCertificates::default()),
        tpm_quote: Vec::new(),
        tpm_signature: Vec::new(),
        pcr_values: Vec::new(),
    }
    .with_hardware(evidence);
    Ok((bytes, evidence.hardware))
}

/// The bytes that [`HclReport`](crate::vtpm::HclReport) reads: `report` padded with zeros, `hash_type` as its table says.
pub fn encode_hcl_report(
    report_type: u32,
    report: &[u8],
    hash_type: u32,
    runtime_data: &[u8],
) -> Vec<u8> {
    let mut bytes = b"HCLA".to_vec();
    for word in [2_u32, 1184, 2, 0, 0, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    let start = bytes.len();
    bytes.extend(report);
    bytes.resize(start.saturating_add(REPORT_BYTES), 0);
    let length = u32::try_from(runtime_data.len()).unwrap_or(u32::MAX);
    for word in [length.saturating_add(20), 1, report_type, hash_type, length] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(runtime_data);
    bytes
}

/// TPMS_ATTEST of a quote over one selection of SHA-256 PCRs with indices below 24.
fn tpm_quote<'a>(
    extra_data: &[u8],
    pcrs: impl Iterator<Item = &'a u8>,
    pcr_digest: &[u8],
) -> Vec<u8> {
    let sized = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        [&length.to_be_bytes(), bytes].concat()
    };
    let bitmap = pcrs
        .filter(|index| **index < 24)
        .fold(0_u32, |bitmap, index| bitmap | 1 << index);
    let [low, middle, high, _] = bitmap.to_le_bytes();
    let mut quote = Vec::new();
    quote.extend(0xff54_4347_u32.to_be_bytes());
    quote.extend(0x8018_u16.to_be_bytes());
    // qualifiedSigner: a name, algorithm and digest.
    quote.extend(sized(&[&[0x00, 0x0B], [1; 32].as_slice()].concat()));
    quote.extend(sized(extra_data));
    // clockInfo (clock, resetCount, restartCount, safe) and firmwareVersion.
    quote.extend([0; 17]);
    quote.extend(1_u64.to_be_bytes());
    quote.extend(1_u32.to_be_bytes());
    quote.extend(0x000B_u16.to_be_bytes());
    quote.extend([3, low, middle, high]);
    quote.extend(sized(pcr_digest));
    quote
}
