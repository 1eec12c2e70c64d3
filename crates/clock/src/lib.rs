//! Time and randomness as parameters, so that tests and simulations can drive them.
//!
//! Wall time ([`WallClock`]) is for certificate validity and evidence; deadlines use tokio's monotonic clock, which tokio
//! can pause. Randomness ([`Entropy`]) is for keys and nonces.

mod entropy;
mod wall;

pub use entropy::{Entropy, EntropyError, SeededEntropy, SystemEntropy};
pub use wall::{FixedWallClock, SystemWallClock, WallClock};
