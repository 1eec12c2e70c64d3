//! The certificate table that a host hands to a guest beside an extended report.
//!
//! AMD publication 56421, "SEV-ES Guest-Hypervisor Communication Block Standardization", section "SNP Extended Guest Request":
//! entries of 24 bytes (GUID, offset and length as little-endian u32), ended by an entry of zeros; offsets count from the start
//! of the table. The host made it, so nothing in it is trusted: certificates count only when the chain verifies.

use std::fmt;

const ENTRY_BYTES: usize = 24;
/// A table names five kinds of certificate; a few vendor-specific ones more are nothing unusual.
const ENTRIES_MAX: usize = 32;
/// The Linux driver passes on 16 KiB (`SEV_FW_BLOB_MAX_SIZE`); kernels of some vendors more.
pub(crate) const TABLE_BYTES_MAX: usize = 64 * 1024;

/// Identifies what an entry holds, in the byte order of RFC 9562 text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificateGuid(pub [u8; 16]);

impl CertificateGuid {
    /// VCEK certificate.
    pub const VCEK: Self = Self(0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes());
    /// VLEK certificate.
    pub const VLEK: Self = Self(0xa8074bc2_a25a_483e_aae6_39c045a0b8a1_u128.to_be_bytes());
    /// ASK or ASVK certificate.
    pub const ASK: Self = Self(0x4ab7b379_bbac_4fe4_a02f_05aef327c782_u128.to_be_bytes());
    /// ARK certificate.
    pub const ARK: Self = Self(0xc0b406a4_a803_4952_9743_3fb6014cd0ae_u128.to_be_bytes());
    /// Revocation list of the ARK.
    pub const CRL: Self = Self(0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea_u128.to_be_bytes());

    /// What the entry holds, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::VCEK => "VCEK",
            Self::VLEK => "VLEK",
            Self::ASK => "ASK",
            Self::ARK => "ARK",
            Self::CRL => "CRL",
            _ => "unknown",
        }
    }
}

impl fmt::Display for CertificateGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for CertificateGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateGuid({self})")
    }
}

/// A parsed table; borrows the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateTable<'a> {
    entries: Vec<(CertificateGuid, &'a [u8])>,
}

/// Bytes that are no certificate table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateTableError {
    /// More bytes than a table has.
    #[error("a certificate table has at most {TABLE_BYTES_MAX} bytes, found {found}")]
    TooLarge {
        /// Size in bytes.
        found: usize,
    },
    /// No entry of zeros before the end, or too many entries before it.
    #[error(
        "a certificate table ends with an entry of zeros after at most {ENTRIES_MAX} entries; found none"
    )]
    Endless,
    /// An entry points outside the table.
    #[error("entry {guid} has {length} bytes at offset {offset}, beyond the table's {size} bytes")]
    OutOfBounds {
        /// The entry.
        guid: CertificateGuid,
        /// Where it says it starts.
        offset: u32,
        /// How long it says it is, in bytes.
        length: u32,
        /// Size of the table in bytes.
        size: usize,
    },
    /// Two entries of one kind.
    #[error("entry {guid} is there twice")]
    Repeated {
        /// The entry.
        guid: CertificateGuid,
    },
}

impl<'a> CertificateTable<'a> {
    /// Reads a table. An empty slice is a table without entries: the host has none.
    ///
    /// # Errors
    /// When the table does not end, an entry leaves it, or two entries have the same GUID.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CertificateTableError> {
        let mut entries: Vec<(CertificateGuid, &[u8])> = Vec::new();
        if bytes.is_empty() {
            return Ok(Self { entries });
        }
        if bytes.len() > TABLE_BYTES_MAX {
            return Err(CertificateTableError::TooLarge { found: bytes.len() });
        }
        for entry in bytes.chunks_exact(ENTRY_BYTES).take(ENTRIES_MAX) {
            if entry.iter().all(|byte| *byte == 0) {
                return Ok(Self { entries });
            }
            let (guid, content) = read_entry(entry, bytes)?;
            if entries.iter().any(|(other, _)| *other == guid) {
                return Err(CertificateTableError::Repeated { guid });
            }
            entries.push((guid, content));
        }
        Err(CertificateTableError::Endless)
    }

    /// All entries in the table's order.
    pub fn entries(&self) -> impl Iterator<Item = (CertificateGuid, &'a [u8])> {
        self.entries.iter().copied()
    }

    /// The content of an entry.
    pub fn get(&self, guid: CertificateGuid) -> Option<&'a [u8]> {
        let mut entries = self.entries();
        entries
            .find(|(other, _)| *other == guid)
            .map(|(_, content)| content)
    }
}

fn read_entry<'a>(
    entry: &[u8],
    table: &'a [u8],
) -> Result<(CertificateGuid, &'a [u8]), CertificateTableError> {
    let endless = CertificateTableError::Endless;
    let (guid, rest) = entry.split_first_chunk::<16>().ok_or(endless)?;
    let (offset, rest) = rest.split_first_chunk::<4>().ok_or(endless)?;
    let (length, _) = rest.split_first_chunk::<4>().ok_or(endless)?;
    let guid = CertificateGuid(*guid);
    let (offset, length) = (u32::from_le_bytes(*offset), u32::from_le_bytes(*length));
    let range = usize::try_from(offset)
        .ok()
        .zip(usize::try_from(length).ok());
    let content = range
        .and_then(|(start, length)| Some(start..start.checked_add(length)?))
        .and_then(|range| table.get(range));
    match content {
        Some(content) => Ok((guid, content)),
        None => Err(CertificateTableError::OutOfBounds {
            guid,
            offset,
            length,
            size: table.len(),
        }),
    }
}

/// Writes a table; the inverse of [`CertificateTable::parse`].
#[cfg(any(test, all(feature = "software-tee", not(target_arch = "wasm32"))))]
pub fn encode_certificate_table(entries: &[(CertificateGuid, &[u8])]) -> Vec<u8> {
    let header = entries.len().saturating_add(1).saturating_mul(ENTRY_BYTES);
    let (mut table, mut contents) = (Vec::new(), Vec::new());
    for (guid, content) in entries {
        let offset = header.saturating_add(contents.len());
        table.extend(guid.0);
        table.extend(u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes());
        table.extend(
            u32::try_from(content.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        contents.extend_from_slice(content);
    }
    table.resize(header, 0);
    table.extend(contents);
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENTRIES: [(CertificateGuid, &[u8]); 3] = [
        (CertificateGuid::VCEK, b"vcek"),
        (CertificateGuid::ASK, b"ask"),
        (CertificateGuid::ARK, b""),
    ];

    #[test]
    fn what_was_written_is_read() {
        let bytes = encode_certificate_table(&ENTRIES);
        let table = CertificateTable::parse(&bytes).expect("table");
        assert_eq!(table.entries().collect::<Vec<_>>(), ENTRIES);
        assert_eq!(table.get(CertificateGuid::VLEK), None);
        assert_eq!(
            CertificateTable::parse(&[])
                .expect("none")
                .entries()
                .count(),
            0
        );
    }

    #[test]
    fn guids_are_written_as_the_standard_writes_them() {
        assert_eq!(
            CertificateGuid::VCEK.to_string(),
            "63da758d-e664-4564-adc5-f4b93be8accd"
        );
    }

    #[test]
    fn refuses_what_leaves_the_table_repeats_or_does_not_end() {
        let good = encode_certificate_table(&ENTRIES);
        let mut far = good.clone();
        far[20] = 0xff;
        assert!(matches!(
            CertificateTable::parse(&far),
            Err(CertificateTableError::OutOfBounds { length: 0xff, .. })
        ));
        let mut wrapping = good.clone();
        wrapping[16..24].fill(0xff);
        assert!(matches!(
            CertificateTable::parse(&wrapping),
            Err(CertificateTableError::OutOfBounds { .. })
        ));
        let twice = encode_certificate_table(&[ENTRIES[0], ENTRIES[0]]);
        assert!(matches!(
            CertificateTable::parse(&twice),
            Err(CertificateTableError::Repeated { .. })
        ));
        assert_eq!(
            CertificateTable::parse(&good[..48]),
            Err(CertificateTableError::OutOfBounds {
                guid: CertificateGuid::VCEK,
                offset: 96,
                length: 4,
                size: 48
            })
        );
        let many = encode_certificate_table(&[(CertificateGuid([1; 16]), b"")]);
        assert_eq!(
            CertificateTable::parse(&many[..24]),
            Err(CertificateTableError::OutOfBounds {
                guid: CertificateGuid([1; 16]),
                offset: 48,
                length: 0,
                size: 24
            })
        );
        assert!(matches!(
            CertificateTable::parse(&vec![0; TABLE_BYTES_MAX + 1]),
            Err(CertificateTableError::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(table) = CertificateTable::parse(&bytes) {
                for (_, content) in table.entries() {
                    prop_assert!(content.len() <= bytes.len());
                }
            }
        }
    }
}
