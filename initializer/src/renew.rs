use std::time::{Duration, SystemTime};

/// Share of a certificate's remaining lifetime after which it is renewed, in percent. Two thirds leaves a third of the
/// lifetime for retries when the Coordinator is away.
const RENEW_AFTER_PERCENT: u32 = 66;
/// Never busier than this, however short-lived the certificate is.
const DELAY_MIN: Duration = Duration::from_secs(60);
/// Never longer than this, so that a new mesh CA or a revoked policy shows within a day.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long to wait before renewing a certificate that is valid until `not_after`, seen at `now`.
pub fn renewal_delay(now: SystemTime, not_after: SystemTime) -> Duration {
    let remaining = not_after.duration_since(now).unwrap_or(Duration::ZERO);
    (remaining / 100 * RENEW_AFTER_PERCENT).clamp(DELAY_MIN, DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(remaining_s: u64) -> u64 {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        renewal_delay(now, now + Duration::from_secs(remaining_s)).as_secs()
    }

    #[test]
    fn renews_at_two_thirds_of_the_remaining_lifetime() {
        assert_eq!(delay(3600), 2376);
    }

    #[test]
    fn delay_is_bounded_on_both_sides() {
        assert_eq!(delay(0), 60);
        assert_eq!(delay(30), 60);
        assert_eq!(delay(365 * 24 * 3600), 24 * 3600);
    }

    #[test]
    fn expired_certificate_is_renewed_soon() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(renewal_delay(now, SystemTime::UNIX_EPOCH), DELAY_MIN);
    }
}
