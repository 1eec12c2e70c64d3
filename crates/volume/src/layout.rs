//! Where things lie on the device.

/// Beginning of the device: the LUKS2 header, two copies of 16 KiB, and its keyslots.
pub const LUKS_BYTES: usize = 0x8_0000;
/// One copy of the LUKS2 header: 4 KiB in binary, the rest JSON (LUKS2 On-Disk Format Specification 1.1.1, section 2).
pub const METADATA_BYTES: usize = 0x4000;
/// Area of the LUKS2 keyslots, behind both copies of the header.
pub const KEYSLOTS_BYTES: usize = LUKS_BYTES - 2 * METADATA_BYTES;
/// Where the two seals lie. One is written at a time, so that the other is whole whenever the power goes.
pub const SEAL_OFFSETS: [usize; 2] = [0x8_0000, 0x8_1000];
/// Length of a seal.
pub const SEAL_BYTES: usize = 0x1000;
/// First byte behind the seals; zeros from here to the data.
pub const RESERVED_OFFSET: usize = 0x8_2000;
/// Everything before the data.
pub const HEADER_BYTES: usize = 0x10_0000;
/// Sectors in which data is encrypted and authenticated, bytes.
pub const SECTOR_BYTES: u32 = 4096;
/// Smallest device that takes a header, the journal of dm-integrity and a file system.
pub const DEVICE_BYTES_MIN: u64 = 32 * 1024 * 1024;
