//! TDX: MRTD and the runtime registers RTMR0 to RTMR2 of a guest that QEMU boots directly from kernel and initrd.
//!
//! - **MRTD** ([`mrtd`]) is the firmware before it runs. It follows from the image alone.
//! - **RTMR0** ([`rtmr0`]) is what the host configures: the list of memory, the variable store, ACPI tables. The ACPI tables
//!   come from QEMU and must be given; the list of memory is computed as QEMU makes it.
//! - **RTMR1** ([`rtmr1`]) is the kernel and that it was started.
//! - **RTMR2** ([`rtmr2`]) is the command line and the initrd, measured by the kernel's EFI stub.
//! - **RTMR3** is for the guest's own use; zeros when nobody extends it.
//!
//! The runtime registers are chains over events; each function gives the events, so that a difference can be found by
//! comparing them with the guest's event log (CCEL). The events are those of EDK II up to edk2-stable202502. From
//! edk2-stable202505 on RTMR0 has further events that depend on QEMU's list of devices and on state inside the firmware;
//! RTMR0 of such firmware cannot be computed here. The other registers are not affected.

mod authenticode;
mod hob;
mod kernel;
mod memory;
mod mrtd;
mod variables;

pub use authenticode::{PeError, authenticode_sha384};
pub use hob::TdHob;
pub use kernel::{InitrdAddress, KernelError, LoaderHeader};
pub use memory::MemorySize;
pub use mrtd::{PageOrder, mrtd};
pub use variables::{BootVariables, SecureBootVariables};

use crate::{
    Firmware, FirmwareError, Sha384Digest, TdxSectionKind,
    digest::{SHA384_BYTES, Sha384, sha384},
};

/// A register cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TdxError {
    /// The firmware cannot be measured.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The kernel cannot be measured.
    #[error("the kernel cannot be measured")]
    Kernel(#[from] KernelError),
    /// The firmware has not the sections that the event needs.
    #[error("expected exactly one {kind} section in the TDX metadata, found {found}")]
    Sections {
        /// Which kind.
        kind: &'static str,
        /// How many there are.
        found: usize,
    },
    /// The guest's memory is no memory for this firmware.
    #[error("{problem}")]
    Memory {
        /// What was expected and found.
        problem: String,
    },
}

/// Something that is measured into a runtime register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What is measured.
    pub name: &'static str,
    /// What the register is extended with.
    pub digest: Sha384Digest,
}

impl Event {
    fn of(name: &'static str, content: &[u8]) -> Self {
        Self {
            name,
            digest: sha384(content),
        }
    }
}

/// The value of a runtime register after events: starting with zeros, SHA-384 of the register and the event's digest for
/// each (TDX module specification, TDG.MR.RTMR.EXTEND).
pub fn replay(events: &[Event]) -> Sha384Digest {
    events.iter().fold([0; SHA384_BYTES], |register, event| {
        let mut hash = Sha384::new();
        hash.update(&register);
        hash.update(&event.digest);
        hash.finish()
    })
}

const SEPARATOR: [u8; 4] = [0; 4];

/// SHA-384 of the ACPI files that QEMU gives the firmware through fw_cfg. They depend on QEMU's version, the machine type,
/// devices, memory and the number of vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcpiDigests {
    /// Of `etc/table-loader`.
    pub loader: Sha384Digest,
    /// Of `etc/acpi/rsdp`.
    pub rsdp: Sha384Digest,
    /// Of `etc/acpi/tables`, before the firmware patches addresses into it.
    pub tables: Sha384Digest,
}

impl AcpiDigests {
    /// Hashes the three files.
    pub fn of(loader: &[u8], rsdp: &[u8], tables: &[u8]) -> Self {
        Self {
            loader: sha384(loader),
            rsdp: sha384(rsdp),
            tables: sha384(tables),
        }
    }
}

/// What RTMR0 depends on beside the firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfiguration {
    /// The list of memory that QEMU hands over.
    pub td_hob: TdHob,
    /// ACPI.
    pub acpi: AcpiDigests,
    /// Variables of Secure Boot; by default they do not exist.
    pub secure_boot: SecureBootVariables,
    /// What to boot; by default what OVMF writes when the host gives a kernel and no bootable device.
    pub boot: BootVariables,
}

/// The events of RTMR0.
///
/// # Errors
/// When the firmware has no usable TDX metadata or does not fit the memory.
pub fn rtmr0(firmware: &Firmware<'_>, host: &HostConfiguration) -> Result<Vec<Event>, TdxError> {
    let metadata = firmware.tdx_metadata()?;
    let mut volumes = metadata
        .sections
        .iter()
        .filter(|section| section.kind == TdxSectionKind::Cfv);
    let (Some(volume), None) = (volumes.next(), volumes.next()) else {
        let of_kind = |kind| metadata.sections.iter().filter(move |s| s.kind == kind);
        return Err(TdxError::Sections {
            kind: "CFV",
            found: of_kind(TdxSectionKind::Cfv).count(),
        });
    };
    let mut events = Vec::new();
    if let TdHob::Qemu { memory } = host.td_hob {
        events.push(Event::of("TD HOB", &hob::list(&metadata, memory)?));
    }
    let variables = firmware.section_data(volume);
    events.push(Event::of("configuration firmware volume", variables));
    events.extend(host.secure_boot.events());
    events.push(Event::of("separator", &SEPARATOR));
    for (name, digest) in [
        ("ACPI table loader", host.acpi.loader),
        ("ACPI RSDP", host.acpi.rsdp),
        ("ACPI tables", host.acpi.tables),
    ] {
        events.push(Event { name, digest });
    }
    events.push(Event::of("BootOrder", &host.boot.order));
    events.push(Event::of("Boot0000", &host.boot.option));
    Ok(events)
}

/// What QEMU boots directly.
#[derive(Debug, Clone, Copy)]
pub struct DirectBoot<'a> {
    /// The kernel file as given to `-kernel`.
    pub kernel: &'a [u8],
    /// The initrd file as given to `-initrd`.
    pub initrd: Option<&'a [u8]>,
    /// The command line as given to `-append`.
    pub command_line: &'a str,
    /// What QEMU makes of the kernel's header.
    pub header: LoaderHeader,
}

/// The events of RTMR1.
///
/// # Errors
/// When the kernel is no EFI image, or its header is not one that QEMU edits in a way that is known here.
pub fn rtmr1(boot: &DirectBoot<'_>) -> Result<Vec<Event>, TdxError> {
    let image = kernel::loaded(boot)?;
    let digest = authenticode_sha384(&image).map_err(KernelError::from)?;
    Ok(vec![
        Event {
            name: "kernel image",
            digest,
        },
        Event::of("boot attempt", b"Calling EFI Application from Boot Option"),
        Event::of("separator", &SEPARATOR),
        Event::of("exit of boot services", b"Exit Boot Services Invocation"),
        Event::of(
            "exit of boot services succeeded",
            b"Exit Boot Services Returned with Success",
        ),
    ])
}

/// The events of RTMR2: the command line as OVMF hands it to the kernel (UTF-16 little-endian with a zero at its end, and
/// ` initrd=initrd` before it when there is an initrd), and the initrd.
pub fn rtmr2(boot: &DirectBoot<'_>) -> Vec<Event> {
    let suffix = boot.initrd.map_or("", |_| " initrd=initrd");
    let line: Vec<u8> = boot
        .command_line
        .encode_utf16()
        .chain(suffix.encode_utf16())
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect();
    let mut events = vec![Event::of("command line", &line)];
    events.extend(boot.initrd.map(|initrd| Event::of("initrd", initrd)));
    events
}
