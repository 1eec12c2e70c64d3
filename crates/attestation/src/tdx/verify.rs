use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use dcap_qvl::{QuoteClaims, QuoteCollateralV3, QuotePolicy, verify::QuoteVerifier};

use crate::{CheckList, Root, TdxCollateral, TdxEvidence};

use super::{
    CollateralKey,
    cache::{self, PlatformCache},
    provider::AwsLc,
    quote::TdQuote,
    root, validity,
};

const FIELD: &str = "quote and collateral";
const EXPECTED: &str =
    "signatures from the root certificate down to the TD report, for one platform";

/// What `dcap-qvl` says of a platform that is older than every level. It matches levels after it has verified every
/// signature.
const BELOW_EVERY_LEVEL: &str = "No matching TCB level found";

/// What `dcap-qvl` says, after everything else held, of a TD that no verifier may accept. `demands::check_attributes` judges the
/// same bits and names the one that is wrong.
const UNACCEPTABLE_TD: [&str; 5] = [
    "Reserved bits in TD attributes are set",
    "TD migration is enabled",
    "SERVTD_EXT is enabled",
    "SEPT_VE_DISABLE is not enabled",
    "Invalid MR service TD",
];

/// Verifies every signature from the pinned root down to the TD report, at `now`, and finds the platform's TCB status. The
/// claims are what that proved; without them there is a failed check that says what broke, here or in
/// `demands::check_attributes`. Their `report` is that of another quote of the same platform when `platforms` knew it.
pub(super) fn verify(
    evidence: &TdxEvidence,
    quote: &TdQuote,
    root: Root,
    now: SystemTime,
    platforms: &PlatformCache,
    checks: &mut CheckList,
) -> Option<Arc<QuoteClaims>> {
    let pin = root::pin(root);
    let platform = quote.platform(&evidence.quote, &pin);
    let known = platform.zip(evidence.collateral.as_ref());
    let known = known.map(|(platform, collateral)| (cache::key(&platform, collateral), collateral));
    if let Some((key, collateral)) = &known
        && let Some(claims) = platforms.lookup(key, collateral, now)
        && quote.is_signed_by_its_key(&evidence.quote)
    {
        let found = "the quote's signature holds; the rest was verified before, still valid";
        checks.record(FIELD, EXPECTED, found, true);
        return Some(claims);
    }
    platforms.count_verification();
    let mut own = CheckList::default();
    let claims = from_scratch(evidence, quote, root, now, &mut own).map(Arc::new);
    let passed = own.passed();
    checks.append(own);
    if let (Some(claims), Some((key, collateral)), true) = (&claims, known, passed) {
        platforms.insert(key, collateral, Arc::clone(claims));
    }
    claims
}

fn from_scratch(
    evidence: &TdxEvidence,
    quote: &TdQuote,
    root: Root,
    now: SystemTime,
    checks: &mut CheckList,
) -> Option<QuoteClaims> {
    let root = root::pinned(evidence, &quote.pck_chain(checks), root, now, checks);
    let Some(collateral) = &evidence.collateral else {
        checks.fail(
            "collateral",
            "TCB info, QE identity and CRLs for the quote's platform",
            "none; the attester could not fetch them from Intel or a caching service",
        );
        return None;
    };
    let platform = validity::check(collateral, now, checks);
    if let Some(key) = CollateralKey::of(&evidence.quote) {
        check_hex(
            "FMSPC of the TCB info",
            &key.fmspc,
            platform.fmspc.as_deref(),
            checks,
        );
    }
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
            let certified = &claims.platform.pck.pce_id;
            check_hex(
                "PCEID of the TCB info",
                certified,
                platform.pce_id.as_deref(),
                checks,
            );
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
        Err(error) if UNACCEPTABLE_TD.contains(&error.to_string().as_str()) => {
            checks.record(FIELD, EXPECTED, "verified", true);
            None
        }
        Err(error) => {
            checks.fail(FIELD, EXPECTED, format!("{error:#}"));
            None
        }
    }
}

/// Compares what the PCK certificate says with hex in the TCB info.
fn check_hex(field: &str, certified: &[u8], stated: Option<&str>, checks: &mut CheckList) {
    let Some(text) = stated else {
        return checks.fail(field, hex::encode(certified), "none");
    };
    match hex::decode(text) {
        Ok(stated) => checks.equal_bytes(field, certified, &stated),
        Err(_) => checks.fail(field, hex::encode(certified), format!("`{text}`")),
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
