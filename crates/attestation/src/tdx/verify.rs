use std::time::{SystemTime, UNIX_EPOCH};

use dcap_qvl::{
    QuoteClaims, QuoteCollateralV3, QuotePolicy, TcbInfo, TcbStatus, verify::QuoteVerifier,
};

use crate::{CheckList, Root, TdxCollateral, TdxEvidence};

use super::{provider::AwsLc, quote::TdQuote, root, validity};

/// What `dcap-qvl` says of a platform that is older than every level. It matches levels after it has verified every
/// signature.
const BELOW_EVERY_LEVEL: &str = "No matching TCB level found";

/// Verifies every signature from the pinned root down to the TD report, at `now`, and finds the platform's TCB status. The
/// claims are what that proved; without them there is a failed check that says what broke.
pub(super) fn verify(
    evidence: &TdxEvidence,
    quote: &TdQuote,
    root: Root,
    now: SystemTime,
    checks: &mut CheckList,
) -> Option<QuoteClaims> {
    const FIELD: &str = "quote and collateral";
    const EXPECTED: &str =
        "signatures from the root certificate down to the TD report, for one platform";
    let root = root::pinned(evidence, quote, root, now, checks);
    let Some(collateral) = &evidence.collateral else {
        checks.fail(
            "collateral",
            "TCB info, QE identity and CRLs for the quote's platform",
            "none; the attester could not fetch them from Intel or a caching service",
        );
        return None;
    };
    validity::check(collateral, now, checks);
    let Ok(since_epoch) = now.duration_since(UNIX_EPOCH) else {
        checks.fail("verification time", "a time after 1970", "an earlier one");
        return None;
    };
    let seconds = since_epoch.as_secs();
    // The debug attribute is a demand of ours (`demands::check_report`), reported as such instead of as a broken chain.
    let verifier = QuoteVerifier::<AwsLc>::new_with_config(root?).allow_debug(true);
    // Statuses and platform flags are demands of ours as well.
    let policy = QuotePolicy::claims_only(seconds);
    match verifier.verify_with_policy(&evidence.quote, to_dcap(collateral), seconds, &policy) {
        Ok(claims) => {
            checks.record(FIELD, EXPECTED, "verified", true);
            check_pce_id(&claims, collateral, checks);
            Some(claims)
        }
        Err(error) if error.to_string().contains(BELOW_EVERY_LEVEL) => {
            checks.record(FIELD, EXPECTED, "verified", true);
            let expected = "a level of the TCB info that the platform's SVNs reach";
            checks.fail(
                "TCB level",
                expected,
                "SVNs below every level that Intel lists",
            );
            None
        }
        Err(error) => {
            checks.fail(FIELD, EXPECTED, format!("{error:#}"));
            None
        }
    }
}

/// Checks the converged status of platform, TDX module and quoting enclave.
pub(super) fn check_tcb(claims: &QuoteClaims, checks: &mut CheckList) {
    let status = claims.tcb.status;
    let mut found = status.to_string();
    if !claims.tcb.advisory_ids.is_empty() {
        found = format!("{found} ({})", claims.tcb.advisory_ids.join(", "));
    }
    let passed = status == TcbStatus::UpToDate;
    checks.record("TCB status", TcbStatus::UpToDate.to_string(), found, passed);
}

fn check_pce_id(claims: &QuoteClaims, collateral: &TdxCollateral, checks: &mut CheckList) {
    const FIELD: &str = "PCEID of the TCB info";
    let certified = &claims.platform.pck.pce_id;
    let info = serde_json::from_str::<TcbInfo>(&collateral.tcb_info).map(|info| info.pce_id);
    match info.map(|pce_id| hex::decode(&pce_id).map_err(|_| pce_id)) {
        Ok(Ok(pce_id)) => checks.equal_bytes(FIELD, certified, &pce_id),
        Ok(Err(text)) => checks.fail(FIELD, hex::encode(certified), format!("`{text}`")),
        Err(error) => checks.fail(FIELD, hex::encode(certified), error.to_string()),
    }
}

fn to_dcap(collateral: &TdxCollateral) -> QuoteCollateralV3 {
    let collateral = collateral.clone();
    QuoteCollateralV3 {
        pck_crl_issuer_chain: collateral.pck_crl_issuer_chain,
        root_ca_crl: collateral.root_ca_crl,
        pck_crl: collateral.pck_crl,
        tcb_info_issuer_chain: collateral.tcb_info_issuer_chain,
        tcb_info: collateral.tcb_info,
        tcb_info_signature: collateral.tcb_info_signature,
        qe_identity_issuer_chain: collateral.qe_identity_issuer_chain,
        qe_identity: collateral.qe_identity,
        qe_identity_signature: collateral.qe_identity_signature,
        // Only the chain in the quote counts: it is the one that signed.
        pck_certificate_chain: None,
    }
}
