use std::{sync::Arc, time::SystemTime};

use contrast_attestation::{
    AppraisalReport, CheckList, Evidence, EvidenceVerifier, ReportData, SetReport,
    VerifiedEvidence, VerifyError,
};
use contrast_collateral::Collateral;

use crate::state::{Guard, Phase};

/// Judges evidence by the manifest that is active when the evidence arrives, with what the evidence lacks of its vendor's
/// documents.
#[derive(Debug)]
pub(crate) struct ActiveManifestVerifier {
    pub(crate) guard: Arc<Guard>,
    pub(crate) collateral: Arc<Collateral>,
}

impl EvidenceVerifier for ActiveManifestVerifier {
    fn verify(
        &self,
        evidence: &Evidence,
        report_data: &ReportData,
        now: SystemTime,
    ) -> Result<VerifiedEvidence, VerifyError> {
        match &*self.guard.snapshot() {
            Phase::Active(active) => contrast_collateral::verify(
                active.verifier(),
                &self.collateral,
                evidence,
                report_data,
                now,
            ),
            // Nothing is fetched for peers that nobody can admit.
            Phase::Empty => Err(refusal("no manifest set yet; run `contrast set`")),
            Phase::Held(held) => Err(refusal(&held.why.to_string())),
            Phase::Sealed(_) => Err(refusal("recovery needed; run `contrast recover`")),
        }
    }
}

fn refusal(found: &str) -> VerifyError {
    let mut checks = CheckList::default();
    checks.fail("manifest", "one that is active", found);
    let set = SetReport {
        name: "state of the Coordinator".to_owned(),
        checks,
    };
    VerifyError::Refused(AppraisalReport {
        sets: vec![set],
        ..AppraisalReport::default()
    })
}
