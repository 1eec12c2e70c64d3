//! The Authenticode hash of a PE image as EDK II measures it (Microsoft, "Windows Authenticode Portable Executable Signature
//! Format", section "Calculating the PE Image Hash").

use crate::{
    Sha384Digest,
    bytes::{slice, u16_at, u32_at},
    digest::Sha384,
};

/// Where the offset of the PE header stands.
const PE_OFFSET_AT: usize = 0x3c;
/// Signature and COFF header.
const COFF_BYTES: usize = 24;
const SECTION_BYTES: usize = 40;
/// Index of the certificate table among the data directories.
const CERTIFICATES: u32 = 4;

/// Not a PE image that can be hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a PE image (a kernel built with `CONFIG_EFI_STUB`): {problem}")]
pub struct PeError {
    /// What is wrong.
    problem: &'static str,
}

/// SHA-384 over a PE image, without its checksum, the entry of the certificate table and that table.
///
/// # Errors
/// When the bytes are no PE image or its parts run over its end.
pub fn authenticode_sha384(image: &[u8]) -> Result<Sha384Digest, PeError> {
    let refused = |problem| PeError { problem };
    let truncated = || refused("its headers are truncated");
    if !image.starts_with(b"MZ") {
        return Err(refused("it does not begin with `MZ`"));
    }
    let coff = u32_at(image, PE_OFFSET_AT).ok_or_else(truncated)? as usize;
    if slice(image, coff, 4) != Some(b"PE\0\0") {
        return Err(refused("it has no PE signature"));
    }
    let optional = coff + COFF_BYTES;
    let section_count = usize::from(u16_at(image, coff + 6).ok_or_else(truncated)?);
    let optional_bytes = usize::from(u16_at(image, coff + 20).ok_or_else(truncated)?);
    let directories = optional
        + match u16_at(image, optional) {
            Some(0x10b) => 96,
            Some(0x20b) => 112,
            _ => return Err(refused("its optional header is neither PE32 nor PE32+")),
        };
    let checksum = optional + 64;
    let header_bytes = u32_at(image, optional + 60).ok_or_else(truncated)? as usize;
    let directory_count = u32_at(image, directories - 4).ok_or_else(truncated)?;

    let mut hash = Sha384::new();
    let mut part = |from: usize, to: usize| {
        let bytes = image.get(from..to);
        bytes
            .map(|bytes| hash.update(bytes))
            .ok_or_else(|| refused("its parts overlap or run over its end"))
    };
    part(0, checksum)?;
    let mut certificate_bytes = 0;
    if directory_count > CERTIFICATES {
        let entry = directories + CERTIFICATES as usize * 8;
        certificate_bytes = u32_at(image, entry + 4).ok_or_else(truncated)? as usize;
        part(checksum + 4, entry)?;
        part(entry + 8, header_bytes)?;
    } else {
        part(checksum + 4, header_bytes)?;
    }

    let table = slice(
        image,
        optional + optional_bytes,
        section_count * SECTION_BYTES,
    )
    .ok_or_else(truncated)?;
    let mut sections: Vec<(usize, usize)> = table
        .chunks_exact(SECTION_BYTES)
        .filter_map(|section| Some((u32_at(section, 20)? as usize, u32_at(section, 16)? as usize)))
        .filter(|(_, size)| *size > 0)
        .collect();
    sections.sort_by_key(|(start, _)| *start);
    let mut hashed = header_bytes;
    for (start, size) in sections {
        // Both have 32 bits.
        part(start, start + size)?;
        hashed += size;
    }
    // What no section covers, up to the certificates, which are last.
    let end = image
        .len()
        .checked_sub(certificate_bytes)
        .ok_or_else(|| refused("its certificate table is larger than itself"))?;
    if end > hashed {
        part(hashed, end)?;
    }
    Ok(hash.finish())
}
