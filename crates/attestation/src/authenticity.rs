use std::time::SystemTime;

use crate::{
    CheckList, Evidence, PolicyHash, ReportData, Root, SnpEvidence, Tee,
    proof::Facts,
    snp, tdx,
    vtpm::{HclReport, TpmQuote, VtpmEvidence},
};

/// What is known about evidence when there is no reference value to compare it with: whether genuine hardware signed it, at a
/// TCB that its vendor certifies. That says nothing about *what* runs in the guest; only [`crate::Verifier`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticity {
    tee: Tee,
    checks: CheckList,
    facts: Option<Facts>,
    cautions: Vec<&'static str>,
    /// Whether the report data of the hardware's report is that of a paravisor: then its policy hash is none of ours.
    through_vtpm: bool,
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

    /// The policy hash that was signed, when the signatures hold. None for vTPM evidence: PCR 8 shows only the hash of it.
    pub fn policy_hash(&self) -> Option<PolicyHash> {
        let facts = self.facts.as_ref().filter(|_| !self.through_vtpm);
        facts.map(|facts| facts.policy_hash)
    }

    /// What a manifest would have refused, and is not wrong by itself: that the host may look inside.
    pub fn cautions(&self) -> &[&'static str] {
        &self.cautions
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
        Evidence::Vtpm(evidence) => return authenticate_vtpm(evidence, root, report_data, now),
    };
    let (field, cautions) = match evidence {
        Evidence::Snp(evidence) => ("REPORT_DATA", snp::cautions(&evidence.report)),
        Evidence::Tdx(evidence) => ("REPORTDATA", tdx::cautions(&evidence.quote)),
        Evidence::Vtpm(_) => ("REPORT_DATA", Vec::new()),
    };
    if let Some(expected) = report_data {
        match evidence.report_data() {
            Some(found) => checks.equal_bytes(field, &expected.0, &found.0),
            None => checks.fail(field, hex::encode(expected.0), "no report to read it from"),
        }
    }
    Authenticity {
        tee: evidence.tee(),
        checks,
        facts,
        cautions,
        through_vtpm: false,
    }
}

fn authenticate_vtpm(
    evidence: &VtpmEvidence,
    root: Root,
    report_data: Option<&ReportData>,
    now: SystemTime,
) -> Authenticity {
    let mut checks = CheckList::default();
    let Some(hcl) = HclReport::read(&evidence.hcl_report, &mut checks) else {
        return Authenticity {
            tee: evidence.hardware.tee(),
            checks,
            facts: None,
            cautions: Vec::new(),
            through_vtpm: true,
        };
    };
    let quote = SignedTpmQuote {
        message: &evidence.tpm_quote,
        signature: &evidence.tpm_signature,
    };
    let hardware = evidence.hardware.evidence(&hcl);
    let mut authenticity = authenticate_azure(&hcl, &hardware, Some(quote), root, report_data, now);
    if let Ok(quote) = TpmQuote::parse(&evidence.tpm_quote) {
        quote.check_values(&evidence.pcr_values, &mut authenticity.checks);
    }
    authenticity
}

/// A TPM quote as the TPM returned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedTpmQuote<'a> {
    /// TPMS_ATTEST.
    pub message: &'a [u8],
    /// RSASSA-PKCS1-v1_5 with SHA-256, as long as the key's modulus.
    pub signature: &'a [u8],
}

/// Verifies evidence of an Azure confidential VM: like [`authenticate`], and that the hardware vouches for the vTPM's
/// attestation key. `evidence` is the SNP report in `hcl` with its certificates, or a quote over the TDREPORT in it. With
/// `report_data`, the TPM quote must have been requested for it or, without a quote, the runtime data must carry it.
pub fn authenticate_azure(
    hcl: &HclReport<'_>,
    evidence: &Evidence,
    quote: Option<SignedTpmQuote<'_>>,
    root: Root,
    report_data: Option<&ReportData>,
    now: SystemTime,
) -> Authenticity {
    let bound = hcl.expected_report_data();
    let mut authenticity = authenticate(evidence, root, Some(&bound), now);
    authenticity.through_vtpm = true;
    let checks = &mut authenticity.checks;
    checks.equal("HCL report type", &hcl.tee, &evidence.tee());
    // At another level the report would be one that the guest asked for, with an attestation key of its choice.
    if let Evidence::Snp(SnpEvidence { report, .. }) = evidence
        && let Ok(report) = snp::Report::parse(report)
    {
        checks.equal("VMPL", &0, &report.vmpl);
    }
    hcl.check(checks);
    match (quote, hcl.attestation_key(), report_data) {
        (Some(SignedTpmQuote { message, signature }), Ok(key), _) => {
            TpmQuote::check(message, signature, &key, report_data, checks);
        }
        (None, _, Some(expected)) => {
            let found = hcl.user_data().map(|data| hex::encode(data.0));
            let expected = hex::encode(expected.0);
            let found = found.unwrap_or_else(|| "none".to_owned());
            let passed = expected.eq_ignore_ascii_case(&found);
            checks.record("user-data of the runtime data", expected, found, passed);
        }
        // Without a key there is a failed check already.
        (Some(_), Err(_), _) | (None, _, None) => {}
    }
    authenticity
}
