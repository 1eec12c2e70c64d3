use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Answers at once, after a while without any. A few people who look at the same time are not sent away.
pub(super) const BURST: u32 = 10;
/// Time per answer after that. Firmware needs some tens of milliseconds for a report and serves one guest request at a time, which
/// hosts throttle; this leaves most of it to pods that enrol.
const PERIOD: Duration = Duration::from_millis(500);

/// A token bucket for all callers together.
#[derive(Debug)]
pub(super) struct Bucket {
    /// When it is full again if nothing is taken.
    full_at: Mutex<Instant>,
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self {
            full_at: Mutex::new(now),
        }
    }

    /// Whether there is a token, without taking it; if not, how long it takes until there is one.
    pub(super) fn look(&self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        after_taking(*full_at, now).map(drop)
    }

    /// Takes one token, or says how long it takes until there is one.
    pub(super) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        *full_at = after_taking(*full_at, now)?;
        Ok(())
    }
}

/// When a bucket is full again after one token more.
fn after_taking(full_at: Instant, now: Instant) -> Result<Instant, Duration> {
    let next = full_at.max(now) + PERIOD;
    match next.saturating_duration_since(now + PERIOD * BURST) {
        Duration::ZERO => Ok(next),
        wait => Err(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_burst_and_then_one_token_for_each_period() {
        let start = Instant::now();
        let bucket = Bucket::full(start);
        for _ in 0..BURST {
            assert_eq!(bucket.look(start), Ok(()));
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.look(start), Err(PERIOD));
        assert_eq!(bucket.take(start), Err(PERIOD));
        assert_eq!(bucket.take(start + PERIOD / 2), Err(PERIOD / 2));
        assert_eq!(bucket.take(start + PERIOD), Ok(()));
        assert_eq!(bucket.take(start + PERIOD), Err(PERIOD));
        let later = start + PERIOD * 100;
        for _ in 0..BURST {
            assert_eq!(bucket.take(later), Ok(()));
        }
        assert!(bucket.take(later).is_err());
    }
}
