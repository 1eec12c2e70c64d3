use std::time::Duration;

use crate::dice::Dice;

/// What may happen in a run. Each run has only some of it, so that rare combinations are not drowned by frequent faults.
#[derive(Debug, Clone)]
pub(super) struct Weather {
    /// How many places there are at the start.
    pub(super) places: usize,
    /// No process ends and no message is lost: replicas only stand still.
    pub(super) quiet: bool,
    pub(super) crashes: bool,
    pub(super) crash_points: bool,
    pub(super) stops: bool,
    pub(super) partitions: bool,
    pub(super) bad_links: bool,
    pub(super) pauses: bool,
    pub(super) strangers: bool,
    /// The host changes disks of stopped replicas: old copies, exchanged ones, none at all, flipped bits.
    pub(super) storage: bool,
    pub(super) full_disks: bool,
    pub(super) slow_disks: bool,
    pub(super) clocks: bool,
    pub(super) scaling: bool,
    pub(super) upgrades: bool,
    pub(super) hiding: bool,
    /// The longest time between two steps.
    pub(super) pace: Duration,
}

impl Weather {
    pub(super) fn new(dice: &Dice) -> Self {
        let quiet = dice.chance(60);
        let often = || dice.chance(600) && !quiet;
        let seldom = || dice.chance(300) && !quiet;
        Self {
            places: dice.pick(&[1, 3, 3, 3, 3, 5]).copied().unwrap_or(3),
            quiet,
            crashes: often(),
            crash_points: often(),
            stops: often(),
            partitions: often(),
            bad_links: often(),
            pauses: seldom() || quiet,
            strangers: often(),
            storage: seldom(),
            full_disks: seldom(),
            slow_disks: seldom(),
            clocks: often(),
            scaling: seldom(),
            upgrades: often(),
            hiding: seldom(),
            pace: Duration::from_millis(dice.within(100..1200)),
        }
    }
}
