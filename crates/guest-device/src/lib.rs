//! The devices that Linux gives a confidential VM, behind safe functions.
//!
//! | device | function | defined in |
//! | --- | --- | --- |
//! | `/dev/sev-guest` | [`SevGuest`]: SEV-SNP attestation report, with or without the host's certificate table | `include/uapi/linux/sev-guest.h` |
//! | `/dev/tdx_guest` | [`TdxGuest`]: TDREPORT | `include/uapi/linux/tdx-guest.h` |
//! | vsock | [`connect_vsock`]: a stream to the host with a deadline for connecting | `vsock(7)` |
//!
//! # Why this crate exists
//!
//! An ioctl hands the kernel a pointer to a structure, and for SEV-SNP that structure holds further pointers. The compiler cannot check
//! either, so the two calls are `unsafe`, which every other crate of the workspace forbids. They live here, alone: nothing in
//! this crate interprets a report, retries or decides. What the kernel returns is handed up as bytes.
//!
//! The structures' layout is checked when the crate is compiled, against the C compiler and the kernel's headers when the tests run
//! on a machine that has both, and the numbers of the ioctls against what these headers give.
//!
//! On other systems than Linux the crate compiles and every function says that it is unsupported.

mod abi;
mod device;
mod sev_guest;
mod tdx_guest;
mod vsock;

#[cfg(test)]
mod tests;

pub use abi::{SNP_RESPONSE_BYTES, TD_REPORT_BYTES};
pub use sev_guest::{NO_FIRMWARE_STATUS, SevGuest, SevGuestError, VMM_BUSY, VMM_INVALID_LENGTH};
pub use tdx_guest::TdxGuest;
pub use vsock::{VSOCK_HOST, connect_vsock};
