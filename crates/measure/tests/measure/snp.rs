//! SEV-SNP launch digests.

use std::{io::Write as _, str::FromStr as _};

use contrast_measure::{
    Firmware, GuestFeatures, KernelHashes, LaunchContext, SnpError, SnpLaunch, VcpuCount, VcpuType,
};
use contrast_testbed::Ovmf;
use proptest::prelude::*;
use sev::measurement::{
    snp::{SnpMeasurementArgs, snp_calc_launch_digest},
    vcpu_types::CpuType,
    vmsa::{GuestFeatures as SevFeatures, VMMType},
};
use tempfile::NamedTempFile;

const NAMES: [&str; 18] = [
    "EPYC",
    "EPYC-v1",
    "EPYC-v2",
    "EPYC-IBPB",
    "EPYC-v3",
    "EPYC-v4",
    "EPYC-Rome",
    "EPYC-Rome-v1",
    "EPYC-Rome-v2",
    "EPYC-Rome-v3",
    "EPYC-Milan",
    "EPYC-Milan-v1",
    "EPYC-Milan-v2",
    "EPYC-Genoa",
    "EPYC-Genoa-v1",
    "EPYC-Turin",
    "EPYC-Turin-v1",
    "EPYC-Turin-v2",
];

/// Digest that the vectors of the `sev` crate start from: the image of an OVMF, of which only the last page is published.
const PUBLISHED_IMAGE: &str = "086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74";

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn vcpus(count: u32) -> VcpuCount {
    VcpuCount::new(count).unwrap()
}

/// What the `sev` crate computes.
fn theirs(
    ovmf: &[u8],
    kernel: Option<(&[u8], &[u8], &str)>,
    name: &str,
    count: u32,
    features: u64,
) -> String {
    let ovmf = file(ovmf);
    let files = kernel.map(|(kernel, initrd, line)| (file(kernel), file(initrd), line));
    let digest = snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus: count,
        vcpu_type: CpuType::try_from(name).unwrap(),
        ovmf_file: ovmf.path().into(),
        guest_features: SevFeatures(features),
        kernel_file: files.as_ref().map(|(kernel, _, _)| kernel.path().into()),
        initrd_file: files.as_ref().map(|(_, initrd, _)| initrd.path().into()),
        append: files.as_ref().map(|(_, _, line)| *line),
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    });
    digest.unwrap().get_hex_ld()
}

fn ours(
    ovmf: &[u8],
    kernel: Option<(&[u8], &[u8], &str)>,
    name: &str,
    count: u32,
    features: u64,
) -> String {
    let firmware = Firmware::parse(ovmf).unwrap();
    let launch = SnpLaunch {
        firmware: &firmware,
        kernel: kernel.map(|(kernel, initrd, line)| KernelHashes::of(kernel, initrd, line)),
        vcpu_type: VcpuType::from_str(name).unwrap(),
        guest_features: GuestFeatures(features),
    };
    hex::encode(launch.measure().unwrap().of(vcpus(count)))
}

#[test]
fn every_vcpu_type_and_several_counts_agree_with_the_sev_crate() {
    let ovmf = Ovmf::amd_sev().image();
    let kernel = Some((&b"kernel"[..], &b"initrd"[..], "console=ttyS0 quiet"));
    for name in NAMES {
        for count in [1, 2, 5] {
            assert_eq!(
                ours(&ovmf, kernel, name, count, 1),
                theirs(&ovmf, kernel, name, count, 1),
                "{name} {count}"
            );
        }
    }
    assert_eq!(
        ours(&ovmf, kernel, "EPYC-Genoa", 220, 0x21),
        theirs(&ovmf, kernel, "EPYC-Genoa", 220, 0x21)
    );
}

#[test]
fn launches_without_a_kernel_agree_with_the_sev_crate() {
    for ovmf in [Ovmf::amd_sev().image(), Ovmf::ovmf_x64().image()] {
        assert_eq!(
            ours(&ovmf, None, "EPYC-Milan", 3, 1),
            theirs(&ovmf, None, "EPYC-Milan", 3, 1)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_launch_agrees_with_the_sev_crate(
        pages in 1_usize..6,
        eip in 1_u32..,
        slot in 0_u32..0xf50,
        name in 0..NAMES.len(),
        count in 1_u32..=9,
        features in any::<u64>(),
        kernel in prop::collection::vec(any::<u8>(), 0..300),
        initrd in prop::collection::vec(any::<u8>(), 0..300),
        line in "([!-~]([ -~]{0,80}[!-~])?)?",
        direct in any::<bool>(),
    ) {
        let ovmf = Ovmf {
            pages,
            reset_eip: eip,
            hash_table: 0x0081_0000 + slot,
            ..Ovmf::amd_sev()
        }
        .image();
        let kernel = direct.then_some((&kernel[..], &initrd[..], line.as_str()));
        prop_assert_eq!(
            ours(&ovmf, kernel, NAMES[name], count, features),
            theirs(&ovmf, kernel, NAMES[name], count, features)
        );
    }
}

/// QEMU hashes the command line as it is; the `sev` crate trims it first, so it cannot be compared here.
#[test]
fn blanks_around_the_command_line_count() {
    let hash = |line| KernelHashes::of(b"", b"", line).command_line;
    assert_ne!(hash("quiet"), hash("quiet "));
    assert_ne!(hash("quiet"), hash(" quiet"));
}

/// Published by virtee with the `sev` crate (`tests/measurement.rs`) and with sev-snp-measure, both Apache-2.0.
#[test]
fn published_digests() {
    let amd_sev = Ovmf::amd_sev().image();
    let firmware = Firmware::parse(&amd_sev).unwrap();
    let mut image = [0; 48];
    hex::decode_to_slice(PUBLISHED_IMAGE, &mut image).unwrap();
    let digest = |kernel, features, count| {
        let launch = SnpLaunch {
            firmware: &firmware,
            kernel,
            vcpu_type: VcpuType::Epyc,
            guest_features: GuestFeatures(features),
        };
        let digests = launch.measure_after(LaunchContext::resume(image)).unwrap();
        hex::encode(digests.of(vcpus(count)))
    };
    let empty = Some(KernelHashes::of(b"", b"", ""));
    let console = Some(KernelHashes::of(b"", b"", "console=ttyS0 loglevel=7"));
    for (kernel, features, count, expected) in [
        (
            empty,
            0x1,
            1,
            "ddc5224521617a536ee7ce9dd6224d1b58a8d4fda1c741f3ac99fc4bfa04ba6e9fc98646d4a07a9079397fa3852819b5",
        ),
        (
            empty,
            0x21,
            1,
            "329c8ce0972ae52343b64d34a434a86f245dfd74f5ed7aae15d22efc78fb9683632b9b50e4e1d7fa41179ef98a7ef198",
        ),
        (
            console,
            0x1,
            1,
            "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa",
        ),
        (
            console,
            0x21,
            1,
            "803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba7e534442e7e1e17895dfe778d0228977",
        ),
        (
            None,
            0x1,
            1,
            "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d",
        ),
        (
            empty,
            0x1,
            4,
            "5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5",
        ),
        (
            empty,
            0x21,
            4,
            "4953b1fb416fa874980e8442b3706d345926d5f38879134e00813c5d7abcbe78eafe7b422907be0b4698e2414a631942",
        ),
    ] {
        assert_eq!(digest(kernel, features, count), expected);
    }
}

#[test]
fn counts_give_different_digests_and_models_differ_but_versions_do_not() {
    let ovmf = Ovmf::amd_sev().image();
    let digest = |name: &str, count| ours(&ovmf, None, name, count, 1);
    let mut all: Vec<_> = (1..=220).map(|count| digest("EPYC-Milan", count)).collect();
    all.extend(VcpuType::ALL.map(|vcpu| digest(&vcpu.to_string(), 220)));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 220 + 4);
    assert_eq!(digest("EPYC-Milan-v2", 2), digest("epyc-milan", 2));
}

#[test]
fn a_kernel_that_would_not_be_measured_is_refused() {
    let ovmf = Ovmf::ovmf_x64().image();
    let firmware = Firmware::parse(&ovmf).unwrap();
    let mut launch = SnpLaunch {
        firmware: &firmware,
        kernel: Some(KernelHashes::of(b"k", b"", "")),
        vcpu_type: VcpuType::Genoa,
        guest_features: GuestFeatures::default(),
    };
    assert_eq!(launch.measure().unwrap_err(), SnpError::NoKernelHashes);
    launch.kernel = None;
    launch.measure().unwrap();
    // A section, but the firmware does not say where in it the table has to be.
    let ovmf = Ovmf {
        hash_table: 0,
        ..Ovmf::amd_sev()
    }
    .image();
    let firmware = Firmware::parse(&ovmf).unwrap();
    launch.firmware = &firmware;
    launch.kernel = Some(KernelHashes::of(b"k", b"", ""));
    let error = launch.measure().unwrap_err().to_string();
    assert!(error.contains("would not verify the kernel"), "{error}");
    // A table that runs over its page.
    let ovmf = Ovmf {
        hash_table: 0x81_0f60,
        ..Ovmf::amd_sev()
    }
    .image();
    let firmware = Firmware::parse(&ovmf).unwrap();
    launch.firmware = &firmware;
    assert_eq!(
        launch.measure().unwrap_err(),
        SnpError::HashTable {
            offset: 0xf60,
            size: 4096
        }
    );
}

#[test]
fn counts_and_types_that_there_are_not() {
    for count in [0, 221, u32::MAX] {
        assert!(VcpuCount::new(count).is_err(), "{count}");
    }
    for name in [
        "",
        "EPYC-",
        "EPYC-v0",
        "EPYC-v10",
        "EPYC-IBPB-v1",
        "Skylake",
        "EPYC-Milan-v",
    ] {
        assert!(VcpuType::from_str(name).is_err(), "{name}");
    }
}
