//! Initdata: the document that a pod is started with, whose hash the hardware reports as HOSTDATA or MRCONFIGID.
//!
//! It travels in an annotation of the pod ([`Initdata::from_annotation`]), and from the host into the guest on a small read-only device
//! ([`read_device`]). Both ways are the host's; what counts is the hash.

mod device;
mod document;

pub use device::{DEVICE_MAGIC, DeviceError, read_device, to_device};
pub use document::{INITDATA_ANNOTATION, Initdata, InitdataError};
