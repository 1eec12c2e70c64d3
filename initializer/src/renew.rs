use std::time::{Duration, SystemTime};

/// Latest moment of a renewal, in thousandths of the lifetime: two thirds, which leaves a third for retries when the
/// Coordinator is away.
const LATEST_PER_MILLE: u32 = 667;
/// The moment is drawn from this many thousandths before, so that pods that started together do not renew together.
const SPREAD_PER_MILLE: u32 = 67;
/// Never busier than this, however short-lived the certificate is.
const DELAY_MIN: Duration = Duration::from_secs(5);

/// How long to wait before renewing a certificate that was received at `now` and is valid until `not_after`. `random` is
/// uniformly distributed over all values.
pub fn renewal_delay(now: SystemTime, not_after: SystemTime, random: u32) -> Duration {
    let lifetime = not_after.duration_since(now).unwrap_or(Duration::ZERO);
    let share = LATEST_PER_MILLE - random % (SPREAD_PER_MILLE + 1);
    (lifetime / 1000 * share).max(DELAY_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(lifetime_s: u64, random: u32) -> Duration {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        renewal_delay(now, now + Duration::from_secs(lifetime_s), random)
    }

    #[test]
    fn renews_at_two_thirds_of_the_lifetime_or_a_little_before() {
        assert_eq!(delay(3600, 0).as_secs(), 2401);
        assert_eq!(delay(3600, 67).as_secs(), 2160);
        assert_eq!(delay(168 * 3600, 0).as_secs(), 403_401);
        for random in [1, 5, 66, 68, 1_000_000, u32::MAX] {
            let delay = delay(3600, random).as_secs();
            assert!((2160..=2401).contains(&delay), "{random}: {delay}");
        }
    }

    #[test]
    fn expired_or_very_short_certificate_is_renewed_soon() {
        assert_eq!(delay(0, 0), DELAY_MIN);
        assert_eq!(delay(6, 0), DELAY_MIN);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(renewal_delay(now, SystemTime::UNIX_EPOCH, 0), DELAY_MIN);
    }
}
