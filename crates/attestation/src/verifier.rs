use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::SystemTime};

use crate::{
    AppraisalReport, CheckList, Demands, Evidence, PolicyHash, ReferenceValue, ReportData, Root,
    SetReport, VerifiedEvidence,
    proof::Facts,
    snp, tdx,
    vcpus::{Reference, VcpusOfPolicies},
    vtpm::{self, HclReport},
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
    vcpus: VcpusOfPolicies,
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
            vcpus: VcpusOfPolicies::new(),
            snp_chains: Arc::default(),
            tdx_platforms: Arc::default(),
        }
    }

    /// Says how many vCPUs the VMs of a policy have. Evidence with that policy must show the measurement for exactly this number
    /// where a reference value has one for each. The host chooses the number of vCPUs, but not the policy of which evidence speaks.
    #[must_use]
    pub fn with_vcpus(mut self, vcpus: impl IntoIterator<Item = (PolicyHash, u32)>) -> Self {
        self.vcpus.extend(vcpus);
        self
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

    /// Like [`EvidenceVerifier::verify`], for evidence in a file: there is no connection that it must be bound to, and any report
    /// data will do. **Never for a peer**: evidence of a genuine guest can be replayed by anybody who has seen it.
    ///
    /// # Errors
    /// When the evidence meets none of the verifier's reference values.
    pub fn verify_unbound(
        &self,
        evidence: &Evidence,
        now: SystemTime,
    ) -> Result<VerifiedEvidence, VerifyError> {
        self.judge(evidence, None, now)
    }

    fn judge(
        &self,
        evidence: &Evidence,
        report_data: Option<&ReportData>,
        now: SystemTime,
    ) -> Result<VerifiedEvidence, VerifyError> {
        let mut report = AppraisalReport::default();
        for reference in &self.references {
            if reference.demands.tee() != evidence.tee() {
                continue;
            }
            let mut checks = CheckList::default();
            let facts = self.appraise(evidence, reference, report_data, now, &mut checks);
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

    /// Compares evidence with one reference value. The facts mean nothing unless every check passed.
    fn appraise(
        &self,
        evidence: &Evidence,
        reference: &ReferenceValue,
        report_data: Option<&ReportData>,
        now: SystemTime,
        checks: &mut CheckList,
    ) -> Option<Facts> {
        const FIELD: &str = "vTPM";
        let Evidence::Vtpm(vtpm) = evidence else {
            if reference.vtpm.is_some() {
                let expected = "evidence through a vTPM, because the reference value has `VTPM`";
                let found = "evidence of the hardware itself; for such guests, add a reference value without `VTPM`";
                checks.fail(FIELD, expected, found);
            }
            // Evidence without readable report data fails anyway.
            let report_data = report_data.copied().or_else(|| evidence.report_data());
            let report_data = report_data.unwrap_or(ReportData([0; 64]));
            let facts = self.hardware(evidence, reference, &report_data, now, checks)?;
            let field = match reference.demands {
                Demands::Snp(_) => "HOSTDATA",
                Demands::Tdx(_) => "MRCONFIGID",
            };
            self.check_policy(checks, field, facts.policy_hash);
            return Some(facts);
        };
        match &reference.vtpm {
            Some(_) => checks.record(FIELD, "evidence through a vTPM", "such evidence", true),
            None => {
                let expected =
                    "evidence of the hardware itself, because the reference value has no `VTPM`";
                let found = r#"evidence through a vTPM; if this is a paravisor's measurement, add "VTPM": {"PCRs": {"4": "<64 hex digits>"}} to the reference value"#;
                checks.fail(FIELD, expected, found);
            }
        }
        let hcl = HclReport::read(&vtpm.hcl_report, checks)?;
        checks.equal("HCL report type", &evidence.tee(), &hcl.tee);
        let hardware = vtpm.hardware.evidence(&hcl);
        let bound = hcl.expected_report_data();
        let facts = self.hardware(&hardware, reference, &bound, now, checks);
        let (demands, policies) = (reference.vtpm.as_ref(), &self.allowed_policies);
        let policy = vtpm::appraise(vtpm, &hcl, demands, policies, report_data, checks);
        // HOSTDATA and MRCONFIGID are not the guest's here, so that they must not become its policy.
        Some(Facts {
            policy_hash: policy?,
            ..facts?
        })
    }

    /// Compares the hardware's own evidence with the demands for its TEE.
    fn hardware(
        &self,
        evidence: &Evidence,
        reference: &ReferenceValue,
        report_data: &ReportData,
        now: SystemTime,
        checks: &mut CheckList,
    ) -> Option<Facts> {
        match (evidence, &reference.demands) {
            (Evidence::Snp(evidence), Demands::Snp(demands)) => snp::appraise(
                evidence,
                &self.reference(reference, demands),
                report_data,
                now,
                &self.snp_chains,
                checks,
            ),
            (Evidence::Tdx(evidence), Demands::Tdx(demands)) => tdx::appraise(
                evidence,
                &self.reference(reference, demands),
                report_data,
                now,
                &self.tdx_platforms,
                checks,
            ),
            _ => None,
        }
    }

    fn reference<'a, D>(&'a self, reference: &ReferenceValue, demands: &'a D) -> Reference<'a, D> {
        Reference {
            root: reference.root,
            demands,
            vcpus: &self.vcpus,
        }
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
        self.judge(evidence, Some(report_data), now)
    }
}
