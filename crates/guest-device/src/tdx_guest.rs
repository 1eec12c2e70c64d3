use std::{fs::File, io, path::Path};

use crate::{
    abi::{REPORT_DATA_BYTES, TD_REPORT_BYTES, TdxReportRequest},
    device,
};

/// `/dev/tdx_guest`, opened.
#[derive(Debug)]
pub struct TdxGuest {
    file: File,
}

impl TdxGuest {
    /// Opens the character device at `path`, usually `/dev/tdx_guest`.
    ///
    /// # Errors
    /// When it is not there, not a character device, or not for this user.
    pub fn open(path: &Path) -> io::Result<Self> {
        device::open(path).map(|file| Self { file })
    }

    /// TDX_CMD_GET_REPORT0: a TDREPORT that carries `report_data` (Intel TDX Module ABI specification, TDREPORT_STRUCT), not interpreted.
    /// Only this machine can check its MAC; a quoting enclave turns it into a quote.
    ///
    /// # Errors
    /// When the request is refused; EIO when the TDX module did.
    pub fn report(
        &self,
        report_data: &[u8; REPORT_DATA_BYTES],
    ) -> io::Result<Box<[u8; TD_REPORT_BYTES]>> {
        let mut request = Box::new(TdxReportRequest {
            reportdata: *report_data,
            tdreport: [0; TD_REPORT_BYTES],
        });
        get_report(&self.file, &mut request)?;
        Ok(Box::new(request.tdreport))
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "an ioctl takes a pointer")]
fn get_report(device: &File, request: &mut TdxReportRequest) -> io::Result<()> {
    use crate::device::{number::TDX_CMD_GET_REPORT0, update};

    // SAFETY: TDX_CMD_GET_REPORT0 takes a `struct tdx_report_req`, which `TdxReportRequest` is; it holds no address.
    unsafe { update::<TDX_CMD_GET_REPORT0, _>(device, request) }
}

#[cfg(not(target_os = "linux"))]
fn get_report(_: &File, _: &mut TdxReportRequest) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
