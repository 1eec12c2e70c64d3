//! Evidence from the hardware that this guest runs on.
//!
//! Linux offers one interface for all of it since version 6.7: configfs-TSM (`/sys/kernel/config/tsm/report`, documented in
//! `Documentation/ABI/testing/configfs-tsm`), with a provider for each TEE. [`ReportTree`] is that interface, so that tests can
//! stand in for the kernel; [`ConfigfsIssuer`] turns its answers into evidence.

mod configfs;
#[cfg(all(test, feature = "software-tee"))]
mod tests;

pub use configfs::{ConfigfsIssuer, ConfigfsReports, ReportError, ReportTree};
