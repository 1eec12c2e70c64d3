use std::{fmt::Debug, io, time::Duration};

use contrast_guest_device::{
    NO_FIRMWARE_STATUS, SNP_RESPONSE_BYTES, SevGuest, SevGuestError, VMM_BUSY, VMM_INVALID_LENGTH,
};

use super::{
    answer::{AnswerError, bound, chain, repeated, snp_evidence},
    snp_status::{FirmwareStatus, VmmStatus},
};
use crate::{
    Evidence, IssueError, Issuer, ReportData,
    snp::{REPORT_BYTES, TABLE_BYTES_MAX},
};

/// MSG_REPORT_RSP before the report: STATUS and REPORT_SIZE (4 bytes each, little-endian), 24 bytes reserved.
const RESPONSE_HEADER_BYTES: usize = 32;
/// Room for the host's certificate table in the first request, which is as much as the Linux driver of today takes.
const FIRST_TABLE_BYTES: usize = 16 * 1024;
/// The driver takes whole pages.
const PAGE_BYTES: usize = 4096;
/// How often one request is made when it was interrupted or the host throttles. The driver itself repeats a throttled one for a minute
/// since Linux 6.3.
const ATTEMPTS: u32 = 5;
/// Time between two of them; hosts throttle to a few requests in two seconds.
const PAUSE: Duration = Duration::from_millis(500);
/// How often more room is offered before the table is given up: once is what an honest host needs.
const ROOM_ATTEMPTS: u32 = 2;
const ENOTTY: i32 = 25;

/// The driver's side of `/dev/sev-guest`. Both requests answer with MSG_REPORT_RSP (AMD publication 56860), padded to 4000 bytes.
pub trait SnpDevice: Debug + Send + Sync {
    /// SNP_GET_REPORT.
    ///
    /// # Errors
    /// When kernel, host or firmware refuse.
    fn report(
        &self,
        report_data: &ReportData,
        vmpl: u32,
    ) -> Result<Box<[u8; SNP_RESPONSE_BYTES]>, SevGuestError>;

    /// SNP_GET_EXT_REPORT, with the host's certificate table in `table`, whose size is a multiple of 4096 bytes.
    ///
    /// # Errors
    /// When kernel, host or firmware refuse, or `table` is too small.
    fn extended_report(
        &self,
        report_data: &ReportData,
        vmpl: u32,
        table: &mut [u8],
    ) -> Result<Box<[u8; SNP_RESPONSE_BYTES]>, SevGuestError>;
}

impl SnpDevice for SevGuest {
    fn report(
        &self,
        report_data: &ReportData,
        vmpl: u32,
    ) -> Result<Box<[u8; SNP_RESPONSE_BYTES]>, SevGuestError> {
        Self::report(self, &report_data.0, vmpl)
    }

    fn extended_report(
        &self,
        report_data: &ReportData,
        vmpl: u32,
        table: &mut [u8],
    ) -> Result<Box<[u8; SNP_RESPONSE_BYTES]>, SevGuestError> {
        Self::extended_report(self, &report_data.0, vmpl, table)
    }
}

/// `/dev/sev-guest` gave no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnpDeviceError {
    /// Kernel, host or firmware refused.
    #[error("{request} was refused with firmware status {firmware}, VMM status {vmm}; {}", advice(*firmware, *vmm, source))]
    Refused {
        /// The ioctl.
        request: &'static str,
        /// Status of the firmware.
        firmware: FirmwareStatus,
        /// Status of the host.
        vmm: VmmStatus,
        /// Size in bytes that the host says its certificate table has. The host chose it.
        table_bytes: u32,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The firmware made no report.
    #[error("expected MSG_REPORT_RSP with status 0x00 (SUCCESS), found {status}; {}", response_advice(*status, *vmpl))]
    Status {
        /// STATUS.
        status: FirmwareStatus,
        /// The VMPL that was asked for.
        vmpl: u32,
    },
    /// The firmware's report has another size than the only one that is defined.
    #[error(
        "expected MSG_REPORT_RSP with a report of {REPORT_BYTES} bytes, found {found}; this version does not know the firmware's report format"
    )]
    ReportSize {
        /// REPORT_SIZE.
        found: u32,
    },
    /// The answer is no evidence for what was asked.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

fn advice(firmware: FirmwareStatus, vmm: VmmStatus, error: &io::Error) -> &'static str {
    match (vmm.0, firmware.0, error.raw_os_error()) {
        (VMM_BUSY, ..) => "the host throttles reports, ask later",
        (_, _, Some(ENOTTY)) => {
            "expected the driver of Linux 5.19 or later; a driver that refused before may have given up its message key until the guest restarts (see the kernel's log)"
        }
        (_, NO_FIRMWARE_STATUS, _) => "see the kernel's log of this guest for the reason",
        _ => {
            "see the table of status codes in AMD publication 56860, and the kernel's log of this guest"
        }
    }
}

fn response_advice(status: FirmwareStatus, vmpl: u32) -> String {
    match status {
        FirmwareStatus::INVALID_PARAM => format!(
            "a report for VMPL {vmpl} is for guests at VMPL {vmpl} or a more privileged one; a guest under an SVSM runs at a less privileged one and gets its reports through configfs-TSM"
        ),
        FirmwareStatus::INVALID_KEY => {
            "the host has not loaded the key that should sign (VCEK or VLEK)".into()
        }
        _ => "see the table of status codes in AMD publication 56860".into(),
    }
}

/// Issues evidence through `/dev/sev-guest`.
#[derive(Debug)]
pub struct SnpDeviceIssuer<D> {
    device: D,
    vmpl: u32,
    pause: Duration,
}

impl<D: SnpDevice> SnpDeviceIssuer<D> {
    /// Reports will name privilege level `vmpl`: 0 in a guest that has its machine for itself, which is the only level that
    /// [`crate::Verifier`] accepts. A guest under an SVSM runs at a less privileged level, which has a higher number, and can ask for
    /// that or a higher number.
    pub fn new(device: D, vmpl: u32) -> Self {
        Self {
            device,
            vmpl,
            pause: PAUSE,
        }
    }

    /// Waits for `pause` before it repeats a request, instead of half a second.
    #[must_use]
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Evidence that carries `report_data`, with the certificates that the host has; none is no error.
    ///
    /// # Errors
    /// When the report is refused, or is not what was asked for.
    pub fn evidence(&self, report_data: &ReportData) -> Result<Evidence, SnpDeviceError> {
        let (response, table) = match self.extended_report(report_data) {
            Ok(answer) => answer,
            Err(refused) => {
                tracing::warn!(
                    "the host's certificates cannot be had, asking for the report alone: {}",
                    chain(&refused)
                );
                let response = self.repeated("SNP_GET_REPORT", || {
                    self.device.report(report_data, self.vmpl)
                })?;
                (response, Vec::new())
            }
        };
        let evidence = snp_evidence(self.report_in(&response)?, &table)?;
        Ok(bound(Evidence::Snp(evidence), report_data)?)
    }

    /// Response and certificate table. The host says how large its table is, so what it says is limited.
    fn extended_report(
        &self,
        report_data: &ReportData,
    ) -> Result<(Box<[u8; SNP_RESPONSE_BYTES]>, Vec<u8>), SnpDeviceError> {
        let mut room = FIRST_TABLE_BYTES;
        let mut attempt = 1;
        loop {
            let mut table = vec![0; room];
            let outcome = self.repeated("SNP_GET_EXT_REPORT", || {
                table.fill(0);
                self.device
                    .extended_report(report_data, self.vmpl, &mut table)
            });
            let refused = match outcome {
                Ok(response) => return Ok((response, table)),
                Err(refused) => refused,
            };
            match wanted_room(&refused) {
                Some(wanted) if attempt < ROOM_ATTEMPTS && wanted > room => room = wanted,
                _ => return Err(refused),
            }
            attempt += 1;
        }
    }

    fn repeated<R>(
        &self,
        request: &'static str,
        operation: impl FnMut() -> Result<R, SevGuestError>,
    ) -> Result<R, SnpDeviceError> {
        let passes = |error: &SevGuestError| {
            use io::ErrorKind::{Interrupted, WouldBlock};
            error.vmm == VMM_BUSY || matches!(error.source.kind(), Interrupted | WouldBlock)
        };
        repeated(ATTEMPTS, self.pause, passes, operation).map_err(|error| SnpDeviceError::Refused {
            request,
            firmware: FirmwareStatus(error.firmware),
            vmm: VmmStatus(error.vmm),
            table_bytes: error.table_bytes,
            source: error.source,
        })
    }

    fn report_in(&self, response: &[u8; SNP_RESPONSE_BYTES]) -> Result<Vec<u8>, SnpDeviceError> {
        let [s0, s1, s2, s3, l0, l1, l2, l3, ..] = *response;
        let status = FirmwareStatus(u32::from_le_bytes([s0, s1, s2, s3]));
        let found = u32::from_le_bytes([l0, l1, l2, l3]);
        if status != FirmwareStatus::SUCCESS {
            return Err(SnpDeviceError::Status {
                status,
                vmpl: self.vmpl,
            });
        }
        let size = usize::try_from(found).unwrap_or(usize::MAX);
        match response.get(RESPONSE_HEADER_BYTES..RESPONSE_HEADER_BYTES + REPORT_BYTES) {
            Some(report) if size == REPORT_BYTES => Ok(report.to_vec()),
            _ => Err(SnpDeviceError::ReportSize { found }),
        }
    }
}

/// Room that the table needs, in whole pages, when that is why the request was refused and it is within reason.
fn wanted_room(refused: &SnpDeviceError) -> Option<usize> {
    let SnpDeviceError::Refused {
        vmm,
        table_bytes,
        source,
        ..
    } = refused
    else {
        return None;
    };
    let too_small = vmm.0 == VMM_INVALID_LENGTH || source.kind() == io::ErrorKind::StorageFull;
    let wanted = usize::try_from(*table_bytes).ok()?;
    let wanted = wanted.checked_next_multiple_of(PAGE_BYTES)?;
    (too_small && wanted <= TABLE_BYTES_MAX).then_some(wanted)
}

impl<D: SnpDevice> Issuer for SnpDeviceIssuer<D> {
    fn issue(&self, report_data: &ReportData) -> Result<Evidence, IssueError> {
        self.evidence(report_data).map_err(|error| IssueError {
            tee: "SEV-SNP firmware (/dev/sev-guest)",
            reason: chain(&error),
        })
    }
}
