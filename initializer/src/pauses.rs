use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

const MIN: Duration = Duration::from_millis(200);
/// Without jitter, which adds up to as much again.
const MAX: Duration = Duration::from_secs(10);

/// Jittered exponential pauses between attempts at one thing; they never end.
#[derive(Debug)]
pub(crate) struct Pauses(ExponentialBackoff);

impl Pauses {
    /// Begins with the shortest pause.
    pub(crate) fn new() -> Self {
        let builder = ExponentialBuilder::default()
            .with_min_delay(MIN)
            .with_max_delay(MAX)
            .with_jitter()
            .without_max_times();
        Self(builder.build())
    }

    /// How long to wait before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(MAX)
    }
}

/// `delay` for the log.
pub(crate) fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}
