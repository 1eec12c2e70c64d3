//! Bounds how often something expensive is done.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many tokens there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// At once, after a while without any taken.
    pub(crate) burst: u32,
    /// Time per token after that.
    pub(crate) period: Duration,
}

/// A token bucket for all who share it.
#[derive(Debug)]
pub(crate) struct Bucket {
    pace: Pace,
    /// When it is full again if nothing is taken.
    full_at: Mutex<Instant>,
}

impl Bucket {
    pub(crate) fn full(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            full_at: Mutex::new(now),
        }
    }

    /// Whether there is a token, without taking it; if not, how long it takes until there is one.
    pub(crate) fn look(&self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.after_taking(*full_at, now).map(drop)
    }

    /// Takes one token, or says how long it takes until there is one.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        *full_at = self.after_taking(*full_at, now)?;
        Ok(())
    }

    /// Whether nothing was taken for so long that it is as a new one.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        let full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        *full_at <= now
    }

    /// When it is full again after one token more.
    fn after_taking(&self, full_at: Instant, now: Instant) -> Result<Instant, Duration> {
        let Pace { burst, period } = self.pace;
        let next = full_at.max(now) + period;
        match next.saturating_duration_since(now + period * burst) {
            Duration::ZERO => Ok(next),
            wait => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 10;
    const PERIOD: Duration = Duration::from_millis(500);

    #[test]
    fn gives_a_burst_and_then_one_token_for_each_period() {
        let start = Instant::now();
        let bucket = Bucket::full(
            Pace {
                burst: BURST,
                period: PERIOD,
            },
            start,
        );
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
        assert!(bucket.is_full(later) && !bucket.is_full(start));
        for _ in 0..BURST {
            assert_eq!(bucket.take(later), Ok(()));
        }
        assert!(bucket.take(later).is_err());
    }
}
