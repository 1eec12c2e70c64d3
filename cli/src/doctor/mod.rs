//! Whether this machine, the cluster and the way to both are fit for a deployment. Nothing is changed, and nothing here is proof: that is
//! what `verify` is for.

mod cluster;
mod machine;
mod report;
mod vendors;

pub(crate) use cluster::look_at as cluster;
pub(crate) use machine::{look_at as machine, proxies};
pub(crate) use report::{Check, Report};
pub(crate) use vendors::look_at as vendors;

use std::time::SystemTime;

use chrono::{DateTime, Utc};

/// Certificates and collateral are valid to the second; what differs by less than this is no clock's fault.
const SKEW_MAX_SECONDS: i64 = 60;

/// Compares this machine's clock with another one's `Date` (RFC 9110, section 5.6.7).
fn clock(whose: &str, date: &str, now: SystemTime) -> Check {
    let name = format!("clock, against {whose}");
    let Ok(theirs) = DateTime::parse_from_rfc2822(date) else {
        return Check::skipped(&name, format!("it wrote `{date}`, which is no date"));
    };
    let ours = DateTime::<Utc>::from(now);
    let ahead = ours.signed_duration_since(theirs).num_seconds();
    if ahead.abs() <= SKEW_MAX_SECONDS {
        return Check::good(&name, format!("within {SKEW_MAX_SECONDS} s"));
    }
    let direction = if ahead > 0 { "ahead" } else { "behind" };
    Check::failed(
        &name,
        format!(
            "this machine's clock is {} {direction}: {} here, {} there",
            duration(ahead.unsigned_abs()),
            ours.format("%Y-%m-%d %H:%M:%S"),
            theirs.with_timezone(&Utc).format("%Y-%m-%d %H:%M:%S")
        ),
        "set the clock, for example with `timedatectl set-ntp true`; with a wrong one, certificates and collateral seem expired or not \
         yet valid",
    )
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{report::Outcome, *};

    fn judged(ours: u64) -> Check {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(ours);
        clock("somebody", "Fri, 27 Nov 2026 20:00:00 GMT", now)
    }

    #[test]
    fn a_wrong_clock_is_named_with_its_error() {
        const THEIRS: u64 = 1_795_809_600;
        assert_eq!(judged(THEIRS + 59).outcome, Outcome::Good);
        let ahead = judged(THEIRS + 86_400);
        assert_eq!(ahead.outcome, Outcome::Failed);
        assert!(ahead.found.contains("24 h ahead"), "{}", ahead.found);
        let behind = judged(THEIRS - 90);
        assert!(behind.found.contains("90 s behind"), "{}", behind.found);
    }
}
