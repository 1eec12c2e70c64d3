//! Opening a device and the one place where an ioctl is made.

use std::{fs::File, io, path::Path};

/// Opens the character device at `path` for requests.
#[cfg(target_os = "linux")]
pub(crate) fn open(path: &Path) -> io::Result<File> {
    use std::{fs::OpenOptions, os::unix::fs::FileTypeExt as _};

    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match file.metadata()?.file_type().is_char_device() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected a character device, found another kind of file",
        )),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn open(_: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Numbers of the ioctls, as the headers' `_IOWR` macros give them.
#[cfg(target_os = "linux")]
pub(crate) mod number {
    use rustix::ioctl::{Opcode, opcode::read_write};

    use crate::abi::{SnpGuestRequest, TdxReportRequest};

    pub(crate) const SNP_GET_REPORT: Opcode = read_write::<SnpGuestRequest>(b'S', 0);
    pub(crate) const SNP_GET_EXT_REPORT: Opcode = read_write::<SnpGuestRequest>(b'S', 2);
    pub(crate) const TDX_CMD_GET_REPORT0: Opcode = read_write::<TdxReportRequest>(b'T', 1);
}

/// One ioctl that reads and writes `argument`.
///
/// # Safety
///
/// - `NUMBER` is an ioctl of the driver behind `device` that takes a pointer to a `T`, or one that the driver does not know and
///   refuses without touching the argument.
/// - Every address inside `argument` that the driver follows points to memory that may be read or written in the extent the driver
///   does so, and that nothing else uses during the call.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "an ioctl takes a pointer")]
pub(crate) unsafe fn update<const NUMBER: rustix::ioctl::Opcode, T>(
    device: &File,
    argument: &mut T,
) -> io::Result<()> {
    // SAFETY: the caller promises that NUMBER takes a pointer to a `T`.
    let request = unsafe { rustix::ioctl::Updater::<NUMBER, T>::new(argument) };
    // SAFETY: `request` holds an exclusive reference to a live `T`; the caller promises the rest.
    unsafe { rustix::ioctl::ioctl(device, request) }.map_err(io::Error::from)
}
