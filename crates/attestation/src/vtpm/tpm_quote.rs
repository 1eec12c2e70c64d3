use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents},
};

use std::collections::BTreeMap;

use crate::{CheckList, ReportData};

/// The PCR that a guest extends with its policy hash, as Confidential Containers' peer pods do with their initdata. Neither
/// firmware nor boot loaders of unified kernel images use it, and nothing resets it while the guest runs.
pub const POLICY_PCR: u8 = 8;

/// TPM_GENERATED_VALUE: no key of a TPM signs foreign data that starts with it.
const GENERATED: u32 = 0xff54_4347;
/// TPM_ST_ATTEST_QUOTE.
const ATTEST_QUOTE: u16 = 0x8018;
/// TPM_ALG_SHA256.
const ALG_SHA256: u16 = 0x000B;
const SELECTIONS_MAX: u32 = 16;
const MODULUS_BITS_MIN: usize = 2048;

/// Public key of a TPM's attestation key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl AttestationKey {
    pub(super) fn new(modulus: Vec<u8>, exponent: Vec<u8>) -> Result<Self, String> {
        let start = modulus
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(modulus.len());
        let modulus = modulus.get(start..).unwrap_or_default().to_vec();
        let key = Self { modulus, exponent };
        match key.bits() {
            bits if bits < MODULUS_BITS_MIN => Err(format!("an RSA key of {bits} bits")),
            _ => Ok(key),
        }
    }

    /// Size of the modulus in bits.
    pub fn bits(&self) -> usize {
        let leading = self.modulus.first().map_or(0, |byte| byte.leading_zeros());
        let leading = usize::try_from(leading).unwrap_or_default();
        self.modulus.len().saturating_mul(8).saturating_sub(leading)
    }

    /// Whether this key made `signature` (RSASSA-PKCS1-v1_5 with SHA-256) over `message`.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = RsaPublicKeyComponents {
            n: &self.modulus,
            e: &self.exponent,
        };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            .is_ok()
    }
}

/// A TPMS_ATTEST with a quote (TCG TPM 2.0 library specification, part 2, 10.12.8 and 10.12.1; big-endian), unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmQuote<'a> {
    /// extraData: what the quote was requested with.
    pub extra_data: &'a [u8],
    /// firmwareVersion.
    pub firmware_version: u64,
    /// Indices of the quoted SHA-256 PCRs, ascending.
    pub pcrs: Vec<u8>,
    /// pcrDigest: hash over the quoted PCRs' values, ascending.
    pub pcr_digest: &'a [u8],
}

/// Bytes that are no TPM quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TpmQuoteError {
    /// It ends too early.
    #[error("a TPM quote that ends within `{field}`")]
    Truncated {
        /// The field that is cut.
        field: &'static str,
    },
    /// Bytes after the end.
    #[error("{found} bytes after the end of a TPM quote")]
    Trailing {
        /// How many.
        found: usize,
    },
    /// Another magic number.
    #[error("expected magic {GENERATED:#x} (made by a TPM), found {found:#x}")]
    Magic {
        /// The magic number.
        found: u32,
    },
    /// Another attestation.
    #[error("expected attestation type {ATTEST_QUOTE:#x} (quote), found {found:#x}")]
    Kind {
        /// The type.
        found: u16,
    },
    /// PCRs of another bank, or several selections.
    #[error("expected one selection of SHA-256 PCRs, found {found}")]
    Selection {
        /// How many SHA-256 selections, or 0 when there are others.
        found: u32,
    },
}

impl<'a> TpmQuote<'a> {
    /// Reads a TPMS_ATTEST.
    ///
    /// # Errors
    /// When `bytes` are not exactly one quote over one selection of SHA-256 PCRs.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TpmQuoteError> {
        let mut reader = Reader(bytes);
        let magic = reader.u32("magic")?;
        if magic != GENERATED {
            return Err(TpmQuoteError::Magic { found: magic });
        }
        let kind = reader.u16("type")?;
        if kind != ATTEST_QUOTE {
            return Err(TpmQuoteError::Kind { found: kind });
        }
        reader.sized("qualifiedSigner")?;
        let extra_data = reader.sized("extraData")?;
        // clock, resetCount, restartCount, safe
        reader.take(17, "clockInfo")?;
        let firmware_version = u64::from_be_bytes(reader.array("firmwareVersion")?);
        let count = reader.u32("pcrSelect")?;
        if count != 1 {
            return Err(TpmQuoteError::Selection {
                found: count.min(SELECTIONS_MAX),
            });
        }
        if reader.u16("pcrSelect")? != ALG_SHA256 {
            return Err(TpmQuoteError::Selection { found: 0 });
        }
        let [size] = reader.array("pcrSelect")?;
        let bitmap = reader.take(size.into(), "pcrSelect")?;
        let bits = bitmap
            .iter()
            .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        let pcrs = (0..=u8::MAX)
            .zip(bits)
            .filter(|(_, set)| *set)
            .map(|(index, _)| index)
            .collect();
        let pcr_digest = reader.sized("pcrDigest")?;
        match reader.0.len() {
            0 => Ok(Self {
                extra_data,
                firmware_version,
                pcrs,
                pcr_digest,
            }),
            found => Err(TpmQuoteError::Trailing { found }),
        }
    }

    /// The extra data of a quote that is bound to `report_data`: its SHA-256, because extra data has at most 50 bytes on
    /// some TPMs.
    pub fn expected_extra_data(report_data: &ReportData) -> [u8; 32] {
        sha256(&report_data.0)
    }

    /// The digest over `values`, which are those of the quoted PCRs in ascending order.
    pub fn digest_of(values: &[[u8; 32]]) -> [u8; 32] {
        sha256(values.as_flattened())
    }

    /// The value of PCR 8 in a guest that extended it with `policy_hash` once, and with nothing else: SHA-256 over 32 zero
    /// bytes and the hash.
    pub fn policy_pcr(policy_hash: &crate::PolicyHash) -> [u8; 32] {
        let mut extended = [0; 64];
        for (slot, byte) in extended.iter_mut().skip(32).zip(policy_hash.0) {
            *slot = byte;
        }
        sha256(&extended)
    }

    /// Checks a quote: that `key` signed `message`, and what [`Self::check_contents`] checks.
    pub fn check(
        message: &'a [u8],
        signature: &[u8],
        key: &AttestationKey,
        report_data: Option<&ReportData>,
        checks: &mut CheckList,
    ) -> Option<Self> {
        let expected = "a signature by the vTPM's attestation key";
        let (found, passed) = match key.signed(message, signature) {
            true => ("one that holds", true),
            false => ("one that does not hold", false),
        };
        checks.record("TPM quote signature", expected, found, passed);
        Self::check_contents(message, report_data, checks)
    }

    /// Checks that `message` is a quote over SHA-256 PCRs and, with `report_data`, that it was requested for that.
    pub fn check_contents(
        message: &'a [u8],
        report_data: Option<&ReportData>,
        checks: &mut CheckList,
    ) -> Option<Self> {
        match Self::parse(message) {
            Ok(quote) => {
                if let Some(report_data) = report_data {
                    let expected = Self::expected_extra_data(report_data);
                    checks.equal_bytes("TPM quote extraData", &expected, quote.extra_data);
                }
                Some(quote)
            }
            Err(error) => {
                let expected = "a TPMS_ATTEST of a quote over SHA-256 PCRs";
                checks.fail("TPM quote", expected, error.to_string());
                None
            }
        }
    }

    /// Checks that `values` are those of the quoted PCRs in ascending order, and gives them their indices.
    pub fn check_values(
        &self,
        values: &[[u8; 32]],
        checks: &mut CheckList,
    ) -> BTreeMap<u8, [u8; 32]> {
        let (quoted, given) = (self.pcrs.len(), values.len());
        let digest = Self::digest_of(values);
        checks.record(
            "TPM quote pcrDigest",
            format!(
                "{}, the digest of {quoted} PCR values",
                hex::encode(self.pcr_digest)
            ),
            format!("{} of {given} PCR values", hex::encode(digest)),
            quoted == given && digest == self.pcr_digest,
        );
        let pairs = self.pcrs.iter().zip(values);
        pairs.map(|(index, value)| (*index, *value)).collect()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], TpmQuoteError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(TpmQuoteError::Truncated { field })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], TpmQuoteError> {
        let taken = self.take(N, field)?;
        taken
            .first_chunk()
            .copied()
            .ok_or(TpmQuoteError::Truncated { field })
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, TpmQuoteError> {
        self.array(field).map(u16::from_be_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, TpmQuoteError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// A TPM2B: a 16-bit size and as many bytes.
    fn sized(&mut self, field: &'static str) -> Result<&'a [u8], TpmQuoteError> {
        let length = self.u16(field)?;
        self.take(length.into(), field)
    }
}
