//! TDX reference values.

use std::collections::BTreeSet;

use contrast_attestation::appraisal::{TdxDemands, TdxTcbPolicy, TdxTcbStatus};

use crate::{JsonPath, TdxReferenceValue, problem::Problems, validate::hex_array, vcpus};

use super::{SHA384, digest, list};

/// Ten years: beyond any TCB level's life, and below what overflows a time.
const GRACE_PERIOD_DAYS_MAX: i64 = 3650;

pub(super) fn demands(
    value: &TdxReferenceValue,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<TdxDemands> {
    let mr_td = digest(&value.mr_td, &path.key("MrTd"), problems);
    let mr_seam = digest(&value.mr_seam, &path.key("MrSeam"), problems);
    let rtmrs_path = path.key("Rtmrs");
    let by_vcpus = !value.rtmr0_by_vcpus.is_empty();
    let rtmrs = if value.rtmrs.len() == 4 && by_vcpus {
        rtmrs_but_the_first(value, path, problems)
    } else if value.rtmrs.len() == 4 {
        list(&value.rtmrs, SHA384, &rtmrs_path, problems).and_then(|list| list.try_into().ok())
    } else if value.rtmrs.is_empty() {
        problems.fill_in(
            &rtmrs_path,
            "missing; fill in RTMR0 to RTMR3, 96 hex digits each",
        );
        None
    } else {
        let message = format!(
            "expected 4 entries, RTMR0 to RTMR3, found {}",
            value.rtmrs.len()
        );
        problems.malformed(&rtmrs_path, message);
        None
    };
    let rtmr0_alternatives = list(
        &value.rtmr0_alternatives,
        SHA384,
        &path.key("Rtmr0Alternatives"),
        problems,
    );
    let rtmr0_by_vcpus =
        vcpus::measurements(&value.rtmr0_by_vcpus, &path.key("Rtmr0ByVCPUs"), problems);
    let xfam = hex_array(&value.xfam, "XFAM", &path.key("Xfam"), problems);
    let allowed_piids = list(
        &value.allowed_piids,
        "a platform instance id",
        &path.key("AllowedPIIDs"),
        problems,
    );
    let number = u32::try_from(value.min_tcb_evaluation_data_number);
    if number.is_err() {
        problems.malformed(
            &path.key("MinTCBEvaluationDataNumber"),
            format!(
                "expected a number from 0 to {}, found {}",
                u32::MAX,
                value.min_tcb_evaluation_data_number
            ),
        );
    }
    let owner = |text: &str, path: &JsonPath, problems: &mut Problems| match text {
        "" => Some([0; 48]),
        text => hex_array(text, "an owner's value", path, problems),
    };
    let mr_owner = owner(&value.mr_owner, &path.key("MrOwner"), problems);
    let mr_owner_config = owner(&value.mr_owner_config, &path.key("MrOwnerConfig"), problems);
    let tcb_policy = tcb_policy(value, path, problems);
    Some(TdxDemands {
        mr_td: mr_td?,
        mr_seam: mr_seam?,
        rtmrs: rtmrs?,
        rtmr0_alternatives: rtmr0_alternatives?,
        rtmr0_by_vcpus: rtmr0_by_vcpus?,
        xfam: xfam?,
        allowed_piids: allowed_piids?,
        memory_integrity: value.memory_integrity,
        smt_disabled: value.smt_disabled,
        static_platform: value.static_platform,
        min_tcb_evaluation_data_number: number.ok()?,
        mr_owner: mr_owner?,
        mr_owner_config: mr_owner_config?,
        tcb_policy: tcb_policy?,
    })
}

/// The registers where `Rtmr0ByVCPUs` says what RTMR0 is; nothing else may say it.
fn rtmrs_but_the_first(
    value: &TdxReferenceValue,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<[[u8; 48]; 4]> {
    let rtmrs_path = path.key("Rtmrs");
    let mut registers = [[0; 48]; 4];
    let mut valid = true;
    for (index, (text, register)) in value.rtmrs.iter().zip(&mut registers).enumerate() {
        let at = rtmrs_path.index(index);
        if index > 0 {
            match hex_array(text, SHA384, &at, problems) {
                Some(read) => *register = read,
                None => valid = false,
            }
        } else if !text.is_empty() {
            problems.malformed(
                &at,
                "expected an empty string, because `Rtmr0ByVCPUs` says what RTMR0 is; remove one of the two",
            );
            valid = false;
        }
    }
    if !value.rtmr0_alternatives.is_empty() {
        problems.malformed(
            &path.key("Rtmr0Alternatives"),
            "expected none, because `Rtmr0ByVCPUs` says what RTMR0 is; remove one of the two",
        );
        valid = false;
    }
    if value.vtpm.is_some() {
        problems.malformed(
            &path.key("Rtmr0ByVCPUs"),
            "expected `Rtmrs` alone beside `VTPM`; the hardware's quote does not name the policy of such guests, so it does not say how \
             many vCPUs they should have",
        );
        valid = false;
    }
    valid.then_some(registers)
}

fn tcb_policy(
    value: &TdxReferenceValue,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<TdxTcbPolicy> {
    let statuses = accepted_statuses(
        &value.accepted_tcb_status,
        &path.key("AcceptedTCBStatus"),
        problems,
    )?;
    let path = path.key("PlatformGracePeriodDays");
    let outdated = statuses.iter().any(|status| status.is_out_of_date());
    let days = match (outdated, value.platform_grace_period_days) {
        (false, None) => 0,
        (true, Some(days @ 1..=GRACE_PERIOD_DAYS_MAX)) => u32::try_from(days).ok()?,
        (true, None) => {
            problems.fill_in(
                &path,
                "missing; AcceptedTCBStatus lists an out-of-date status: fill in for how many days after the date of its TCB level it is accepted",
            );
            return None;
        }
        (true, Some(days)) => {
            let message =
                format!("expected a number from 1 to {GRACE_PERIOD_DAYS_MAX}, found {days}");
            problems.malformed(&path, message);
            return None;
        }
        (false, Some(_)) => {
            problems.malformed(
                &path,
                "it has no effect; remove it, or add OutOfDate to AcceptedTCBStatus",
            );
            return None;
        }
    };
    Some(TdxTcbPolicy {
        accepted: statuses,
        platform_grace_period_days: days,
    })
}

/// What the list accepts beside `UpToDate`, which must be on it when there is a list.
fn accepted_statuses(
    names: &[String],
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<BTreeSet<TdxTcbStatus>> {
    let mut statuses = BTreeSet::new();
    let mut valid = true;
    for (index, name) in names.iter().enumerate() {
        let known = TdxTcbStatus::ALL.into_iter().find(|s| s.name() == name);
        let message = match known {
            Some(status) if statuses.insert(status) => continue,
            Some(_) => format!("`{name}` is listed twice; remove one"),
            None if name == "Revoked" => {
                "expected another status, found `Revoked`; the keys of such a platform are known to others, so it cannot be accepted".to_owned()
            }
            None => {
                let all = TdxTcbStatus::ALL.map(TdxTcbStatus::name).join(", ");
                format!("expected one of {all}; found `{name}`")
            }
        };
        problems.malformed(&path.index(index), message);
        valid = false;
    }
    if valid && !names.is_empty() && !statuses.remove(&TdxTcbStatus::UpToDate) {
        problems.malformed(
            path,
            "expected `UpToDate` in the list; without it an update would lock the platform out",
        );
        valid = false;
    }
    valid.then_some(statuses)
}
