use std::{
    fs::File,
    io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use crate::{
    abi::{
        REPORT_DATA_BYTES, SNP_RESPONSE_BYTES, SnpExtendedReportRequest, SnpReportRequest,
        SnpReportResponse,
    },
    device,
};

/// `SNP_GUEST_VMM_ERR_INVALID_LEN`: the certificate table is larger than the buffer.
pub const VMM_INVALID_LENGTH: u32 = 1;
/// `SNP_GUEST_VMM_ERR_BUSY`: the host throttles requests.
pub const VMM_BUSY: u32 = 2;
/// What the driver puts into the firmware's status before it asks: still there when the firmware never answered.
pub const NO_FIRMWARE_STATUS: u32 = 0xff;

/// `/dev/sev-guest`, opened.
#[derive(Debug)]
pub struct SevGuest {
    /// Requests are made one after the other: some kernels keep the request of every caller in one place and read it before they take
    /// their own lock, so that two at once could get each other's report data.
    file: Mutex<File>,
}

/// The kernel, the host or the firmware refused a request.
#[derive(Debug, thiserror::Error)]
#[error("the request was refused (firmware status {firmware:#x}, VMM status {vmm:#x})")]
pub struct SevGuestError {
    /// Lower half of EXITINFO2: status code of the firmware, or [`NO_FIRMWARE_STATUS`].
    pub firmware: u32,
    /// Upper half of EXITINFO2: status code of the host, see [`VMM_INVALID_LENGTH`] and [`VMM_BUSY`].
    pub vmm: u32,
    /// Size in bytes that the host says its certificate table needs, when [`VMM_INVALID_LENGTH`]; else the buffer's. Unchecked: the
    /// host chose it.
    pub table_bytes: u32,
    /// What the kernel answered.
    pub source: io::Error,
}

impl SevGuest {
    /// Opens the character device at `path`, usually `/dev/sev-guest`.
    ///
    /// # Errors
    /// When it is not there, not a character device, or not for this user.
    pub fn open(path: &Path) -> io::Result<Self> {
        device::open(path).map(|file| Self {
            file: Mutex::new(file),
        })
    }

    /// SNP_GET_REPORT: a report that carries `report_data` and names privilege level `vmpl` (0 to 3; the firmware refuses a level
    /// more privileged than the guest's own). Returns MSG_REPORT_RSP (AMD publication 56860), not interpreted.
    ///
    /// # Errors
    /// When the request is refused.
    pub fn report(
        &self,
        report_data: &[u8; REPORT_DATA_BYTES],
        vmpl: u32,
    ) -> Result<Box<[u8; SNP_RESPONSE_BYTES]>, SevGuestError> {
        let mut request = report_request(report_data, vmpl);
        let mut response = empty_response();
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = get_report(&file, &mut request, &mut response);
        match outcome {
            Ok(()) => Ok(Box::new(response.data)),
            Err((status, source)) => Err(refused(status, 0, source)),
        }
    }

    /// SNP_GET_EXT_REPORT: like [`Self::report`], and the host's certificate table in `table`, which stays as it is where the
    /// host has none. The kernel takes only whole pages of 4096 bytes, and at most 16384 bytes unless its vendor changed that.
    ///
    /// # Errors
    /// When the request is refused; with [`VMM_INVALID_LENGTH`] when `table` is too small.
    pub fn extended_report(
        &self,
        report_data: &[u8; REPORT_DATA_BYTES],
        vmpl: u32,
        table: &mut [u8],
    ) -> Result<Box<[u8; SNP_RESPONSE_BYTES]>, SevGuestError> {
        let too_large = |_| refused((0, 0), 0, io::ErrorKind::InvalidInput.into());
        let certs_len = u32::try_from(table.len()).map_err(too_large)?;
        let mut request = SnpExtendedReportRequest {
            data: report_request(report_data, vmpl),
            certs_address: 0,
            certs_len,
        };
        let mut response = empty_response();
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = get_extended_report(&file, &mut request, table, &mut response);
        match outcome {
            Ok(()) => Ok(Box::new(response.data)),
            Err((status, source)) => Err(refused(status, request.certs_len, source)),
        }
    }
}

fn report_request(report_data: &[u8; REPORT_DATA_BYTES], vmpl: u32) -> SnpReportRequest {
    SnpReportRequest {
        user_data: *report_data,
        vmpl,
        reserved: [0; 28],
    }
}

fn empty_response() -> Box<SnpReportResponse> {
    Box::new(SnpReportResponse {
        data: [0; SNP_RESPONSE_BYTES],
    })
}

fn refused((firmware, vmm): Status, table_bytes: u32, source: io::Error) -> SevGuestError {
    SevGuestError {
        firmware,
        vmm,
        table_bytes,
        source,
    }
}

/// Status of the firmware and of the host.
type Status = (u32, u32);

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "an ioctl takes a pointer")]
mod calls {
    use std::ptr;

    use super::{
        File, NO_FIRMWARE_STATUS, SnpExtendedReportRequest, SnpReportRequest, SnpReportResponse,
        Status, io,
    };
    use crate::{
        abi::SnpGuestRequest,
        device::{
            number::{SNP_GET_EXT_REPORT, SNP_GET_REPORT},
            update,
        },
    };

    /// The only version of the guest message there is.
    const MESSAGE_VERSION: u8 = 1;

    /// [`update`] with one number; a stand-in for the driver in tests.
    pub(crate) type Call = unsafe fn(&File, &mut SnpGuestRequest) -> io::Result<()>;

    fn address_of<T>(value: &mut T) -> u64 {
        ptr::from_mut(value).expose_provenance() as u64
    }

    /// # Safety
    ///
    /// `call` reads and writes at most an `R` at `req_data`, a `SnpReportResponse` at `resp_data`, and where the addresses inside `request`
    /// point; that memory is not used by anything else during the call.
    unsafe fn make<R>(
        call: Call,
        device: &File,
        request: &mut R,
        response: &mut SnpReportResponse,
    ) -> Result<(), (Status, io::Error)> {
        let mut argument = SnpGuestRequest {
            msg_version: MESSAGE_VERSION,
            req_data: address_of(request),
            resp_data: address_of(response),
            fw_error: NO_FIRMWARE_STATUS,
            vmm_error: 0,
        };
        // SAFETY: the addresses are those of two structures that are borrowed exclusively here; the caller promises the rest.
        let outcome = unsafe { call(device, &mut argument) };
        outcome.map_err(|error| ((argument.fw_error, argument.vmm_error), error))
    }

    pub(super) fn get_report(
        device: &File,
        request: &mut SnpReportRequest,
        response: &mut SnpReportResponse,
    ) -> Result<(), (Status, io::Error)> {
        // SAFETY: SNP_GET_REPORT takes a `struct snp_guest_request_ioctl`, reads a `struct snp_report_req` and writes a `struct
        // snp_report_resp`. The request holds no address.
        unsafe { make(update::<SNP_GET_REPORT, _>, device, request, response) }
    }

    pub(super) fn get_extended_report(
        device: &File,
        request: &mut SnpExtendedReportRequest,
        table: &mut [u8],
        response: &mut SnpReportResponse,
    ) -> Result<(), (Status, io::Error)> {
        // SAFETY: SNP_GET_EXT_REPORT takes a `struct snp_guest_request_ioctl`, reads and writes a `struct snp_ext_report_req`, writes a
        // `struct snp_report_resp`, and writes at most `certs_len` bytes at `certs_address`.
        unsafe {
            make_extended(
                update::<SNP_GET_EXT_REPORT, _>,
                device,
                request,
                table,
                response,
            )
        }
    }

    /// # Safety
    ///
    /// As [`make`] with a [`SnpExtendedReportRequest`], of which `call` follows `certs_address` for `certs_len` bytes.
    pub(crate) unsafe fn make_extended(
        call: Call,
        device: &File,
        request: &mut SnpExtendedReportRequest,
        table: &mut [u8],
        response: &mut SnpReportResponse,
    ) -> Result<(), (Status, io::Error)> {
        // Address and size are set together, here, because the kernel writes by them. A size that does not fit is none: the
        // kernel then writes no table.
        request.certs_len = u32::try_from(table.len()).unwrap_or(0);
        request.certs_address = table.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: `certs_address` and `certs_len` are those of `table`, which is borrowed exclusively here.
        unsafe { make(call, device, request, response) }
    }
}

#[cfg(not(target_os = "linux"))]
mod calls {
    use super::{File, SnpExtendedReportRequest, SnpReportRequest, SnpReportResponse, Status, io};

    pub(super) fn get_report(
        _: &File,
        _: &mut SnpReportRequest,
        _: &mut SnpReportResponse,
    ) -> Result<(), (Status, io::Error)> {
        Err(((0, 0), io::ErrorKind::Unsupported.into()))
    }

    pub(super) fn get_extended_report(
        _: &File,
        _: &mut SnpExtendedReportRequest,
        _: &mut [u8],
        _: &mut SnpReportResponse,
    ) -> Result<(), (Status, io::Error)> {
        Err(((0, 0), io::ErrorKind::Unsupported.into()))
    }
}

#[cfg(all(test, target_os = "linux"))]
pub(crate) use calls::make_extended;
use calls::{get_extended_report, get_report};
