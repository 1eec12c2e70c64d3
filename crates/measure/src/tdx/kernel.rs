//! The kernel as QEMU hands it to the firmware (Linux, `Documentation/arch/x86/boot.rst`; QEMU, `hw/i386/x86-common.c`).

use std::borrow::Cow;

use super::{DirectBoot, MemorySize, PeError};
use crate::bytes::{put, u16_at, u32_at};

const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const MAGIC_AT: usize = 0x202;
const PROTOCOL_AT: usize = 0x206;
const LOADER_TYPE_AT: usize = 0x210;
const LOAD_FLAGS_AT: usize = 0x211;
const INITRD_ADDRESS_AT: usize = 0x218;
const INITRD_SIZE_AT: usize = 0x21c;
const HEAP_END_AT: usize = 0x224;
const COMMAND_LINE_AT: usize = 0x228;
const INITRD_MAX_AT: usize = 0x22c;
const EXTENDED_FLAGS_AT: usize = 0x236;

const LOADED_HIGH: u8 = 0x01;
const CAN_USE_HEAP: u8 = 0x80;
const LOADABLE_ABOVE_4G: u16 = 0x02;
/// QEMU's number as a boot loader.
const QEMU: u8 = 0xb0;
const COMMAND_LINE_ADDRESS: u32 = 0x2_0000;
/// From the setup code at 0x10000 to the command line, less the space that the protocol reserves.
const HEAP_END: u32 = COMMAND_LINE_ADDRESS - 0x1_0000 - 0x200;
/// What QEMU keeps free for ACPI below the end of low memory.
const ACPI_BYTES: u64 = 0x2_0000 + 0x8000;

/// What QEMU makes of the kernel's header before the firmware measures it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoaderHeader {
    /// Nothing: QEMU 10.2 and newer.
    Unchanged,
    /// It fills in what a boot loader has to: QEMU before 10.2.
    Filled {
        /// Where it says that the initrd is.
        initrd: InitrdAddress,
    },
}

/// The initrd's address in a filled header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitrdAddress {
    /// As high in the low memory as possible, so it depends on the guest's memory.
    Highest(MemorySize),
    /// Always the same: QEMU with a patch for this purpose.
    Fixed(u32),
}

/// The kernel cannot be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Not a Linux kernel, or one of another age.
    #[error(
        "expected a Linux kernel (bzImage) that loads high and follows boot protocol 2.03 or newer, found {found}; give \
         the file that QEMU gets with `-kernel`"
    )]
    Header {
        /// What was found.
        found: String,
    },
    /// The command line changes the header in a way that is not computed here.
    #[error(
        "the command line sets `vga=`, which makes QEMU before 10.2 change the kernel's header; remove it, a confidential \
         VM has no VGA"
    )]
    VideoMode,
    /// The initrd finds no place.
    #[error(
        "expected an initrd of less than {max} bytes for this memory and kernel, found {found}"
    )]
    Initrd {
        /// Bound.
        max: u64,
        /// Bytes of the initrd.
        found: u64,
    },
    /// Not a PE image.
    #[error(transparent)]
    Pe(#[from] PeError),
}

/// The kernel's bytes as the firmware sees them.
pub(super) fn loaded<'a>(boot: &DirectBoot<'a>) -> Result<Cow<'a, [u8]>, KernelError> {
    let LoaderHeader::Filled { initrd } = boot.header else {
        return Ok(Cow::Borrowed(boot.kernel));
    };
    if boot.command_line.contains("vga=") {
        return Err(KernelError::VideoMode);
    }
    let header = Header::read(boot.kernel)?;
    let mut kernel = boot.kernel.to_vec();
    kernel[LOADER_TYPE_AT] = QEMU;
    kernel[LOAD_FLAGS_AT] |= CAN_USE_HEAP;
    put(&mut kernel, HEAP_END_AT, &HEAP_END.to_le_bytes());
    put(
        &mut kernel,
        COMMAND_LINE_AT,
        &COMMAND_LINE_ADDRESS.to_le_bytes(),
    );
    if let Some(content) = boot.initrd {
        let size = content.len() as u64;
        let highest = match initrd {
            InitrdAddress::Highest(memory) => header.initrd_max(memory)?,
            InitrdAddress::Fixed(_) => u64::from(u32::MAX),
        };
        let too_large = KernelError::Initrd {
            max: highest,
            found: size,
        };
        if size >= highest {
            return Err(too_large);
        }
        let address = match initrd {
            InitrdAddress::Highest(_) => ((highest - size) & !0xfff) as u32,
            InitrdAddress::Fixed(address) => address,
        };
        // Less than `highest`, which has 32 bits.
        let size = u32::try_from(size).map_err(|_| too_large)?;
        put(&mut kernel, INITRD_ADDRESS_AT, &address.to_le_bytes());
        put(&mut kernel, INITRD_SIZE_AT, &size.to_le_bytes());
    }
    Ok(Cow::Owned(kernel))
}

/// What of the header decides how QEMU fills it in.
struct Header {
    protocol: u16,
    initrd_max: u32,
    extended_flags: u16,
}

impl Header {
    fn read(kernel: &[u8]) -> Result<Self, KernelError> {
        let refused = |found: String| Err(KernelError::Header { found });
        let (Some(magic), Some(protocol), Some(initrd_max), Some(extended_flags)) = (
            u32_at(kernel, MAGIC_AT),
            u16_at(kernel, PROTOCOL_AT),
            u32_at(kernel, INITRD_MAX_AT),
            u16_at(kernel, EXTENDED_FLAGS_AT),
        ) else {
            return refused(format!("{} bytes", kernel.len()));
        };
        if magic != MAGIC {
            return refused("no `HdrS` at offset 0x202".into());
        }
        if protocol < 0x203 {
            return refused(format!("protocol {}.{:02}", protocol >> 8, protocol & 0xff));
        }
        if kernel[LOAD_FLAGS_AT] & LOADED_HIGH == 0 {
            return refused("one that loads low".into());
        }
        Ok(Self {
            protocol,
            initrd_max,
            extended_flags,
        })
    }

    /// The highest address of an initrd.
    fn initrd_max(&self, memory: MemorySize) -> Result<u64, KernelError> {
        let kernel = if self.protocol >= 0x20c && self.extended_flags & LOADABLE_ABOVE_4G != 0 {
            u32::MAX
        } else {
            self.initrd_max
        };
        let limit = memory.low().saturating_sub(ACPI_BYTES);
        let max = match u64::from(kernel) {
            kernel if kernel >= limit => limit.saturating_sub(1),
            kernel => kernel,
        };
        Ok(max)
    }
}
