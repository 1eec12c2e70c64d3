use std::time::SystemTime;

use crate::{CheckList, Evidence, PolicyHash, ReportData, Root, Tee, proof::Facts, snp, tdx};

/// What is known about evidence when there is no reference value to compare it with: whether genuine hardware signed it, at a
/// TCB that its vendor certifies. That says nothing about *what* runs in the guest; only [`crate::Verifier`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticity {
    tee: Tee,
    checks: CheckList,
    facts: Option<Facts>,
}

impl Authenticity {
    /// Whether every check passed.
    pub fn holds(&self) -> bool {
        self.facts.is_some() && self.checks.passed()
    }

    /// The TEE that the evidence claims to come from.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// Every check, in the order they were made.
    pub fn checks(&self) -> &CheckList {
        &self.checks
    }

    /// The policy hash that was signed, when the signatures hold.
    pub fn policy_hash(&self) -> Option<PolicyHash> {
        self.facts.as_ref().map(|facts| facts.policy_hash)
    }

    /// The launch measurement that was signed, when the signatures hold.
    pub fn measurement(&self) -> Option<&[u8; 48]> {
        self.facts.as_ref().map(|facts| &facts.measurement)
    }
}

/// Verifies every signature from `root` down to the report or quote at the time `now`, and what certificates and collateral
/// say about it. With `report_data`, the evidence must carry exactly that.
pub fn authenticate(
    evidence: &Evidence,
    root: Root,
    report_data: Option<&ReportData>,
    now: SystemTime,
) -> Authenticity {
    let mut checks = CheckList::default();
    let facts = match evidence {
        Evidence::Snp(evidence) => snp::authenticate(evidence, root, now, &mut checks),
        Evidence::Tdx(evidence) => tdx::authenticate(evidence, root, now, &mut checks),
    };
    if let Some(expected) = report_data {
        match evidence.report_data() {
            Some(found) => checks.equal_bytes("REPORT_DATA", &expected.0, &found.0),
            None => checks.fail(
                "REPORT_DATA",
                hex::encode(expected.0),
                "no report to read it from",
            ),
        }
    }
    Authenticity {
        tee: evidence.tee(),
        checks,
        facts,
    }
}
