//! The launch digest while pages are added (AMD publication 56860, section 8.17.2, structure PAGE_INFO).

use crate::{
    bytes::put,
    digest::{SHA384_BYTES, Sha384Digest, sha384},
    firmware::PAGE_BYTES,
};

const PAGE_INFO_BYTES: usize = 0x70;
/// Where VMSAs are said to be: the highest page of a 48-bit address space.
const VMSA_ADDRESS: u64 = 0xffff_ffff_f000;

/// PAGE_TYPE.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum PageKind {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Secrets = 5,
    Cpuid = 6,
}

/// A launch digest that pages are added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchContext {
    digest: Sha384Digest,
}

impl Default for LaunchContext {
    fn default() -> Self {
        Self::new()
    }
}

impl LaunchContext {
    /// The state after SNP_LAUNCH_START: zeros.
    pub fn new() -> Self {
        Self::resume([0; SHA384_BYTES])
    }

    /// A state that was reached before, for example after the firmware's image.
    pub fn resume(digest: Sha384Digest) -> Self {
        Self { digest }
    }

    /// The digest over what was added so far.
    pub fn digest(&self) -> Sha384Digest {
        self.digest
    }

    /// Adds pages with content at a guest physical address. A last page that is not full is measured as it is; images and
    /// sections are whole pages.
    pub fn add_normal(&mut self, address: u64, content: &[u8]) {
        for (page, address) in content.chunks(PAGE_BYTES).zip(pages_from(address)) {
            self.add(PageKind::Normal, address, sha384(page));
        }
    }

    /// Adds pages whose content is not measured, `size` bytes from a guest physical address.
    pub(crate) fn add_blank(&mut self, kind: PageKind, address: u64, size: usize) {
        for address in pages_from(address).take(size / PAGE_BYTES) {
            self.add(kind, address, [0; SHA384_BYTES]);
        }
    }

    /// The context after one more vCPU with this VMSA.
    pub(crate) fn with_vmsa(mut self, vmsa: &[u8; PAGE_BYTES]) -> Self {
        self.add(PageKind::Vmsa, VMSA_ADDRESS, sha384(vmsa));
        self
    }

    fn add(&mut self, kind: PageKind, address: u64, contents: Sha384Digest) {
        let mut info = [0; PAGE_INFO_BYTES];
        put(&mut info, 0x00, &self.digest);
        put(&mut info, 0x30, &contents);
        put(&mut info, 0x60, &(PAGE_INFO_BYTES as u16).to_le_bytes());
        info[0x62] = kind as u8;
        // IMI_PAGE (0x63) and the permissions of VMPL 1 to 3 (0x64) are 0: QEMU grants the lower levels nothing.
        put(&mut info, 0x68, &address.to_le_bytes());
        self.digest = sha384(&info);
    }
}

fn pages_from(address: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |index: u64| address.wrapping_add(index * PAGE_BYTES as u64))
}
