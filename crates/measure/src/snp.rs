//! SEV-SNP: the launch digest, which reports call MEASUREMENT.
//!
//! QEMU adds to the guest, in this order: the firmware's image, the sections of its SEV metadata, one VMSA per vCPU. Each
//! 4096-byte page is chained into the digest by [`LaunchContext`].

mod context;
mod hashes;
mod vmsa;

pub use context::LaunchContext;
pub use hashes::KernelHashes;
pub use vmsa::GuestFeatures;

use crate::{
    Firmware, FirmwareError, SevSectionKind, Sha384Digest, VcpuCount, VcpuType, bytes::put,
    firmware::PAGE_BYTES,
};
use context::PageKind;

/// The launch digest cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnpError {
    /// The firmware cannot be measured.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// A kernel is given, but the firmware has no page for its hashes.
    #[error(
        "the firmware has no section for kernel hashes (SEV metadata, kind 16), so the kernel would not be measured; \
         build OVMF with `AmdSevX64.dsc`"
    )]
    NoKernelHashes,
    /// The hash table does not fit into its section.
    #[error(
        "expected the hash table (176 bytes at offset {offset:#x}) inside its section, found {size} bytes of section"
    )]
    HashTable {
        /// Offset of the table in the section's first page.
        offset: usize,
        /// Bytes of the section.
        size: usize,
    },
}

/// What an SNP guest is launched with, but for the number of vCPUs.
#[derive(Debug, Clone, Copy)]
pub struct SnpLaunch<'a> {
    /// The firmware.
    pub firmware: &'a Firmware<'a>,
    /// Kernel, initrd and command line; absent when the guest boots from a disk.
    pub kernel: Option<KernelHashes>,
    /// Type of every vCPU.
    pub vcpu_type: VcpuType,
    /// SEV_FEATURES of every vCPU.
    pub guest_features: GuestFeatures,
}

impl SnpLaunch<'_> {
    /// Measures everything but the vCPUs. The rest is cheap, so digests for many counts cost little more than one.
    ///
    /// # Errors
    /// When the firmware cannot be measured or has no place for the kernel's hashes.
    pub fn measure(&self) -> Result<SnpLaunchDigests, SnpError> {
        let mut context = LaunchContext::new();
        context.add_normal(self.firmware.address(), self.firmware.image());
        self.measure_after(context)
    }

    /// As [`Self::measure`], with the digest of the firmware's image already in `context`.
    ///
    /// # Errors
    /// As [`Self::measure`].
    pub fn measure_after(&self, mut context: LaunchContext) -> Result<SnpLaunchDigests, SnpError> {
        let metadata = self.firmware.sev_metadata()?;
        let mut hashed = false;
        for section in &metadata.sections {
            let (address, size) = (u64::from(section.address), section.size as usize);
            match section.kind {
                SevSectionKind::SecMemory | SevSectionKind::SvsmCallingArea => {
                    context.add_blank(PageKind::Zero, address, size);
                }
                SevSectionKind::Secrets => context.add_blank(PageKind::Secrets, address, size),
                SevSectionKind::Cpuid => context.add_blank(PageKind::Cpuid, address, size),
                SevSectionKind::KernelHashes => match &self.kernel {
                    Some(kernel) => {
                        context.add_normal(address, &self.hashes_page(kernel, size)?);
                        hashed = true;
                    }
                    None => context.add_blank(PageKind::Zero, address, size),
                },
            }
        }
        if self.kernel.is_some() && !hashed {
            return Err(SnpError::NoKernelHashes);
        }
        let page = |eip| vmsa::page(eip, self.vcpu_type, self.guest_features);
        Ok(SnpLaunchDigests {
            first: context.with_vmsa(&page(vmsa::RESET_EIP)),
            further: page(self.firmware.sev_es_reset_eip()?),
        })
    }

    /// The section's content: zeros but for the hash table, which lies as deep in it as its address lies in its page.
    fn hashes_page(&self, kernel: &KernelHashes, size: usize) -> Result<Vec<u8>, SnpError> {
        let table = kernel.table();
        let address = self.firmware.sev_hash_table_address()?;
        let offset = address as usize % PAGE_BYTES;
        if offset + table.len() > size {
            return Err(SnpError::HashTable { offset, size });
        }
        let mut page = vec![0; size];
        put(&mut page, offset, &table);
        Ok(page)
    }
}

/// The launch digests of one launch for any number of vCPUs.
#[derive(Debug, Clone)]
pub struct SnpLaunchDigests {
    first: LaunchContext,
    further: Box<[u8; PAGE_BYTES]>,
}

impl SnpLaunchDigests {
    /// The digest for a number of vCPUs.
    pub fn of(&self, vcpus: VcpuCount) -> Sha384Digest {
        let mut context = self.first;
        for _ in 1..vcpus.get() {
            context = context.with_vmsa(&self.further);
        }
        context.digest()
    }
}
