//! CPU quantities of Kubernetes.

use std::fmt;

use contrast_quantity::{Quantity, QuantityError};

/// CPU in thousandths, as Kubernetes counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MilliCpu(pub u64);

impl MilliCpu {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Whole CPUs, rounded up.
    pub(crate) fn cpus(self) -> u64 {
        self.0.div_ceil(1000)
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

impl std::str::FromStr for MilliCpu {
    type Err = QuantityError;

    /// Reads a quantity, rounded up to a thousandth.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let quantity: Quantity = text.parse()?;
        quantity.milli().map(Self).ok_or_else(|| QuantityError {
            found: text.to_owned(),
        })
    }
}
