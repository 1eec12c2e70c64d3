//! Firmware and kernels made from nothing but their headers.

use std::iter;

const FOOTER: [u8; 16] = *b"\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a\x08\x2d";
const HASH_TABLE: [u8; 16] = *b"\x1f\x37\x55\x72\x3b\x3a\x04\x4b\x92\x7b\x1d\xa6\xef\xa8\xd4\x54";
const RESET_BLOCK: [u8; 16] = *b"\xde\x71\xf7\x00\x7e\x1a\xcb\x4f\x89\x0e\x68\xc7\x7e\x2f\xb4\x4e";
const SEV_METADATA: [u8; 16] = *b"\x66\x65\x88\xdc\x4a\x98\x98\x47\xa7\x5e\x55\x85\xa7\xbf\x67\xcc";
const TDX_METADATA: [u8; 16] = *b"\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2";

/// Where metadata lies, in bytes from the end of the image.
const SEV_FROM_END: u32 = 3000;
const TDX_FROM_END: u32 = 2000;

/// Bytes of OVMF's variable store.
pub const VARIABLES_BYTES: usize = 0x8_4000;

/// A section of SEV metadata: guest physical address, size, kind.
pub type SevSection = (u32, u32, u32);
/// A section of TDX metadata: data offset and size, address and size in memory, kind, attributes.
pub type TdxSection = (u32, u32, u64, u64, u32, u32);

/// SEV metadata of the OVMF that EDK II builds with `AmdSevX64.dsc`.
const AMD_SEV_SECTIONS: [SevSection; 7] = [
    (0x80_0000, 0x9000, 1),
    (0x80_a000, 0x3000, 1),
    (0x80_d000, 0x1000, 2),
    (0x80_e000, 0x1000, 3),
    (0x80_f000, 0x1000, 4),
    (0x81_0000, 0x1000, 0x10),
    (0x81_1000, 0xf000, 1),
];
/// The same for `OvmfPkgX64.dsc`, which has no kernel hashes.
const OVMF_X64_SECTIONS: [SevSection; 6] = [
    (0x80_0000, 0x9000, 1),
    (0x80_a000, 0x3000, 1),
    (0x80_d000, 0x1000, 2),
    (0x80_e000, 0x1000, 3),
    (0x80_f000, 0x1000, 4),
    (0x81_0000, 0x1_0000, 1),
];
/// TDX metadata of `OvmfPkgX64.dsc` for memory.
const OVMF_X64_MEMORY: [TdxSection; 4] = [
    (0, 0, 0x81_1000, 0xf000, 3, 0),
    (0, 0, 0x80_b000, 0x2000, 3, 0),
    (0, 0, 0x80_9000, 0x2000, 2, 0),
    (0, 0, 0x80_0000, 0x6000, 3, 0),
];

/// What an OVMF image is made of.
#[derive(Debug, Clone)]
pub struct Ovmf {
    /// Its size in pages of 4096 bytes.
    pub pages: usize,
    /// Where application processors start.
    pub reset_eip: u32,
    /// Where the hash table lies.
    pub hash_table: u32,
    /// SEV metadata.
    pub sev: Vec<SevSection>,
    /// TDX metadata.
    pub tdx: Vec<TdxSection>,
    /// What stands at the beginning of the image.
    pub content: Vec<u8>,
}

impl Ovmf {
    /// With the metadata of EDK II's `AmdSevX64.dsc`.
    pub fn amd_sev() -> Self {
        Self {
            pages: 4,
            reset_eip: 0x0080_b004,
            hash_table: 0x0081_0c00,
            sev: AMD_SEV_SECTIONS.to_vec(),
            tdx: Vec::new(),
            content: Vec::new(),
        }
    }

    /// With the SEV metadata of EDK II's `OvmfPkgX64.dsc`.
    pub fn ovmf_x64() -> Self {
        Self {
            hash_table: 0,
            sev: OVMF_X64_SECTIONS.to_vec(),
            ..Self::amd_sev()
        }
    }

    /// With TDX metadata as well: an empty variable store, four pages of code, memory as in `OvmfPkgX64.dsc`.
    pub fn tdx() -> Self {
        let size = VARIABLES_BYTES as u32;
        let mut tdx = vec![
            (size, 0x4000, 0xffff_c000, 0x4000, 0, 1),
            (0, size, 0xfff7_8000, u64::from(size), 1, 0),
        ];
        tdx.extend(OVMF_X64_MEMORY);
        Self {
            pages: VARIABLES_BYTES / 4096 + 4,
            tdx,
            content: empty_variables(),
            ..Self::ovmf_x64()
        }
    }

    /// The image: a pattern, metadata of SEV and TDX in the last page, the table, 32 bytes.
    pub fn image(&self) -> Vec<u8> {
        let pattern = |byte: &u8| Some(byte.wrapping_mul(29).wrapping_add(3));
        let mut image: Vec<u8> = iter::successors(Some(7), pattern)
            .take(self.pages * 4096)
            .collect();
        put_at(&mut image, 0, &self.content);
        let size = image.len();

        let mut sev = header(*b"ASEV", 12, self.sev.len());
        for (address, bytes, kind) in &self.sev {
            sev.extend(
                [*address, *bytes, *kind]
                    .iter()
                    .flat_map(|v| v.to_le_bytes()),
            );
        }
        put_at(&mut image, size - SEV_FROM_END as usize, &sev);
        let mut tdx = header(*b"TDVF", 32, self.tdx.len());
        for (offset, data, address, memory, kind, attributes) in &self.tdx {
            tdx.extend([*offset, *data].iter().flat_map(|v| v.to_le_bytes()));
            tdx.extend([*address, *memory].iter().flat_map(|v| v.to_le_bytes()));
            tdx.extend([*kind, *attributes].iter().flat_map(|v| v.to_le_bytes()));
        }
        put_at(&mut image, size - TDX_FROM_END as usize, &tdx);

        let mut table = Vec::new();
        for (guid, word) in [
            (TDX_METADATA, TDX_FROM_END),
            (SEV_METADATA, SEV_FROM_END),
            (HASH_TABLE, self.hash_table),
            (RESET_BLOCK, self.reset_eip),
        ] {
            table.extend(word.to_le_bytes());
            table.extend(22_u16.to_le_bytes());
            table.extend(guid);
        }
        table.extend((table.len() as u16 + 18).to_le_bytes());
        table.extend(FOOTER);
        put_at(&mut image, size - 32 - table.len(), &table);
        image
    }
}

fn header(signature: [u8; 4], section: usize, count: usize) -> Vec<u8> {
    let words = [16 + (section * count) as u32, 1, count as u32];
    signature
        .into_iter()
        .chain(words.iter().flat_map(|word| word.to_le_bytes()))
        .collect()
}

fn put_at(target: &mut [u8], at: usize, bytes: &[u8]) {
    target[at..at + bytes.len()].copy_from_slice(bytes);
}

/// An empty variable store: firmware volume header, variable store header, and the header of the fault-tolerant write
/// block (EDK II, `OvmfPkg/VarStore.fdf.inc`); flash that was never written is 0xff.
fn empty_variables() -> Vec<u8> {
    let mut store = vec![0xff; VARIABLES_BYTES];
    put_at(&mut store, 0, &[0; 16]);
    put_at(
        &mut store,
        16,
        b"\x8d\x2b\xf1\xff\x96\x76\x8b\x4c\xa9\x85\x27\x47\x07\x5b\x4f\x50\x00\x40\x08\x00\x00\x00\x00\x00_FVH\
          \xff\xfe\x04\x00\x48\x00\xaf\xb8\x00\x00\x00\x02\x84\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    );
    put_at(
        &mut store,
        0x48,
        b"\x78\x2c\xf3\xaa\x7b\x94\x9a\x43\xa1\x80\x2e\x14\x4e\xc3\x77\x92\xb8\xff\x03\x00\x5a\xfe\
          \x00\x00\x00\x00\x00\x00",
    );
    put_at(
        &mut store,
        0x4_1000,
        b"\x2b\x29\x58\x9e\x68\x7c\x7d\x49\xa0\xce\x65\x00\xfd\x9f\x1b\x95\x2c\xaf\x2c\x64\xfe\xff\xff\xff\
          \xe0\x0f\x00\x00\x00\x00\x00\x00",
    );
    store
}

/// A PE32+ image of 0x2000 bytes with the header of a Linux kernel and two sections; then its certificates, if any.
pub fn efi_kernel(certificates: &[u8]) -> Vec<u8> {
    let mut image: Vec<u8> = (0..0x2000_u32)
        .map(|index| (index * 7 % 251) as u8)
        .collect();
    let optional = 0x58;
    let mut put = |at: usize, bytes: &[u8]| put_at(&mut image, at, bytes);
    put(0, &[0; 0x240]);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x44, &0x8664_u16.to_le_bytes());
    put(0x46, &2_u16.to_le_bytes()); // sections
    put(0x54, &160_u16.to_le_bytes()); // bytes of the optional header
    put(0x56, &0x0206_u16.to_le_bytes());
    put(optional, &0x20b_u16.to_le_bytes());
    put(optional + 32, &0x1000_u32.to_le_bytes()); // alignment of sections
    put(optional + 36, &0x200_u32.to_le_bytes()); // alignment in the file
    put(optional + 56, &0x4000_u32.to_le_bytes());
    put(optional + 60, &0x400_u32.to_le_bytes()); // bytes of the headers
    put(optional + 64, &0xdead_beef_u32.to_le_bytes()); // checksum
    put(optional + 108, &6_u32.to_le_bytes()); // directories
    if !certificates.is_empty() {
        put(optional + 112 + 32, &0x2000_u32.to_le_bytes());
        put(
            optional + 112 + 36,
            &(certificates.len() as u32).to_le_bytes(),
        );
    }
    // The section that comes first in the table comes last in the file.
    let sections = [
        (0xf8, b".text", 0x1400_u32, 0xa00_u32),
        (0x120, b".data", 0x400, 0x1000),
    ];
    for (at, name, start, size) in sections {
        put(at, name);
        put(at + 8, &size.to_le_bytes());
        put(at + 12, &(start + 0x1000).to_le_bytes());
        put(at + 16, &size.to_le_bytes());
        put(at + 20, &start.to_le_bytes());
    }
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &0x7f_u16.to_le_bytes());
    image.extend(certificates);
    image
}
