//! The state that a vCPU starts with (AMD64 Architecture Programmer's Manual, volume 2, table B-4), as QEMU and KVM set it:
//! an x86 CPU after reset.

use std::fmt;

use crate::{VcpuType, bytes::put, firmware::PAGE_BYTES};

/// Where the first vCPU starts: 16 bytes below 4 GiB.
pub(super) const RESET_EIP: u32 = 0xffff_fff0;

/// SEV_FEATURES, which KVM puts into every VMSA.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GuestFeatures(pub u64);

impl GuestFeatures {
    /// Only SNPActive (bit 0): what QEMU and Linux 6.11 and newer launch with.
    pub const SNP_ACTIVE: Self = Self(1);
}

impl Default for GuestFeatures {
    fn default() -> Self {
        Self::SNP_ACTIVE
    }
}

impl fmt::Debug for GuestFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestFeatures({:#x})", self.0)
    }
}

/// A segment register: selector, attributes, limit, base.
struct Segment(u16, u16, u32, u64);

/// The VMSA of a vCPU of which `eip` says where it starts.
pub(super) fn page(eip: u32, vcpu: VcpuType, features: GuestFeatures) -> Box<[u8; PAGE_BYTES]> {
    let mut page = Box::new([0; PAGE_BYTES]);
    let code_base = u64::from(eip & 0xffff_0000);
    let segments = [
        (0x00, Segment(0, 0x93, 0xffff, 0)),              // ES
        (0x10, Segment(0xf000, 0x9b, 0xffff, code_base)), // CS
        (0x20, Segment(0, 0x93, 0xffff, 0)),              // SS
        (0x30, Segment(0, 0x93, 0xffff, 0)),              // DS
        (0x40, Segment(0, 0x93, 0xffff, 0)),              // FS
        (0x50, Segment(0, 0x93, 0xffff, 0)),              // GS
        (0x60, Segment(0, 0, 0xffff, 0)),                 // GDTR
        (0x70, Segment(0, 0x82, 0xffff, 0)),              // LDTR
        (0x80, Segment(0, 0, 0xffff, 0)),                 // IDTR
        (0x90, Segment(0, 0x8b, 0xffff, 0)),              // TR
    ];
    for (at, Segment(selector, attributes, limit, base)) in segments {
        put(&mut page[..], at, &selector.to_le_bytes());
        put(&mut page[..], at + 2, &attributes.to_le_bytes());
        put(&mut page[..], at + 4, &limit.to_le_bytes());
        put(&mut page[..], at + 8, &base.to_le_bytes());
    }
    let registers: [(usize, u64); 13] = [
        (0x0d0, 0x1000),                      // EFER: SVME, which KVM demands
        (0x148, 0x40),                        // CR4: MCE
        (0x158, 0x10),                        // CR0: ET
        (0x160, 0x400),                       // DR7
        (0x168, 0xffff_0ff0),                 // DR6
        (0x170, 0x2),                         // RFLAGS
        (0x178, u64::from(eip & 0xffff)),     // RIP
        (0x268, 0x0007_0406_0007_0406),       // G_PAT
        (0x310, u64::from(vcpu.signature())), // RDX: family, model, stepping after reset
        (0x3b0, features.0),                  // SEV_FEATURES
        (0x3e8, 0x1),                         // XCR0: x87
        (0x408, 0x1f80),                      // MXCSR (u32), then FTW and FSW (u16 each)
        (0x410, 0x37f),                       // FCW (u16), then FOP, DS and CS (u16 each)
    ];
    for (at, value) in registers {
        put(&mut page[..], at, &value.to_le_bytes());
    }
    page
}
