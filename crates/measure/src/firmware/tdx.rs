//! Metadata of TDX: how the image is laid out in the guest's memory before launch.
//!
//! Header: `TDVF`, length, version 1, count (`u32` each), then 32 bytes per section: offset and size in the image (`u32`
//! each), guest physical address and size in memory (`u64` each), kind and attributes (`u32` each). Source: Intel, TDX
//! Virtual Firmware Design Guide, section "TDVF Metadata".

use super::{Firmware, FirmwareError, PAGE_BYTES, TDX_METADATA};
use crate::bytes::{slice, u32_at, u64_at};

const HEADER: usize = 16;
const SECTION: usize = 32;
const MR_EXTEND: u32 = 1;
const PAGE_AUG: u32 = 2;

/// The sections of a firmware, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxMetadata {
    /// In the order of the image, which is the order of measuring.
    pub sections: Vec<TdxSection>,
}

/// A region of the guest's memory at launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdxSection {
    /// Where its data starts in the image.
    pub data_offset: u32,
    /// Bytes of data in the image.
    pub data_size: u32,
    /// Guest physical address, a multiple of 4096.
    pub address: u64,
    /// Bytes in memory, a multiple of 4096.
    pub memory_size: u64,
    /// What it is for.
    pub kind: TdxSectionKind,
    /// Its content is measured into MRTD (MR.EXTEND).
    pub extends_mrtd: bool,
    /// Its pages are added after launch (PAGE.AUG) and are not part of MRTD.
    pub added_later: bool,
}

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TdxSectionKind {
    /// Kind 0: boot firmware volume, the code.
    Bfv,
    /// Kind 1: configuration firmware volume, the variables.
    Cfv,
    /// Kind 2: where the hypervisor puts the list of memory, the TD HOB.
    TdHob,
    /// Kind 3: memory for the firmware's first steps.
    TempMem,
    /// Kind 4: memory that stays.
    PermMem,
    /// Kinds above, which QEMU does not launch.
    Other(u32),
}

impl TdxSectionKind {
    fn of(kind: u32) -> Self {
        match kind {
            0 => Self::Bfv,
            1 => Self::Cfv,
            2 => Self::TdHob,
            3 => Self::TempMem,
            4 => Self::PermMem,
            other => Self::Other(other),
        }
    }
}

fn unusable(problem: impl Into<String>) -> FirmwareError {
    FirmwareError::Metadata {
        kind: "TDX",
        problem: problem.into(),
    }
}

impl<'a> Firmware<'a> {
    /// Reads the TDX metadata.
    ///
    /// # Errors
    /// When the firmware has none, it runs out of the image, or a section is not whole pages or has a kind that QEMU does
    /// not launch.
    pub fn tdx_metadata(&self) -> Result<TdxMetadata, FirmwareError> {
        let remedy = "for TDX (`IntelTdxX64.dsc` or `OvmfPkgX64.dsc`)";
        let start = self.pointer(TDX_METADATA, "TDX metadata", remedy)?;
        let header = slice(self.image(), start, HEADER)
            .ok_or_else(|| unusable("its header runs over the end of the image"))?;
        if !header.starts_with(b"TDVF") {
            return Err(unusable("expected the signature `TDVF`, found another"));
        }
        let field = |offset| u32_at(header, offset).unwrap_or(0);
        let (length, version, count) = (field(4), field(8), field(12));
        if version != 1 {
            return Err(unusable(format!("expected version 1, found {version}")));
        }
        let expected = u64::from(count) * SECTION as u64 + HEADER as u64;
        if u64::from(length) != expected {
            return Err(unusable(format!(
                "expected {expected} bytes for {count} sections, found {length}"
            )));
        }
        let body = slice(self.image(), start, length as usize)
            .and_then(|all| all.get(HEADER..))
            .ok_or_else(|| unusable(format!("its {length} bytes run over the end of the image")))?;
        let sections = body
            .chunks_exact(SECTION)
            .map(|bytes| self.section(bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let total = sections.iter().map(|section| section.memory_size).sum();
        super::check_total("TDX", total)?;
        Ok(TdxMetadata { sections })
    }

    /// Data of a section: a part of the image, possibly shorter than the section is in memory, where zeros follow.
    pub fn section_data(&self, section: &TdxSection) -> &'a [u8] {
        // Sections come from `tdx_metadata`, which has checked the range against this image.
        slice(
            self.image(),
            section.data_offset as usize,
            section.data_size as usize,
        )
        .unwrap_or_default()
    }

    fn section(&self, bytes: &[u8]) -> Result<TdxSection, FirmwareError> {
        let field = |offset| u32_at(bytes, offset).unwrap_or(0);
        let wide = |offset| u64_at(bytes, offset).unwrap_or(0);
        let (data_offset, data_size, attributes) = (field(0), field(4), field(28));
        let (address, memory_size, kind) = (wide(8), wide(16), TdxSectionKind::of(field(24)));
        if let TdxSectionKind::Other(kind) = kind {
            return Err(unusable(format!(
                "expected a section of kind 0 to 4, found {kind}"
            )));
        }
        if slice(self.image(), data_offset as usize, data_size as usize).is_none() {
            return Err(unusable(format!(
                "{data_size:#x} bytes at {data_offset:#x} run over the end of the image"
            )));
        }
        let whole = |value: u64| value.is_multiple_of(PAGE_BYTES as u64);
        // Launch memory lies below 4 GiB; the bound also keeps the work for hostile metadata small.
        let end = address.checked_add(memory_size);
        if !whole(address) || !whole(memory_size) || end.is_none_or(|end| end > super::FOUR_GIB) {
            return Err(unusable(format!(
                "expected a section of whole pages below 4 GiB, found {memory_size:#x} bytes at {address:#x}"
            )));
        }
        if u64::from(data_size) > memory_size {
            return Err(unusable(format!(
                "expected at most {memory_size:#x} bytes of data in a section, found {data_size:#x}"
            )));
        }
        Ok(TdxSection {
            data_offset,
            data_size,
            address,
            memory_size,
            kind,
            extends_mrtd: attributes & MR_EXTEND != 0,
            added_later: attributes & PAGE_AUG != 0,
        })
    }
}
