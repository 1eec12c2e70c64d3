//! The list of memory that QEMU puts into the TD HOB section (UEFI Platform Initialization specification, volume 3, "HOB
//! Code Definitions"; QEMU, `hw/i386/tdvf-hob.c`).

use super::{MemorySize, TdxError};
use crate::{TdxMetadata, TdxSection, TdxSectionKind};

const HANDOFF: u16 = 1;
const RESOURCE: u16 = 3;
const HANDOFF_BYTES: u16 = 56;
const RESOURCE_BYTES: u16 = 48;
/// The end of the list, which is not measured.
const END_BYTES: u64 = 8;
const HANDOFF_VERSION: u32 = 9;
/// Memory that is part of the guest at launch.
const SYSTEM_MEMORY: u32 = 0;
/// Memory that the guest accepts later.
const UNACCEPTED: u32 = 7;
/// Present, initialised, tested.
const ATTRIBUTES: u32 = 7;
/// Where the address of the list's end stands in the handoff.
const END_AT: usize = 48;

/// Whether and how the list of memory is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TdHob {
    /// The firmware does not measure it. It must then judge the list itself.
    NotMeasured,
    /// Made by QEMU for a `q35` machine without memory devices.
    Qemu {
        /// The guest's memory.
        memory: MemorySize,
    },
}

/// The measured part of the list: handoff, then memory by address.
pub(super) fn list(metadata: &TdxMetadata, memory: MemorySize) -> Result<Vec<u8>, TdxError> {
    let section = |kind| move |section: &&TdxSection| section.kind == kind;
    let mut hobs = metadata
        .sections
        .iter()
        .filter(section(TdxSectionKind::TdHob));
    let (Some(hob), None) = (hobs.next(), hobs.next()) else {
        let hobs = metadata
            .sections
            .iter()
            .filter(section(TdxSectionKind::TdHob));
        return Err(TdxError::Sections {
            kind: "TD HOB",
            found: hobs.count(),
        });
    };
    let mut bytes = Vec::new();
    bytes.extend(HANDOFF.to_le_bytes());
    bytes.extend(HANDOFF_BYTES.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(HANDOFF_VERSION.to_le_bytes());
    // Boot mode and the four bounds of memory are not used.
    bytes.resize(usize::from(HANDOFF_BYTES), 0);
    for (kind, start, length) in resources(metadata, memory)? {
        bytes.extend(RESOURCE.to_le_bytes());
        bytes.extend(RESOURCE_BYTES.to_le_bytes());
        bytes.extend([0; 4 + 16]);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(ATTRIBUTES.to_le_bytes());
        bytes.extend(start.to_le_bytes());
        bytes.extend(length.to_le_bytes());
    }
    let size = bytes.len() as u64 + END_BYTES;
    if size > hob.memory_size {
        return Err(TdxError::Memory {
            problem: format!(
                "expected a TD HOB section of at least {size} bytes, found {}",
                hob.memory_size
            ),
        });
    }
    let end = hob.address + size;
    bytes[END_AT..END_AT + 8].copy_from_slice(&end.to_le_bytes());
    Ok(bytes)
}

/// Memory in the order of addresses: kind, start, length.
fn resources(metadata: &TdxMetadata, memory: MemorySize) -> Result<Vec<(u32, u64, u64)>, TdxError> {
    let mut accepted: Vec<(u64, u64)> = metadata
        .sections
        .iter()
        .filter(|section| {
            matches!(
                section.kind,
                TdxSectionKind::TdHob | TdxSectionKind::TempMem
            )
        })
        .map(|section| (section.address, section.memory_size))
        .collect();
    accepted.sort_unstable();
    let mut resources = Vec::new();
    let mut position = 0;
    for (start, length) in accepted {
        if start < position || start + length > memory.low() {
            return Err(TdxError::Memory {
                problem: format!(
                    "expected the firmware's memory sections side by side in the {:#x} bytes of memory below 4 GiB, found \
                     {length:#x} bytes at {start:#x}; give more memory",
                    memory.low()
                ),
            });
        }
        if start > position {
            resources.push((UNACCEPTED, position, start - position));
        }
        resources.push((SYSTEM_MEMORY, start, length));
        position = start + length;
    }
    for (start, length) in memory.ranges() {
        let from = start.max(position);
        if start + length > from {
            resources.push((UNACCEPTED, from, start + length - from));
        }
    }
    Ok(resources)
}
