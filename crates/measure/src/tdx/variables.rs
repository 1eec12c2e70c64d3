//! UEFI variables that are measured into RTMR0.

use super::Event;
use crate::{Guid, digest::sha384};

/// `EFI_GLOBAL_VARIABLE`.
const GLOBAL: Guid = Guid::new(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d, 0x00e0_9803_2b8c);
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`.
const SECURITY_DATABASE: Guid = Guid::new(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc, 0xdad0_0e67_656f);
/// The firmware volume of OVMF's drivers.
const DRIVER_VOLUME: Guid = Guid::new(0x7cb8_bdc9, 0xf8eb, 0x4f34, 0xaaea, 0x3ee4_af65_16a1);
/// The boot manager's menu in it.
const UI_APP: Guid = Guid::new(0x462c_aa21, 0x7614, 0x4503, 0x836e, 0x8ab6_f466_2331);

/// Content of the variables of Secure Boot; of a variable that does not exist, none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecureBootVariables {
    /// `SecureBoot`: 1 byte, 1 for on.
    pub secure_boot: Vec<u8>,
    /// `PK`: signature lists (UEFI specification, section "Signature Database").
    pub platform_key: Vec<u8>,
    /// `KEK`.
    pub key_exchange_keys: Vec<u8>,
    /// `db`.
    pub allowed: Vec<u8>,
    /// `dbx`.
    pub forbidden: Vec<u8>,
}

impl SecureBootVariables {
    pub(super) fn events(&self) -> [Event; 5] {
        [
            ("SecureBoot", GLOBAL, &self.secure_boot),
            ("PK", GLOBAL, &self.platform_key),
            ("KEK", GLOBAL, &self.key_exchange_keys),
            ("db", SECURITY_DATABASE, &self.allowed),
            ("dbx", SECURITY_DATABASE, &self.forbidden),
        ]
        .map(|(name, vendor, content)| Event {
            name,
            digest: sha384(&variable_data(vendor, name, content)),
        })
    }
}

/// `UEFI_VARIABLE_DATA` (TCG PC Client Platform Firmware Profile): vendor GUID, characters of the name, bytes of the
/// content (`u64` each), the name in UTF-16, the content.
fn variable_data(vendor: Guid, name: &str, content: &[u8]) -> Vec<u8> {
    let mut data = vendor.0.to_vec();
    data.extend((name.encode_utf16().count() as u64).to_le_bytes());
    data.extend((content.len() as u64).to_le_bytes());
    data.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    data.extend(content);
    data
}

/// The variables that say what to boot. Their content alone is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootVariables {
    /// `BootOrder`: numbers of options, `u16` each.
    pub order: Vec<u8>,
    /// `Boot0000`: an `EFI_LOAD_OPTION`.
    pub option: Vec<u8>,
}

impl Default for BootVariables {
    /// One option, the boot manager's menu `UiApp`, which is all that OVMF finds when the host gives it a kernel and no
    /// bootable device. The kernel itself is no option.
    fn default() -> Self {
        // Active (1), hidden (8), an application (0x100).
        let mut option = 0x109_u32.to_le_bytes().to_vec();
        let path = [
            // Media device path (4): firmware volume (7), then file in a volume (6), then the end of the path.
            [&[4, 7, 20, 0], &DRIVER_VOLUME.0[..]].concat(),
            [&[4, 6, 20, 0], &UI_APP.0[..]].concat(),
            vec![0x7f, 0xff, 4, 0],
        ]
        .concat();
        option.extend((path.len() as u16).to_le_bytes());
        option.extend("UiApp\0".encode_utf16().flat_map(u16::to_le_bytes));
        option.extend(path);
        Self {
            order: vec![0, 0],
            option,
        }
    }
}
