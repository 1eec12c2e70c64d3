//! OVMF images made from nothing but their tables.

use std::iter;

pub(crate) const FOOTER: &str = "de82b596b21ff745baeaa366c55a082d";
pub(crate) const HASH_TABLE: &str = "1f3755723b3a044b927b1da6efa8d454";
pub(crate) const RESET_BLOCK: &str = "de71f7007e1acb4f890e68c77e2fb44e";
pub(crate) const SEV_METADATA: &str = "666588dc4a989847a75e5585a7bf67cc";
pub(crate) const TDX_METADATA: &str = "35657ae44a989847865e4685a7bf8ec2";

/// Of the OVMF that EDK II builds with `AmdSevX64.dsc`: guest physical address, size, kind.
pub(crate) const AMD_SEV_SECTIONS: [(u32, u32, u32); 7] = [
    (0x80_0000, 0x9000, 1),
    (0x80_a000, 0x3000, 1),
    (0x80_d000, 0x1000, 2),
    (0x80_e000, 0x1000, 3),
    (0x80_f000, 0x1000, 4),
    (0x81_0000, 0x1000, 0x10),
    (0x81_1000, 0xf000, 1),
];
/// The same for `OvmfPkgX64.dsc`, which has no kernel hashes.
pub(crate) const OVMF_X64_SECTIONS: [(u32, u32, u32); 6] = [
    (0x80_0000, 0x9000, 1),
    (0x80_a000, 0x3000, 1),
    (0x80_d000, 0x1000, 2),
    (0x80_e000, 0x1000, 3),
    (0x80_f000, 0x1000, 4),
    (0x81_0000, 0x1_0000, 1),
];

/// A section of TDX metadata: data offset and size, address and size in memory, kind, attributes.
pub(crate) type TdxSection = (u32, u32, u64, u64, u32, u32);

/// What an image is made of.
#[derive(Clone)]
pub(crate) struct Ovmf {
    pub(crate) pages: usize,
    pub(crate) reset_eip: u32,
    pub(crate) hash_table: u32,
    pub(crate) sev: Vec<(u32, u32, u32)>,
    pub(crate) tdx: Vec<TdxSection>,
    /// What stands at the beginning of the image.
    pub(crate) content: Vec<u8>,
}

impl Ovmf {
    pub(crate) fn amd_sev() -> Self {
        Self {
            pages: 4,
            reset_eip: 0x0080_b004,
            hash_table: 0x0081_0c00,
            sev: AMD_SEV_SECTIONS.to_vec(),
            tdx: Vec::new(),
            content: Vec::new(),
        }
    }

    pub(crate) fn ovmf_x64() -> Self {
        Self {
            hash_table: 0,
            sev: OVMF_X64_SECTIONS.to_vec(),
            ..Self::amd_sev()
        }
    }

    /// The image: a pattern, metadata of SEV and TDX in the last page, the table, 32 bytes.
    pub(crate) fn image(&self) -> Vec<u8> {
        let size = self.pages * 4096;
        let mut image: Vec<u8> = iter::successors(Some(7_u8), |byte| {
            Some(byte.wrapping_mul(29).wrapping_add(3))
        })
        .take(size)
        .collect();
        image[..self.content.len()].copy_from_slice(&self.content);

        let mut sev = header(b"ASEV", 12, self.sev.len());
        for (address, bytes, kind) in &self.sev {
            sev.extend(
                [*address, *bytes, *kind]
                    .iter()
                    .flat_map(|v| v.to_le_bytes()),
            );
        }
        let mut tdx = header(b"TDVF", 32, self.tdx.len());
        for (offset, data, address, memory, kind, attributes) in &self.tdx {
            tdx.extend([*offset, *data].iter().flat_map(|v| v.to_le_bytes()));
            tdx.extend([*address, *memory].iter().flat_map(|v| v.to_le_bytes()));
            tdx.extend([*kind, *attributes].iter().flat_map(|v| v.to_le_bytes()));
        }
        let (sev_at, tdx_at) = (size - 3000, size - 2000);
        image[sev_at..sev_at + sev.len()].copy_from_slice(&sev);
        image[tdx_at..tdx_at + tdx.len()].copy_from_slice(&tdx);

        let mut table = Vec::new();
        for (guid, word) in [
            (TDX_METADATA, 2000),
            (SEV_METADATA, 3000),
            (HASH_TABLE, self.hash_table),
            (RESET_BLOCK, self.reset_eip),
        ] {
            table.extend(word.to_le_bytes());
            table.extend(22_u16.to_le_bytes());
            table.extend(hex::decode(guid).unwrap());
        }
        table.extend((table.len() as u16 + 18).to_le_bytes());
        table.extend(hex::decode(FOOTER).unwrap());
        let at = size - 32 - table.len();
        image[at..size - 32].copy_from_slice(&table);
        image
    }
}

fn header(signature: &[u8; 4], section: usize, count: usize) -> Vec<u8> {
    let words = [16 + (section * count) as u32, 1, count as u32];
    signature
        .iter()
        .copied()
        .chain(words.iter().flat_map(|word| word.to_le_bytes()))
        .collect()
}
