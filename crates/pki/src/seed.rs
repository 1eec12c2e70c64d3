use std::fmt;

use contrast_clock::{Entropy, EntropyError};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of a seed in bytes.
pub(crate) const SEED_BYTES: usize = 64;
/// Length of a salt in bytes.
pub(crate) const SALT_BYTES: usize = 32;

/// Bytes that cannot be a seed or a salt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// Wrong length.
    #[error("the {what} has {found} bytes, expected {expected}")]
    Length {
        /// Seed or salt.
        what: &'static str,
        /// Expected number of bytes.
        expected: usize,
        /// Number of bytes given.
        found: usize,
    },
    /// The source of randomness failed.
    #[error("cannot draw a {what}")]
    Entropy {
        /// Seed or salt.
        what: &'static str,
        /// Why.
        #[source]
        source: EntropyError,
    },
}

/// The root secret of a deployment, 64 random bytes. Wiped when dropped, hidden from `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; SEED_BYTES]);

impl Seed {
    /// Draws a seed.
    ///
    /// # Errors
    /// When `entropy` fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, SeedError> {
        let mut seed = Self([0; SEED_BYTES]);
        entropy
            .fill(&mut seed.0)
            .map_err(|source| SeedError::Entropy {
                what: "seed",
                source,
            })?;
        Ok(seed)
    }

    /// Takes over 64 bytes.
    ///
    /// # Errors
    /// When there are not 64.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SeedError> {
        let found = bytes.len();
        let bytes = bytes.try_into().map_err(|_| SeedError::Length {
            what: "seed",
            expected: SEED_BYTES,
            found,
        })?;
        Ok(Self(bytes))
    }

    /// The secret bytes. Do not copy them to where they are not wiped.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(hidden)")
    }
}

/// The public salt of a deployment's key derivations, 32 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; SALT_BYTES]);

impl Salt {
    /// Draws a salt.
    ///
    /// # Errors
    /// When `entropy` fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, SeedError> {
        let mut salt = [0; SALT_BYTES];
        entropy
            .fill(&mut salt)
            .map_err(|source| SeedError::Entropy {
                what: "salt",
                source,
            })?;
        Ok(Self(salt))
    }

    /// Takes over 32 bytes.
    ///
    /// # Errors
    /// When there are not 32.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SeedError> {
        let found = bytes.len();
        let bytes = bytes.try_into().map_err(|_| SeedError::Length {
            what: "salt",
            expected: SALT_BYTES,
            found,
        })?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; SALT_BYTES] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use contrast_clock::SeededEntropy;

    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_seed() {
        let seed = Seed::from_slice(&[0x5a; 64]).expect("64 bytes");
        assert_eq!(format!("{seed:?}"), "Seed(hidden)");
    }

    #[test]
    fn wrong_length_is_named() {
        let error = Seed::from_slice(&[1; 32])
            .expect_err("too short")
            .to_string();
        assert_eq!(error, "the seed has 32 bytes, expected 64");
        let error = Salt::from_slice(&[1; 64])
            .expect_err("too long")
            .to_string();
        assert_eq!(error, "the salt has 64 bytes, expected 32");
    }

    #[test]
    fn two_draws_differ() {
        let entropy = SeededEntropy::new(1);
        let first = Seed::generate(&entropy).expect("draws");
        assert_ne!(
            first.expose(),
            Seed::generate(&entropy).expect("draws").expose()
        );
    }
}
