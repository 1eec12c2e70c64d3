//! Reading what strangers send: a report without a single allocation, and malformed input without delay.

#![expect(
    clippy::expect_used,
    reason = "a setting that cannot be made is the end of a benchmark"
)]

use std::time::{Duration, SystemTime};

use contrast_attestation::{
    Evidence, Issuer as _, PolicyHash, ReportData, snp::Report, software::SoftwareTee,
    tdx::QuoteDetails,
};
use divan::{AllocProfiler, Bencher, black_box};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

fn report() -> Vec<u8> {
    let tee = SoftwareTee::generate(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .expect("software TEE");
    match tee
        .snp_guest(PolicyHash([1; 32]))
        .issue(&ReportData([2; 64]))
        .expect("evidence")
    {
        Evidence::Snp(evidence) => evidence.report,
        other => unreachable!("an SNP guest issued {other:?}"),
    }
}

#[divan::bench]
fn snp_report(bencher: Bencher<'_, '_>) {
    let report = report();
    bencher.bench_local(|| Report::parse(black_box(&report)).expect("parses"));
}

#[divan::bench]
fn snp_report_of_an_unknown_version(bencher: Bencher<'_, '_>) {
    let mut report = report();
    report[0] = 99;
    bencher.bench_local(|| Report::parse(black_box(&report)).expect_err("refused"));
}

#[divan::bench]
fn truncated_tdx_quote(bencher: Bencher<'_, '_>) {
    let mut quote = vec![0; 700];
    quote[0] = 4;
    quote[4] = 0x81;
    bencher.bench_local(|| QuoteDetails::parse(black_box(&quote)).expect_err("refused"));
}

#[divan::bench]
fn evidence_that_is_noise(bencher: Bencher<'_, '_>) {
    let noise = [0xff; 4096];
    bencher.bench_local(|| Evidence::decode(black_box(&noise)).expect_err("refused"));
}
