//! OVMF images: the footer table and what it points to.
//!
//! The image ends 4 GiB above address 0. Its last 32 bytes are the reset vector; below them ends a table of entries that is
//! read backwards. An entry is its data, then its size (`u16`, data and this header), then its GUID; the first entry from
//! the end is the footer, whose size is that of the whole table. Source: `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`
//! of EDK II and QEMU's `docs/specs/`.

mod sev;
mod tdx;

use std::collections::BTreeMap;

pub use sev::{SevMetadata, SevSection, SevSectionKind};
pub use tdx::{TdxMetadata, TdxSection, TdxSectionKind};

use crate::{
    Guid,
    bytes::{guid_at, slice, u16_at, u32_at},
};

/// Bytes of a page, and what every measured region is a multiple of.
pub const PAGE_BYTES: usize = 4096;

const FOUR_GIB: u64 = 1 << 32;
/// Bytes between the end of the table and the end of the image.
const AFTER_TABLE: usize = 32;
/// Size and GUID of an entry.
const ENTRY_HEADER: usize = 2 + 16;

const FOOTER: Guid = Guid::new(0x96b5_82de, 0x1fb2, 0x45f7, 0xbaea, 0xa366_c55a_082d);
const SEV_HASH_TABLE: Guid = Guid::new(0x7255_371f, 0x3a3b, 0x4b04, 0x927b, 0x1da6_efa8_d454);
const SEV_ES_RESET_BLOCK: Guid = Guid::new(0x00f7_71de, 0x1a7e, 0x4fcb, 0x890e, 0x68c7_7e2f_b44e);
const SEV_METADATA: Guid = Guid::new(0xdc88_6566, 0x984a, 0x4798, 0xa75e, 0x5585_a7bf_67cc);
const TDX_METADATA: Guid = Guid::new(0xe47a_6535, 0x984a, 0x4798, 0x865e, 0x4685_a7bf_8ec2);

/// The image is not a firmware that can be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FirmwareError {
    /// Wrong size for any firmware.
    #[error(
        "expected a firmware of whole 4096-byte pages below 4 GiB, found {found} bytes; give the unified OVMF image (`OVMF.fd`), not its variable store"
    )]
    Size {
        /// Bytes found.
        found: usize,
    },
    /// No footer table.
    #[error(
        "expected the GUID {FOOTER} of the OVMF table 48 bytes before the end, found {found}; this is not an OVMF image"
    )]
    NotOvmf {
        /// What stands there.
        found: Guid,
    },
    /// The footer table or an entry runs out of its container.
    #[error("the OVMF table is truncated: {what} has {size} bytes where {expected}")]
    Table {
        /// Which part.
        what: &'static str,
        /// The size it states.
        size: usize,
        /// What would be right.
        expected: &'static str,
    },
    /// The table has no such entry, or a zero one.
    #[error("the firmware has no {name} (table entry {guid}); build OVMF {remedy}")]
    NoEntry {
        /// What the entry is.
        name: &'static str,
        /// Its GUID.
        guid: Guid,
        /// How the firmware gets it.
        remedy: &'static str,
    },
    /// Metadata runs out of the image, or has another signature or version.
    #[error("the {kind} metadata at the offset that the OVMF table gives is unusable: {problem}")]
    Metadata {
        /// `SEV` or `TDX`.
        kind: &'static str,
        /// What is wrong, with what was expected and found.
        problem: String,
    },
}

/// An OVMF image whose footer table was read.
#[derive(Debug, Clone)]
pub struct Firmware<'a> {
    image: &'a [u8],
    table: BTreeMap<Guid, &'a [u8]>,
}

impl<'a> Firmware<'a> {
    /// Reads the footer table of an image: whole pages, less than 4 GiB.
    ///
    /// # Errors
    /// When the size is wrong, there is no table, or the table is not consistent.
    pub fn parse(image: &'a [u8]) -> Result<Self, FirmwareError> {
        let size = image.len();
        if size == 0 || !size.is_multiple_of(PAGE_BYTES) || size as u64 >= FOUR_GIB {
            return Err(FirmwareError::Size { found: size });
        }
        // At least one page, so this cannot underflow.
        let header = size - AFTER_TABLE - ENTRY_HEADER;
        let found = guid_at(image, header + 2).unwrap_or(Guid([0; 16]));
        if found != FOOTER {
            return Err(FirmwareError::NotOvmf { found });
        }
        let table_size = usize::from(u16_at(image, header).unwrap_or(0));
        let entries = table_size
            .checked_sub(ENTRY_HEADER)
            .and_then(|length| slice(image, header.checked_sub(length)?, length))
            .ok_or(FirmwareError::Table {
                what: "the table",
                size: table_size,
                expected: "18 bytes to the size of the image are possible",
            })?;
        Ok(Self {
            image,
            table: entries_of(entries)?,
        })
    }

    /// The whole image.
    pub fn image(&self) -> &'a [u8] {
        self.image
    }

    /// Guest physical address of the first byte: the image ends at 4 GiB.
    pub fn address(&self) -> u64 {
        FOUR_GIB - self.image.len() as u64
    }

    /// Data of a table entry.
    pub fn entry(&self, guid: &Guid) -> Option<&'a [u8]> {
        self.table.get(guid).copied()
    }

    /// Where the application processors of SEV-ES and SEV-SNP guests start: EIP, with the code segment's base in the upper
    /// 16 bits.
    ///
    /// # Errors
    /// When the firmware has no reset block.
    pub fn sev_es_reset_eip(&self) -> Result<u32, FirmwareError> {
        self.word(&SEV_ES_RESET_BLOCK)
            .ok_or(FirmwareError::NoEntry {
                name: "SEV-ES reset block",
                guid: SEV_ES_RESET_BLOCK,
                remedy: "for SEV (`OvmfPkgX64.dsc` or `AmdSevX64.dsc`)",
            })
    }

    /// Guest physical address of the table of kernel, initrd and command line hashes.
    ///
    /// # Errors
    /// When the firmware does not verify such hashes.
    pub fn sev_hash_table_address(&self) -> Result<u32, FirmwareError> {
        self.word(&SEV_HASH_TABLE)
            .filter(|address| *address != 0)
            .ok_or(FirmwareError::NoEntry {
                name: "SEV hash table, so it would not verify the kernel",
                guid: SEV_HASH_TABLE,
                remedy: "with `AmdSevX64.dsc`",
            })
    }

    /// Offset from the start of the image of what a table entry points to, as its distance from the end of the image.
    fn pointer(
        &self,
        guid: Guid,
        name: &'static str,
        remedy: &'static str,
    ) -> Result<usize, FirmwareError> {
        let from_end = self
            .word(&guid)
            .ok_or(FirmwareError::NoEntry { name, guid, remedy })?;
        usize::try_from(from_end)
            .ok()
            .and_then(|from_end| self.image.len().checked_sub(from_end))
            .ok_or_else(|| FirmwareError::Metadata {
                kind: name.split(' ').next().unwrap_or(name),
                problem: format!(
                    "expected an offset of at most {} bytes from the end, found {from_end}",
                    self.image.len()
                ),
            })
    }

    fn word(&self, guid: &Guid) -> Option<u32> {
        u32_at(self.table.get(guid)?, 0)
    }
}

fn entries_of(mut rest: &[u8]) -> Result<BTreeMap<Guid, &[u8]>, FirmwareError> {
    let mut table = BTreeMap::new();
    while let Some(header) = rest.len().checked_sub(ENTRY_HEADER) {
        let size = usize::from(u16_at(rest, header).unwrap_or(0));
        let start = rest.len().checked_sub(size);
        let (Some(start), true) = (start, size >= ENTRY_HEADER) else {
            return Err(FirmwareError::Table {
                what: "an entry",
                size,
                expected: "18 bytes to the rest of the table are possible",
            });
        };
        if let Some(guid) = guid_at(rest, header + 2) {
            // Readers search from the end, so the first one found counts.
            let data = &rest[start..header];
            table.entry(guid).or_insert(data);
        }
        rest = &rest[..start];
    }
    Ok(table)
}

/// Launch memory lies below 4 GiB; the bound also keeps the work for hostile metadata small. Each section has at most
/// 4 GiB and there are fewer than 2^28 of them, so the sum of their sizes does not overflow.
fn check_total(kind: &'static str, total: u64) -> Result<(), FirmwareError> {
    if total <= FOUR_GIB {
        return Ok(());
    }
    Err(FirmwareError::Metadata {
        kind,
        problem: format!("expected sections of at most {FOUR_GIB} bytes in all, found {total}"),
    })
}
