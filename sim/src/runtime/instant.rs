use std::{
    fmt,
    ops::{Add, AddAssign, Sub, SubAssign},
    time::Duration,
};

use openraft::async_runtime::Instant;
use openraft_rt_sim::SimInstant;

use super::{Node, elapsed};

/// Clocks start one day in, so that code which subtracts a timeout from now stays above zero.
const START_NANOS: u64 = 86_400 * 1_000_000_000;
/// Far beyond any run, and still convertible.
const LATEST_NANOS: u64 = u64::MAX / 4;
const MILLION: i128 = 1_000_000;

/// A point on a node's monotonic clock, in nanoseconds. A clock with drift d (parts per million) shows (1 + d/10^6) times what
/// passed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeInstant(u64);

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn drift() -> i128 {
    Node::current().map_or(0, |node| i128::from(node.drift()))
}

impl NodeInstant {
    /// The same point on the world's clock: the earliest at which this clock shows it.
    pub(super) fn in_world(self) -> SimInstant {
        let local = i128::from(self.0.saturating_sub(START_NANOS));
        let rate = MILLION + drift();
        // Rounded up, so that whoever wakes there sees the deadline reached.
        let passed = (local * MILLION + rate - 1) / rate;
        let passed = Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX / 2));
        let now = SimInstant::now();
        let start = now - elapsed();
        start + passed
    }
}

impl Instant for NodeInstant {
    fn now() -> Self {
        let passed = i128::from(nanos(elapsed()));
        let local = passed * (MILLION + drift()) / MILLION;
        Self(START_NANOS.saturating_add(u64::try_from(local).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for NodeInstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = Duration::from_nanos(self.0.saturating_sub(START_NANOS));
        write!(f, "NodeInstant({since:?})")
    }
}

impl Add<Duration> for NodeInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)).min(LATEST_NANOS))
    }
}

impl AddAssign<Duration> for NodeInstant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for NodeInstant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl SubAssign<Duration> for NodeInstant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for NodeInstant {
    type Output = Duration;

    /// Zero when `other` is later.
    fn sub(self, other: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(other.0))
    }
}
