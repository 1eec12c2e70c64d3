//! Real TDX quotes against Intel's root.
//!
//! The quote of version 4 has matching collateral: with the certificate of Intel's TCB signer (`src/tdx/vendor/`, public; PCS sends it
//! in an HTTP header that the collected answers lack) all of its signatures are verified, at a time when they were valid. It cannot
//! be accepted, rightly: its platform is older than every TCB level, and its TD lacks SEPT_VE_DISABLE.
//!
//! The quote of version 5 is of an up-to-date platform. CRLs, QE identity and the signer's renewed certificate of its time are
//! not there, so that the verifier can accept it at no time; what is missing is shown to be exactly that, and everything that is
//! there is checked, independently of the verifier too.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail like tests"
)]

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use contrast_attestation::{
    Check, Demands, Evidence, EvidenceVerifier as _, PolicyHash, ReferenceValue, ReportData, Root,
    TdxCollateral, TdxEvidence, VerifiedEvidence, Verifier, VerifyError,
    appraisal::{TdxDemands, TdxTcbPolicy, TdxTcbStatus},
    tdx::QuoteDetails,
};
use dcap_qvl::{TcbInfo, TcbStatus};
use der::{Decode as _, Encode as _};
use x509_cert::Certificate;

const V4: &str = "tdx_prod_quote_SPR_E4.dat";
const V5: &str = "quote_v5_sample.dat";
const INTEL_TCB_SIGNING: &str = include_str!("../src/tdx/vendor/intel_tcb_signing_2018.pem");
/// SHA-256 of the Intel SGX Root CA's DER, as `openssl x509 -fingerprint -sha256` shows it.
const INTEL_ROOT: &str = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3";

/// Reads collected evidence; `None`, with a message, on machines that do not have it.
fn real(name: &str) -> Option<Vec<u8>> {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/evidence");
    let dir =
        std::env::var_os("CONTRAST_EVIDENCE_DIR").map_or_else(|| workspace.into(), PathBuf::from);
    let path = dir.join("tdx").join(name);
    match fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            println!(
                "skipped: {} is not there ({error}); set CONTRAST_EVIDENCE_DIR",
                path.display()
            );
            None
        }
    }
}

/// 2023-06-20T00:00:00Z: the TCB info is of 18 June, the CRL and QE identity end on 8 July.
fn june_2023() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_687_219_200)
}

/// 2026-02-10T00:00:00Z: the PCK certificate of the quote of version 5 is of 27 January, its TCB info of 1 February.
fn february_2026() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_770_681_600)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..offset + N].try_into().expect("in range")
}

/// Demands that a quote's own TD report meets; `report` is the TD report's offset.
fn demands_of(quote: &[u8], report: usize) -> TdxDemands {
    TdxDemands {
        mr_seam: array(quote, report + 16),
        xfam: array(quote, report + 128),
        mr_td: array(quote, report + 136),
        rtmrs: [0, 1, 2, 3].map(|index| array(quote, report + 328 + 48 * index)),
        rtmr0_alternatives: Vec::new(),
        rtmr0_by_vcpus: Default::default(),
        allowed_piids: Vec::new(),
        memory_integrity: false,
        smt_disabled: false,
        static_platform: false,
        min_tcb_evaluation_data_number: 15,
        mr_owner: [0; 48],
        mr_owner_config: [0; 48],
        // Whatever is tolerable is tolerated, so that only what nothing can excuse is refused.
        tcb_policy: TdxTcbPolicy {
            accepted: TdxTcbStatus::ALL.into(),
            platform_grace_period_days: 3650,
        },
    }
}

/// Verifies a quote whose TD report is at `report`, with its own values as the demands.
fn verify(
    quote: &[u8],
    report: usize,
    collateral: Option<TdxCollateral>,
    at: SystemTime,
) -> Result<VerifiedEvidence, VerifyError> {
    let reference = ReferenceValue {
        name: "tdx[0]".into(),
        root: Root::Vendor,
        demands: Demands::Tdx(demands_of(quote, report)),
        vtpm: None,
    };
    let policy = PolicyHash(array(quote, report + 184));
    let report_data = ReportData(array(quote, report + 520));
    let evidence = Evidence::Tdx(TdxEvidence {
        quote: quote.to_vec(),
        collateral,
    });
    Verifier::new(vec![reference], [policy]).verify(&evidence, &report_data, at)
}

fn failed(result: Result<VerifiedEvidence, VerifyError>) -> Vec<Check> {
    let report = match result {
        Err(VerifyError::Refused(report)) => report,
        other => panic!("expected a refusal, found {other:?}"),
    };
    let checks = report.sets.iter().flat_map(|set| set.checks.checks());
    checks.filter(|check| !check.passed).cloned().collect()
}

/// Splits a PCS answer into the exact signed text and the signature.
fn answer(bytes: &[u8], key: &str) -> (String, Vec<u8>) {
    let text = std::str::from_utf8(bytes).expect("UTF-8").trim_end();
    let (signed, signature) = text
        .strip_prefix(&format!("{{\"{key}\":"))
        .and_then(|rest| rest.rsplit_once(",\"signature\":\""))
        .expect("a PCS answer");
    let signature = signature.strip_suffix("\"}").expect("a PCS answer");
    (signed.to_owned(), hex::decode(signature).expect("hex"))
}

fn collateral(tcb_info: &str) -> Option<TdxCollateral> {
    let (tcb_info, tcb_info_signature) = answer(&real(tcb_info)?, "tcbInfo");
    let (qe_identity, qe_identity_signature) =
        answer(&real("sample_qeIdentity_response")?, "enclaveIdentity");
    Some(TdxCollateral {
        pck_crl_issuer_chain: String::new(),
        root_ca_crl: real("rootcrl.der")?,
        pck_crl: real("pckcrl")?,
        tcb_info_issuer_chain: INTEL_TCB_SIGNING.into(),
        tcb_info,
        tcb_info_signature,
        qe_identity_issuer_chain: INTEL_TCB_SIGNING.into(),
        qe_identity,
        qe_identity_signature,
    })
}

#[test]
fn a_real_quotes_signatures_hold_up_to_intels_root_and_only_platform_and_td_are_refused() {
    let (Some(quote), Some(collateral)) = (real(V4), collateral("sample_tcbInfo_response")) else {
        return;
    };
    let checks = failed(verify(&quote, 48, Some(collateral), june_2023()));
    let fields: Vec<_> = checks.iter().map(|check| check.field.as_str()).collect();
    // The platform ran microcode that is older than every level which Intel listed then: CPUSVN 3 3 2 2 2 1 0 2, lowest
    // level 5 5 2 2 3 1 0 3. Of the TD's ATTRIBUTES only PKS is set.
    assert_eq!(fields, ["TCB level", "TD ATTRIBUTES SEPT_VE_DISABLE"]);
}

#[test]
fn a_real_quote_is_refused_when_its_collateral_is_stale() {
    let (Some(quote), Some(collateral)) = (real(V4), collateral("sample_tcbInfo_response")) else {
        return;
    };
    let later = june_2023() + Duration::from_secs(60 * 24 * 3600);
    let checks = failed(verify(&quote, 48, Some(collateral), later));
    let fields: Vec<_> = checks.iter().map(|check| check.field.as_str()).collect();
    let expected = [
        "TCB info validity",
        "QE identity validity",
        "PCK CRL validity",
        "quote and collateral",
        "TD ATTRIBUTES SEPT_VE_DISABLE",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn a_real_quote_is_refused_before_its_pck_certificate_is_valid() {
    let (Some(quote), Some(collateral)) = (real(V5), collateral("sample_tcbInfo_response")) else {
        return;
    };
    let checks = failed(verify(&quote, 54, Some(collateral), june_2023()));
    let [platform, signatures] = checks.as_slice() else {
        panic!("expected two failed checks: {checks:#?}")
    };
    // The collateral of June 2023 is another platform's.
    assert_eq!(platform.field, "FMSPC of the TCB info");
    assert_eq!(signatures.field, "quote and collateral");
    assert!(signatures.found.contains("CertNotValidYet"), "{signatures}");
}

#[test]
fn of_the_collateral_for_a_real_quote_of_version_5_only_the_stale_pieces_are_refused() {
    let (Some(quote), Some(collateral)) = (real(V5), collateral("sample_tcbinfo_response_v5"))
    else {
        return;
    };
    let checks = failed(verify(&quote, 54, Some(collateral), february_2026()));
    let fields: Vec<_> = checks.iter().map(|check| check.field.as_str()).collect();
    let expected = [
        "QE identity validity",
        "root CRL validity",
        "PCK CRL validity",
        "quote and collateral",
    ];
    assert_eq!(fields, expected);
}

/// Intel renewed the signer's certificate for the same key, so that the certificate of 2018 still has the key for it.
#[test]
fn the_platform_of_a_real_quote_of_version_5_is_up_to_date_by_what_intel_signed() {
    let (Some(quote), Some(collateral)) = (real(V5), collateral("sample_tcbinfo_response_v5"))
    else {
        return;
    };
    let chain = pem::parse_many(INTEL_TCB_SIGNING).expect("PEM");
    let signer = Certificate::from_der(chain[0].contents()).expect("X.509");
    assert_signed(
        &ECDSA_P256_SHA256_FIXED,
        &public_key(&signer),
        collateral.tcb_info.as_bytes(),
        &collateral.tcb_info_signature,
    );
    let info: TcbInfo = serde_json::from_str(&collateral.tcb_info).expect("TCB info");
    let details = QuoteDetails::parse(&quote).expect("a quote");
    let (pck, td15) = (details.pck.expect("PCK"), details.td15.expect("TDX 1.5"));
    assert_eq!(info.fmspc, hex::encode(pck.fmspc));
    assert_eq!(info.pce_id, hex::encode(&pck.pce_id));
    assert_eq!(td15.mr_service_td, [0; 48]);
    for module in [details.tee_tcb_svn, td15.tee_tcb_svn2] {
        let reached = info.tcb_levels.iter().find(|level| {
            let shortfalls = level.shortfalls(&pck.cpu_svn, pck.pce_svn, Some(&module));
            shortfalls.expect("16 components").is_empty()
        });
        assert_eq!(reached.expect("a level").tcb_status, TcbStatus::UpToDate);
        let identity = info.tdx_module_identity(&module).expect("an identity");
        let levels = &identity.expect("version 1").tcb_levels;
        let reached = levels
            .iter()
            .find(|level| level.shortfall(&module).is_none());
        assert_eq!(reached.expect("a level").tcb_status, TcbStatus::UpToDate);
    }
}

#[test]
fn a_flipped_bit_in_a_real_quote_is_refused() {
    let (Some(quote), Some(collateral)) = (real(V4), collateral("sample_tcbInfo_response")) else {
        return;
    };
    // Header, TD report, quote signature, attestation key, QE report, QE report signature.
    for offset in [40, 60, 640, 700, 780, 1160] {
        let mut changed = quote.clone();
        changed[offset] ^= 1;
        let checks = failed(verify(&changed, 48, Some(collateral.clone()), june_2023()));
        assert!(
            checks
                .iter()
                .any(|check| check.field == "quote and collateral"),
            "byte {offset}: {checks:#?}"
        );
    }
}

#[test]
fn real_quotes_of_both_versions_meet_all_demands_that_need_no_collateral() {
    for (name, report) in [(V4, 48), (V5, 54)] {
        let Some(quote) = real(name) else { return };
        let checks = failed(verify(&quote, report, None, june_2023()));
        let fields: Vec<_> = checks.iter().map(|check| check.field.as_str()).collect();
        // The PCK chain ends in Intel's root, and the report meets its own values. The older TD was launched without
        // SEPT_VE_DISABLE.
        let expected: &[&str] = match name {
            V4 => &["collateral", "TD ATTRIBUTES SEPT_VE_DISABLE"],
            _ => &["collateral"],
        };
        assert_eq!(fields, expected, "{name}: {checks:#?}");
    }
}

fn assert_signed(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) {
    UnparsedPublicKey::new(algorithm, key)
        .verify(message, signature)
        .expect("signature");
}

fn public_key(certificate: &Certificate) -> Vec<u8> {
    let info = certificate.tbs_certificate().subject_public_key_info();
    info.subject_public_key.raw_bytes().to_vec()
}

/// Checks a quote's signatures by offsets from the specification alone; `report` and `bytes` are the TD report's.
fn assert_quote_signatures(quote: &[u8], report: usize, bytes: usize) {
    let signature = report + bytes + 4;
    let key = signature + 64;
    let qe_report = key + 64 + 6;
    let qe_signature = qe_report + 384;
    let authentication = qe_signature + 64;
    let authentication_bytes = usize::from(u16::from_le_bytes(array(quote, authentication)));
    let certification = authentication + 2 + authentication_bytes;
    assert_eq!(
        u16::from_le_bytes(array(quote, certification)),
        5,
        "PCK certificate chain"
    );
    let chain_bytes = u32::from_le_bytes(array(quote, certification + 2)) as usize;
    let chain = &quote[certification + 6..][..chain_bytes];
    let blocks = pem::parse_many(chain).expect("PEM");
    let certificates: Vec<_> = blocks
        .iter()
        .map(|block| Certificate::from_der(block.contents()).expect("X.509"))
        .collect();
    let [pck, ca, root] = certificates.as_slice() else {
        panic!("three certificates")
    };

    let mut point = vec![4];
    point.extend(&quote[key..key + 64]);
    let fixed = &ECDSA_P256_SHA256_FIXED;
    assert_signed(
        fixed,
        &point,
        &quote[..report + bytes],
        &quote[signature..key],
    );
    let bound = digest(
        &SHA256,
        &[
            &quote[key..key + 64],
            &quote[authentication + 2..certification],
        ]
        .concat(),
    );
    assert_eq!(
        &quote[qe_report + 320..qe_report + 352],
        bound.as_ref(),
        "attestation key binding"
    );
    assert_signed(
        fixed,
        &public_key(pck),
        &quote[qe_report..qe_signature],
        &quote[qe_signature..authentication],
    );
    for (subject, issuer) in [(pck, ca), (ca, root), (root, root)] {
        let signed = subject.tbs_certificate().to_der().expect("DER");
        let signature = subject.signature().raw_bytes();
        assert_signed(
            &ECDSA_P256_SHA256_ASN1,
            &public_key(issuer),
            &signed,
            signature,
        );
    }
    assert_eq!(
        hex::encode(digest(&SHA256, blocks[2].contents())),
        INTEL_ROOT
    );
}

#[test]
fn a_real_quote_of_version_4_is_signed_as_specified() {
    if let Some(quote) = real(V4) {
        assert_quote_signatures(&quote, 48, 584);
    }
}

#[test]
fn a_real_quote_of_version_5_is_signed_as_specified() {
    if let Some(quote) = real(V5) {
        let bytes = u32::from_le_bytes(array(&quote, 50)) as usize;
        assert_quote_signatures(&quote, 54, bytes);
    }
}
