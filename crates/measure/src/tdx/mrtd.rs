//! MRTD (Intel TDX module base architecture specification, section "TD Measurement": TDH.MEM.PAGE.ADD, TDH.MR.EXTEND).

use super::TdxError;
use crate::{Firmware, Sha384Digest, TdxSection, bytes::put, digest::Sha384, firmware::PAGE_BYTES};

/// Bytes that one MR.EXTEND covers.
const CHUNK_BYTES: usize = 256;
/// Bytes of the record before each page or chunk.
const RECORD_BYTES: usize = 128;

/// In which order the hypervisor adds pages and measures them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PageOrder {
    /// Each page is measured when it was added: Linux 6.16 and newer.
    #[default]
    PageByPage,
    /// All pages of a section are added, then all are measured: kernels with Intel's patches before that.
    SectionBySection,
}

/// MRTD of a firmware.
///
/// # Errors
/// When the firmware has no usable TDX metadata.
pub fn mrtd(firmware: &Firmware<'_>, order: PageOrder) -> Result<Sha384Digest, TdxError> {
    let metadata = firmware.tdx_metadata()?;
    let mut hash = Sha384::new();
    for section in metadata
        .sections
        .iter()
        .filter(|section| !section.added_later)
    {
        let data = firmware.section_data(section);
        match order {
            PageOrder::PageByPage => {
                for page in pages(section) {
                    add(&mut hash, section, page);
                    extend(&mut hash, section, page, data);
                }
            }
            PageOrder::SectionBySection => {
                pages(section).for_each(|page| add(&mut hash, section, page));
                pages(section).for_each(|page| extend(&mut hash, section, page, data));
            }
        }
    }
    Ok(hash.finish())
}

/// Offsets of a section's pages.
fn pages(section: &TdxSection) -> impl Iterator<Item = u64> {
    (0..section.memory_size).step_by(PAGE_BYTES)
}

fn add(hash: &mut Sha384, section: &TdxSection, page: u64) {
    hash.update(&record(b"MEM.PAGE.ADD", section.address + page));
}

fn extend(hash: &mut Sha384, section: &TdxSection, page: u64, data: &[u8]) {
    if !section.extends_mrtd {
        return;
    }
    for offset in (page..page + PAGE_BYTES as u64).step_by(CHUNK_BYTES) {
        hash.update(&record(b"MR.EXTEND", section.address + offset));
        // Where a section is larger than its data, its memory is zero.
        let mut chunk = [0; CHUNK_BYTES];
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| data.get(offset..))
            .unwrap_or_default();
        let length = rest.len().min(CHUNK_BYTES);
        chunk[..length].copy_from_slice(&rest[..length]);
        hash.update(&chunk);
    }
}

fn record(name: &[u8], address: u64) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    put(&mut record, 0, name);
    put(&mut record, 16, &address.to_le_bytes());
    record
}
