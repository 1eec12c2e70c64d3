//! Samples, and what is printed of them.

use std::{fs, num::NonZeroUsize, thread, time::Duration};

/// Durations of one thing that was done many times.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The sample that `percent` of all do not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        *sorted.get(rank.saturating_sub(1)).expect("has samples")
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

pub(crate) fn header() {
    println!("| what | p50 | p90 | p99 | samples |");
    println!("| --- | --- | --- | --- | --- |");
}

pub(crate) fn row(what: &str, samples: &Samples) {
    let [p50, p90, p99] = [50, 90, 99].map(|percent| millis(samples.percentile(percent)));
    println!("| {what} | {p50} | {p90} | {p99} | {} |", samples.count());
}

pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1000.0)
}

pub(crate) fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}

/// Processor and number of cores.
pub(crate) fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("unknown processor");
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    format!("{model}, {cores} cores")
}

/// Average number of runnable processes over 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
