//! Images that are no firmware, or broken ones.

use contrast_measure::{
    Firmware, FirmwareError, GuestFeatures, KernelHashes, SevSectionKind, SnpLaunch,
    TdxSectionKind, VcpuType,
};
use contrast_testbed::Ovmf;
use proptest::prelude::*;

/// Everything that reads an image.
fn exercise(image: &[u8]) {
    let Ok(firmware) = Firmware::parse(image) else {
        return;
    };
    let _ = firmware.tdx_metadata();
    let _ = firmware.sev_hash_table_address();
    for kernel in [None, Some(KernelHashes::of(b"", b"", ""))] {
        let launch = SnpLaunch {
            firmware: &firmware,
            kernel,
            vcpu_type: VcpuType::Milan,
            guest_features: GuestFeatures::default(),
        };
        // Anything but small is only slow.
        let small = firmware.sev_metadata().is_ok_and(|metadata| {
            let total: u64 = metadata.sections.iter().map(|s| u64::from(s.size)).sum();
            total < 1 << 24
        });
        if small {
            let _ = launch.measure();
        }
    }
}

fn full() -> Ovmf {
    Ovmf {
        tdx: vec![
            (0, 0x3000, 0xffff_c000, 0x3000, 0, 1),
            (0x3000, 0x10, 0xffff_f000, 0x1000, 1, 0),
            (0, 0, 0x80_9000, 0x2000, 2, 0),
        ],
        ..Ovmf::amd_sev()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_are_refused_or_read(mut image in prop::collection::vec(any::<u8>(), 0..9000), pad in any::<bool>()) {
        if pad {
            image.resize(image.len().next_multiple_of(4096), 0);
        }
        exercise(&image);
    }

    #[test]
    fn any_change_of_an_image_is_refused_or_read(
        changes in prop::collection::vec((0_usize..3100, any::<u8>()), 1..8),
        drop in 0_usize..3,
    ) {
        let mut image = full().image();
        let size = image.len();
        for (from_end, byte) in changes {
            image[size - 1 - from_end] = byte;
        }
        exercise(&image[drop * 4096..]);
    }
}

#[test]
fn tables_are_read() {
    let image = full().image();
    let firmware = Firmware::parse(&image).unwrap();
    assert_eq!(firmware.address(), 0xffff_c000);
    assert_eq!(firmware.sev_es_reset_eip().unwrap(), 0x80_b004);
    let sev = firmware.sev_metadata().unwrap().sections;
    assert_eq!(sev.len(), 7);
    assert_eq!(sev[5].kind, SevSectionKind::KernelHashes);
    let tdx = firmware.tdx_metadata().unwrap().sections;
    assert_eq!(tdx[1].kind, TdxSectionKind::Cfv);
    assert!(tdx[0].extends_mrtd && !tdx[1].extends_mrtd);
    assert_eq!(firmware.section_data(&tdx[1]), &image[0x3000..0x3010]);
}

#[test]
fn problems_are_named() {
    let image = full().image();
    let refusal = |image: &[u8]| Firmware::parse(image).unwrap_err().to_string();
    assert!(refusal(b"").contains("found 0 bytes"));
    assert!(refusal(&image[1..]).contains("found 16383 bytes"));
    assert!(refusal(&[0; 4096]).contains("not an OVMF image"));
    // The footer states a table longer than the image.
    let mut long = image[12288..].to_vec();
    let footer = long.len() - 50;
    long[footer..footer + 2].copy_from_slice(&5000_u16.to_le_bytes());
    assert!(refusal(&long).contains("truncated"), "{}", refusal(&long));
    // An entry that is smaller than its own header would be read for ever.
    let mut entry = image;
    let header = entry.len() - 50 - 18;
    entry[header..header + 2].copy_from_slice(&0_u16.to_le_bytes());
    assert!(matches!(
        Firmware::parse(&entry),
        Err(FirmwareError::Table {
            what: "an entry",
            size: 0,
            ..
        })
    ));

    type Case = (fn(&mut Ovmf), &'static str);
    let cases: [Case; 4] = [
        (|ovmf| ovmf.sev[0].2 = 9, "kind 1 to 4 or 16, found 9"),
        (|ovmf| ovmf.sev[0].1 = 17, "whole pages"),
        (|ovmf| ovmf.sev[0].0 = 0xffff_f000, "below 4 GiB"),
        (
            |ovmf| ovmf.sev.extend([(0, 0xffff_f000, 1), (0, 0xffff_f000, 1)]),
            "in all",
        ),
    ];
    for (change, expected) in cases {
        let mut ovmf = full();
        change(&mut ovmf);
        let image = ovmf.image();
        let firmware = Firmware::parse(&image).unwrap();
        let error = firmware.sev_metadata().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let cases: [Case; 4] = [
        (|ovmf| ovmf.tdx[0].4 = 5, "kind 0 to 4, found 5"),
        (|ovmf| ovmf.tdx[0].0 = 0x3000, "over the end"),
        (|ovmf| ovmf.tdx[0].3 = 0x1000, "at most 0x1000 bytes"),
        (|ovmf| ovmf.tdx[0].2 = 0x10, "whole pages"),
    ];
    for (change, expected) in cases {
        let mut ovmf = full();
        change(&mut ovmf);
        let image = ovmf.image();
        let firmware = Firmware::parse(&image).unwrap();
        let error = firmware.tdx_metadata().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
