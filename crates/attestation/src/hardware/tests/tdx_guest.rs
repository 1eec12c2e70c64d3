//! Stand-ins for the driver of `/dev/tdx_guest` and for a quote service behind it.

use std::{io, sync::Mutex};

use contrast_guest_device::TD_REPORT_BYTES;

use super::{POLICY, REPORT_DATA, verify};
use crate::{
    Evidence, Issuer as _, ReportData,
    hardware::{
        AnswerError, QuoteService, QuoteServiceError, TdxDevice, TdxDeviceError, TdxDeviceIssuer,
    },
    software::fixture::software_tee,
};

/// A driver that is interrupted so many times, and may put other data into its report.
#[derive(Debug, Default)]
pub(super) struct Driver {
    pub(super) interruptions: Mutex<usize>,
    pub(super) forged: Option<[u8; 64]>,
}

impl TdxDevice for &Driver {
    fn report(&self, report_data: &ReportData) -> io::Result<Box<[u8; TD_REPORT_BYTES]>> {
        let mut interruptions = self.interruptions.lock().expect("lock");
        if *interruptions > 0 {
            *interruptions -= 1;
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut report = Box::new([0; TD_REPORT_BYTES]);
        // TEE type TDX, in REPORTTYPE.
        report[0] = 0x81;
        report[128..192].copy_from_slice(&self.forged.unwrap_or(report_data.0));
        Ok(report)
    }
}

/// The quote that the software TEE makes for the TDREPORT.
pub(super) fn quote_of(td_report: &[u8]) -> Vec<u8> {
    let report_data = ReportData(td_report[128..192].try_into().expect("64 bytes"));
    match software_tee().tdx_guest(POLICY).issue(&report_data) {
        Ok(Evidence::Tdx(evidence)) => evidence.quote,
        other => panic!("expected TDX evidence, found {other:?}"),
    }
}

/// Adds the collateral that a quote of hardware comes without, and verifies.
pub(super) fn verify_quote(evidence: Evidence) {
    let Evidence::Tdx(mut evidence) = evidence else {
        panic!("TDX");
    };
    assert_eq!(evidence.collateral, None);
    let Ok(Evidence::Tdx(own)) = software_tee().tdx_guest(POLICY).issue(&REPORT_DATA) else {
        panic!("TDX");
    };
    evidence.collateral = own.collateral;
    verify(&Evidence::Tdx(evidence));
}

#[derive(Debug)]
struct Service(Option<Vec<u8>>);

impl QuoteService for Service {
    fn quote(&self, td_report: &[u8; TD_REPORT_BYTES]) -> Result<Vec<u8>, QuoteServiceError> {
        Ok(self.0.clone().unwrap_or_else(|| quote_of(td_report)))
    }
}

#[test]
fn a_quote_of_the_report_is_evidence_and_verifies() {
    let driver = Driver {
        interruptions: Mutex::new(2),
        ..Driver::default()
    };
    let issuer = TdxDeviceIssuer::new(&driver, Service(None));
    verify_quote(issuer.issue(&REPORT_DATA).expect("evidence"));
}

#[test]
fn a_driver_that_is_always_interrupted_is_given_up() {
    let driver = Driver {
        interruptions: Mutex::new(usize::MAX),
        ..Driver::default()
    };
    let issuer = TdxDeviceIssuer::new(&driver, Service(None));
    let error = issuer.evidence(&REPORT_DATA).expect_err("interrupted");
    assert!(matches!(error, TdxDeviceError::Report(_)), "{error}");
    assert_eq!(usize::MAX - *driver.interruptions.lock().expect("lock"), 3);
}

#[test]
fn a_report_or_quote_for_other_data_and_a_quote_that_is_none_are_refused() {
    let honest = Driver::default();
    let forging = Driver {
        forged: Some([9; 64]),
        ..Driver::default()
    };
    let mut other = [0; TD_REPORT_BYTES];
    other[128..192].fill(9);
    for (driver, quote) in [
        // The service would even make up for the driver.
        (
            &forging,
            Some(quote_of(&{
                let mut asked = other;
                asked[128..192].copy_from_slice(&REPORT_DATA.0);
                asked
            })),
        ),
        (&honest, Some(quote_of(&other))),
        (&honest, Some(Vec::new())),
        (&honest, Some(vec![4; 5000])),
    ] {
        let issuer = TdxDeviceIssuer::new(driver, Service(quote));
        let error = issuer.evidence(&REPORT_DATA).expect_err("other data");
        assert!(
            matches!(error, TdxDeviceError::Answer(AnswerError::ReportData)),
            "{error}"
        );
    }
}
