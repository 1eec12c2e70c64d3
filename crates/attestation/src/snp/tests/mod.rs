//! The verifier from outside: software evidence with one thing wrong at a time, and AMD's real evidence.

#![cfg(feature = "software-tee")]

mod chains;
mod demands;
mod vcpus;
mod vendor;

use std::time::{Duration, SystemTime};

use crate::{
    Demands, Evidence, EvidenceVerifier, Issuer, PolicyHash, ReferenceValue, ReportData, Root,
    SnpEvidence, Tee, Verifier, VerifyError,
    appraisal::SnpDemands,
    software::{
        SnpGuest,
        fixture::{now, software_tee},
    },
};

const POLICY: PolicyHash = PolicyHash([0xA5; 32]);
const REPORT_DATA: ReportData = ReportData([0x5A; 64]);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn root() -> Root {
    Root::Insecure {
        sha256: software_tee().root_sha256(Tee::Snp),
    }
}

fn demands() -> SnpDemands {
    match software_tee().reference_value(Tee::Snp).demands {
        Demands::Snp(demands) => demands,
        Demands::Tdx(_) => unreachable!("asked for SNP"),
    }
}

fn guest() -> SnpGuest {
    software_tee().snp_guest(POLICY)
}

fn guest_with(change: impl FnOnce(&mut SnpGuest)) -> SnpGuest {
    let mut guest = guest();
    change(&mut guest);
    guest
}

fn evidence(guest: &SnpGuest) -> SnpEvidence {
    match guest.issue(&REPORT_DATA).expect("issues") {
        Evidence::Snp(evidence) => evidence,
        other => unreachable!("SNP guest issued {other:?}"),
    }
}

fn verifier(demands: SnpDemands) -> Verifier {
    let name = "snp[0]".to_owned();
    let reference = ReferenceValue {
        vtpm: None,
        name,
        root: root(),
        demands: Demands::Snp(demands),
    };
    Verifier::new(vec![reference], [POLICY])
}

/// The fields of all failed checks when `guest` meets `demands` at `time`.
fn failures_at(guest: &SnpGuest, demands: SnpDemands, time: SystemTime) -> Vec<String> {
    match verifier(demands).verify(&Evidence::Snp(evidence(guest)), &REPORT_DATA, time) {
        Ok(_) => Vec::new(),
        Err(VerifyError::Refused(report)) => {
            let checks = report.sets.iter().flat_map(|set| set.checks.checks());
            checks
                .filter(|check| !check.passed)
                .map(|check| check.field.clone())
                .collect()
        }
        Err(other) => unreachable!("{other}"),
    }
}

fn failures(guest: &SnpGuest, demands: SnpDemands) -> Vec<String> {
    failures_at(guest, demands, now())
}
