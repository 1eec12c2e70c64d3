//! Evidence from the hardware that this guest runs on.
//!
//! Linux offers one interface for all of it since version 6.7: configfs-TSM (`/sys/kernel/config/tsm/report`, documented in
//! `Documentation/ABI/testing/configfs-tsm`), with a provider for each TEE. [`ReportTree`] is that interface, so that tests can
//! stand in for the kernel; [`ConfigfsIssuer`] turns its answers into evidence.

//!
//! Below a paravisor (Azure) there is no such interface, but a virtual TPM: [`Tpm`] is its device, [`VtpmIssuer`] talks to it, and
//! asks the provider's side, [`CloudHost`], for what makes the hardware's report verifiable.

mod configfs;
#[cfg(all(test, feature = "software-tee"))]
mod tests;
pub mod tpm;
mod vtpm;

pub use configfs::{ConfigfsIssuer, ConfigfsReports, ReportError, ReportTree};
pub use tpm::{Tpm, TpmCommandError, TpmDevice};
pub use vtpm::{
    ATTESTATION_KEY_HANDLE, CloudHost, CloudHostError, HCL_REPORT_INDEX, NoCloudHost, VtpmError,
    VtpmIssuer,
};

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
