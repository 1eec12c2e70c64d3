//! Metadata of SEV: the pages that the hypervisor adds to the guest beside the firmware.
//!
//! Header: `ASEV`, size, version 1, count (`u32` each), then per section guest physical address, size and kind (`u32`
//! each). Source: `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`.

use super::{Firmware, FirmwareError, PAGE_BYTES, SEV_METADATA};
use crate::bytes::{slice, u32_at};

const HEADER: usize = 16;
const SECTION: usize = 12;

/// The sections that a firmware asks for, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SevMetadata {
    /// In the order of the image, which is the order of measuring.
    pub sections: Vec<SevSection>,
}

/// A region that the hypervisor fills or validates before launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SevSection {
    /// Guest physical address, a multiple of 4096.
    pub address: u32,
    /// Bytes, a multiple of 4096.
    pub size: u32,
    /// What it is for.
    pub kind: SevSectionKind,
}

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SevSectionKind {
    /// Kind 1: memory that is validated before launch.
    SecMemory,
    /// Kind 2: the secrets page.
    Secrets,
    /// Kind 3: the CPUID page.
    Cpuid,
    /// Kind 4: calling area of an SVSM.
    SvsmCallingArea,
    /// Kind 16: the page with the hashes of kernel, initrd and command line.
    KernelHashes,
}

impl SevSectionKind {
    fn of(kind: u32) -> Option<Self> {
        Some(match kind {
            1 => Self::SecMemory,
            2 => Self::Secrets,
            3 => Self::Cpuid,
            4 => Self::SvsmCallingArea,
            0x10 => Self::KernelHashes,
            _ => return None,
        })
    }
}

fn unusable(problem: impl Into<String>) -> FirmwareError {
    FirmwareError::Metadata {
        kind: "SEV",
        problem: problem.into(),
    }
}

impl Firmware<'_> {
    /// Reads the SEV metadata.
    ///
    /// # Errors
    /// When the firmware has none, it runs out of the image, or a section has an unknown kind or is not whole pages.
    pub fn sev_metadata(&self) -> Result<SevMetadata, FirmwareError> {
        let remedy = "for SEV-SNP (edk2-stable202205 or newer)";
        let start = self.pointer(SEV_METADATA, "SEV metadata", remedy)?;
        let header = slice(self.image(), start, HEADER)
            .ok_or_else(|| unusable("its header runs over the end of the image"))?;
        if !header.starts_with(b"ASEV") {
            return Err(unusable("expected the signature `ASEV`, found another"));
        }
        let field = |offset| u32_at(header, offset).unwrap_or(0);
        let (size, version, count) = (field(4), field(8), field(12));
        if version != 1 {
            return Err(unusable(format!("expected version 1, found {version}")));
        }
        let expected = u64::from(count) * SECTION as u64 + HEADER as u64;
        if u64::from(size) != expected {
            return Err(unusable(format!(
                "expected {expected} bytes for {count} sections, found {size}"
            )));
        }
        // The size is at most that of the image, so the count is bounded by it before anything is allocated.
        let body = slice(self.image(), start, size as usize)
            .and_then(|all| all.get(HEADER..))
            .ok_or_else(|| unusable(format!("its {size} bytes run over the end of the image")))?;
        let sections = body
            .chunks_exact(SECTION)
            .map(section)
            .collect::<Result<Vec<_>, _>>()?;
        let total: u64 = sections.iter().map(|section| u64::from(section.size)).sum();
        super::check_total("SEV", total)?;
        Ok(SevMetadata { sections })
    }
}

fn section(bytes: &[u8]) -> Result<SevSection, FirmwareError> {
    let field = |offset| u32_at(bytes, offset).unwrap_or(0);
    let (address, size, kind) = (field(0), field(4), field(8));
    let kind = SevSectionKind::of(kind).ok_or_else(|| {
        unusable(format!(
            "expected a section of kind 1 to 4 or 16, found {kind}"
        ))
    })?;
    let whole = |value: u32| value.is_multiple_of(PAGE_BYTES as u32);
    if !whole(address) || !whole(size) || address.checked_add(size).is_none() {
        return Err(unusable(format!(
            "expected a section of whole pages below 4 GiB, found {size:#x} bytes at {address:#x}"
        )));
    }
    Ok(SevSection {
        address,
        size,
        kind,
    })
}
