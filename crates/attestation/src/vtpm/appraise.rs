//! What the vTPM says, compared with a reference value; the hardware below it is judged like direct evidence.

use std::collections::BTreeSet;

use crate::{CheckList, PolicyHash, ReportData, VtpmDemands};

use super::{HclReport, POLICY_PCR, TpmQuote, VtpmEvidence};

/// Checks that the hardware vouches for the attestation key, that this signed the quote, that the quote is bound to
/// `report_data` (when there is one) and covers the PCR values, that these are as `demands` says, and that PCR 8 shows one of
/// `policies`, which is returned. The hardware's own evidence must be judged elsewhere, with [`HclReport::expected_report_data`].
pub(crate) fn appraise(
    evidence: &VtpmEvidence,
    hcl: &HclReport<'_>,
    demands: Option<&VtpmDemands>,
    policies: &BTreeSet<PolicyHash>,
    report_data: Option<&ReportData>,
    checks: &mut CheckList,
) -> Option<PolicyHash> {
    let quote = authenticate(evidence, hcl, report_data, checks)?;
    let pcrs = quote.check_values(&evidence.pcr_values, checks);
    let shown = |index: u8| match pcrs.get(&index) {
        Some(value) => hex::encode(value),
        None => "not quoted".to_owned(),
    };
    for (index, expected) in demands.iter().flat_map(|demands| &demands.pcrs) {
        let passed = pcrs.get(index) == Some(expected);
        let expected = hex::encode(expected);
        checks.record(format!("PCR {index}"), expected, shown(*index), passed);
    }
    let value = pcrs.get(&POLICY_PCR);
    let mut policies_shown = policies
        .iter()
        .filter(|policy| value == Some(&TpmQuote::policy_pcr(policy)));
    let policy = policies_shown.next().copied();
    let expected = match policies.first() {
        Some(only) if policies.len() == 1 => format!(
            "{}, extended once with policy {only}",
            hex::encode(TpmQuote::policy_pcr(only))
        ),
        _ => format!(
            "extended once with one of the {} policies in the manifest",
            policies.len()
        ),
    };
    let found = match policy {
        Some(policy) => format!("{}, policy {policy}", shown(POLICY_PCR)),
        None => shown(POLICY_PCR),
    };
    let field = format!("PCR {POLICY_PCR}");
    checks.record(field, expected, found, policy.is_some());
    policy
}

/// Checks everything about the vTPM that needs no reference value.
fn authenticate<'a>(
    evidence: &'a VtpmEvidence,
    hcl: &HclReport<'_>,
    report_data: Option<&ReportData>,
    checks: &mut CheckList,
) -> Option<TpmQuote<'a>> {
    hcl.check(checks);
    let VtpmEvidence {
        tpm_quote,
        tpm_signature,
        ..
    } = evidence;
    match hcl.attestation_key() {
        Ok(key) => TpmQuote::check(tpm_quote, tpm_signature, &key, report_data, checks),
        // There is a failed check for the key already.
        Err(_) => TpmQuote::check_contents(tpm_quote, report_data, checks),
    }
}
