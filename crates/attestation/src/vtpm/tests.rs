use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use proptest::prelude::*;

use super::*;
use crate::PolicyHash;

const DATA: ReportData = ReportData([5; 64]);

/// An HCL report around `hardware` with `json` as runtime data.
fn hcl(report_type: u32, hardware: &[u8], hash_type: u32, json: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(SIGNATURE);
    for word in [2_u32, 1184, 2, 0, 0, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(hardware);
    bytes.resize(HEADER_BYTES + REPORT_BYTES, 0);
    let length = u32::try_from(json.len()).expect("small");
    for word in [length + 20, 1, report_type, hash_type, length] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(json);
    bytes
}

fn json(key: &KeyPair) -> Vec<u8> {
    let components = key.public_key();
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (n, e) = (
        number(components.modulus().big_endian_without_leading_zero()),
        number(components.exponent().big_endian_without_leading_zero()),
    );
    let user_data = hex::encode(DATA.0);
    format!(r#"{{"keys":[{{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"{e}","n":"{n}"}},{{"kid":"HCLEkPub","kty":"RSA","e":"{e}","n":"{n}"}}],"user-data":"{user_data}"}}"#)
        .into_bytes()
}

fn key() -> KeyPair {
    KeyPair::generate(KeySize::Rsa2048).expect("key")
}

fn quote(extra_data: &[u8], digest: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8]| {
        [
            &u16::try_from(bytes.len()).expect("small").to_be_bytes(),
            bytes,
        ]
        .concat()
    };
    let mut quote = Vec::new();
    quote.extend(0xff54_4347_u32.to_be_bytes());
    quote.extend(0x8018_u16.to_be_bytes());
    quote.extend(sized(&[1; 34]));
    quote.extend(sized(extra_data));
    quote.extend([0; 17]);
    quote.extend(7_u64.to_be_bytes());
    quote.extend(1_u32.to_be_bytes());
    quote.extend(0x000B_u16.to_be_bytes());
    quote.extend([3, 0b0000_0001, 0b0000_0001, 0]);
    quote.extend(sized(digest));
    quote
}

fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message,
        &mut signature,
    )
    .expect("signature");
    signature
}

fn failed(checks: &CheckList) -> Vec<&str> {
    checks
        .checks()
        .iter()
        .filter(|check| !check.passed)
        .map(|check| check.field.as_str())
        .collect()
}

#[test]
fn the_quote_is_bound_to_key_and_data() {
    let key = key();
    let document = json(&key);
    let bytes = hcl(2, &[1; REPORT_BYTES], 1, &document);
    let report = HclReport::parse(&bytes).expect("HCL report");
    assert_eq!(
        (
            report.tee,
            report.hardware_report.len(),
            report.runtime_data
        ),
        (Tee::Snp, 1184, document.as_slice())
    );
    assert_eq!(report.user_data(), Some(DATA));
    let mut checks = CheckList::default();
    report.check(&mut checks);
    assert!(checks.passed(), "{checks:?}");
    let attestation_key = report.attestation_key().expect("key");

    let values = [[0; 32], TpmQuote::policy_pcr(&PolicyHash([9; 32]))];
    let message = quote(
        &TpmQuote::expected_extra_data(&DATA),
        &TpmQuote::digest_of(&values),
    );
    let signature = sign(&key, &message);
    let check = |message: &[u8], signature: &[u8], data: ReportData| {
        let mut checks = CheckList::default();
        TpmQuote::check(
            message,
            signature,
            &attestation_key,
            Some(&data),
            &mut checks,
        );
        failed(&checks)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(check(&message, &signature, DATA).is_empty());
    assert_eq!(
        check(&message, &signature, ReportData([6; 64])),
        ["TPM quote extraData"]
    );
    let other = sign(&self::key(), &message);
    assert_eq!(check(&message, &other, DATA), ["TPM quote signature"]);
    let mut changed = message.clone();
    changed[100] ^= 1;
    assert_eq!(check(&changed, &signature, DATA), ["TPM quote signature"]);

    let parsed = TpmQuote::parse(&message).expect("quote");
    assert_eq!(parsed.pcrs, [0, 8]);
    assert_eq!(parsed.pcr_digest, TpmQuote::digest_of(&values));
    assert_eq!(parsed.firmware_version, 7);
}

/// The whole way, with the software TEE as the machine.
#[cfg(feature = "software-tee")]
#[test]
fn evidence_of_an_azure_machine_holds_only_as_a_whole() {
    use crate::{
        Evidence, Issuer as _, Root, SignedTpmQuote, authenticate_azure,
        software::fixture::{now, software_tee},
    };

    let key = key();
    let document = json(&key);
    let bound = HclReport::parse(&hcl(2, &[], 1, &document))
        .expect("HCL report")
        .expected_report_data();
    let guest = software_tee().snp_guest(PolicyHash([9; 32]));
    let Ok(Evidence::Snp(evidence)) = guest.issue(&bound) else {
        panic!("the software TEE issues SNP evidence");
    };
    let bytes = hcl(2, &evidence.report, 1, &document);
    let report = HclReport::parse(&bytes).expect("HCL report");
    let evidence = Evidence::Snp(evidence);
    let root = Root::Insecure {
        sha256: software_tee().root_sha256(Tee::Snp),
    };
    let message = quote(&TpmQuote::expected_extra_data(&DATA), &[0; 32]);
    let signature = sign(&key, &message);
    let quote = SignedTpmQuote {
        message: &message,
        signature: &signature,
    };
    let outcome = |hcl: &HclReport<'_>, quote, data: &ReportData| {
        let authenticity = authenticate_azure(hcl, &evidence, quote, root, Some(data), now());
        let failed: Vec<_> = failed(authenticity.checks())
            .into_iter()
            .map(str::to_owned)
            .collect();
        assert_eq!(failed.is_empty(), authenticity.holds());
        failed
    };
    assert!(outcome(&report, Some(quote), &DATA).is_empty());
    assert!(outcome(&report, None, &DATA).is_empty());
    let other = ReportData([6; 64]);
    assert_eq!(
        outcome(&report, Some(quote), &other),
        ["TPM quote extraData"]
    );
    assert_eq!(
        outcome(&report, None, &other),
        ["user-data of the runtime data"]
    );

    // Another key in the runtime data: the hardware did not vouch for it.
    let forged_document = json(&self::key());
    let forged = hcl(2, report.hardware_report, 1, &forged_document);
    let forged = HclReport::parse(&forged).expect("HCL report");
    assert_eq!(outcome(&forged, None, &DATA), ["REPORT_DATA"]);
}

#[test]
fn report_data_is_the_hash_of_the_runtime_data_and_zeros() {
    for (hash_type, length) in [(1, 32), (2, 48), (3, 64)] {
        let bytes = hcl(2, &[], hash_type, b"{}");
        let ReportData(data) = HclReport::parse(&bytes)
            .expect("HCL report")
            .expected_report_data();
        assert!(data[..length].iter().any(|byte| *byte != 0));
        assert!(data[length..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_tdreport_must_carry_the_runtime_datas_hash() {
    let document = json(&key());
    let bytes = hcl(4, &[], 1, &document);
    let expected = HclReport::parse(&bytes)
        .expect("HCL report")
        .expected_report_data();
    let mut checks = CheckList::default();
    HclReport::parse(&bytes)
        .expect("HCL report")
        .check(&mut checks);
    assert_eq!(failed(&checks), ["TDREPORT REPORTDATA"]);
    let mut td_report = vec![0; TD_REPORT_BYTES];
    td_report[128..192].copy_from_slice(&expected.0);
    let bytes = hcl(4, &td_report, 1, &document);
    let mut checks = CheckList::default();
    HclReport::parse(&bytes)
        .expect("HCL report")
        .check(&mut checks);
    assert!(checks.passed(), "{checks:?}");
}

#[test]
fn runtime_data_without_exactly_one_usable_key_is_refused() {
    for document in [
        "",
        "{}",
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kid":"HCLAkPub","kty":"EC"}]}"#,
        r#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","n":"AQAB","e":"AQAB"}]}"#,
    ] {
        let bytes = hcl(2, &[], 1, document.as_bytes());
        let mut checks = CheckList::default();
        HclReport::parse(&bytes)
            .expect("HCL report")
            .check(&mut checks);
        assert_eq!(failed(&checks), ["vTPM attestation key"], "{document}");
    }
}

#[test]
fn each_malformed_part_has_its_error() {
    let good = hcl(2, &[], 1, b"{}");
    assert_eq!(
        HclReport::parse(&good[..100]),
        Err(HclReportError::Size { found: 100 })
    );
    assert!(matches!(
        HclReport::parse(&hcl(3, &[], 1, b"{}")),
        Err(HclReportError::ReportType { found: 3 })
    ));
    assert!(matches!(
        HclReport::parse(&hcl(2, &[], 9, b"{}")),
        Err(HclReportError::HashType { found: 9 })
    ));
    assert!(matches!(
        HclReport::parse(&good[..good.len() - 1]),
        Err(HclReportError::RuntimeData {
            stated: 2,
            found: 1
        })
    ));
    let mut other = good;
    other[0] = 0;
    assert!(matches!(
        HclReport::parse(&other),
        Err(HclReportError::Signature { .. })
    ));

    let good = quote(&[1; 32], &[2; 32]);
    let changed = |offset: usize, value: u8| {
        let mut quote = good.clone();
        quote[offset] = value;
        quote
    };
    assert!(matches!(
        TpmQuote::parse(&changed(0, 0)),
        Err(TpmQuoteError::Magic { .. })
    ));
    assert!(matches!(
        TpmQuote::parse(&changed(5, 0x17)),
        Err(TpmQuoteError::Kind { found: 0x8017 })
    ));
    assert!(matches!(
        TpmQuote::parse(&good[..40]),
        Err(TpmQuoteError::Truncated {
            field: "qualifiedSigner"
        })
    ));
    assert_eq!(
        TpmQuote::parse(&[good.as_slice(), &[0]].concat()),
        Err(TpmQuoteError::Trailing { found: 1 })
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = TpmQuote::parse(&bytes);
        let mut report = hcl(2, &[], 1, &bytes);
        if let Ok(report) = HclReport::parse(&report) {
            report.check(&mut CheckList::default());
        }
        for (slot, byte) in report.iter_mut().skip(1216).zip(&bytes) {
            *slot = *byte;
        }
        let _ = HclReport::parse(&report);
    }
}
