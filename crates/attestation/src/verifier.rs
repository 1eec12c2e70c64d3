use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::SystemTime};

use crate::{
    AppraisalReport, CheckList, Demands, Evidence, PolicyHash, ReferenceValue, ReportData, Root,
    SetReport, VerifiedEvidence, snp, tdx,
};

/// Evidence was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// No reference value is for this kind of TEE.
    #[error("no reference value for {found} evidence; the manifest has: {available}")]
    NoReferenceValue {
        /// Kind of the evidence.
        found: crate::Tee,
        /// Names of the reference values there are.
        available: String,
    },
    /// Every reference value was tried and none was met.
    #[error("evidence meets no reference value\n{0}")]
    Refused(AppraisalReport),
}

/// Something that can judge evidence. Implementations never read the clock: `now` decides about validity.
pub trait EvidenceVerifier: Debug + Send + Sync {
    /// Appraises `evidence`, which must carry `report_data`, at the time `now`.
    ///
    /// # Errors
    /// When the evidence meets none of the verifier's reference values.
    fn verify(
        &self,
        evidence: &Evidence,
        report_data: &ReportData,
        now: SystemTime,
    ) -> Result<VerifiedEvidence, VerifyError>;
}

/// Compares evidence with reference values and a set of allowed policies.
#[derive(Debug, Clone)]
pub struct Verifier {
    references: Vec<ReferenceValue>,
    allowed_policies: BTreeSet<PolicyHash>,
    snp_chains: Arc<snp::ChainCache>,
    tdx_platforms: Arc<tdx::PlatformCache>,
}

impl Verifier {
    /// A verifier that accepts evidence which meets one of `references` and whose policy is among `allowed_policies`.
    pub fn new(
        references: Vec<ReferenceValue>,
        allowed_policies: impl IntoIterator<Item = PolicyHash>,
    ) -> Self {
        Self {
            references,
            allowed_policies: allowed_policies.into_iter().collect(),
            snp_chains: Arc::default(),
            tdx_platforms: Arc::default(),
        }
    }

    /// Shares the verified chains and platforms of `other`, so that a manifest change does not make every one cold again.
    #[must_use]
    pub fn with_chains_of(mut self, other: &Self) -> Self {
        self.snp_chains = Arc::clone(&other.snp_chains);
        self.tdx_platforms = Arc::clone(&other.tdx_platforms);
        self
    }

    /// The verified SNP chains, for metrics: how many there are and how many were verified from scratch.
    pub fn snp_chains(&self) -> &snp::ChainCache {
        &self.snp_chains
    }

    /// The verified TDX platforms, for metrics: how many there are and how many were verified from scratch.
    pub fn tdx_platforms(&self) -> &tdx::PlatformCache {
        &self.tdx_platforms
    }

    fn check_policy(&self, checks: &mut CheckList, field: &str, found: PolicyHash) {
        let expected = match self.allowed_policies.len() {
            1 => self
                .allowed_policies
                .iter()
                .map(ToString::to_string)
                .collect(),
            n => format!("one of the {n} policies in the manifest"),
        };
        let passed = self.allowed_policies.contains(&found);
        checks.record(field, expected, found.to_string(), passed);
    }
}

impl EvidenceVerifier for Verifier {
    fn verify(
        &self,
        evidence: &Evidence,
        report_data: &ReportData,
        now: SystemTime,
    ) -> Result<VerifiedEvidence, VerifyError> {
        let mut report = AppraisalReport::default();
        for reference in &self.references {
            let mut checks = CheckList::default();
            let facts = match (evidence, &reference.demands) {
                (Evidence::Snp(evidence), Demands::Snp(demands)) => {
                    let facts = snp::appraise(
                        evidence,
                        demands,
                        reference.root,
                        report_data,
                        now,
                        &self.snp_chains,
                        &mut checks,
                    );
                    if let Some(facts) = &facts {
                        self.check_policy(&mut checks, "HOSTDATA", facts.policy_hash);
                    }
                    facts
                }
                (Evidence::Tdx(evidence), Demands::Tdx(demands)) => {
                    let facts = tdx::appraise(
                        evidence,
                        demands,
                        reference.root,
                        report_data,
                        now,
                        &self.tdx_platforms,
                        &mut checks,
                    );
                    if let Some(facts) = &facts {
                        self.check_policy(&mut checks, "MRCONFIGID", facts.policy_hash);
                    }
                    facts
                }
                _ => continue,
            };
            match facts {
                Some(facts) if checks.passed() => {
                    let insecure = matches!(reference.root, Root::Insecure { .. });
                    return Ok(VerifiedEvidence::new(
                        facts,
                        reference.name.clone(),
                        insecure,
                    ));
                }
                _ => report.sets.push(SetReport {
                    name: reference.name.clone(),
                    checks,
                }),
            }
        }
        if report.sets.is_empty() {
            let names: Vec<&str> = self.references.iter().map(|r| r.name.as_str()).collect();
            let available = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            return Err(VerifyError::NoReferenceValue {
                found: evidence.tee(),
                available,
            });
        }
        report.closest_first();
        Err(VerifyError::Refused(report))
    }
}
