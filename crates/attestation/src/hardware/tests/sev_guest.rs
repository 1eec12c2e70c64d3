//! A stand-in for the driver of `/dev/sev-guest`, behaving as `Documentation/virt/coco/sev-guest.rst` says.

use std::{io, sync::Mutex, time::Duration};

use contrast_guest_device::{
    NO_FIRMWARE_STATUS, SNP_RESPONSE_BYTES, SevGuestError, VMM_BUSY, VMM_INVALID_LENGTH,
};

use super::{POLICY, REPORT_DATA, table_of, verify};
use crate::{
    Evidence, Issuer, ReportData,
    hardware::{AnswerError, FirmwareStatus, SnpDevice, SnpDeviceError, SnpDeviceIssuer},
    software::fixture::software_tee,
};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const ENOSPC: i32 = 28;

/// A request that the driver saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Plain { vmpl: u32 },
    Extended { vmpl: u32, room: usize },
}

const fn plain() -> Seen {
    Seen::Plain { vmpl: 0 }
}

const fn extended(room: usize) -> Seen {
    Seen::Extended { vmpl: 0, room }
}

/// The driver with host and firmware behind it, and what is wrong with them.
#[derive(Debug)]
struct Driver {
    firmware: Box<dyn Issuer>,
    seen: Mutex<Vec<Seen>>,
    /// Answers before anything else happens: firmware status, VMM status, errno.
    refusals: Mutex<Vec<(u32, u32, i32)>>,
    has_certificates: bool,
    /// Room that the host demands for its table.
    table_bytes: u32,
    /// More room is refused with EINVAL.
    room_max: usize,
    /// With what a table that is too large is refused.
    too_small: (u32, i32),
    extended: bool,
    status: u32,
    report_size: u32,
    forged: Option<[u8; 64]>,
}

impl Default for Driver {
    fn default() -> Self {
        Self {
            firmware: Box::new(software_tee().snp_guest(POLICY)),
            seen: Mutex::default(),
            refusals: Mutex::default(),
            has_certificates: true,
            table_bytes: 4096,
            room_max: usize::MAX,
            too_small: (VMM_INVALID_LENGTH, EIO),
            extended: true,
            status: 0,
            report_size: 1184,
            forged: None,
        }
    }
}

fn refusal(firmware: u32, vmm: u32, errno: i32, table_bytes: usize) -> SevGuestError {
    SevGuestError {
        firmware,
        vmm,
        table_bytes: u32::try_from(table_bytes).expect("small"),
        source: io::Error::from_raw_os_error(errno),
    }
}

impl Driver {
    fn see(&self, seen: Seen, room: usize) -> Result<(), SevGuestError> {
        self.seen.lock().expect("lock").push(seen);
        match self.refusals.lock().expect("lock").pop() {
            Some((firmware, vmm, errno)) => Err(refusal(firmware, vmm, errno, room)),
            None => Ok(()),
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("lock").clone()
    }

    fn refusing(refusals: &[(u32, u32, i32)]) -> Self {
        Self {
            refusals: Mutex::new(refusals.to_vec()),
            ..Self::default()
        }
    }

    fn response(&self, report_data: &ReportData) -> (Box<[u8; SNP_RESPONSE_BYTES]>, Vec<u8>) {
        let report_data = self.forged.map_or(*report_data, ReportData);
        let Ok(Evidence::Snp(evidence)) = self.firmware.issue(&report_data) else {
            panic!("SNP");
        };
        let mut response = Box::new([0; SNP_RESPONSE_BYTES]);
        response[..4].copy_from_slice(&self.status.to_le_bytes());
        response[4..8].copy_from_slice(&self.report_size.to_le_bytes());
        response[32..32 + 1184].copy_from_slice(&evidence.report);
        (response, table_of(&evidence))
    }
}

impl SnpDevice for &Driver {
    fn report(
        &self,
        report_data: &ReportData,
        vmpl: u32,
    ) -> Result<Box<[u8; SNP_RESPONSE_BYTES]>, SevGuestError> {
        self.see(Seen::Plain { vmpl }, 0)?;
        Ok(self.response(report_data).0)
    }

    fn extended_report(
        &self,
        report_data: &ReportData,
        vmpl: u32,
        table: &mut [u8],
    ) -> Result<Box<[u8; SNP_RESPONSE_BYTES]>, SevGuestError> {
        let room = table.len();
        self.see(Seen::Extended { vmpl, room }, room)?;
        assert!(room.is_multiple_of(4096), "{room} are no whole pages");
        if !self.extended || room > self.room_max {
            return Err(refusal(NO_FIRMWARE_STATUS, 0, EINVAL, room));
        }
        let needed = usize::try_from(self.table_bytes).expect("small");
        if room < needed {
            let (vmm, errno) = self.too_small;
            return Err(refusal(0, vmm, errno, needed));
        }
        let (response, certificates) = self.response(report_data);
        if self.has_certificates {
            table[..certificates.len()].copy_from_slice(&certificates);
        }
        Ok(response)
    }
}

fn issuer(driver: &Driver) -> SnpDeviceIssuer<&Driver> {
    SnpDeviceIssuer::new(driver, 0).with_pause(Duration::ZERO)
}

fn vek_of(evidence: &Evidence) -> &[u8] {
    match evidence {
        Evidence::Snp(evidence) => &evidence.vek,
        _ => panic!("SNP"),
    }
}

fn evidence_alone(driver: &Driver) {
    let evidence = issuer(driver).evidence(&REPORT_DATA).expect("evidence");
    assert!(vek_of(&evidence).is_empty(), "there was no table");
    assert_eq!(evidence.report_data(), Some(REPORT_DATA));
}

#[test]
fn evidence_comes_with_the_hosts_certificates_and_verifies() {
    let driver = Driver::default();
    verify(&issuer(&driver).issue(&REPORT_DATA).expect("evidence"));
    assert_eq!(driver.seen(), [extended(16384)]);
}

#[test]
fn a_host_without_a_table_is_no_error() {
    let driver = Driver {
        has_certificates: false,
        ..Driver::default()
    };
    evidence_alone(&driver);
    assert_eq!(driver.seen(), [extended(16384)]);
}

#[test]
fn more_room_is_offered_when_the_host_asks_for_it_whichever_way_the_kernel_says_so() {
    for too_small in [(VMM_INVALID_LENGTH, EIO), (0, ENOSPC)] {
        let driver = Driver {
            table_bytes: 16385,
            too_small,
            ..Driver::default()
        };
        verify(&issuer(&driver).issue(&REPORT_DATA).expect("evidence"));
        assert_eq!(driver.seen(), [extended(16384), extended(20480)]);
    }
}

#[test]
fn a_host_that_asks_for_more_and_more_room_or_a_kernel_that_has_none_gets_a_report_alone() {
    let greedy = Driver {
        table_bytes: 64 * 1024 + 1,
        ..Driver::default()
    };
    evidence_alone(&greedy);
    assert_eq!(greedy.seen(), [extended(16384), plain()]);

    let full = Driver {
        table_bytes: 20480,
        room_max: 16384,
        ..Driver::default()
    };
    evidence_alone(&full);
    assert_eq!(full.seen(), [extended(16384), extended(20480), plain()]);

    // As much as there was is not more.
    let contradictory = Driver::refusing(&[(0, VMM_INVALID_LENGTH, EIO)]);
    evidence_alone(&contradictory);
    assert_eq!(contradictory.seen(), [extended(16384), plain()]);
}

#[test]
fn a_host_that_knows_no_extended_request_is_asked_for_the_report_alone() {
    let driver = Driver {
        extended: false,
        ..Driver::default()
    };
    evidence_alone(&driver);
    assert_eq!(driver.seen(), [extended(16384), plain()]);
}

#[test]
fn interruptions_and_throttling_are_waited_for_but_not_for_ever() {
    for passing in [
        (NO_FIRMWARE_STATUS, 0, EINTR),
        (NO_FIRMWARE_STATUS, 0, EAGAIN),
        (0, VMM_BUSY, EIO),
    ] {
        let driver = Driver::refusing(&[passing; 4]);
        verify(&issuer(&driver).issue(&REPORT_DATA).expect("fifth attempt"));
        assert_eq!(driver.seen(), [extended(16384); 5]);

        let driver = Driver::refusing(&[passing; 100]);
        issuer(&driver).issue(&REPORT_DATA).expect_err("for ever");
        assert_eq!(driver.seen(), [[extended(16384); 5], [plain(); 5]].concat());
    }
}

#[test]
fn a_pause_lies_between_two_attempts() {
    let driver = Driver::refusing(&[(0, VMM_BUSY, EIO); 2]);
    let start = std::time::Instant::now();
    let issuer = SnpDeviceIssuer::new(&driver, 0).with_pause(Duration::from_millis(30));
    issuer.issue(&REPORT_DATA).expect("evidence");
    assert!(start.elapsed() >= Duration::from_millis(60));
}

#[test]
fn a_refusal_names_the_request_both_status_codes_and_what_to_do() {
    let refused = |firmware, vmm, errno| {
        let driver = Driver::refusing(&[(firmware, vmm, errno); 10]);
        let error = issuer(&driver).issue(&REPORT_DATA).expect_err("refused");
        error.to_string()
    };
    assert_eq!(
        refused(0x15, 7, EIO),
        "the SEV-SNP firmware (/dev/sev-guest) could not issue evidence: SNP_GET_REPORT was refused with firmware status 0x15 \
         (UNSUPPORTED), VMM status 0x7 (unknown); see the table of status codes in AMD publication 56860, and the kernel's log of \
         this guest: Input/output error (os error 5)"
    );
    let throttled = refused(0, VMM_BUSY, EIO);
    assert!(
        throttled.contains("0x2 (BUSY); the host throttles reports, ask later"),
        "{throttled}"
    );
    let keyless = refused(NO_FIRMWARE_STATUS, 0, ENOTTY);
    assert!(
        keyless.contains("0xff (none, the request did not reach the firmware)")
            && keyless.contains("until the guest restarts"),
        "{keyless}"
    );
}

#[test]
fn a_response_without_a_report_is_refused_with_the_firmwares_status() {
    let driver = Driver {
        status: 0x16,
        ..Driver::default()
    };
    let error = issuer(&driver).evidence(&REPORT_DATA).expect_err("status");
    assert!(
        matches!(
            error,
            SnpDeviceError::Status {
                status: FirmwareStatus::INVALID_PARAM,
                vmpl: 0
            }
        ),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("found 0x16 (INVALID_PARAM); a report for VMPL 0"),
        "{text}"
    );
    for report_size in [0, 1183, 1185, u32::MAX] {
        let driver = Driver {
            report_size,
            ..Driver::default()
        };
        let error = issuer(&driver).evidence(&REPORT_DATA).expect_err("size");
        assert!(
            matches!(error, SnpDeviceError::ReportSize { found } if found == report_size),
            "{error}"
        );
    }
}

#[test]
fn the_privilege_level_is_the_callers_in_both_requests() {
    let driver = Driver {
        extended: false,
        ..Driver::default()
    };
    SnpDeviceIssuer::new(&driver, 2)
        .issue(&REPORT_DATA)
        .expect("evidence");
    assert_eq!(
        driver.seen(),
        [
            Seen::Extended {
                vmpl: 2,
                room: 16384
            },
            Seen::Plain { vmpl: 2 }
        ]
    );
}

#[test]
fn a_report_that_is_bound_to_other_data_is_refused() {
    let driver = Driver {
        forged: Some([9; 64]),
        ..Driver::default()
    };
    let error = issuer(&driver).evidence(&REPORT_DATA).expect_err("forged");
    assert!(
        matches!(error, SnpDeviceError::Answer(AnswerError::ReportData)),
        "{error}"
    );
}
