use std::{
    fmt::Debug,
    sync::atomic::{AtomicU64, Ordering},
};

/// The system could not provide random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed: {0}")]
pub struct EntropyError(String);

impl EntropyError {
    /// An error of a source of one's own, and why it failed.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Source of random bytes for keys, seeds and nonces.
pub trait Entropy: Debug + Send + Sync {
    /// Fills `destination` with random bytes.
    ///
    /// # Errors
    /// When the source cannot provide them; `destination` is then unspecified and must not be used.
    fn fill(&self, destination: &mut [u8]) -> Result<(), EntropyError>;
}

/// The operating system's generator (`getrandom(2)` on Linux).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, destination: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(destination).map_err(|error| EntropyError(error.to_string()))
    }
}

/// Predictable bytes for tests and simulations: splitmix64 from a seed. Never use it for real keys.
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// A generator that always yields the same bytes for the same `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .0
            .fetch_add(GAMMA, Ordering::Relaxed)
            .wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, destination: &mut [u8]) -> Result<(), EntropyError> {
        for chunk in destination.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_entropy_repeats_itself_and_system_entropy_does_not() {
        let draw = |source: &dyn Entropy| {
            let mut bytes = [0; 37];
            source.fill(&mut bytes).expect("entropy");
            bytes
        };
        assert_eq!(draw(&SeededEntropy::new(7)), draw(&SeededEntropy::new(7)));
        assert_ne!(draw(&SeededEntropy::new(7)), draw(&SeededEntropy::new(8)));
        assert_ne!(draw(&SystemEntropy), draw(&SystemEntropy));
    }
}
