//! The guest's memory as QEMU's machine type `q35` lays it out.

use super::TdxError;
use crate::firmware::PAGE_BYTES;

const FOUR_GIB: u64 = 1 << 32;
/// With this much memory or more, less of it stays below 4 GiB.
const SPLIT: u64 = 0xb000_0000;
const LOW_WHEN_SPLIT: u64 = 0x8000_0000;
/// The x86 guests of KVM address 52 bits at most.
const BYTES_MAX: u64 = 1 << 52;

/// Memory of a guest as given to `-m`, in bytes: whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySize(u64);

impl MemorySize {
    /// # Errors
    /// When the size is 0, above 4 PiB, or not a multiple of 4096.
    pub fn from_bytes(bytes: u64) -> Result<Self, TdxError> {
        if bytes == 0 || bytes > BYTES_MAX || !bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Err(TdxError::Memory {
                problem: format!(
                    "expected memory of 1 page to 4 PiB in whole 4096-byte pages, found {bytes} bytes"
                ),
            });
        }
        Ok(Self(bytes))
    }

    /// Bytes below 4 GiB, from address 0.
    pub(super) fn low(self) -> u64 {
        if self.0 < SPLIT {
            self.0
        } else {
            LOW_WHEN_SPLIT
        }
    }

    /// The ranges of memory: start and size.
    pub(super) fn ranges(self) -> Vec<(u64, u64)> {
        let mut ranges = vec![(0, self.low())];
        if self.0 > self.low() {
            ranges.push((FOUR_GIB, self.0 - self.low()));
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::MemorySize;

    #[test]
    fn large_memory_is_split_at_two_gib() {
        let ranges = |bytes| MemorySize::from_bytes(bytes).unwrap().ranges();
        assert_eq!(ranges(0xafff_f000), [(0, 0xafff_f000)]);
        assert_eq!(
            ranges(0xb000_0000),
            [(0, 0x8000_0000), (0x1_0000_0000, 0x3000_0000)]
        );
        assert!(MemorySize::from_bytes(0).is_err());
        assert!(MemorySize::from_bytes(4097).is_err());
        assert!(MemorySize::from_bytes(u64::MAX - 4095).is_err());
    }
}
