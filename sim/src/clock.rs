//! Wall clocks that differ and jump.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime},
};

use contrast_clock::WallClock;

use crate::runtime::elapsed;

/// What every clock shows at the start of a run, plus its own error: 2027-01-15 08:00:00 UTC.
const START: Duration = Duration::from_secs(1_800_000_000);

/// The wall clock of one machine. It survives restarts of the replica.
#[derive(Debug, Default)]
pub struct SimWallClock {
    /// Error in milliseconds.
    error: AtomicI64,
}

impl SimWallClock {
    /// Makes the clock wrong by `milliseconds`, from now on.
    pub fn set_error(&self, milliseconds: i64) {
        self.error.store(milliseconds, Ordering::Relaxed);
    }
}

impl WallClock for SimWallClock {
    fn now(&self) -> SystemTime {
        let right = SystemTime::UNIX_EPOCH + START + elapsed();
        let error = self.error.load(Ordering::Relaxed);
        let amount = Duration::from_millis(error.unsigned_abs());
        match error < 0 {
            true => right - amount,
            false => right + amount,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_wrong_by_its_error() {
        let clock = SimWallClock::default();
        let right = clock.now();
        clock.set_error(-2500);
        assert_eq!(clock.now(), right - Duration::from_millis(2500));
        clock.set_error(60_000);
        assert_eq!(clock.now(), right + Duration::from_secs(60));
    }
}
