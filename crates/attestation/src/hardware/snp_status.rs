//! Names of the status codes in EXITINFO2 and MSG_REPORT_RSP.

use std::fmt;

use contrast_guest_device::{NO_FIRMWARE_STATUS, VMM_BUSY, VMM_INVALID_LENGTH};

/// Status code of the firmware: table "Status Codes" of AMD publication 56860.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirmwareStatus(pub u32);

impl FirmwareStatus {
    /// SUCCESS.
    pub const SUCCESS: Self = Self(0);
    /// INVALID_PARAM: among others, a VMPL more privileged than the guest's own was asked for.
    pub const INVALID_PARAM: Self = Self(0x16);
    /// INVALID_KEY: the key that was asked to sign is not there.
    pub const INVALID_KEY: Self = Self(0x27);

    /// The specification's name; none for a code that it does not have.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x00 => "SUCCESS",
            0x01 => "INVALID_PLATFORM_STATE",
            0x02 => "INVALID_GUEST_STATE",
            0x03 => "INVALID_CONFIG",
            0x04 => "INVALID_LENGTH",
            0x05 => "ALREADY_OWNED",
            0x06 => "INVALID_CERTIFICATE",
            0x07 => "POLICY_FAILURE",
            0x08 => "INACTIVE",
            0x09 => "INVALID_ADDRESS",
            0x0a => "BAD_SIGNATURE",
            0x0b => "BAD_MEASUREMENT",
            0x0c => "ASID_OWNED",
            0x0d => "INVALID_ASID",
            0x0e => "WBINVD_REQUIRED",
            0x0f => "DFFLUSH_REQUIRED",
            0x10 => "INVALID_GUEST",
            0x11 => "INVALID_COMMAND",
            0x12 => "ACTIVE",
            0x13 => "HWERROR_PLATFORM",
            0x14 => "HWERROR_UNSAFE",
            0x15 => "UNSUPPORTED",
            0x16 => "INVALID_PARAM",
            0x17 => "RESOURCE_LIMIT",
            0x18 => "SECURE_DATA_INVALID",
            0x19 => "INVALID_PAGE_SIZE",
            0x1a => "INVALID_PAGE_STATE",
            0x1b => "INVALID_MDATA_ENTRY",
            0x1c => "INVALID_PAGE_OWNER",
            0x1d => "AEAD_OFLOW",
            0x1f => "EXIT_RING_BUFFER",
            0x20 => "RMP_INIT_REQUIRED",
            0x21 => "BAD_SVN",
            0x22 => "BAD_VERSION",
            0x23 => "SHUTDOWN_REQUIRED",
            0x24 => "UPDATE_FAILED",
            0x25 => "RESTORE_REQUIRED",
            0x26 => "RMP_INITIALIZATION_FAILED",
            0x27 => "INVALID_KEY",
            0x28 => "SHUTDOWN_INCOMPLETE",
            // Not a code of the firmware: the driver writes it before it asks.
            NO_FIRMWARE_STATUS => "none, the request did not reach the firmware",
            _ => return None,
        })
    }
}

/// Status code of the host: `SNP_GUEST_VMM_ERR_*` of `include/uapi/linux/sev-guest.h`; AMD publication 56421, "SNP Extended Guest Request".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmmStatus(pub u32);

impl VmmStatus {
    /// The name in the header; none for a code that it does not have.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "none",
            VMM_INVALID_LENGTH => "INVALID_LEN",
            VMM_BUSY => "BUSY",
            _ => return None,
        })
    }
}

impl fmt::Display for FirmwareStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} ({})", self.0, self.name().unwrap_or("unknown"))
    }
}

impl fmt::Display for VmmStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} ({})", self.0, self.name().unwrap_or("unknown"))
    }
}
