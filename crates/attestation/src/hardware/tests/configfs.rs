//! A stand-in for the kernel that behaves as `Documentation/ABI/testing/configfs-tsm` says, with the software TEE as firmware.

use std::{collections::HashMap, io, sync::Mutex};

use super::{POLICY, REPORT_DATA, table_of, verify};
use crate::{
    Evidence, Issuer, ReportData, Tee,
    hardware::{AnswerError, ConfigfsIssuer, ConfigfsReports, ReportError, ReportTree},
    software::fixture::software_tee,
};

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, (u64, Option<[u8; 64]>)>,
    created: usize,
}

/// The kernel, and what is wrong with it.
#[derive(Debug)]
struct Kernel {
    state: Mutex<State>,
    firmware: Box<dyn Issuer>,
    provider: &'static str,
    /// Requests during which another process writes, too.
    conflicts: usize,
    interruptions: Mutex<usize>,
    has_certificates: bool,
    /// What the firmware is told instead of what was asked for.
    forged: Option<[u8; 64]>,
}

impl Kernel {
    fn snp() -> Self {
        Self::new("sev_guest\n", Box::new(software_tee().snp_guest(POLICY)))
    }

    fn tdx() -> Self {
        Self::new("tdx_guest\n", Box::new(software_tee().tdx_guest(POLICY)))
    }

    fn new(provider: &'static str, firmware: Box<dyn Issuer>) -> Self {
        Self {
            state: Mutex::default(),
            firmware,
            provider,
            conflicts: 0,
            interruptions: Mutex::new(0),
            has_certificates: true,
            forged: None,
        }
    }

    fn blobs(&self, data: [u8; 64]) -> io::Result<(Vec<u8>, Option<Vec<u8>>)> {
        let data = ReportData(self.forged.unwrap_or(data));
        match self.firmware.issue(&data).map_err(io::Error::other)? {
            Evidence::Snp(evidence) => {
                let table = table_of(&evidence);
                Ok((evidence.report, self.has_certificates.then_some(table)))
            }
            Evidence::Tdx(evidence) => Ok((evidence.quote, None)),
            Evidence::Vtpm(_) => Err(io::Error::other("configfs-TSM has no vTPM evidence")),
        }
    }
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl ReportTree for &Kernel {
    fn create(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock().expect("lock");
        state.created += 1;
        match state.entries.insert(name.to_owned(), (0, None)) {
            None => Ok(()),
            Some(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock().expect("lock");
        state.entries.remove(name).map(drop).ok_or_else(missing)
    }

    fn write(&self, name: &str, attribute: &str, value: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().expect("lock");
        let created = state.created;
        let (generation, inblob) = state.entries.get_mut(name).ok_or_else(missing)?;
        assert_eq!(attribute, "inblob");
        *inblob = Some(value.try_into().map_err(io::Error::other)?);
        // The first entry was made by the probe.
        *generation += if created - 2 < self.conflicts { 2 } else { 1 };
        Ok(())
    }

    fn read(&self, name: &str, attribute: &str) -> io::Result<Vec<u8>> {
        let mut interruptions = self.interruptions.lock().expect("lock");
        if *interruptions > 0 {
            *interruptions -= 1;
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let state = self.state.lock().expect("lock");
        let (generation, inblob) = state.entries.get(name).ok_or_else(missing)?;
        let data = || inblob.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput));
        match attribute {
            "provider" => Ok(self.provider.into()),
            "generation" => Ok(format!("{generation}\n").into()),
            "outblob" => Ok(self.blobs(data()?)?.0),
            "auxblob" => self.blobs(data()?)?.1.ok_or_else(missing),
            _ => Err(missing()),
        }
    }
}

#[test]
fn snp_evidence_comes_with_the_hosts_certificates_and_verifies() {
    let kernel = Kernel::snp();
    let issuer = ConfigfsIssuer::probe(&kernel).expect("probe");
    assert_eq!(issuer.tee(), Tee::Snp);
    verify(&issuer.issue(&REPORT_DATA).expect("evidence"));
    assert!(
        kernel.state.lock().expect("lock").entries.is_empty(),
        "entries are left behind"
    );
}

#[test]
fn tdx_evidence_is_the_quote_alone() {
    let kernel = Kernel::tdx();
    let issuer = ConfigfsIssuer::probe(&kernel).expect("probe");
    let Evidence::Tdx(mut evidence) = issuer.issue(&REPORT_DATA).expect("evidence") else {
        panic!("TDX");
    };
    assert_eq!(evidence.collateral, None);
    let Ok(Evidence::Tdx(own)) = software_tee().tdx_guest(POLICY).issue(&REPORT_DATA) else {
        panic!("TDX");
    };
    evidence.collateral = own.collateral;
    verify(&Evidence::Tdx(evidence));
}

#[test]
fn without_certificates_of_the_host_amds_own_are_used_above_the_vcek() {
    let kernel = Kernel {
        has_certificates: false,
        ..Kernel::snp()
    };
    let issuer = ConfigfsIssuer::probe(&kernel).expect("probe");
    let Evidence::Snp(evidence) = issuer.issue(&REPORT_DATA).expect("evidence") else {
        panic!("SNP");
    };
    let chain = crate::snp::vendor_chain(crate::appraisal::SnpProduct::Milan);
    assert_eq!(
        (evidence.ask.as_slice(), evidence.ark.as_slice()),
        (chain.ask, chain.ark)
    );
    assert!(evidence.vek.is_empty());
}

#[test]
fn a_conflict_is_repeated_and_a_lasting_one_is_an_error() {
    let kernel = Kernel {
        conflicts: 2,
        ..Kernel::snp()
    };
    let issuer = ConfigfsIssuer::probe(&kernel).expect("probe");
    verify(&issuer.issue(&REPORT_DATA).expect("third attempt"));
    let kernel = Kernel {
        conflicts: usize::MAX,
        ..Kernel::snp()
    };
    let issuer = ConfigfsIssuer::probe(&kernel).expect("probe");
    let error = issuer.evidence(&REPORT_DATA).expect_err("conflict");
    assert!(
        matches!(
            error,
            ReportError::Conflict {
                expected: 1,
                found: 2
            }
        ),
        "{error}"
    );
}

#[test]
fn an_interrupted_read_is_repeated() {
    let kernel = Kernel::snp();
    let issuer = ConfigfsIssuer::probe(&kernel).expect("probe");
    *kernel.interruptions.lock().expect("lock") = 2;
    verify(&issuer.issue(&REPORT_DATA).expect("evidence"));
}

#[test]
fn a_report_that_is_bound_to_other_data_is_refused() {
    let kernel = Kernel {
        forged: Some([9; 64]),
        ..Kernel::snp()
    };
    let issuer = ConfigfsIssuer::probe(&kernel).expect("probe");
    let error = issuer.evidence(&REPORT_DATA).expect_err("forged");
    assert!(
        matches!(error, ReportError::Answer(AnswerError::ReportData)),
        "{error}"
    );
}

#[test]
fn an_unknown_provider_and_a_missing_tree_are_told_apart() {
    let kernel = Kernel {
        provider: "arm_cca_guest\n",
        ..Kernel::snp()
    };
    let error = ConfigfsIssuer::probe(&kernel).expect_err("another TEE");
    assert_eq!(
        error.to_string(),
        "expected provider `sev_guest` or `tdx_guest`, found `arm_cca_guest`"
    );
    let nowhere = tempfile::tempdir()
        .expect("directory")
        .path()
        .join("report");
    let error = ConfigfsIssuer::probe(ConfigfsReports::at(nowhere)).expect_err("no tree");
    assert!(
        matches!(&error, ReportError::Create(source) if source.kind() == io::ErrorKind::NotFound),
        "{error}"
    );
}

#[test]
fn the_real_tree_is_plain_files() {
    let directory = tempfile::tempdir().expect("directory");
    let tree = ConfigfsReports::at(directory.path());
    tree.create("a").expect("created");
    tree.write("a", "inblob", b"data").expect("written");
    assert_eq!(tree.read("a", "inblob").expect("read"), b"data");
    // On configfs attributes vanish with their entry; on a plain disk they are in the way.
    tree.remove("a").expect_err("not empty");
}
