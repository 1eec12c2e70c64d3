//! What verification checks beside attributes and TCB status.

use super::*;

/// Header, TD report, lengths and types, quote signature, attestation key, QE report with signature and 32 bytes of
/// authentication data.
const PCK_CHAIN_OFFSET: usize = 48 + 584 + 4 + 64 + 64 + 6 + 384 + 64 + 2 + 32 + 6;

#[test]
fn accepts_quotes_of_both_versions() {
    for format in [TdxQuoteFormat::V4, TdxQuoteFormat::V5] {
        let verified = verify_changed(|guest| guest.format = format).expect("verified");
        assert_eq!(verified.tee(), Tee::Tdx);
        assert_eq!(verified.policy_hash(), POLICY);
        assert_eq!(verified.measurement(), &guest().mr_td);
        assert_eq!(verified.hardware_id(), guest().pck.instance_id.expect("id"));
        assert!(verified.is_insecure());
        assert_eq!(verified.claims().len(), 15);
    }
}

#[test]
fn still_works_years_later_and_says_when_it_ends() {
    verify(&guest(), now() + 9 * YEAR).expect("verified");
    let too_late = || verify(&guest(), now() + 11 * YEAR);
    assert_among(too_late(), "root certificate validity", "2037");
    assert_among(too_late(), "TCB info validity", "2037");
    assert_among(
        verify(&guest(), now() - YEAR),
        "root certificate validity",
        "2027",
    );
}

#[test]
fn a_saved_software_tee_issues_under_the_same_root_and_instance_id() {
    let dir = tempfile::tempdir().expect("directory");
    tee().save(dir.path()).expect("saves");
    let opened = SoftwareTee::open(dir.path()).expect("opens");
    assert_eq!(opened.root_sha256(Tee::Tdx), tee().root_sha256(Tee::Tdx));
    let evidence = opened
        .tdx_guest(POLICY)
        .issue(&REPORT_DATA)
        .expect("issues");
    let verified = verify_with(tee().reference_value(Tee::Tdx), &evidence, now());
    let verified = verified.expect("verified");
    assert_eq!(verified.hardware_id(), guest().pck.instance_id.expect("id"));
}

#[test]
fn refuses_a_directory_whose_certificate_is_not_the_keys() {
    let dir = tempfile::tempdir().expect("directory");
    tee().save(dir.path()).expect("saves");
    let file = |name: &str| dir.path().join(name);
    std::fs::copy(file("tdx-tcb-signing.crt.pem"), file("tdx-root-ca.crt.pem")).expect("copies");
    let error = SoftwareTee::open(dir.path())
        .expect_err("refused")
        .to_string();
    assert!(error.contains("tdx-root-ca.crt.pem"), "{error}");
}

#[test]
fn rejects_each_wrong_measurement_alone() {
    assert_only(verify_changed(|guest| guest.mr_td[0] ^= 1), "MRTD", "");
    assert_only(verify_changed(|guest| guest.mr_seam[47] ^= 1), "MRSEAM", "");
    for index in 0..4 {
        let changed = verify_changed(|guest| guest.rtmrs[index][9] ^= 0x80);
        assert_only(changed, &format!("RTMR{index}"), "");
    }
    assert_only(
        verify_changed(|guest| guest.xfam[1] ^= 1),
        "XFAM",
        "e703060000000000",
    );
}

#[test]
fn rtmr0_must_be_the_one_for_the_number_of_vcpus_of_the_policy() {
    let found = guest().rtmrs[0];
    let verify = |of_three: [u8; 48], of_one: [u8; 48]| {
        let mut reference = tee().reference_value(Tee::Tdx);
        let Demands::Tdx(demands) = &mut reference.demands else {
            panic!("TDX demands")
        };
        // Not looked at beside values by number.
        demands.rtmrs[0] = found;
        demands.rtmr0_by_vcpus = [(1, of_one), (3, of_three)].into();
        let evidence = guest().issue(&REPORT_DATA).expect("issues");
        let verifier = Verifier::new(vec![reference], [POLICY]);
        let any = verifier.verify(&evidence, &REPORT_DATA, now());
        let three = verifier.with_vcpus([(POLICY, 3)]);
        (any, three.verify(&evidence, &REPORT_DATA, now()))
    };
    let (any, three) = verify(found, [1; 48]);
    any.expect("one of the two");
    three.expect("the right one");

    let (any, three) = verify([3; 48], found);
    any.expect("one of the two");
    let shown = format!("{} (for 1 vCPU)", hex::encode(found));
    assert_only(three, "RTMR0", &shown);

    let (any, _) = verify([3; 48], [1; 48]);
    let shown = format!("{} (for no listed number of vCPUs)", hex::encode(found));
    assert_only(any, "RTMR0", &shown);
}

#[test]
fn accepts_an_alternative_of_rtmr0_and_nothing_else() {
    let found = guest().rtmrs[0];
    verify_demanding(|demands| {
        demands.rtmr0_alternatives = vec![[1; 48], found];
        demands.rtmrs[0] = [2; 48];
    })
    .expect("verified");
    let wrong = verify_demanding(|demands| {
        demands.rtmr0_alternatives = vec![[1; 48]];
        demands.rtmrs[0] = [2; 48];
    });
    assert_only(wrong, "RTMR0", &hex::encode(found));
}

#[test]
fn rejects_an_unknown_policy_and_bytes_behind_it() {
    let other = verify_changed(|guest| guest.mr_config_id[31] ^= 1);
    assert_only(other, "MRCONFIGID", "07070707");
    let padding = verify_changed(|guest| guest.mr_config_id[47] = 1);
    assert_only(padding, "MRCONFIGID after the policy hash", "01");
}

#[test]
fn rejects_report_data_of_another_connection() {
    let evidence = guest().issue(&ReportData([8; 64])).expect("issues");
    let result = verify_with(tee().reference_value(Tee::Tdx), &evidence, now());
    assert_only(result, "REPORTDATA", "0808");
}

#[test]
fn rejects_each_wrong_platform_property_alone() {
    assert_only(
        verify_changed(|guest| guest.pck.sgx_type = 1),
        "memory integrity",
        "type 1",
    );
    assert_only(
        verify_changed(|guest| guest.pck.smt_enabled = true),
        "SMT",
        "yes",
    );
    let dynamic = verify_changed(|guest| guest.pck.dynamic_platform = true);
    assert_only(dynamic, "dynamic platform", "yes");
    let other_platform = verify_demanding(|demands| demands.allowed_piids = vec![[1; 16]]);
    let own = guest().pck.instance_id.expect("id");
    assert_only(other_platform, "platform instance id", &hex::encode(own));
    verify_demanding(|demands| demands.allowed_piids = vec![[1; 16], own]).expect("verified");
}

#[test]
fn a_platform_without_instance_id_meets_no_allow_list() {
    let mut guest = guest();
    guest.pck.instance_id = None;
    assert!(
        verify(&guest, now())
            .expect("verified")
            .hardware_id()
            .is_empty()
    );
    let mut reference = tee().reference_value(Tee::Tdx);
    let Demands::Tdx(demands) = &mut reference.demands else {
        panic!("TDX demands")
    };
    demands.allowed_piids = vec![[0; 16]];
    let evidence = guest.issue(&REPORT_DATA).expect("issues");
    assert_only(
        verify_with(reference, &evidence, now()),
        "platform instance id",
        "none",
    );
}

#[test]
fn platform_properties_are_free_when_not_demanded() {
    let mut guest = guest();
    guest.pck.sgx_type = 1;
    guest.pck.smt_enabled = true;
    guest.pck.dynamic_platform = true;
    let mut reference = tee().reference_value(Tee::Tdx);
    let Demands::Tdx(demands) = &mut reference.demands else {
        panic!("TDX demands")
    };
    demands.memory_integrity = false;
    demands.smt_disabled = false;
    demands.static_platform = false;
    let evidence = guest.issue(&REPORT_DATA).expect("issues");
    verify_with(reference, &evidence, now()).expect("verified");
}

#[test]
fn rejects_an_old_tcb_evaluation_data_number() {
    let field = "TCB evaluation data number";
    let old = verify_changed(|guest| {
        guest
            .collateral
            .as_mut()
            .expect("collateral")
            .tcb_evaluation_data_number = 16;
    });
    assert_only(old, field, "16");
    assert_only(
        verify_demanding(|d| d.min_tcb_evaluation_data_number = 18),
        field,
        "17",
    );
}

#[test]
fn rejects_tcb_info_of_another_pce() {
    let other = verify_changed(|guest| {
        guest.collateral.as_mut().expect("collateral").pce_id = [0, 1];
    });
    assert_only(other, "PCEID of the TCB info", "0001");
}

#[test]
fn rejects_missing_collateral() {
    let missing = verify_changed(|guest| guest.collateral = None);
    assert_only(missing, "collateral", "none");
}

#[test]
fn names_every_stale_piece_of_collateral() {
    let mut guest = guest();
    let window = guest.collateral.as_mut().expect("collateral");
    window.issue_date = now();
    window.next_update = now() + Duration::from_secs(30 * 24 * 3600);
    verify(&guest, now()).expect("verified");
    verify(&guest, now() + Duration::from_secs(29 * 24 * 3600)).expect("verified");
    for at in [
        now() - Duration::from_secs(1),
        now() + Duration::from_secs(31 * 24 * 3600),
    ] {
        let stale = failed(verify(&guest, at));
        for piece in ["TCB info", "QE identity", "root CRL", "PCK CRL"] {
            let field = format!("{piece} validity");
            assert!(
                stale.iter().any(|check| check.field == field),
                "{field}: {stale:#?}"
            );
        }
        assert!(
            stale.iter().any(|check| check.field == SIGNATURES),
            "{stale:#?}"
        );
    }
}

#[test]
fn rejects_a_revoked_platform() {
    let revoked = verify_changed(|guest| guest.pck.revoked = true);
    assert_only(revoked, SIGNATURES, "Revoked");
}

#[test]
fn rejects_another_root() {
    let evidence = guest().issue(&REPORT_DATA).expect("issues");
    let mut reference = tee().reference_value(Tee::Tdx);
    reference.root = Root::Insecure { sha256: [1; 32] };
    let own = hex::encode(tee().root_sha256(Tee::Tdx));
    assert_only(
        verify_with(reference.clone(), &evidence, now()),
        "root certificate",
        &own,
    );
    reference.root = Root::Vendor;
    assert_only(
        verify_with(reference, &evidence, now()),
        "root certificate",
        &own,
    );
}

#[test]
fn the_pin_of_an_intermediate_or_leaf_is_no_root_for_others() {
    // Pinning the TCB signer makes it a trust anchor for nothing: it did not sign the CRLs or the PCK chain.
    let Evidence::Tdx(evidence) = guest().issue(&REPORT_DATA).expect("issues") else {
        panic!("TDX evidence")
    };
    let chain = &evidence
        .collateral
        .as_ref()
        .expect("collateral")
        .tcb_info_issuer_chain;
    let signer = pem::parse(chain.as_bytes()).expect("PEM").into_contents();
    let mut reference = tee().reference_value(Tee::Tdx);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &signer);
    reference.root = Root::Insecure {
        sha256: hash.as_ref().try_into().expect("32 bytes"),
    };
    assert_only(
        verify_with(reference, &Evidence::Tdx(evidence), now()),
        SIGNATURES,
        "",
    );
}

#[test]
fn rejects_every_changed_byte_of_what_is_signed() {
    let quote = |offset: usize| verify_tampered(|evidence| evidence.quote[offset] ^= 1);
    // Header (QE SVN, user data), TD report (first and last byte), quote signature, attestation key, QE report.
    for offset in [8, 30, 48, 631, 640, 700, 780, 1200] {
        assert_among(quote(offset), SIGNATURES, "");
    }
}

#[test]
fn rejects_changed_collateral() {
    assert_only(
        verify_tampered(|evidence| {
            let collateral = evidence.collateral.as_mut().expect("collateral");
            collateral.tcb_info = collateral.tcb_info.replace("OutOfDate", "UpToDate");
        }),
        SIGNATURES,
        "tcb_info",
    );
    assert_only(
        verify_tampered(|evidence| {
            let collateral = evidence.collateral.as_mut().expect("collateral");
            collateral.qe_identity = collateral.qe_identity.replace("OutOfDate", "UpToDate");
        }),
        SIGNATURES,
        "qe_identity",
    );
    for crl in 0..2 {
        let changed = verify_tampered(|evidence| {
            let collateral = evidence.collateral.as_mut().expect("collateral");
            let crl = match crl {
                0 => &mut collateral.root_ca_crl,
                _ => &mut collateral.pck_crl,
            };
            *crl.last_mut().expect("bytes") ^= 1;
        });
        assert_only(changed, SIGNATURES, "");
    }
    assert_among(
        verify_tampered(|evidence| {
            evidence
                .collateral
                .as_mut()
                .expect("collateral")
                .tcb_info_signature
                .clear();
        }),
        SIGNATURES,
        "",
    );
}

#[test]
fn rejects_collateral_of_another_software_tee() {
    let other = SoftwareTee::generate(now()).expect("software TEE");
    let Evidence::Tdx(foreign) = other.tdx_guest(POLICY).issue(&REPORT_DATA).expect("issues")
    else {
        panic!("TDX evidence")
    };
    let mixed = verify_tampered(|evidence| evidence.collateral = foreign.collateral);
    assert_only(mixed, SIGNATURES, "");
}

#[test]
fn rejects_inexact_types_and_lengths_in_the_quote() {
    // Type of the signature data, then lengths: of the signature data, of the certification data, of the PCK chain.
    let layout = |offset: usize| verify_tampered(|evidence| evidence.quote[offset] ^= 1);
    assert_only(layout(764), "quote layout", "type 7");
    for offset in [632, 766, PCK_CHAIN_OFFSET - 4] {
        assert!(layout(offset).is_err(), "byte {offset}");
    }
}

#[test]
fn rejects_truncated_quotes_and_ignores_bytes_after_them() {
    for length in [0, 1, 47, 48, 631, 632, 636, 1000, 2000] {
        let cut = verify_tampered(|evidence| evidence.quote.truncate(length));
        assert_only(cut, "quote", "");
    }
    // Kernel interfaces deliver a whole buffer; nothing behind the quote means anything.
    let padded = verify_tampered(|evidence| evidence.quote.extend([1; 3000]));
    padded.expect("verified");
}

#[test]
fn reports_all_failures_together() {
    let checks = failed(verify_changed(|guest| {
        guest.mr_td[0] ^= 1;
        guest.td_attributes[0] = 1;
        guest.pck.smt_enabled = true;
        guest.qe_isv_svn = 2;
    }));
    let fields: Vec<_> = checks.iter().map(|check| check.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "TD ATTRIBUTES debug and profiling",
            "MRTD",
            "TCB status",
            "SMT"
        ]
    );
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    #[test]
    fn a_flipped_bit_in_the_quote_never_panics_and_never_passes_unnoticed(
        position in 0_usize..5000,
        bit in 0_u8..8,
    ) {
        let evidence = guest().issue(&REPORT_DATA).expect("issues");
        let Evidence::Tdx(mut evidence) = evidence else { panic!("TDX evidence") };
        let position = position % evidence.quote.len();
        evidence.quote[position] ^= 1 << bit;
        let result = verify_with(
            tee().reference_value(Tee::Tdx),
            &Evidence::Tdx(evidence.clone()),
            now(),
        );
        // Only the PEM text of the chain has more than one encoding. The root's copy in it does not count when the
        // collateral has the pinned one.
        if result.is_ok() {
            proptest::prop_assert!(position >= PCK_CHAIN_OFFSET, "byte {position} is not checked");
        }
    }
}
