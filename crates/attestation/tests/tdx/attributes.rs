//! What a TD may not be, whatever the manifest says.

use super::*;

#[test]
fn rejects_debug_and_profiling_attributes() {
    for bit in [0x01, 0x10, 0x20, 0x40] {
        let changed = verify_changed(|guest| guest.td_attributes[0] |= bit);
        assert_only(
            changed,
            "TD ATTRIBUTES debug and profiling",
            &format!("{bit:02x}"),
        );
    }
}

#[test]
fn rejects_attributes_that_no_td_may_have() {
    let migratable = verify_changed(|guest| guest.td_attributes[3] |= 0x20);
    assert_only(migratable, "TD ATTRIBUTES MIGRATABLE", "true");
    let sept_ve = verify_changed(|guest| guest.td_attributes[3] = 0);
    assert_only(sept_ve, "TD ATTRIBUTES SEPT_VE_DISABLE", "false");
    let service_td = verify_changed(|guest| guest.td_attributes[2] |= 0x02);
    assert_only(service_td, "TD ATTRIBUTES SERVTD_EXT", "true");
    let provisioning_agent = verify_changed(|guest| guest.td_attributes[7] |= 0x40);
    assert_only(provisioning_agent, "TD ATTRIBUTES TPA", "true");
}

/// Every bit of ATTRIBUTES is on one side or the other, for quotes of both versions, and whether the platform is known already
/// or not.
#[test]
fn every_other_attribute_bit_is_refused_unless_it_gives_the_host_nothing() {
    // ICSSD, LASS, SEPT_VE_DISABLE (set in any case), PKS, KL, PERFMON.
    let free = [16, 27, 28, 30, 31, 63];
    let warm = verifier();
    for format in [TdxQuoteFormat::V4, TdxQuoteFormat::V5] {
        for bit in 0..64_usize {
            let mut guest = guest();
            guest.format = format;
            guest.td_attributes[bit / 8] |= 1 << (bit % 8);
            let evidence = guest.issue(&REPORT_DATA).expect("issues");
            for _ in 0..2 {
                let accepted = warm.verify(&evidence, &REPORT_DATA, now()).is_ok();
                assert_eq!(accepted, free.contains(&bit), "{format:?}, bit {bit}");
            }
        }
    }
}

#[test]
fn rejects_a_td_with_a_service_td() {
    let bound = verify_changed(|guest| {
        guest.format = TdxQuoteFormat::V5;
        guest.mr_service_td[47] = 1;
    });
    assert_only(bound, "MRSERVICETD", "01");
}

#[test]
fn owner_values_are_zero_unless_demanded() {
    type Value<T> = fn(&mut T) -> &mut [u8; 48];
    let cases: [(&str, Value<TdxGuest>, Value<TdxDemands>); 2] = [
        ("MROWNER", |g| &mut g.mr_owner, |d| &mut d.mr_owner),
        (
            "MROWNERCONFIG",
            |g| &mut g.mr_owner_config,
            |d| &mut d.mr_owner_config,
        ),
    ];
    for (field, of_guest, of_demands) in cases {
        let set = verify_changed(|guest| *of_guest(guest) = [7; 48]);
        assert_only(set, field, &"07".repeat(48));
        let unset = verify_demanding(|demands| *of_demands(demands) = [7; 48]);
        assert_only(unset, field, &"00".repeat(48));
        let both = verify_both(
            |guest| *of_guest(guest) = [7; 48],
            |demands| *of_demands(demands) = [7; 48],
            now(),
        );
        both.expect("verified");
    }
}

/// `contrast attestation verify` without a manifest: the same rules, and no more than them.
#[test]
fn authenticity_of_a_quote_includes_what_no_td_may_have() {
    let authentic = |change: fn(&mut TdxGuest)| {
        let mut guest = guest();
        change(&mut guest);
        let evidence = guest.issue(&REPORT_DATA).expect("issues");
        let root = tee().reference_value(Tee::Tdx).root;
        contrast_attestation::authenticate(&evidence, root, None, now())
    };
    assert!(authentic(|_| {}).holds());
    assert!(authentic(|guest| guest.mr_owner = [1; 48]).holds());
    let changes: [fn(&mut TdxGuest); 3] = [
        |guest| guest.td_attributes[3] |= 0x20,
        |guest| guest.td_attributes[7] |= 0x40,
        |guest| {
            guest.format = TdxQuoteFormat::V5;
            guest.mr_service_td = [1; 48];
        },
    ];
    for change in changes {
        let authenticity = authentic(change);
        assert!(!authenticity.holds());
        assert!(!authenticity.checks().passed(), "a check says why");
    }
}
