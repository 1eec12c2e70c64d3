//! The page that tells the firmware which kernel, initrd and command line to accept.
//!
//! A table of 168 bytes, padded with zeros to 176: GUID, size (`u16`), then entries for command line, initrd and kernel,
//! each GUID, size 50 (`u16`), SHA-256. Source: QEMU, `target/i386/sev.c`; EDK II, `OvmfPkg/Library/BlobVerifierLibSevHashes`.

use crate::{Guid, bytes::put, digest::sha256};

const TABLE: Guid = Guid::new(0x9438_d606, 0x4f22, 0x4cc9, 0xb479, 0xa793_d411_fd21);
const KERNEL: Guid = Guid::new(0x4de7_9437, 0xabd2, 0x427f, 0xb835, 0xd5b1_72d2_045b);
const INITRD: Guid = Guid::new(0x44ba_f731, 0x3a2f, 0x4bd7, 0x9af1, 0x41e2_9169_781d);
const COMMAND_LINE: Guid = Guid::new(0x97d0_2dd8, 0xbd20, 0x4c94, 0xaa78, 0xe771_4d36_ab2a);

const HEADER_BYTES: usize = 16 + 2;
const ENTRY_BYTES: usize = HEADER_BYTES + 32;
const TABLE_BYTES: usize = HEADER_BYTES + 3 * ENTRY_BYTES;

/// SHA-256 of what QEMU loads directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelHashes {
    /// Of the kernel file as given to `-kernel`.
    pub kernel: [u8; 32],
    /// Of the initrd file as given to `-initrd`; of no bytes when there is none.
    pub initrd: [u8; 32],
    /// Of the command line as given to `-append`, with a zero byte at its end.
    pub command_line: [u8; 32],
}

impl KernelHashes {
    /// Hashes the parts. No initrd is the same as an empty one, no command line the same as an empty one.
    pub fn of(kernel: &[u8], initrd: &[u8], command_line: &str) -> Self {
        let mut line = command_line.as_bytes().to_vec();
        line.push(0);
        Self {
            kernel: sha256(kernel),
            initrd: sha256(initrd),
            command_line: sha256(&line),
        }
    }

    /// The table, padded to a multiple of 16 bytes.
    pub(crate) fn table(&self) -> [u8; TABLE_BYTES.next_multiple_of(16)] {
        let mut table = [0; TABLE_BYTES.next_multiple_of(16)];
        put(&mut table, 0, &TABLE.0);
        put(&mut table, 16, &(TABLE_BYTES as u16).to_le_bytes());
        let entries = [
            (COMMAND_LINE, &self.command_line),
            (INITRD, &self.initrd),
            (KERNEL, &self.kernel),
        ];
        for (index, (guid, hash)) in entries.into_iter().enumerate() {
            let at = HEADER_BYTES + index * ENTRY_BYTES;
            put(&mut table, at, &guid.0);
            put(&mut table, at + 16, &(ENTRY_BYTES as u16).to_le_bytes());
            put(&mut table, at + HEADER_BYTES, hash);
        }
        table
    }
}
