//! Evidence of Azure's confidential VMs, which comes through a virtual TPM.
//!
//! The paravisor (HCL), which runs in the guest at the highest privilege and is part of the launch measurement, requests the
//! hardware report once and keeps it in NV index 0x01400001 of its TPM, followed by *runtime data*: a JSON document with the
//! public key of the TPM's attestation key. The report's REPORT_DATA is the hash of that document. So the hardware vouches for the
//! attestation key, and the key for a TPM quote with fresh data.
//!
//! ```text
//! offset  size  field (integers little-endian)
//!      0     4  signature, "HCLA"
//!      4     4  version
//!      8     4  report size
//!     12     4  request type
//!     16     4  status
//!     20    12  reserved
//!     32  1184  hardware report: ATTESTATION_REPORT, or TDREPORT (1024 bytes) and zeros
//!   1216     4  size of the runtime data with its header
//!   1220     4  version
//!   1224     4  report type: 2 SEV-SNP, 4 TDX
//!   1228     4  hash type: 1 SHA-256, 2 SHA-384, 3 SHA-512
//!   1232     4  size of the JSON document
//!   1236     -  the JSON document
//! ```
//!
//! [`VtpmEvidence`] is accepted when
//! 1. the hardware's report or quote meets everything that is demanded of direct evidence, with the hash of the runtime data as
//!    report data, and except for the policy (HOSTDATA and MRCONFIGID are the cloud provider's here);
//! 2. the runtime data names one attestation key, which signed the TPM quote;
//! 3. the quote was requested for the report data of the connection, and the PCR values beside it are those that it covers;
//! 4. every PCR that the reference value lists is quoted and equal, and PCR 8 was extended once, with the hash of a policy.
//!
//! A reference value with `VTPM` must only pin the measurement of a paravisor that keeps REPORT_DATA to itself: a guest that can
//! choose it can vouch for a TPM of its own making.
//!
//! Source: Microsoft, "Azure confidential VM guest attestation", section on the attestation report; OpenHCL's `igvm_attest`.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod appraise;
mod evidence;
mod tpm_quote;

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::{CheckList, ReportData, Tee, snp::REPORT_BYTES};

pub(crate) use appraise::appraise;
pub use evidence::{SnpCertificates, VtpmEvidence, VtpmHardware};
pub use tpm_quote::{AttestationKey, POLICY_PCR, TpmQuote, TpmQuoteError};

const SIGNATURE: [u8; 4] = *b"HCLA";
const HEADER_BYTES: usize = 32;
/// REPORTDATA in a TDREPORT (Intel TDX module specification, REPORTMACSTRUCT).
const TD_REPORT_DATA_OFFSET: usize = 128;
const TD_REPORT_BYTES: usize = 1024;
/// What the NV index can hold, with room to spare.
pub(crate) const HCL_BYTES_MAX: usize = 64 * 1024;
/// Name of the attestation key in the runtime data.
const ATTESTATION_KEY: &str = "HCLAkPub";

/// Contents of NV index 0x01400001, parsed and unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HclReport<'a> {
    /// Version of the header.
    pub version: u32,
    /// The hardware that made the report.
    pub tee: Tee,
    /// ATTESTATION_REPORT (1184 bytes) or TDREPORT (1024 bytes).
    pub hardware_report: &'a [u8],
    /// The hash that binds the runtime data.
    pub hash: RuntimeHash,
    /// The JSON document, exact bytes.
    pub runtime_data: &'a [u8],
}

/// Hash of the runtime data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeHash {
    /// 32 bytes; the rest of the report data is zero.
    Sha256,
    /// 48 bytes; the rest of the report data is zero.
    Sha384,
    /// 64 bytes.
    Sha512,
}

/// Bytes that are no HCL report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HclReportError {
    /// Shorter or longer than such a report.
    #[error("an HCL report has 1236 to {HCL_BYTES_MAX} bytes, found {found}")]
    Size {
        /// Size in bytes.
        found: usize,
    },
    /// Another signature.
    #[error("an HCL report starts with \"HCLA\", found {}", hex::encode(found))]
    Signature {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A report type that this version does not know.
    #[error("expected report type 2 (SEV-SNP) or 4 (TDX), found {found}")]
    ReportType {
        /// The type.
        found: u32,
    },
    /// A hash type that this version does not know.
    #[error("expected hash type 1 (SHA-256), 2 (SHA-384) or 3 (SHA-512), found {found}")]
    HashType {
        /// The type.
        found: u32,
    },
    /// The runtime data ends beyond the report.
    #[error("the runtime data has {stated} bytes, but only {found} are there")]
    RuntimeData {
        /// Its size by the header.
        stated: u32,
        /// What is there.
        found: usize,
    },
}

#[derive(Deserialize)]
struct RuntimeData {
    keys: Vec<Key>,
    #[serde(rename = "user-data")]
    user_data: Option<String>,
}

#[derive(Deserialize)]
struct Key {
    kid: String,
    kty: String,
    n: Option<String>,
    e: Option<String>,
}

impl RuntimeHash {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        }
    }
}

impl<'a> HclReport<'a> {
    /// Reads the contents of the NV index; bytes after the runtime data are padding.
    ///
    /// # Errors
    /// When `bytes` are no HCL report of SEV-SNP or TDX.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HclReportError> {
        let size = HclReportError::Size { found: bytes.len() };
        if bytes.len() > HCL_BYTES_MAX {
            return Err(size);
        }
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(size)?;
        let (report, rest) = rest.split_first_chunk::<REPORT_BYTES>().ok_or(size)?;
        let (runtime, rest) = rest.split_first_chunk::<20>().ok_or(size)?;
        let [signature, version, ..] = words::<8>(header);
        if signature != u32::from_le_bytes(SIGNATURE) {
            return Err(HclReportError::Signature {
                found: signature.to_le_bytes(),
            });
        }
        let [_, _, report_type, hash_type, length] = words::<5>(runtime);
        let (tee, hardware_report) = match report_type {
            2 => (Tee::Snp, report.as_slice()),
            4 => (Tee::Tdx, report.get(..TD_REPORT_BYTES).ok_or(size)?),
            found => return Err(HclReportError::ReportType { found }),
        };
        let hash = match hash_type {
            1 => RuntimeHash::Sha256,
            2 => RuntimeHash::Sha384,
            3 => RuntimeHash::Sha512,
            found => return Err(HclReportError::HashType { found }),
        };
        let runtime_data = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
            .ok_or(HclReportError::RuntimeData {
                stated: length,
                found: rest.len(),
            })?;
        Ok(Self {
            version,
            tee,
            hardware_report,
            hash,
            runtime_data,
        })
    }

    /// Like [`Self::parse`]; a refusal becomes a failed check.
    pub(crate) fn read(bytes: &'a [u8], checks: &mut CheckList) -> Option<Self> {
        match Self::parse(bytes) {
            Ok(report) => Some(report),
            Err(error) => {
                let expected = "an HCL report of SEV-SNP or TDX";
                checks.fail("HCL report", expected, error.to_string());
                None
            }
        }
    }

    /// What the hardware's report data must be: the hash of the runtime data, and zeros.
    pub fn expected_report_data(&self) -> ReportData {
        let mut data = [0; 64];
        for (slot, byte) in data
            .iter_mut()
            .zip(digest(self.hash.algorithm(), self.runtime_data).as_ref())
        {
            *slot = *byte;
        }
        ReportData(data)
    }

    /// The attestation key in the runtime data; trusted only after the hardware's report data was compared with
    /// [`Self::expected_report_data`].
    ///
    /// # Errors
    /// Says in words what is wrong with the runtime data: no JSON, not exactly one key of this name, or no RSA key.
    pub fn attestation_key(&self) -> Result<AttestationKey, String> {
        let keys = self.document()?.keys.into_iter();
        let mut keys = keys.filter(|key| key.kid == ATTESTATION_KEY);
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(format!("not exactly one key `{ATTESTATION_KEY}`"));
        };
        if key.kty != "RSA" {
            return Err(format!("a key of type {:?}", key.kty));
        }
        let number = |text: Option<String>, name: &str| {
            URL_SAFE_NO_PAD
                .decode(text.unwrap_or_default().trim_end_matches('='))
                .map_err(|error| format!("`{name}` is not base64url: {error}"))
        };
        AttestationKey::new(number(key.n, "n")?, number(key.e, "e")?)
    }

    /// The user data in the runtime data, as the guest wrote it to NV index 0x01400002: hex of 64 bytes.
    pub fn user_data(&self) -> Option<ReportData> {
        let mut data = [0; 64];
        let text = self.document().ok()?.user_data?;
        hex::decode_to_slice(text, &mut data).ok()?;
        Some(ReportData(data))
    }

    fn document(&self) -> Result<RuntimeData, String> {
        serde_json::from_slice(self.runtime_data)
            .map_err(|error| format!("no runtime data: {error}"))
    }

    /// Checks that the hardware's own report carries the hash of the runtime data, and that this names one attestation key.
    /// For TDX that report is a TDREPORT, which only the platform itself can verify: its quote must carry the same data.
    pub fn check(&self, checks: &mut CheckList) {
        if self.tee == Tee::Tdx {
            let found = self
                .hardware_report
                .get(TD_REPORT_DATA_OFFSET..)
                .and_then(<[u8]>::first_chunk::<64>);
            let expected = self.expected_report_data();
            checks.equal_bytes(
                "TDREPORT REPORTDATA",
                &expected.0,
                found.map_or(&[], <[u8; 64]>::as_slice),
            );
        }
        let expected = "one RSA key HCLAkPub of 2048 bits or more in the runtime data";
        match self.attestation_key() {
            Ok(key) => checks.record(
                "vTPM attestation key",
                expected,
                format!("RSA, {} bits", key.bits()),
                true,
            ),
            Err(error) => checks.fail("vTPM attestation key", expected, error),
        }
    }
}

/// Little-endian words.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = chunk
            .first_chunk::<4>()
            .map_or(0, |chunk| u32::from_le_bytes(*chunk));
    }
    words
}

#[cfg(test)]
mod tests;
