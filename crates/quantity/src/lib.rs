//! Quantities of Kubernetes: CPU, memory, storage.

use std::{fmt, str::FromStr};

/// Most digits that a quantity may have.
const DIGITS_MAX: usize = 30;
/// Largest decimal exponent, either way.
const EXPONENT_MAX: i32 = 30;
/// Kubernetes counts in 10⁻⁹ at the finest, and rounds up.
const FINEST: i32 = 9;
const NANO: u128 = 1_000_000_000;
const NANO_PER_MILLI: u128 = 1_000_000;

/// A quantity that is not negative (Kubernetes API, `resource.Quantity`): digits with at most one point, then a decimal suffix (`n`, `u`, `m`, none,
/// `k` to `E`), a binary one (`Ki` to `Ei`) or an exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity {
    nano: u128,
}

/// Not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a quantity such as 2, 250m or 1.5Gi, found `{found}`")]
pub struct QuantityError {
    /// What was found.
    pub found: String,
}

impl Quantity {
    /// Thousandths, rounded up; `None` when they do not fit.
    pub fn milli(self) -> Option<u64> {
        u64::try_from(self.nano.div_ceil(NANO_PER_MILLI)).ok()
    }

    /// Units, rounded up; `None` when they do not fit.
    pub fn value(self) -> Option<u64> {
        u64::try_from(self.nano.div_ceil(NANO)).ok()
    }

    /// Units, when there is no fraction and Kubernetes could store them (at most 2⁶³ - 1).
    pub fn whole(self) -> Option<u64> {
        let value = self.value().filter(|value| i64::try_from(*value).is_ok());
        value.filter(|_| self.nano.is_multiple_of(NANO))
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text).ok_or_else(|| QuantityError {
            found: text.to_owned(),
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}n", self.nano)
    }
}

fn parse(text: &str) -> Option<Quantity> {
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
    let exponent = decimal + FINEST - i32::try_from(fraction.len()).ok()?;
    let scaled = mantissa.checked_mul(1 << binary)?;
    let power = 10_u128.checked_pow(exponent.unsigned_abs());
    let nano = match (exponent >= 0, power) {
        (true, power) => scaled.checked_mul(power?)?,
        (false, Some(power)) => scaled.div_ceil(power),
        // Less than the smallest fraction of anything that fits.
        (false, None) => u128::from(scaled > 0),
    };
    Some(Quantity { nano })
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
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, milli, whole) in [
            ("0", 0, Some(0)),
            ("1", 1000, Some(1)),
            ("+2", 2000, Some(2)),
            ("0.1", 100, None),
            (".5", 500, None),
            ("1.", 1000, Some(1)),
            ("100m", 100, None),
            ("1.5m", 2, None),
            ("1n", 1, None),
            ("2000u", 2, None),
            ("0.0000000000000000000000001", 1, None),
            ("1e3", 1_000_000, Some(1000)),
            ("12E+6", 12_000_000_000, Some(12_000_000)),
            ("1E-3", 1, None),
            ("1e-30", 1, None),
            ("1k", 1_000_000, Some(1000)),
            ("0.5k", 500_000, Some(500)),
            ("1Ki", 1_024_000, Some(1024)),
            ("1.5Gi", 1_610_612_736_000, Some(3 << 29)),
            ("00010Mi", 10_485_760_000, Some(10 << 20)),
            ("0E", 0, Some(0)),
        ] {
            let quantity: Quantity = text.parse().expect(text);
            assert_eq!(quantity.milli(), Some(milli), "{text}");
            assert_eq!(quantity.whole(), whole, "{text}");
        }
        let most: Quantity = "9223372036854775807".parse().expect("fits");
        assert_eq!(most.whole(), Some(i64::MAX.unsigned_abs()));
        let more: Quantity = "9223372036854775808".parse().expect("is a number");
        assert_eq!(
            (more.whole(), more.value(), more.milli()),
            (None, Some(1 << 63), None)
        );
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "",
            " ",
            ".",
            "-1",
            "1.1.1",
            "1,5Gi",
            "1 ",
            " 1",
            "10 Gi",
            "10GB",
            "10gi",
            "m",
            "Gi",
            "1mm",
            "1e",
            "1e31",
            "1e99",
            "1e6Gi",
            "1x",
            "0x1",
            "١",
            "١٠Gi",
            "ten",
            "9999999999999999999999999999999",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
