//! What the hardware tells the guest about itself, for a decision inside of the guest.
//!
//! A quote of TDX comes from a program of the host, and nobody has verified its signature yet. So the guest asks the TDX module, whose answer does
//! not pass the host. A report of SEV-SNP comes from the firmware over a channel that is encrypted and authenticated (SEV Secure
//! Nested Paging Firmware ABI, "Guest Messages").

use std::{error::Error, path::Path};

use contrast_guest_device::TdxGuest;

use super::{ConfigfsIssuer, Interfaces, Unusable, answer::chain};
use crate::{
    Evidence, PolicyHash, ReportData, Tee,
    snp::{Report, ReportFormatError},
};

/// Offsets in TDREPORT_STRUCT (Intel TDX Module ABI Specification): REPORTDATA of REPORTMACSTRUCT, and MRCONFIGID of TDINFO_STRUCT.
const REPORT_DATA: std::ops::Range<usize> = 128..192;
const MR_CONFIG_ID: std::ops::Range<usize> = 576..624;
/// REPORTTYPE of a TD: the first byte.
const REPORT_TYPE_TDX: u8 = 0x81;

/// What an interface answered is not what was asked for.
#[derive(Debug, thiserror::Error)]
enum OwnError {
    #[error(transparent)]
    Asked(Box<dyn Error + Send + Sync>),
    #[error("expected a report of {expected}, found another one")]
    Kind { expected: &'static str },
    #[error("the report does not carry the data that it was asked for with")]
    Data,
    #[error("the report cannot be read")]
    Report(#[source] ReportFormatError),
    #[error("MRCONFIGID ends with other bytes than zeros; expected a SHA-256")]
    Padding,
}

type Attempt<'a> = &'a dyn Fn() -> Result<PolicyHash, OwnError>;

impl Interfaces {
    /// Hash of the document that this guest was started with: HOSTDATA of a fresh report of SEV-SNP, MRCONFIGID of a fresh one of TDX.
    /// `nonce` is random.
    ///
    /// # Errors
    /// When no interface can be used: each with its reason, in the order they were tried.
    pub fn own_policy_hash(&self, nonce: &ReportData) -> Result<PolicyHash, Vec<Unusable>> {
        let mut unusable = Vec::new();
        let attempts: [(&Path, Attempt<'_>); 3] = [
            (&self.tdx_guest, &|| {
                let report = TdxGuest::open(&self.tdx_guest).and_then(|td| td.report(&nonce.0));
                of_td_report(report.map_err(asked)?.as_slice(), nonce)
            }),
            (self.configfs.path(), &|| {
                let issuer = ConfigfsIssuer::probe(self.configfs.clone()).map_err(asked)?;
                // Behind this interface TDX has quotes only.
                if issuer.tee() != Tee::Snp {
                    let expected = "SEV-SNP";
                    return Err(OwnError::Kind { expected });
                }
                of_evidence(&issuer.evidence(nonce).map_err(asked)?, nonce)
            }),
            (&self.sev_guest, &|| {
                let issuer = self.sev_guest().map_err(asked)?;
                of_evidence(&issuer.evidence(nonce).map_err(asked)?, nonce)
            }),
        ];
        for (interface, attempt) in attempts {
            match attempt() {
                Ok(hash) => return Ok(hash),
                Err(error) => unusable.push(Unusable {
                    interface: interface.display().to_string(),
                    reason: chain(&error),
                }),
            }
        }
        Err(unusable)
    }
}

fn asked(error: impl Error + Send + Sync + 'static) -> OwnError {
    OwnError::Asked(Box::new(error))
}

fn of_evidence(evidence: &Evidence, nonce: &ReportData) -> Result<PolicyHash, OwnError> {
    let Evidence::Snp(evidence) = evidence else {
        return Err(OwnError::Kind {
            expected: "SEV-SNP",
        });
    };
    let report = Report::parse(&evidence.report).map_err(OwnError::Report)?;
    match report.report_data == nonce.0 {
        true => Ok(PolicyHash(report.host_data)),
        false => Err(OwnError::Data),
    }
}

fn of_td_report(report: &[u8], nonce: &ReportData) -> Result<PolicyHash, OwnError> {
    if report.first() != Some(&REPORT_TYPE_TDX) {
        return Err(OwnError::Kind { expected: "TDX" });
    }
    if report.get(REPORT_DATA) != Some(nonce.0.as_slice()) {
        return Err(OwnError::Data);
    }
    let register = report.get(MR_CONFIG_ID).unwrap_or_default();
    match register.split_first_chunk::<32>() {
        Some((hash, padding)) if padding.iter().all(|byte| *byte == 0) => Ok(PolicyHash(*hash)),
        _ => Err(OwnError::Padding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: ReportData = ReportData([5; 64]);

    fn td_report() -> Vec<u8> {
        let mut report = vec![0; 1024];
        report[0] = REPORT_TYPE_TDX;
        report[REPORT_DATA].fill(5);
        report[576..608].fill(9);
        report
    }

    #[test]
    fn register_of_a_td_is_the_hash_and_zeros() {
        let report = td_report();
        assert_eq!(
            of_td_report(&report, &NONCE).expect("hash"),
            PolicyHash([9; 32])
        );
        let refused = |position: usize| {
            let mut report = td_report();
            report[position] ^= 1;
            of_td_report(&report, &NONCE)
                .expect_err("refused")
                .to_string()
        };
        assert!(refused(0).contains("expected a report of TDX"));
        assert!(refused(128).contains("does not carry the data"));
        assert!(refused(608).contains("other bytes than zeros"));
        assert!(of_td_report(&report[..600], &NONCE).is_err());
        assert!(of_td_report(&[], &NONCE).is_err());
    }
}
