//! CPU quantities of Kubernetes.

use std::fmt;

/// Most digits that a quantity may have.
const DIGITS_MAX: usize = 30;
/// Largest decimal exponent, either way.
const EXPONENT_MAX: i32 = 30;

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

/// Not a quantity of CPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a quantity of CPU such as 2, 0.5 or 250m, found `{found}`")]
pub struct QuantityError {
    /// What was found.
    pub found: String,
}

impl std::str::FromStr for MilliCpu {
    type Err = QuantityError;

    /// Reads a quantity (Kubernetes API, `resource.Quantity`): digits with at most one point, then a decimal suffix (`n`,
    /// `u`, `m`, none, `k` to `E`), a binary one (`Ki` to `Ei`) or an exponent. Rounds up to a thousandth.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text).ok_or_else(|| QuantityError {
            found: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<MilliCpu> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    // Fails for a second point.
    let mantissa: u128 = digits.parse().ok()?;
    let (decimal, binary) = scale(suffix)?;
    // Thousandths, so three more.
    let exponent = decimal + 3 - i32::try_from(fraction.len()).ok()?;
    let scaled = mantissa.checked_mul(1 << binary)?;
    let power = 10_u128.checked_pow(exponent.unsigned_abs());
    let millis = match (exponent >= 0, power) {
        (true, power) => scaled.checked_mul(power?)?,
        (false, Some(power)) => scaled.div_ceil(power),
        // Less than the smallest fraction of anything that fits.
        (false, None) => u128::from(scaled > 0),
    };
    u64::try_from(millis).ok().map(MilliCpu)
}

/// A suffix as powers of ten and of two.
fn scale(suffix: &str) -> Option<(i32, u32)> {
    Some(match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            if exponent.abs() > EXPONENT_MAX {
                return None;
            }
            (exponent, 0)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::MilliCpu;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("1", 1000),
            ("+2", 2000),
            ("0.1", 100),
            (".5", 500),
            ("1.", 1000),
            ("100m", 100),
            ("1.5m", 2),
            ("1n", 1),
            ("2000u", 2),
            ("0.0000000000000000000000001", 1),
            ("1e3", 1_000_000),
            ("1E-3", 1),
            ("1e-30", 1),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("0E", 0),
        ] {
            assert_eq!(text.parse(), Ok(MilliCpu(millis)), "{text}");
        }
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "",
            ".",
            "-1",
            "1.1.1",
            "1 ",
            " 1",
            "m",
            "1mm",
            "1e",
            "1e31",
            "1x",
            "0x1",
            "1E",
            "١",
            "99999999999999999999999999",
        ] {
            assert!(text.parse::<MilliCpu>().is_err(), "{text}");
        }
    }
}
