//! The verdict on a platform's security versions.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use dcap_qvl::{QuoteClaims, TcbStatus};
use der::DateTime;

use crate::{
    CheckList,
    appraisal::{TdxTcbPolicy, TdxTcbStatus},
};

use super::root::moment;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Checks the converged status of platform, TDX module and quoting enclave and, when an out-of-date one is accepted, its age at
/// `now`.
pub(super) fn check(
    claims: &QuoteClaims,
    policy: &TdxTcbPolicy,
    now: SystemTime,
    checks: &mut CheckList,
) {
    let status = claims.tcb.status;
    let mut found = status.to_string();
    if !claims.tcb.advisory_ids.is_empty() {
        found = format!("{found} ({})", claims.tcb.advisory_ids.join(", "));
    }
    let passed = accepts(policy, status);
    checks.record("TCB status", describe(policy), found, passed);

    let relaunch = matches!(
        status,
        TcbStatus::TDRelaunchAdvised | TcbStatus::TDRelaunchAdvisedConfigurationNeeded
    );
    let (launch, current) = (
        &claims.platform.tcb_level,
        &claims.platform.current_tcb_level,
    );
    let mut dated = vec![(
        "quoting enclave",
        claims.qe.tcb_level.tcb_status,
        &claims.qe.tcb_level.tcb_date,
    )];
    // A relaunch verdict says that the current TCB is not out of date; the launch one is, and its date does not matter.
    if !relaunch {
        dated.push(("platform", launch.tcb_status, &launch.tcb_date));
        if let Some(current) = current {
            // The verdict covers the launch TCB only. The module that is loaded now must not be worse.
            let passed = accepts(policy, current.tcb_status);
            let found = current.tcb_status.to_string();
            checks.record(
                "TCB status of the current module",
                describe(policy),
                found,
                passed,
            );
            if passed {
                dated.push(("current module", current.tcb_status, &current.tcb_date));
            }
        }
    }
    if !passed {
        return;
    }
    let grace = DAY.saturating_mul(policy.platform_grace_period_days);
    for (name, status, date) in dated {
        if own(status).is_some_and(TdxTcbStatus::is_out_of_date) {
            check_age(name, date, grace, now, checks);
        }
    }
}

fn check_age(name: &str, date: &str, grace: Duration, now: SystemTime, checks: &mut CheckList) {
    let field = format!("TCB date of the {name}");
    let days = grace.as_secs() / DAY.as_secs();
    let expected = format!("{days} days before {} or later", moment(now));
    let Ok(parsed) = DateTime::from_str(date) else {
        let found = format!("`{date}`, which is no RFC 3339 time in UTC");
        return checks.record(field, expected, found, false);
    };
    let end = parsed.to_system_time().checked_add(grace);
    let passed = end.is_some_and(|end| now <= end);
    checks.record(field, expected, date, passed);
}

fn accepts(policy: &TdxTcbPolicy, status: TcbStatus) -> bool {
    own(status).is_some_and(|status| policy.accepts(status))
}

fn describe(policy: &TdxTcbPolicy) -> String {
    let accepted = TdxTcbStatus::ALL
        .into_iter()
        .filter(|status| policy.accepts(*status));
    accepted
        .map(TdxTcbStatus::name)
        .collect::<Vec<_>>()
        .join(" or ")
}

/// None for `Revoked`, which `dcap-qvl` refuses by itself and nothing here can accept.
fn own(status: TcbStatus) -> Option<TdxTcbStatus> {
    Some(match status {
        TcbStatus::UpToDate => TdxTcbStatus::UpToDate,
        TcbStatus::SWHardeningNeeded => TdxTcbStatus::SwHardeningNeeded,
        TcbStatus::ConfigurationNeeded => TdxTcbStatus::ConfigurationNeeded,
        TcbStatus::ConfigurationAndSWHardeningNeeded => {
            TdxTcbStatus::ConfigurationAndSwHardeningNeeded
        }
        TcbStatus::OutOfDate => TdxTcbStatus::OutOfDate,
        TcbStatus::OutOfDateConfigurationNeeded => TdxTcbStatus::OutOfDateConfigurationNeeded,
        TcbStatus::TDRelaunchAdvised => TdxTcbStatus::TdRelaunchAdvised,
        TcbStatus::TDRelaunchAdvisedConfigurationNeeded => {
            TdxTcbStatus::TdRelaunchAdvisedConfigurationNeeded
        }
        TcbStatus::Revoked => return None,
    })
}
