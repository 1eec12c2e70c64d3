//! `contrast collateral`: fetched where there is a connection, used where there is none.

use std::process::Command;

use contrast_attestation::{
    snp::{Endorsement, Report},
    tdx::INTEL_TCB_SIGNING_CHAIN_2018,
};
use contrast_testbed::{Page, Vendor, evidence};

use crate::{
    attestation::{outcome, real},
    context::Context,
};

const AT: &str = "2023-06-20T00:00:00Z";

fn page(body: Vec<u8>) -> Page {
    Page {
        body,
        ..Page::default()
    }
}

/// A KDS and a PCS that know the machines of the collected evidence.
fn vendors() -> Option<Vendor> {
    let vcek = evidence("snp/vcek.testcer")?;
    let report = Report::parse(&evidence("snp/attestation.bin")?).expect("a report");
    let tcb = Endorsement::read(&vcek).expect("a VCEK").tcb;
    let chain = INTEL_TCB_SIGNING_CHAIN_2018.replace('\n', "%0A");
    let signed = |name, body| Page {
        headers: vec![(name, chain.replace(' ', "%20"))],
        ..page(body)
    };
    Some(Vendor::serving([
        (
            format!(
                "/vcek/v1/Milan/{}?blSPL={}&teeSPL={}&snpSPL={}&ucodeSPL={}",
                hex::encode(report.chip_id),
                tcb.bootloader,
                tcb.tee,
                tcb.snp,
                tcb.microcode
            ),
            page(vcek),
        ),
        (
            "/tdx/certification/v4/tcb?fmspc=50806f000000&update=standard".to_owned(),
            signed(
                "TCB-Info-Issuer-Chain",
                evidence("tdx/sample_tcbInfo_response")?,
            ),
        ),
        (
            "/tdx/certification/v4/qe/identity?update=standard".to_owned(),
            signed(
                "SGX-Enclave-Identity-Issuer-Chain",
                evidence("tdx/sample_qeIdentity_response")?,
            ),
        ),
        (
            "/sgx/certification/v4/pckcrl?ca=platform&encoding=der".to_owned(),
            page(evidence("tdx/pckcrl")?),
        ),
        (
            "/sgx/certification/v4/rootcacrl".to_owned(),
            page(evidence("tdx/rootcrl.der")?),
        ),
    ]))
}

#[test]
fn what_is_fetched_for_evidence_verifies_it_offline() {
    let (Some(vendors), Some(report), Some(quote)) = (
        vendors(),
        real("snp/attestation.bin"),
        real("tdx/tdx_prod_quote_SPR_E4.dat"),
    ) else {
        return;
    };
    let context = Context::new();
    let fetch = ["collateral", "fetch", "-o", "bundle", "--collateral-proxy"];
    let fetch = [&fetch[..], &[&vendors.base, &report, &quote]].concat();
    let (code, stdout, stderr) = outcome(&context, &fetch);
    // This KDS has no CRL, and what is there of Intel's ended in 2023.
    assert_eq!(code, 4, "{stdout}{stderr}");
    assert!(stdout.contains("VCEK of the Milan chip"), "{stdout}");
    assert!(
        stdout.contains("TCB info of FMSPC 50806f000000"),
        "{stdout}"
    );

    let verify = [
        "attestation",
        "verify",
        "--collateral",
        "bundle",
        "--at",
        AT,
    ];
    let (code, stdout, stderr) = outcome(
        &context,
        &[&verify[..], &["--snp-report", &report]].concat(),
    );
    assert_eq!(code, 0, "{stdout}{stderr}");
    let (code, stdout, _) = outcome(&context, &[&verify[..], &["--tdx-quote", &quote]].concat());
    assert_eq!(code, 3);
    let failed = stdout.lines().filter(|line| line.starts_with("FAIL"));
    // What it says of itself, and nothing about signatures, certificates or collateral.
    let expected = ["FAIL  TCB level", "FAIL  TD ATTRIBUTES SEPT_VE_DISABLE"];
    assert_eq!(failed.collect::<Vec<_>>(), expected);

    let show = ["collateral", "show", "bundle", "--at", AT];
    let (code, stdout, _) = outcome(&context, &show);
    assert_eq!(code, 0);
    assert!(
        stdout.lines().count() == 5 && !stdout.contains("INVALID"),
        "{stdout}"
    );
    let (_, json, _) = outcome(
        &context,
        &["collateral", "show", "bundle", "--format", "json"],
    );
    assert!(
        json.contains(r#""file":"intel-qe-identity.json""#.replace(':', ": ").as_str()),
        "{json}"
    );
}

#[test]
fn a_report_needs_its_certificate_from_somewhere() {
    let Some(report) = real("snp/attestation.bin") else {
        return;
    };
    let context = Context::new();
    let (code, _, stderr) = outcome(
        &context,
        &["attestation", "verify", "--snp-report", &report],
    );
    assert_eq!(code, 2);
    assert!(
        stderr.contains("--vek, or a VCEK in --collateral"),
        "{stderr}"
    );
    let Some(other) = real("tdx/pckcrl") else {
        return;
    };
    let verify = [
        "attestation",
        "verify",
        "--snp-report",
        &report,
        "--collateral",
        &other,
    ];
    let (code, _, stderr) = outcome(&context, &verify);
    assert_eq!(code, 3, "{stderr}");
    assert!(
        stderr.contains("is not in the collateral that was given"),
        "{stderr}"
    );
}

#[test]
fn nothing_to_fetch_and_no_evidence_are_usage_errors() {
    let context = Context::new();
    context.file("noise", "not evidence");
    insta::assert_snapshot!(context.run(&["collateral", "fetch", "-o", "bundle"]));
    insta::assert_snapshot!(context.run(&["collateral", "fetch", "-o", "bundle", "noise"]));
    insta::assert_snapshot!(context.run(&["collateral", "show", "nowhere"]));
    insta::assert_snapshot!(context.run(&[
        "collateral",
        "fetch",
        "-o",
        "bundle",
        "--product",
        "milan",
        "--collateral-proxy",
        "kds.example"
    ]));
}

#[test]
fn collateral_of_another_platform_is_named() {
    let (Some(quote), Some(other)) = (
        real("tdx/tdx_prod_quote_SPR_E4.dat"),
        real("tdx/sample_tcbinfo_response_v5"),
    ) else {
        return;
    };
    let mut arguments = vec!["attestation", "verify", "--tdx-quote", &quote, "--at", AT];
    let rest = [
        "tdx/sample_qeIdentity_response",
        "tdx/pckcrl",
        "tdx/rootcrl.der",
    ];
    let rest: Vec<String> = rest.into_iter().filter_map(real).collect();
    for file in rest.iter().chain([&other]) {
        arguments.extend(["--collateral", file]);
    }
    let (code, stdout, _) = outcome(&Context::new(), &arguments);
    assert_eq!(code, 3);
    let check = "FAIL  FMSPC of the TCB info\n        expected: 50806f000000\n        found:    90c06f000000";
    assert!(stdout.contains(check), "{stdout}");
}

#[test]
fn the_proxy_of_the_environment_is_used() {
    let proxy = Vendor::serving([]);
    let context = Context::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_contrast"));
    let fetch = [
        "collateral",
        "fetch",
        "-o",
        "bundle",
        "--fmspc",
        "50806f000000",
    ];
    let output = command
        .args(fetch)
        .args(["--collateral-proxy", "http://pcs.invalid", "--timeout", "1"])
        .current_dir(context.path(""))
        .env_clear()
        .env("HTTP_PROXY", &proxy.base)
        .output()
        .expect("contrast starts");
    assert_eq!(output.status.code(), Some(4));
    let requests = proxy.requests();
    assert!(
        requests.iter().any(|uri| uri.contains("pcs.invalid")),
        "{requests:?}"
    );
}
