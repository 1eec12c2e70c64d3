//! MRTD and the runtime registers.

use contrast_measure::{
    Firmware,
    tdx::{
        AcpiDigests, BootVariables, DirectBoot, Event, HostConfiguration, InitrdAddress,
        KernelError, LoaderHeader, MemorySize, PageOrder, SecureBootVariables, TdHob, TdxError,
        authenticode_sha384, mrtd, replay, rtmr0, rtmr1, rtmr2,
    },
};
use contrast_testbed::{Ovmf, efi_kernel};
use proptest::prelude::*;
use sha2::{Digest as _, Sha384};

fn digest(text: &str) -> [u8; 48] {
    let mut bytes = [0; 48];
    hex::decode_to_slice(text, &mut bytes).unwrap();
    bytes
}

fn mib(count: u64) -> MemorySize {
    MemorySize::from_bytes(count << 20).unwrap()
}

fn host(td_hob: TdHob) -> HostConfiguration {
    HostConfiguration {
        td_hob,
        acpi: AcpiDigests {
            loader: digest(
                "68cd79315e70aecd4afe7c1b23a5ed7b3b8e51a477e1739f111b3156def86bbc56ebf239dcd4591bc7a9fff90023f481",
            ),
            rsdp: digest(
                "6bc203b3843388cc4918459c3f5c6d1300a796fb594781b7ecfaa3ae7456975f095bfcc1156c9f2d25e8b8bc1b520f66",
            ),
            tables: digest(
                "ec9e8622a100c399d71062a945f95d8e4cdb7294e8b1c6d17a6a8d37b5084444000a78b007ef533f290243421256d25c",
            ),
        },
        secure_boot: SecureBootVariables::default(),
        boot: BootVariables::default(),
    }
}

/// From the event log and the registers of a TD that dstack launched with QEMU and OVMF, as public test cases of dstack's
/// users have them: 2 GiB, no Secure Boot, kernel and initrd given by the host. Nothing but the digests of the three ACPI
/// files is taken from the log.
#[test]
fn published_event_log_of_a_td() {
    let image = Ovmf::tdx().image();
    let firmware = Firmware::parse(&image).unwrap();
    let events = rtmr0(&firmware, &host(TdHob::Qemu { memory: mib(2048) })).unwrap();
    let expected = [
        "0e35f1b315ba6c912cf791e5c79dd9d3a2b8704516aa27d4e5aa78fb09ede04aef2bbd02ac7a8734c48562b9c26ba35d",
        "344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d473155875ffd561d6790",
        "9dc3a1f80bcec915391dcda5ffbb15e7419f77eab462bbf72b42166fb70d50325e37b36f93537a863769bcf9bedae6fb",
        "6f2e3cbc14f9def86980f5f66fd85e99d63e69a73014ed8a5633ce56eca5b64b692108c56110e22acadcef58c3250f1b",
        "d607c0efb41c0d757d69bca0615c3a9ac0b1db06c557d992e906c6b7dee40e0e031640c7bfd7bcd35844ef9edeadc6f9",
        "08a74f8963b337acb6c93682f934496373679dd26af1089cb4eaf0c30cf260a12e814856385ab8843e56a9acea19e127",
        "18cc6e01f0c6ea99aa23f8a280423e94ad81d96d0aeb5180504fc0f7a40cb3619dd39bd6a95ec1680a86ed6ab0f9828d",
        "394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0",
        "68cd79315e70aecd4afe7c1b23a5ed7b3b8e51a477e1739f111b3156def86bbc56ebf239dcd4591bc7a9fff90023f481",
        "6bc203b3843388cc4918459c3f5c6d1300a796fb594781b7ecfaa3ae7456975f095bfcc1156c9f2d25e8b8bc1b520f66",
        "ec9e8622a100c399d71062a945f95d8e4cdb7294e8b1c6d17a6a8d37b5084444000a78b007ef533f290243421256d25c",
        "1dd6f7b457ad880d840d41c961283bab688e94e4b59359ea45686581e90feccea3c624b1226113f824f315eb60ae0a7c",
        "23ada07f5261f12f34a0bd8e46760962d6b4d576a416f1fea1c64bc656b1d28eacf7047ae6e967c58fd2a98bfa74c298",
    ];
    let found: Vec<_> = events
        .iter()
        .map(|event| hex::encode(event.digest))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(
        hex::encode(replay(&events)),
        "85e0855a6384fa1c8a6ab36d0dcbfaa11a5753e5a070c08218ae5fe872fcb86967fd2449c29e22e59dc9fec998cb6547"
    );
}

/// The other registers of the same TD. Its kernel and initrd are not public, so their digests are from the log.
#[test]
fn published_log_of_the_kernels_start() {
    let kernel = efi_kernel(b"");
    let mut events = rtmr1(&boot(&kernel, None, LoaderHeader::Unchanged)).unwrap();
    events[0].digest = digest(
        "f51c5215e1ae1e5202fb0a710248e13c2bf2824b7f0b2a1675f63e9fd37befb93fbb97a4f8630879168b76aee3b198e2",
    );
    assert_eq!(
        hex::encode(replay(&events)),
        "4a7db64a609c77e85f603c23e9a9fd03bfd9e6b52ce527f774a598e66d58386026cea79b2aea13b81a0b70cfacdec0ca"
    );
    let logged = [
        "a68ac6d65dd62f392826c2ae44f6846363ced3418c96574b3e168de9205c8553b8198c3b9d206bc432d70a923c25b098",
        "21a1d39f7395e15c35b91dacf14714cf2e9ead77e69f076ce164798272c1838312b2d82b3307b91929a4d7dbc6f1e48b",
    ]
    .map(|text| Event {
        name: "logged",
        digest: digest(text),
    });
    assert_eq!(
        hex::encode(replay(&logged)),
        "8a4fe048fea22663152ef128853caa5c033cbe66baf32ba1ff7f6b1afc1624c279f50a4cbc522a735ca6f69551e61ef2"
    );
}

#[test]
fn memory_and_its_measuring_change_rtmr0() {
    let image = Ovmf::tdx().image();
    let firmware = Firmware::parse(&image).unwrap();
    let value = |td_hob| replay(&rtmr0(&firmware, &host(td_hob)).unwrap());
    let mut values = vec![value(TdHob::NotMeasured)];
    // 2815 and 2816 MiB: below and at the size from which memory is split.
    for size in [512, 2048, 2815, 2816, 65536] {
        values.push(value(TdHob::Qemu { memory: mib(size) }));
    }
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), 6);
    let small = rtmr0(&firmware, &host(TdHob::Qemu { memory: mib(8) }));
    let error = small.unwrap_err().to_string();
    assert!(error.contains("give more memory"), "{error}");
}

#[test]
fn sections_that_are_missing_or_double() {
    let mut without = Ovmf::tdx();
    without.tdx.retain(|section| section.4 != 2);
    let mut double = Ovmf::tdx();
    double.tdx.push(double.tdx[1]);
    for (ovmf, kind, found) in [(without, "TD HOB", 0), (double, "CFV", 2)] {
        let image = ovmf.image();
        let firmware = Firmware::parse(&image).unwrap();
        let refused = rtmr0(&firmware, &host(TdHob::Qemu { memory: mib(2048) }));
        assert_eq!(refused.unwrap_err(), TdxError::Sections { kind, found });
    }
}

/// MRTD as the specification words it, for two pages: one measured, one not.
#[test]
fn mrtd_of_two_pages() {
    let ovmf = Ovmf {
        tdx: vec![
            (0, 0x1000, 0xffff_c000, 0x1000, 0, 1),
            (0, 0, 0x80_0000, 0x1000, 3, 0),
            (0, 0, 0x90_0000, 0x1000, 4, 2),
        ],
        ..Ovmf::ovmf_x64()
    };
    let image = ovmf.image();
    let firmware = Firmware::parse(&image).unwrap();
    let record = |name: &[u8], address: u64| {
        let mut record = [0; 128];
        record[..name.len()].copy_from_slice(name);
        record[16..24].copy_from_slice(&address.to_le_bytes());
        record
    };
    let mut hash = Sha384::new();
    hash.update(record(b"MEM.PAGE.ADD", 0xffff_c000));
    for chunk in 0..16 {
        hash.update(record(b"MR.EXTEND", 0xffff_c000 + chunk * 256));
        hash.update(&image[chunk as usize * 256..][..256]);
    }
    hash.update(record(b"MEM.PAGE.ADD", 0x80_0000));
    let expected: [u8; 48] = hash.finalize().into();
    for order in [PageOrder::PageByPage, PageOrder::SectionBySection] {
        // With one page per section there is no difference.
        assert_eq!(mrtd(&firmware, order).unwrap(), expected);
    }
    let image = Ovmf::tdx().image();
    let firmware = Firmware::parse(&image).unwrap();
    assert_ne!(
        mrtd(&firmware, PageOrder::PageByPage).unwrap(),
        mrtd(&firmware, PageOrder::SectionBySection).unwrap()
    );
}

fn boot<'a>(kernel: &'a [u8], initrd: Option<&'a [u8]>, header: LoaderHeader) -> DirectBoot<'a> {
    DirectBoot {
        kernel,
        initrd,
        command_line: "console=hvc0",
        header,
    }
}

/// What the `authenticode` crate computes.
fn theirs(image: &[u8]) -> Option<[u8; 48]> {
    let pe = object::read::pe::PeFile64::parse(image).ok()?;
    let mut hash = Sha384::new();
    authenticode::authenticode_digest(&pe, &mut hash).ok()?;
    Some(hash.finalize().into())
}

#[test]
fn authenticode_hashes_agree_with_the_authenticode_crate() {
    let unsigned = efi_kernel(b"");
    let signed = efi_kernel(&[0x5a; 64]);
    for image in [&unsigned, &signed] {
        assert_eq!(authenticode_sha384(image).ok(), theirs(image));
        assert!(theirs(image).is_some());
    }
    let hash = |image: &[u8]| authenticode_sha384(image).unwrap();
    let mut other = signed.clone();
    other[0x2000] ^= 1; // certificates
    other[0x58 + 64] ^= 1; // checksum
    assert_eq!(hash(&other), hash(&signed));
    for covered in [0x10, 0x58 + 30, 0x300, 0x400, 0x1400, 0x1fff] {
        let mut other = signed.clone();
        other[covered] ^= 1;
        assert_ne!(hash(&other), hash(&signed), "{covered:#x}");
    }
}

#[test]
fn where_there_are_few_directories_nothing_is_left_out_but_the_checksum() {
    let mut image = efi_kernel(b"");
    image[0x58 + 108] = 4;
    let mut hash = Sha384::new();
    hash.update(&image[..0x58 + 64]);
    hash.update(&image[0x58 + 68..]);
    assert_eq!(
        authenticode_sha384(&image).unwrap(),
        <[u8; 48]>::from(hash.finalize())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_change_of_an_image_hashes_the_same_or_is_refused(
        changes in prop::collection::vec((0_usize..0x150, any::<u8>()), 0..4),
        end in 0_usize..0x2040,
    ) {
        let mut image = efi_kernel(&[1; 64]);
        // Without a directory for certificates EDK II hashes what would be its entry; the crate leaves it out.
        for (at, byte) in changes.into_iter().filter(|(at, _)| !(0xc4..0xc8).contains(at)) {
            image[at] = byte;
        }
        for image in [&image[..], &image[..end]] {
            if let (Ok(ours), Some(theirs)) = (authenticode_sha384(image), theirs(image)) {
                prop_assert_eq!(ours, theirs);
            }
        }
        let _ = rtmr1(&boot(&image[..end], Some(b"i"), LoaderHeader::Filled { initrd: InitrdAddress::Fixed(0) }));
    }
}

#[test]
fn qemu_fills_the_header_in() {
    let original = efi_kernel(b"");
    let initrd = vec![1; 5000];
    let mut filled = original.clone();
    filled[0x210] = 0xb0;
    filled[0x211] = 0x81;
    filled[0x224..0x228].copy_from_slice(&[0, 0xfe, 0, 0]);
    filled[0x228..0x22c].copy_from_slice(&[0, 0, 2, 0]);
    let image = |initrd, header| rtmr1(&boot(&original, initrd, header)).unwrap()[0].digest;
    let highest = |size| LoaderHeader::Filled {
        initrd: InitrdAddress::Highest(mib(size)),
    };
    assert_eq!(image(None, highest(2048)), theirs(&filled).unwrap());
    filled[0x21c..0x220].copy_from_slice(&5000_u32.to_le_bytes());
    // 2 GiB less 0x28000 for ACPI, less the initrd, down to a page.
    for (header, address) in [
        (highest(2048), 0x7ffd_6000_u32),
        (highest(65536), 0x7ffd_6000),
        (highest(512), 0x1ffd_6000),
        (
            LoaderHeader::Filled {
                initrd: InitrdAddress::Fixed(0x8000_0000),
            },
            0x8000_0000,
        ),
    ] {
        filled[0x218..0x21c].copy_from_slice(&address.to_le_bytes());
        assert_eq!(image(Some(&initrd), header), theirs(&filled).unwrap());
    }
    assert_eq!(
        image(Some(&initrd), LoaderHeader::Unchanged),
        theirs(&original).unwrap()
    );
}

#[test]
fn kernels_that_qemu_treats_otherwise_are_refused() {
    let filled = LoaderHeader::Filled {
        initrd: InitrdAddress::Highest(mib(1)),
    };
    let refused = |kernel: &[u8], line| {
        let boot = DirectBoot {
            kernel,
            initrd: Some(&[0; 0x10_0000]),
            command_line: line,
            header: filled,
        };
        match rtmr1(&boot).unwrap_err() {
            TdxError::Kernel(error) => error,
            other => panic!("{other}"),
        }
    };
    let change = |at: usize, byte| {
        let mut kernel = efi_kernel(b"");
        kernel[at] = byte;
        kernel
    };
    let kernel = efi_kernel(b"");
    assert_eq!(refused(&kernel, "quiet vga=ask"), KernelError::VideoMode);
    assert!(matches!(
        refused(&kernel, ""),
        KernelError::Initrd {
            found: 0x10_0000,
            ..
        }
    ));
    for (bytes, expected) in [
        (b"MZ".to_vec(), "2 bytes"),
        (change(0x202, 0), "no `HdrS`"),
        (change(0x207, 1), "protocol 1.15"),
        (change(0x211, 0), "loads low"),
    ] {
        let error = refused(&bytes, "").to_string();
        assert!(error.contains(expected), "{error}");
    }
    let script = rtmr1(&boot(b"#!/bin/sh", None, LoaderHeader::Unchanged));
    let error = std::error::Error::source(&script.unwrap_err())
        .unwrap()
        .to_string();
    assert!(error.contains("CONFIG_EFI_STUB"), "{error}");
}

#[test]
fn command_line_and_initrd() {
    let events = |initrd| rtmr2(&boot(b"", initrd, LoaderHeader::Unchanged));
    let line = |text: &str| {
        let units = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
        <[u8; 48]>::from(Sha384::digest(units.collect::<Vec<u8>>()))
    };
    let with = events(Some(b"abc"));
    assert_eq!(with[0].digest, line("console=hvc0 initrd=initrd"));
    assert_eq!(with[1].digest, <[u8; 48]>::from(Sha384::digest(b"abc")));
    let without = events(None);
    assert_eq!(without.len(), 1);
    assert_eq!(without[0].digest, line("console=hvc0"));
}
