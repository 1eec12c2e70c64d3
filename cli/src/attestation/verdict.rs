//! The result of `contrast attestation verify`.

use std::io::{self, Write};

use contrast_attestation::{
    AppraisalReport, Authenticity, Check, CheckList, Evidence, ReportData, Tee, VerifiedEvidence,
    VtpmEvidence, VtpmHardware, specification,
};
use serde::Serialize;

use crate::output::{Paint, Render};

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was compared.
    pub field: String,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
    /// Whether `found` satisfies `expected`.
    pub passed: bool,
    /// Document and table or section that defines the field.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub specification: &'static str,
    /// Key in the manifest that holds the expected value.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub manifest_key: &'static str,
    /// What a failure most likely means; only with one.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hint: &'static str,
}

impl From<&Check> for Row {
    fn from(check: &Check) -> Self {
        let rule = specification::rule_of(&check.field);
        Self {
            field: check.field.clone(),
            expected: check.expected.clone(),
            found: check.found.clone(),
            passed: check.passed,
            specification: rule.map_or("", |rule| rule.source),
            manifest_key: rule.map_or("", |rule| rule.manifest_key),
            hint: rule.filter(|_| !check.passed).map_or("", |rule| rule.hint),
        }
    }
}

/// The checks of one reference value, or those that need none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Set {
    /// The reference value's name.
    pub name: String,
    /// Its checks.
    pub checks: Vec<Row>,
}

impl Set {
    fn new(name: &str, checks: &CheckList) -> Self {
        Self {
            name: name.to_owned(),
            checks: checks.checks().iter().map(Row::from).collect(),
        }
    }
}

/// What verification concluded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The one answer.
    pub verified: bool,
    /// `SEV-SNP` or `TDX`.
    pub tee: String,
    /// The time that validity was judged at, RFC 3339.
    pub at: String,
    /// The reference value that was met; none without a manifest.
    pub reference_value: Option<String>,
    /// Whether that was one of a software TEE.
    pub insecure: bool,
    /// Policy hash, hex; none unless the signatures hold.
    pub policy_hash: Option<String>,
    /// Launch measurement, hex; none unless the signatures hold.
    pub measurement: Option<String>,
    /// All checks. With a manifest that accepted the evidence there are none to list.
    pub sets: Vec<Set>,
    /// What makes genuine evidence worth little; only without a manifest, which refuses it.
    pub cautions: Vec<&'static str>,
    /// What was not looked at.
    pub not_checked: Vec<&'static str>,
}

impl Verdict {
    /// The evidence met a reference value.
    pub fn accepted(evidence: &VerifiedEvidence, at: String) -> Self {
        Self {
            verified: true,
            reference_value: Some(evidence.reference().to_owned()),
            insecure: evidence.is_insecure(),
            policy_hash: Some(evidence.policy_hash().to_string()),
            measurement: Some(hex::encode(evidence.measurement())),
            ..Self::refused(evidence.tee(), at)
        }
    }

    /// The evidence met no reference value.
    pub fn refused(tee: Tee, at: String) -> Self {
        Self {
            verified: false,
            tee: tee.to_string(),
            at,
            reference_value: None,
            insecure: false,
            policy_hash: None,
            measurement: None,
            sets: Vec::new(),
            cautions: Vec::new(),
            not_checked: Vec::new(),
        }
    }

    /// Adds what was compared.
    #[must_use]
    pub fn with_report(mut self, report: &AppraisalReport) -> Self {
        let sets = report.sets.iter();
        self.sets = sets.map(|set| Set::new(&set.name, &set.checks)).collect();
        self
    }

    /// Adds what could not be looked at for want of `evidence`'s CRL, or of report data to compare with.
    #[must_use]
    pub fn without(mut self, evidence: &Evidence, report_data: Option<&ReportData>) -> Self {
        if report_data.is_none() {
            self.not_checked
                .push("for whom the evidence was made: give --report-data");
        }
        let has_no_crl = match evidence {
            Evidence::Snp(evidence) => evidence.crl.is_empty(),
            Evidence::Vtpm(VtpmEvidence {
                hardware: VtpmHardware::Snp(certificates),
                ..
            }) => certificates.crl.is_empty(),
            _ => false,
        };
        if has_no_crl {
            self.not_checked
                .push("whether AMD revoked the ASK: give its CRL with --crl or --collateral");
        }
        self
    }

    /// The conclusion without a manifest.
    pub fn authenticity(authenticity: &Authenticity, at: String) -> Self {
        Self {
            verified: authenticity.holds(),
            policy_hash: authenticity.policy_hash().map(|hash| hash.to_string()),
            measurement: authenticity.measurement().map(hex::encode),
            sets: vec![Set::new("signatures and platform", authenticity.checks())],
            cautions: authenticity.cautions().to_vec(),
            not_checked: vec!["what runs in the guest: give a manifest with --manifest"],
            ..Self::refused(authenticity.tee(), at)
        }
    }
}

impl Render for Verdict {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        if self.insecure {
            let banner =
                "INSECURE: this is evidence of a software TEE, it proves nothing about hardware";
            writeln!(out, "{}\n", paint.alarming(banner))?;
        }
        for set in &self.sets {
            writeln!(out, "{}:", paint.strong(&set.name))?;
            for row in &set.checks {
                row.text(out, paint)?;
            }
        }
        if !self.sets.is_empty() {
            writeln!(out)?;
        }
        for (name, value) in [
            ("policy hash", &self.policy_hash),
            ("measurement", &self.measurement),
        ] {
            if let Some(value) = value {
                writeln!(out, "{name}: {value}")?;
            }
        }
        let word = match self.verified {
            true => paint.good("verified"),
            false => paint.bad("not verified"),
        };
        let Self { tee, at, .. } = self;
        match &self.reference_value {
            Some(name) => writeln!(out, "{word}: {tee} evidence meets {name}, at {at}")?,
            None => writeln!(out, "{word}: {tee} evidence, at {at}")?,
        }
        for caution in &self.cautions {
            writeln!(out, "{}: {caution}", paint.alarming("caution"))?;
        }
        for subject in &self.not_checked {
            writeln!(out, "not checked: {subject}")?;
        }
        Ok(())
    }
}

impl Row {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        let Self {
            field,
            expected,
            found,
            ..
        } = self;
        if self.passed {
            return writeln!(out, "{}  {field}: {found}", paint.good("ok  "));
        }
        writeln!(
            out,
            "{}  {field}\n        expected: {expected}\n        found:    {found}",
            paint.bad("FAIL")
        )?;
        for (name, text) in [
            ("source:  ", self.specification),
            ("manifest:", self.manifest_key),
            ("hint:    ", self.hint),
        ] {
            if !text.is_empty() {
                writeln!(out, "        {name} {text}")?;
            }
        }
        Ok(())
    }
}
