//! Every demand of a reference value, violated alone.

use super::*;
use crate::{
    appraisal::{SnpProduct, SnpTcb},
    snp::{MitigationVectors, SigningKey},
};

#[test]
fn accepts_an_unchanged_guest_and_says_what_it_is() {
    let evidence = Evidence::Snp(evidence(&guest()));
    let verified = verifier(demands())
        .verify(&evidence, &REPORT_DATA, now())
        .expect("accepted");
    assert_eq!(verified.tee(), Tee::Snp);
    assert_eq!(verified.policy_hash(), POLICY);
    assert_eq!(verified.measurement(), &guest().measurement);
    assert_eq!(verified.hardware_id(), guest().chip_id);
    assert_eq!(verified.reference(), "snp[0]");
    assert!(verified.is_insecure());
    let arcs: Vec<u32> = verified.claims().iter().map(|claim| claim.arc).collect();
    assert_eq!(arcs, (1..=36).collect::<Vec<u32>>());
}

#[test]
fn accepts_every_report_version_and_both_kinds_of_key() {
    for version in 2..=5 {
        let guest = guest_with(|guest| guest.version = version);
        assert_eq!(failures(&guest, demands()), [""; 0], "version {version}");
    }
    let mut vlek = guest();
    vlek.certificate.kind = SigningKey::Vlek;
    vlek.certificate.product_name = "Milan".to_owned();
    vlek.key_info = 1 << 2;
    assert_eq!(failures(&vlek, demands()), [""; 0]);
}

#[test]
fn accepts_turin_with_its_own_tcb_layout_and_short_hardware_id() {
    let tcb = SnpTcb {
        fmc: Some(1),
        bootloader: 2,
        tee: 3,
        snp: 4,
        microcode: 5,
    };
    let mut guest = guest_with(|guest| guest.product = SnpProduct::Turin).with_tcb(tcb);
    guest.chip_id[8..].fill(0);
    guest.certificate.hardware_id.truncate(8);
    guest.certificate.product_name = "Turin-B1".to_owned();
    let demands = SnpDemands {
        product: SnpProduct::Turin,
        minimum_tcb: tcb,
        ..demands()
    };
    assert_eq!(failures(&guest, demands.clone()), [""; 0]);

    let stricter = SnpTcb {
        fmc: Some(2),
        ..tcb
    };
    assert_eq!(
        failures(
            &guest,
            SnpDemands {
                minimum_tcb: stricter,
                ..demands
            }
        ),
        ["committed TCB FMC", "launch TCB FMC", "reported TCB FMC"]
    );
}

/// What a test case changes.
type Change = fn(&mut SnpGuest, &mut SnpDemands);

#[test]
fn each_violation_alone_fails_exactly_its_check() {
    let cases: &[(&str, Change)] = &[
        ("MEASUREMENT", |guest, _| guest.measurement[47] ^= 1),
        ("VMPL", |guest, _| guest.vmpl = 1),
        ("HOSTDATA", |guest, _| guest.policy_hash.0[0] ^= 1),
        ("guest policy SMT", |guest, _| {
            guest.guest_policy.smt = false
        }),
        ("guest policy MIGRATE_MA", |guest, _| {
            guest.guest_policy.migrate_ma = true
        }),
        ("guest policy DEBUG", |guest, _| {
            guest.guest_policy.debug = true
        }),
        ("guest policy SINGLE_SOCKET", |guest, _| {
            guest.guest_policy.single_socket = true
        }),
        ("guest policy CXL_ALLOW", |guest, _| {
            guest.guest_policy.cxl_allowed = true
        }),
        ("guest policy MEM_AES_256_XTS", |guest, _| {
            guest.guest_policy.mem_aes_256_xts = true
        }),
        ("guest policy RAPL_DIS", |guest, _| {
            guest.guest_policy.rapl_dis = true
        }),
        ("guest policy CIPHERTEXT_HIDING_DRAM", |guest, _| {
            guest.guest_policy.ciphertext_hiding_dram = true;
        }),
        ("guest policy PAGE_SWAP_DISABLE", |guest, _| {
            guest.guest_policy.page_swap_disable = true
        }),
        ("guest policy ABI_MAJOR", |guest, _| {
            guest.guest_policy.abi_major = 1
        }),
        ("guest policy ABI_MINOR", |guest, _| {
            guest.guest_policy.abi_minor = 31
        }),
        ("platform info SMT_EN", |guest, _| {
            guest.platform_info.smt_enabled = false
        }),
        ("platform info TSME_EN", |guest, _| {
            guest.platform_info.tsme_enabled = true
        }),
        ("platform info ECC_EN", |guest, _| {
            guest.platform_info.ecc_enabled = false
        }),
        ("platform info RAPL_DIS", |guest, _| {
            guest.platform_info.rapl_disabled = true
        }),
        ("platform info CIPHERTEXT_HIDING_DRAM_EN", |guest, _| {
            guest.platform_info.ciphertext_hiding_dram_enabled = true;
        }),
        ("platform info ALIAS_CHECK_COMPLETE", |guest, _| {
            guest.platform_info.alias_check_complete = false;
        }),
        ("platform info TIO_EN", |guest, _| {
            guest.platform_info.tio_enabled = true
        }),
        ("committed TCB bootloader", |guest, _| {
            guest.committed_tcb.bootloader -= 1
        }),
        ("committed TCB SNP", |guest, _| guest.committed_tcb.snp -= 1),
        ("launch TCB microcode", |guest, _| {
            guest.launch_tcb.microcode -= 1
        }),
        ("reported TCB microcode", |guest, _| {
            guest.reported_tcb.microcode -= 1;
            guest.certificate.tcb.microcode -= 1;
        }),
        ("reported TCB in the VCEK certificate", |guest, _| {
            guest.certificate.tcb.tee += 1
        }),
        ("hardware id in the VCEK certificate", |guest, _| {
            guest.certificate.hardware_id[63] ^= 1
        }),
        ("product in the VCEK certificate", |guest, _| {
            guest.certificate.product_name = "Genoa-B1".to_owned();
        }),
        ("product", |guest, _| {
            guest.product = SnpProduct::Genoa;
            guest.certificate.product_name = "Genoa-B1".to_owned();
        }),
        ("product", |guest, demands| {
            guest.version = 2;
            demands.product = SnpProduct::Genoa;
        }),
        ("CHIP_ID", |_, demands| {
            demands.allowed_chip_ids = vec![[7; 64], [8; 64]]
        }),
        ("CHIP_ID", |guest, demands| {
            guest.chip_id = [0; 64];
            demands.allowed_chip_ids = vec![[0; 64]];
        }),
        ("ID_KEY_DIGEST", |guest, demands| {
            guest.id_key_digest = [3; 48];
            demands.trusted_id_key_digests = vec![[1; 48], [2; 48]];
        }),
        ("ID_KEY_DIGEST", |_, demands| {
            demands.trusted_id_key_digests = vec![[0; 48]];
        }),
        ("AUTHOR_KEY_DIGEST", |guest, demands| {
            (guest.key_info, guest.author_key_digest) = (0b1, [3; 48]);
            demands.trusted_author_key_digests = vec![[1; 48]];
        }),
        ("AUTHOR_KEY_DIGEST", |_, demands| {
            demands.trusted_author_key_digests = vec![[0; 48]];
        }),
        ("mitigation vectors", |_, demands| {
            demands.minimum_mitigation_vector = 1
        }),
        ("LAUNCH_MIT_VECTOR", |guest, demands| {
            guest.version = 5;
            guest.mitigations = MitigationVectors {
                launch: 0b101,
                current: 0b111,
            };
            demands.minimum_mitigation_vector = 0b110;
        }),
        ("CURRENT_MIT_VECTOR", |guest, demands| {
            guest.version = 5;
            guest.mitigations = MitigationVectors {
                launch: 0b111,
                current: 0b101,
            };
            demands.minimum_mitigation_vector = 0b110;
        }),
        ("MASK_CHIP_KEY", |guest, _| guest.key_info = 0b10),
        ("AUTHOR_KEY_DIGEST (AUTHOR_KEY_EN is true)", |guest, _| {
            guest.key_info = 0b1
        }),
        ("AUTHOR_KEY_DIGEST (AUTHOR_KEY_EN is false)", |guest, _| {
            guest.author_key_digest = [1; 48]
        }),
        ("SIGNING_KEY", |guest, _| guest.key_info = 1 << 2),
        ("VEK certificate (SEV-VCEK) validity", |guest, _| {
            guest.certificate.not_after = now() - YEAR
        }),
        ("VEK certificate (SEV-VCEK) validity", |guest, _| {
            guest.certificate.not_before = now() + YEAR
        }),
        ("VEK certificate", |guest, _| {
            guest.certificate.product_name = "Rome-B0".to_owned()
        }),
        ("VEK certificate", |guest, _| {
            guest.certificate.hardware_id.truncate(63)
        }),
        ("CRL", |guest, _| guest.crl = b"no list".to_vec()),
    ];
    for (field, change) in cases {
        let (mut guest, mut demands) = (guest(), demands());
        change(&mut guest, &mut demands);
        assert_eq!(failures(&guest, demands), [*field]);
    }
}

#[test]
fn several_violations_are_all_listed() {
    let mut guest = guest();
    guest.guest_policy.debug = true;
    guest.vmpl = 3;
    guest.policy_hash.0[0] ^= 1;
    guest.launch_tcb.snp = 0;
    guest.certificate.not_after = now() - YEAR;
    assert_eq!(
        failures(&guest, demands()),
        [
            "VEK certificate (SEV-VCEK) validity",
            "VMPL",
            "guest policy DEBUG",
            "launch TCB SNP",
            "HOSTDATA"
        ]
    );
}

#[test]
fn meeting_and_exceeding_a_minimum_are_both_accepted() {
    let mut newer = demands().minimum_tcb;
    newer.microcode += 1;
    assert_eq!(failures(&guest().with_tcb(newer), demands()), [""; 0]);
    let vectors = MitigationVectors {
        launch: 0b111,
        current: 0b111,
    };
    let guest = guest_with(|guest| {
        guest.version = 5;
        guest.mitigations = vectors;
    });
    let listed = SnpDemands {
        minimum_mitigation_vector: 0b111,
        allowed_chip_ids: vec![[1; 64], guest.chip_id],
        ..demands()
    };
    assert_eq!(failures(&guest, listed), [""; 0]);
}

#[test]
fn any_of_the_trusted_id_and_author_keys_is_accepted_and_unlisted_ones_only_when_none_is_demanded()
{
    let guest = guest_with(|guest| {
        guest.id_key_digest = [2; 48];
        (guest.key_info, guest.author_key_digest) = (0b1, [4; 48]);
    });
    let listed = SnpDemands {
        trusted_id_key_digests: vec![[1; 48], [2; 48]],
        trusted_author_key_digests: vec![[4; 48]],
        ..demands()
    };
    assert_eq!(failures(&guest, listed), [""; 0]);
    assert_eq!(failures(&guest, demands()), [""; 0]);
}

#[test]
fn other_report_data_is_refused_with_both_values() {
    let evidence = Evidence::Snp(evidence(&guest()));
    let error = verifier(demands()).verify(&evidence, &ReportData([0; 64]), now());
    let error = error.expect_err("other report data").to_string();
    let line = format!(
        "REPORT_DATA: expected {}, found {}",
        "00".repeat(64),
        "5a".repeat(64)
    );
    assert!(error.contains(&line), "{error}");
}
