//! What a confidential VM's launch measurements will be.
//!
//! A verifier compares the measurements in evidence with reference values. This crate computes those values from what the
//! VM is launched with, as files' bytes; it reads no file, has no clock and no randomness of its own.
//!
//! - [`Firmware`] reads an OVMF image; everything else starts with one.
//! - [`SnpLaunch`] gives the launch digest of SEV-SNP for any number of vCPUs; [`IdBlock`] and [`IdAuth`] make the processor
//!   refuse every other one.
//! - [`PodVcpus`] says how many vCPUs a pod's VM has, which both kinds of measurement depend on.
//! - [`tdx`] gives MRTD and RTMR0 to RTMR2 of TDX.

// ring is the model of aws-lc-rs' interface, so that all code that verifies is the same text with either.
#[cfg(target_arch = "wasm32")]
extern crate ring as aws_lc_rs;

mod bytes;
mod digest;
mod firmware;
mod guid;
#[cfg(not(target_arch = "wasm32"))]
mod id_block;
mod pod;
mod quantity;
mod snp;
pub mod tdx;
mod vcpu;

pub use contrast_quantity::QuantityError;
pub use digest::{SHA384_BYTES, Sha384Digest};
pub use firmware::{
    Firmware, FirmwareError, PAGE_BYTES, SevMetadata, SevSection, SevSectionKind, TdxMetadata,
    TdxSection, TdxSectionKind,
};
pub use guid::Guid;
#[cfg(not(target_arch = "wasm32"))]
pub use id_block::{ID_AUTH_BYTES, ID_BLOCK_BYTES, IdAuth, IdAuthError, IdBlock};
pub use pod::{Basis, ContainerCpu, ContainerRole, Contributions, PodError, PodVcpus};
pub use quantity::MilliCpu;
pub use snp::{GuestFeatures, KernelHashes, LaunchContext, SnpError, SnpLaunch, SnpLaunchDigests};
pub use vcpu::{VCPUS_MAX, VcpuCount, VcpuError, VcpuType};
