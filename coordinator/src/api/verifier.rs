use std::{sync::Arc, time::SystemTime};

use contrast_attestation::{
    AppraisalReport, CheckList, Evidence, EvidenceVerifier, ReportData, SetReport,
    VerifiedEvidence, VerifyError,
};

use crate::state::{Guard, Phase};

/// Judges evidence by the manifest that is active when the evidence arrives.
#[derive(Debug)]
pub(crate) struct ActiveManifestVerifier(pub(crate) Arc<Guard>);

impl EvidenceVerifier for ActiveManifestVerifier {
    fn verify(
        &self,
        evidence: &Evidence,
        report_data: &ReportData,
        now: SystemTime,
    ) -> Result<VerifiedEvidence, VerifyError> {
        match &*self.0.snapshot() {
            Phase::Active(active) => active.verifier().verify(evidence, report_data, now),
            Phase::Empty => Err(refusal("no manifest set yet; run `contrast set`")),
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
