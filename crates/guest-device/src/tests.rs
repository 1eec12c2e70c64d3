#![cfg(target_os = "linux")]

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs::{self, File},
    io,
    mem::{align_of, offset_of, size_of},
    path::Path,
    process::Command,
    ptr,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    abi::{
        SnpExtendedReportRequest, SnpGuestRequest, SnpReportRequest, SnpReportResponse,
        TdxReportRequest,
    },
    device::number::{SNP_GET_EXT_REPORT, SNP_GET_REPORT, TDX_CMD_GET_REPORT0},
    sev_guest::make_extended,
};

/// Every ioctl on it is refused with ENOTTY.
const NO_DEVICE: &str = "/dev/null";

/// C expression and what it is here.
type Facts = Vec<(String, u64)>;

fn layout(name: &str, size: usize, align: usize, fields: &[(&str, usize)]) -> Facts {
    let structure = [
        (format!("sizeof(struct {name})"), size as u64),
        (format!("_Alignof(struct {name})"), align as u64),
    ];
    let fields = fields.iter().map(|(field, offset)| {
        let expression = format!("offsetof(struct {name}, {field})");
        (expression, *offset as u64)
    });
    structure.into_iter().chain(fields).collect()
}

macro_rules! facts {
    ($rust:ty, $c:literal, $($field:ident = $c_field:literal),*) => {
        layout($c, size_of::<$rust>(), align_of::<$rust>(), &[$(($c_field, offset_of!($rust, $field))),*])
    };
}

/// What the C compiler makes of the expressions; none when compiler or header are missing.
fn evaluate(header: &str, facts: &Facts) -> Option<Vec<u64>> {
    let directory = tempfile::tempdir().expect("directory");
    let (source, program) = (directory.path().join("a.c"), directory.path().join("a"));
    let mut text = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n#include <linux/types.h>\n\
         #if !__has_include({header})\n#error header is missing\n#endif\n#include {header}\nint main(void) {{\n"
    );
    for (expression, _) in facts {
        writeln!(
            text,
            "printf(\"%llu\\n\", (unsigned long long)({expression}));"
        )
        .expect("text");
    }
    fs::write(&source, text + "return 0; }\n").expect("written");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| OsString::from("cc"));
    let compiled = match Command::new(compiler)
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .output()
    {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => panic!("cannot start the C compiler: {error}"),
    };
    let complaints = String::from_utf8_lossy(&compiled.stderr);
    if complaints.contains("header is missing") {
        return None;
    }
    assert!(compiled.status.success(), "{complaints}");
    let output = Command::new(&program).output().expect("runs");
    let lines = String::from_utf8(output.stdout).expect("text");
    Some(
        lines
            .lines()
            .map(|line| line.parse().expect("number"))
            .collect(),
    )
}

fn agrees_with(header: &str, facts: Facts) {
    let Some(values) = evaluate(header, &facts) else {
        eprintln!("skipped: no C compiler, or no {header} (set CPATH to the kernel's headers)");
        return;
    };
    assert_eq!(values.len(), facts.len());
    for ((expression, ours), theirs) in facts.into_iter().zip(values) {
        assert_eq!(ours, theirs, "{expression}");
    }
}

#[test]
fn sev_guest_structures_and_numbers_are_those_of_the_kernels_header() {
    let mut facts = facts!(
        SnpReportRequest,
        "snp_report_req",
        user_data = "user_data",
        vmpl = "vmpl",
        reserved = "rsvd"
    );
    facts.extend(facts!(
        SnpExtendedReportRequest,
        "snp_ext_report_req",
        data = "data",
        certs_address = "certs_address",
        certs_len = "certs_len"
    ));
    facts.extend(facts!(SnpReportResponse, "snp_report_resp", data = "data"));
    facts.extend(facts!(
        SnpGuestRequest,
        "snp_guest_request_ioctl",
        msg_version = "msg_version",
        req_data = "req_data",
        resp_data = "resp_data",
        fw_error = "fw_error",
        vmm_error = "vmm_error"
    ));
    facts.push(("SNP_GET_REPORT".into(), SNP_GET_REPORT.into()));
    facts.push(("SNP_GET_EXT_REPORT".into(), SNP_GET_EXT_REPORT.into()));
    facts.push((
        "SNP_GUEST_VMM_ERR_INVALID_LEN".into(),
        VMM_INVALID_LENGTH.into(),
    ));
    facts.push(("SNP_GUEST_VMM_ERR_BUSY".into(), VMM_BUSY.into()));
    agrees_with("<linux/sev-guest.h>", facts);
}

#[test]
fn tdx_guest_structures_and_numbers_are_those_of_the_kernels_header() {
    let mut facts = facts!(
        TdxReportRequest,
        "tdx_report_req",
        reportdata = "reportdata",
        tdreport = "tdreport"
    );
    facts.push(("TDX_CMD_GET_REPORT0".into(), TDX_CMD_GET_REPORT0.into()));
    facts.push(("TDX_REPORT_LEN".into(), TD_REPORT_BYTES as u64));
    agrees_with("<linux/tdx-guest.h>", facts);
}

/// Direction 3 (read and write), size of the structure, group, number; see `Documentation/userspace-api/ioctl/ioctl-decoding.rst`.
#[test]
fn numbers_are_what_the_iowr_macro_gives_on_the_machines_that_have_a_tee() {
    assert_eq!(SNP_GET_REPORT, 0xc020_5300);
    assert_eq!(SNP_GET_EXT_REPORT, 0xc020_5302);
    assert_eq!(TDX_CMD_GET_REPORT0, 0xc440_5401);
}

#[test]
fn only_a_character_device_is_opened() {
    let file = tempfile::NamedTempFile::new().expect("file");
    for error in [
        SevGuest::open(file.path()).expect_err("regular file"),
        TdxGuest::open(file.path()).expect_err("regular file"),
    ] {
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    let missing = SevGuest::open(Path::new("/nonexistent/sev-guest")).expect_err("missing");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_device_that_does_not_know_the_request_is_an_error_and_nothing_else() {
    const ENOTTY: Option<i32> = Some(25);
    let device = SevGuest::open(Path::new(NO_DEVICE)).expect("opens");
    let plain = device.report(&[1; 64], 0).expect_err("no such ioctl");
    let mut table = [0; 8192];
    let extended = device
        .extended_report(&[1; 64], 0, &mut table)
        .expect_err("no such ioctl");
    for (error, table_bytes) in [(plain, 0), (extended, 8192)] {
        assert_eq!(error.source.raw_os_error(), ENOTTY);
        assert_eq!(
            (error.firmware, error.vmm, error.table_bytes),
            (NO_FIRMWARE_STATUS, 0, table_bytes)
        );
    }
    let device = TdxGuest::open(Path::new(NO_DEVICE)).expect("opens");
    let error = device.report(&[1; 64]).expect_err("no such ioctl");
    assert_eq!(error.raw_os_error(), ENOTTY);
}

/// Does with the addresses what the driver does, and reports a table that is too small when the VMPL is 3.
///
/// # Safety
///
/// As for [`crate::device::update`].
#[expect(unsafe_code, reason = "plays the kernel")]
unsafe fn driver(_: &File, argument: &mut SnpGuestRequest) -> io::Result<()> {
    assert_eq!(
        (argument.msg_version, argument.fw_error),
        (1, NO_FIRMWARE_STATUS)
    );
    let request =
        ptr::with_exposed_provenance_mut::<SnpExtendedReportRequest>(argument.req_data as usize);
    // SAFETY: the caller passed the address of a live request that nothing else uses.
    let request = unsafe { &mut *request };
    if request.data.vmpl == 3 {
        request.certs_len = 20480;
        argument.vmm_error = VMM_INVALID_LENGTH;
        return Err(io::Error::from_raw_os_error(5));
    }
    let table = ptr::with_exposed_provenance_mut::<u8>(request.certs_address as usize);
    // SAFETY: the caller passed the address of a live buffer of that size.
    unsafe { table.write_bytes(0x77, request.certs_len as usize) };
    let response =
        ptr::with_exposed_provenance_mut::<SnpReportResponse>(argument.resp_data as usize);
    // SAFETY: the caller passed the address of a live response that nothing else uses.
    let response = unsafe { &mut *response };
    response.data[..64].copy_from_slice(&request.data.user_data);
    response.data[SNP_RESPONSE_BYTES - 1] = 0x99;
    argument.fw_error = 0;
    Ok(())
}

#[test]
#[expect(unsafe_code, reason = "plays the kernel")]
fn an_extended_request_leads_the_driver_to_request_response_and_table() {
    let file = File::open(NO_DEVICE).expect("opens");
    let mut request = SnpExtendedReportRequest {
        data: SnpReportRequest {
            user_data: [7; 64],
            vmpl: 2,
            reserved: [0; 28],
        },
        certs_address: 0,
        certs_len: 0,
    };
    let mut response = SnpReportResponse {
        data: [0; SNP_RESPONSE_BYTES],
    };
    let mut table = vec![0; 4096];
    // SAFETY: `driver` uses the addresses as the kernel does.
    unsafe { make_extended(driver, &file, &mut request, &mut table, &mut response) }
        .expect("answers");
    assert_eq!(response.data[..64], [7; 64]);
    assert_eq!(response.data[SNP_RESPONSE_BYTES - 1], 0x99);
    assert_eq!(table, vec![0x77; 4096]);

    request.data.vmpl = 3;
    // SAFETY: as above.
    let refused = unsafe { make_extended(driver, &file, &mut request, &mut table, &mut response) };
    let (status, error) = refused.expect_err("too small");
    assert_eq!(status, (NO_FIRMWARE_STATUS, VMM_INVALID_LENGTH));
    assert_eq!(error.raw_os_error(), Some(5));
    assert_eq!(request.certs_len, 20480);
}

/// Without a vsock device the socket cannot be made; with one nobody listens on this port. Either way it must not take longer than
/// it may.
#[test]
fn connecting_to_nobody_is_an_error_in_time() {
    let start = Instant::now();
    connect_vsock(VSOCK_HOST, 0xfff0_0123, Duration::from_millis(300)).expect_err("nobody");
    assert!(start.elapsed() < Duration::from_secs(5));
}
