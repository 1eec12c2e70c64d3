use std::{cell::RefCell, convert::Infallible};

use contrast_clock::{Entropy, EntropyError};
use rand_core::{TryCryptoRng, TryRng};

/// Our source of randomness for a library that knows no failure: after one, everything is zero, and its result must not be used.
pub(super) struct Random<'a> {
    entropy: &'a dyn Entropy,
    failure: RefCell<Option<EntropyError>>,
}

impl<'a> Random<'a> {
    pub(super) fn new(entropy: &'a dyn Entropy) -> Self {
        Self {
            entropy,
            failure: RefCell::new(None),
        }
    }

    /// Whether all that was drawn was random.
    pub(super) fn check(self) -> Result<(), EntropyError> {
        self.failure.into_inner().map_or(Ok(()), Err)
    }

    fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    fn fill(&self, destination: &mut [u8]) {
        if let Err(error) = self.entropy.fill(destination) {
            destination.fill(0);
            *self.failure.borrow_mut() = Some(error);
        }
    }
}

impl TryRng for &Random<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.bytes()))
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        self.fill(destination);
        Ok(())
    }
}

impl TryCryptoRng for &Random<'_> {}
