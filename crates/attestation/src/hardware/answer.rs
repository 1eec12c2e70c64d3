//! What the interfaces have in common: turning answers of firmware and host into evidence, and asking again.

use std::{thread, time::Duration};

use crate::{
    Evidence, ReportData, SnpEvidence,
    snp::{
        self, CertificateGuid, CertificateTable, CertificateTableError, Report, ReportFormatError,
        SigningKey,
    },
};

/// An answer that is no evidence for what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The firmware's report is none.
    #[error(
        "the firmware's answer holds no attestation report; expected one that this version knows"
    )]
    Report(#[source] ReportFormatError),
    /// The host's certificate table is none.
    #[error(
        "the host's certificate table is malformed; correct it on the host, or let the host have none"
    )]
    Certificates(#[source] CertificateTableError),
    /// The report is bound to other data than was asked for.
    #[error("the report is bound to other data than was asked for; do not use this machine")]
    ReportData,
}

/// Evidence of a report and the certificate table that came with it, empty when none did. AMD's own ASK and ARK are added when the
/// host left them out.
pub(super) fn snp_evidence(report: Vec<u8>, table: &[u8]) -> Result<SnpEvidence, AnswerError> {
    let parsed = Report::parse(&report).map_err(AnswerError::Report)?;
    let table = CertificateTable::parse(table).map_err(AnswerError::Certificates)?;
    let signer = match parsed.signing_key() {
        SigningKey::Vlek => CertificateGuid::VLEK,
        SigningKey::Vcek | SigningKey::Other(_) => CertificateGuid::VCEK,
    };
    let content = |guid| table.get(guid).unwrap_or_default().to_vec();
    let mut evidence = SnpEvidence {
        vek: content(signer),
        ask: content(CertificateGuid::ASK),
        ark: content(CertificateGuid::ARK),
        crl: content(CertificateGuid::CRL),
        report,
    };
    let product = snp::claimed_product(&evidence);
    if let (SigningKey::Vcek, Some(product)) = (parsed.signing_key(), product)
        && evidence.ask.is_empty()
        && evidence.ark.is_empty()
    {
        let chain = snp::vendor_chain(product);
        evidence.ask = chain.ask.to_vec();
        evidence.ark = chain.ark.to_vec();
    }
    Ok(evidence)
}

/// The evidence, when it carries `report_data`.
pub(super) fn bound(evidence: Evidence, report_data: &ReportData) -> Result<Evidence, AnswerError> {
    match evidence.report_data() == Some(*report_data) {
        true => Ok(evidence),
        false => Err(AnswerError::ReportData),
    }
}

/// Repeats `operation` while it fails with what `passes` says will pass, up to `attempts` times in all, with a `pause` in between.
pub(super) fn repeated<R, E>(
    attempts: u32,
    pause: Duration,
    passes: impl Fn(&E) -> bool,
    mut operation: impl FnMut() -> Result<R, E>,
) -> Result<R, E> {
    let mut outcome = operation();
    for _ in 1..attempts {
        match &outcome {
            Err(error) if passes(error) => {
                thread::sleep(pause);
                outcome = operation();
            }
            _ => break,
        }
    }
    outcome
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
