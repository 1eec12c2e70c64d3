//! Chance that a seed fixes.

use std::{ops::Range, time::Duration};

use contrast_clock::{Entropy, SeededEntropy};

/// Draws from one stream; each part of the world has a stream of its own, so that a new draw in one does not move the others.
#[derive(Debug)]
pub struct Dice(SeededEntropy);

impl Dice {
    /// The stream `name` of the run with the given seed.
    pub fn new(seed: u64, name: &str) -> Self {
        // FNV-1a of the name: short, and the same in every build.
        let name = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mixed = Self(SeededEntropy::new(seed ^ name)).number();
        Self(SeededEntropy::new(mixed))
    }

    /// 64 random bits.
    pub fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        // The seeded generator has no way to fail; were it to, the same number again is still a number.
        let _ = self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number in `range`, its start when the range is empty.
    pub fn within(&self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start);
        let drawn = self.number().checked_rem(width).unwrap_or_default();
        range.start.saturating_add(drawn)
    }

    /// An index below `length`, 0 when that is 0.
    pub fn index(&self, length: usize) -> usize {
        self.within(0..length as u64) as usize
    }

    /// True `permille` times of 1000.
    pub fn chance(&self, permille: u64) -> bool {
        self.within(0..1000) < permille
    }

    /// An element.
    pub fn pick<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// A duration within `range`, in whole microseconds.
    pub fn duration(&self, range: Range<Duration>) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.within(micros(range.start)..micros(range.end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_themselves_and_differ_by_seed_and_name() {
        let draw = |seed, name| {
            let dice = Dice::new(seed, name);
            [dice.number(), dice.number()]
        };
        assert_eq!(draw(1, "network"), draw(1, "network"));
        assert_ne!(draw(1, "network"), draw(2, "network"));
        assert_ne!(draw(1, "network"), draw(1, "disk"));
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_both_ends() {
        let dice = Dice::new(3, "bounds");
        let drawn: std::collections::BTreeSet<u64> = (0..200).map(|_| dice.within(5..9)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8]);
        assert_eq!(dice.within(7..7), 7);
        assert!(dice.pick::<u8>(&[]).is_none());
        assert!(!dice.chance(0));
        assert!(dice.chance(1000));
    }
}
