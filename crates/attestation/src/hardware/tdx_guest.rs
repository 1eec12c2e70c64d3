use std::{fmt::Debug, io, time::Duration};

use contrast_guest_device::{TD_REPORT_BYTES, TdxGuest};

use super::{
    answer::{AnswerError, bound, chain, repeated},
    qgs::QuoteServiceError,
};
use crate::{Evidence, IssueError, Issuer, ReportData, TdxEvidence};

/// How often a TDREPORT is asked for when a signal interrupts.
const ATTEMPTS: u32 = 3;
/// REPORTDATA in REPORTMACSTRUCT, with which a TDREPORT starts.
const REPORT_DATA: std::ops::Range<usize> = 128..192;

/// The driver's side of `/dev/tdx_guest`.
pub trait TdxDevice: Debug + Send + Sync {
    /// TDX_CMD_GET_REPORT0: TDREPORT_STRUCT (Intel TDX Module ABI specification) with `report_data`.
    ///
    /// # Errors
    /// When the kernel or the TDX module refuse.
    fn report(&self, report_data: &ReportData) -> io::Result<Box<[u8; TD_REPORT_BYTES]>>;
}

impl TdxDevice for TdxGuest {
    fn report(&self, report_data: &ReportData) -> io::Result<Box<[u8; TD_REPORT_BYTES]>> {
        Self::report(self, &report_data.0)
    }
}

/// Turns a TDREPORT, which only this machine can check, into a quote.
pub trait QuoteService: Debug + Send + Sync {
    /// A quote of `td_report`: bytes of the host's choosing, of any content.
    ///
    /// # Errors
    /// When the service cannot be reached, is late, refuses, or its answer breaks the protocol.
    fn quote(&self, td_report: &[u8; TD_REPORT_BYTES]) -> Result<Vec<u8>, QuoteServiceError>;
}

/// `/dev/tdx_guest` and the quote generation service gave no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TdxDeviceError {
    /// The kernel gave no TDREPORT.
    #[error("TDX_CMD_GET_REPORT0 was refused; see the kernel's log of this guest for the reason")]
    Report(#[source] io::Error),
    /// The host gave no quote.
    #[error("no quote from the host's quote generation service")]
    Quote(#[from] QuoteServiceError),
    /// The answer is no evidence for what was asked.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// Issues evidence through `/dev/tdx_guest` and a quote generation service.
#[derive(Debug)]
pub struct TdxDeviceIssuer<D, Q> {
    device: D,
    service: Q,
}

impl<D: TdxDevice, Q: QuoteService> TdxDeviceIssuer<D, Q> {
    /// TDREPORTs come from `device`, `service` makes quotes of them.
    pub fn new(device: D, service: Q) -> Self {
        Self { device, service }
    }

    /// Evidence that carries `report_data`, without collateral.
    ///
    /// # Errors
    /// When there is no TDREPORT or no quote, or either is not what was asked for.
    pub fn evidence(&self, report_data: &ReportData) -> Result<Evidence, TdxDeviceError> {
        let passes = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
        let report = repeated(ATTEMPTS, Duration::ZERO, passes, || {
            self.device.report(report_data)
        })
        .map_err(TdxDeviceError::Report)?;
        if report.get(REPORT_DATA) != Some(&report_data.0) {
            return Err(AnswerError::ReportData.into());
        }
        let evidence = Evidence::Tdx(TdxEvidence {
            quote: self.service.quote(&report)?,
            collateral: None,
        });
        Ok(bound(evidence, report_data)?)
    }
}

impl<D: TdxDevice, Q: QuoteService> Issuer for TdxDeviceIssuer<D, Q> {
    fn issue(&self, report_data: &ReportData) -> Result<Evidence, IssueError> {
        self.evidence(report_data).map_err(|error| IssueError {
            tee: "TDX quote generation service (/dev/tdx_guest)",
            reason: chain(&error),
        })
    }
}
