//! Whether the other side of a connection is a Coordinator of a manifest.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use contrast_atls::AttestedPeer;
use contrast_attestation::{
    AppraisalReport, CheckList, Evidence, EvidenceVerifier, ReportData, SetReport,
    VerifiedEvidence, VerifyError,
};
use contrast_clock::WallClock;
use contrast_collateral::Collateral;
use contrast_manifest::ManifestHash;

use tokio::{task::spawn_blocking, time::Instant};

use super::{Local, VERDICT_LIFE};
use crate::replica::peers::{Caller, EvidenceSummary, Trusted};

/// Accepts evidence of a Coordinator of one manifest.
#[derive(Debug)]
pub(super) struct CoordinatorVerifier {
    pub(super) trusted: Arc<Trusted>,
    pub(super) collateral: Arc<Collateral>,
}

impl EvidenceVerifier for CoordinatorVerifier {
    fn verify(
        &self,
        evidence: &Evidence,
        report_data: &ReportData,
        now: SystemTime,
    ) -> Result<VerifiedEvidence, VerifyError> {
        verify(&self.trusted, &self.collateral, evidence, report_data, now)
    }
}

fn verify(
    trusted: &Trusted,
    collateral: &Collateral,
    evidence: &Evidence,
    report_data: &ReportData,
    now: SystemTime,
) -> Result<VerifiedEvidence, VerifyError> {
    let verifier = &trusted.verifier;
    let verified = contrast_collateral::verify(verifier, collateral, evidence, report_data, now)?;
    if trusted.is_coordinator(&verified) {
        return Ok(verified);
    }
    let mut checks = CheckList::default();
    let found = format!("policy {} without that role", verified.policy_hash());
    checks.fail("role", "coordinator", found);
    let set = SetReport {
        name: format!("policies of manifest {}", trusted.manifest),
        checks,
    };
    Err(VerifyError::Refused(AppraisalReport {
        sets: vec![set],
        ..AppraisalReport::default()
    }))
}

/// What the other side of one connection has shown, and the latest verdict on it.
pub(super) struct Proof {
    attested: Option<Arc<AttestedPeer>>,
    collateral: Arc<Collateral>,
    clock: Arc<dyn WallClock>,
    accepted: Mutex<Option<Accepted>>,
}

#[derive(Clone, Copy)]
struct Accepted {
    manifest: ManifestHash,
    /// Of the monotonic clock: the host must not be able to stretch it.
    at: Instant,
}

impl Proof {
    pub(super) fn new(local: &Local, attested: Option<Arc<AttestedPeer>>) -> Self {
        Self {
            attested,
            collateral: Arc::clone(&local.collateral),
            clock: Arc::clone(&local.clock),
            accepted: Mutex::new(None),
        }
    }

    /// Whether there is any evidence at all.
    pub(super) fn is_attested(&self) -> bool {
        self.attested.is_some()
    }

    /// For people.
    pub(super) fn summary(&self) -> Option<EvidenceSummary> {
        let verified = &self.attested.as_ref()?.verified;
        Some(EvidenceSummary {
            tee: verified.tee().to_string(),
            reference: verified.reference().to_owned(),
            policy: verified.policy_hash(),
            insecure: verified.is_insecure(),
        })
    }

    /// [`prove_coordinator`](Caller::prove_coordinator), but off the async threads unless the verdict is known.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn prove(self: &Arc<Self>, trusted: &Arc<Trusted>) -> Result<(), String> {
        if self.is_accepted(trusted.manifest) {
            return Ok(());
        }
        let (proof, trusted) = (Arc::clone(self), Arc::clone(trusted));
        let verdict = spawn_blocking(move || proof.prove_coordinator(&trusted)).await;
        verdict.unwrap_or_else(|_| Err("internal error: the verifier failed".to_owned()))
    }

    fn is_accepted(&self, manifest: ManifestHash) -> bool {
        let accepted = *self.lock();
        accepted.is_some_and(|accepted| {
            accepted.manifest == manifest && accepted.at.elapsed() < VERDICT_LIFE
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Accepted>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller for Proof {
    fn prove_coordinator(&self, trusted: &Trusted) -> Result<(), String> {
        if self.is_accepted(trusted.manifest) {
            return Ok(());
        }
        let attested = self.attested.as_ref().ok_or_else(|| {
            "expected evidence of a Coordinator, found a connection without evidence; connect again".to_owned()
        })?;
        let at = Instant::now();
        let verified = verify(
            trusted,
            &self.collateral,
            &attested.evidence,
            &attested.report_data,
            self.clock.now(),
        );
        verified.map_err(|error| error.to_string())?;
        let manifest = trusted.manifest;
        *self.lock() = Some(Accepted { manifest, at });
        Ok(())
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("attested", &self.attested.is_some())
            .finish_non_exhaustive()
    }
}
