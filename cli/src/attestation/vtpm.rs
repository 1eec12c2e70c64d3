//! Evidence through a virtual TPM, from the files that TPM tools write.

use std::collections::BTreeMap;

use contrast_attestation::{
    Evidence, SnpCertificates, VtpmEvidence, VtpmHardware,
    vtpm::{TpmQuote, TpmQuoteError},
};
use contrast_collateral::Completion;
use serde_json::{Map, Value, json};

use super::input::{EvidenceArgs, InputError};
use crate::workspace;

/// Files around a TPM quote that are not what they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TpmInputError {
    /// Something of the TPM's is missing.
    #[error(
        "expected --tpm-quote, --tpm-signature and --tpm-pcrs beside --azure; without them nothing says what the guest started"
    )]
    Missing,
    /// No TPM quote.
    #[error("the file of --tpm-quote holds no TPM quote over SHA-256 PCRs")]
    Quote(#[source] TpmQuoteError),
    /// A line that is no PCR.
    #[error(
        "line {line} of --tpm-pcrs: expected `INDEX: 0x<64 hex digits>` as `tpm2_pcrread sha256` prints it, found `{found}`"
    )]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What it says, cut to 80 characters.
        found: String,
    },
    /// Two values for one PCR.
    #[error(
        "line {line} of --tpm-pcrs: PCR {index} is there twice; keep the value that was quoted"
    )]
    Twice {
        /// The number of the second line, from 1.
        line: usize,
        /// The PCR.
        index: u8,
    },
    /// A quoted PCR without a value.
    #[error("the quote covers PCR {index}, and --tpm-pcrs has no SHA-256 value for it")]
    Value {
        /// The PCR.
        index: u8,
    },
}

impl EvidenceArgs {
    /// Evidence through a vTPM, from an HCL report, the hardware's part of the evidence, and the files of the TPM.
    pub(super) fn vtpm(
        &self,
        hcl_report: Vec<u8>,
        hardware: Completion,
    ) -> Result<Completion, InputError> {
        let (Some(quote), Some(signature), Some(pcrs)) =
            (&self.tpm_quote, &self.tpm_signature, &self.tpm_pcrs)
        else {
            return Err(TpmInputError::Missing.into());
        };
        let tpm_quote = workspace::read("TPM quote", quote, "")?;
        let signature = workspace::read("signature of the TPM quote", signature, "")?;
        let text = workspace::read("values of PCRs", pcrs, "")?;
        let parsed = TpmQuote::parse(&tpm_quote).map_err(TpmInputError::Quote)?;
        let values = pcr_values(&String::from_utf8_lossy(&text))?;
        let quoted = parsed.pcrs.iter().map(|index| {
            let value = values.get(index).copied();
            value.ok_or(TpmInputError::Value { index: *index })
        });
        let evidence = VtpmEvidence {
            hcl_report,
            hardware: VtpmHardware::Snp(SnpCertificates::default()),
            pcr_values: quoted.collect::<Result<_, _>>()?,
            tpm_signature: bare_signature(&signature).to_vec(),
            tpm_quote,
        };
        Ok(Completion {
            evidence: Evidence::Vtpm(evidence.with_hardware(hardware.evidence)),
            remarks: hardware.remarks,
            unseen: hardware.unseen,
        })
    }
}

/// The RSA signature in a TPMT_SIGNATURE (algorithm, hash, size, signature), or the bytes as they are.
pub fn bare_signature(bytes: &[u8]) -> &[u8] {
    // TPM_ALG_RSASSA, TPM_ALG_SHA256.
    match bytes.strip_prefix(&[0x00, 0x14, 0x00, 0x0B]) {
        Some(rest) => rest.get(2..).unwrap_or_default(),
        None => bytes,
    }
}

/// SHA-256 PCRs as `tpm2_pcrread` prints them: a heading for each bank (`sha256:`), then lines `8 : 0x<64 hex digits>`. Lines before
/// the first heading are taken for SHA-256, those of other banks are left alone.
fn pcr_values(text: &str) -> Result<BTreeMap<u8, [u8; 32]>, TpmInputError> {
    let mut values = BTreeMap::new();
    let mut is_sha256 = true;
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        let heading = content.strip_suffix(':').map(str::trim);
        if let Some(bank) =
            heading.filter(|bank| bank.starts_with(|c: char| c.is_ascii_alphabetic()))
        {
            is_sha256 = bank == "sha256";
            continue;
        }
        if content.is_empty() || !is_sha256 {
            continue;
        }
        let (index, value) = pcr(content).ok_or_else(|| TpmInputError::Line {
            line,
            found: content.chars().take(80).collect(),
        })?;
        if values.insert(index, value).is_some() {
            return Err(TpmInputError::Twice { line, index });
        }
    }
    Ok(values)
}

fn pcr(line: &str) -> Option<(u8, [u8; 32])> {
    let (index, value) = line.split_once(':')?;
    let value = value.trim().trim_start_matches("0x");
    let mut bytes = [0; 32];
    hex::decode_to_slice(value, &mut bytes).ok()?;
    Some((index.trim().parse().ok()?, bytes))
}

/// A TPM quote, unverified, with the values that came beside it.
pub(super) fn quote_tree(message: &[u8], values: &[[u8; 32]]) -> Value {
    let Ok(quote) = TpmQuote::parse(message) else {
        return json!("unreadable");
    };
    let mut pcrs = Map::new();
    for (index, value) in quote.pcrs.iter().zip(values) {
        pcrs.insert(index.to_string(), hex::encode(value).into());
    }
    let quoted: Vec<String> = quote.pcrs.iter().map(u8::to_string).collect();
    json!({
        "extra_data": hex::encode(quote.extra_data),
        "firmware_version": format!("{:#x}", quote.firmware_version),
        "quoted_pcrs": quoted.join(", "),
        "pcr_digest": hex::encode(quote.pcr_digest),
        "pcr_digest_fits_values": quote.pcr_digest == TpmQuote::digest_of(values),
        "pcrs": pcrs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_tpm2_pcrread_is_read() {
        let text = format!(
            "  sha1:\n    8 : 0x{}\n  sha256:\n    4 : 0x{}\n    11: 0x{}\n",
            "AA".repeat(20),
            "4A".repeat(32),
            "bb".repeat(32)
        );
        let values = pcr_values(&text).expect("reads");
        assert_eq!(values, [(4, [0x4A; 32]), (11, [0xBB; 32])].into());
        let bare = format!("8: 0x{}\n\n9: {}\n", "01".repeat(32), "02".repeat(32));
        let values = pcr_values(&bare).expect("reads");
        assert_eq!(values, [(8, [1; 32]), (9, [2; 32])].into());
    }

    #[test]
    fn a_line_that_is_no_pcr_is_named() {
        let good = format!("8: 0x{}\n", "01".repeat(32));
        for (text, expected) in [
            (format!("{good}nonsense"), "line 2 of --tpm-pcrs: expected"),
            (format!("{good}4: 0x00"), "found `4: 0x00`"),
            (
                format!("300: 0x{}", "00".repeat(32)),
                "line 1 of --tpm-pcrs: expected",
            ),
            (
                format!("{good}{good}"),
                "line 2 of --tpm-pcrs: PCR 8 is there twice",
            ),
        ] {
            let error = pcr_values(&text).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
