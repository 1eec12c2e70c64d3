//! Evidence from the hardware that this guest runs on.
//!
//! [`Interfaces`] takes the first of three that the guest has:
//!
//! | interface | TEE | what gives the evidence | Linux |
//! | --- | --- | --- | --- |
//! | configfs-TSM, `/sys/kernel/config/tsm/report` (`Documentation/ABI/testing/configfs-tsm`) | both | [`ConfigfsIssuer`] over [`ReportTree`] | 6.7 |
//! | `/dev/sev-guest` (`Documentation/virt/coco/sev-guest.rst`) | SEV-SNP | [`SnpDeviceIssuer`] over [`SnpDevice`] | 5.19 |
//! | `/dev/tdx_guest`, then Intel's quote generation service on the host over vsock | TDX | [`TdxDeviceIssuer`] over [`TdxDevice`] and [`QuoteService`] | 6.2 |
//!
//! The traits are the kernel's and the host's side, so that tests can stand in for either. Whatever the interface, evidence leaves
//! here only when it carries the report data that was asked for.
//!
//! The kernel and the firmware behind it are trusted as far as the guest's own memory is. The host is not: certificate tables, their sizes and
//! quotes are bytes of its choosing.
//!
//! Below a paravisor (Azure) there is none of them, but a virtual TPM, which is tried last: [`Tpm`] is its device, [`VtpmIssuer`] talks to it, and
//! asks the provider's side, [`CloudHost`], for what makes the hardware's report verifiable.

mod answer;
mod configfs;
mod interfaces;
mod own;
mod qgs;
mod sev_guest;
mod snp_status;
mod tdx_guest;
#[cfg(all(test, feature = "software-tee"))]
mod tests;
pub mod tpm;
mod vtpm;

pub use answer::AnswerError;
pub use configfs::{ConfigfsIssuer, ConfigfsReports, ReportError, ReportTree};
pub use interfaces::{Interfaces, Unusable};
pub use qgs::{HostVsock, QuoteChannel, QuoteGenerationService, QuoteServiceError};
pub use sev_guest::{SnpDevice, SnpDeviceError, SnpDeviceIssuer};
pub use snp_status::{FirmwareStatus, VmmStatus};
pub use tdx_guest::{QuoteService, TdxDevice, TdxDeviceError, TdxDeviceIssuer};
pub use tpm::{Tpm, TpmCommandError, TpmDevice};
pub(crate) use vtpm::vtpm_issuer;
pub use vtpm::{
    ATTESTATION_KEY_HANDLE, CloudHost, CloudHostError, HCL_REPORT_INDEX, NoCloudHost, VtpmError,
    VtpmIssuer,
};
