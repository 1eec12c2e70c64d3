//! Kubernetes quantities (`k8s.io/apimachinery/pkg/api/resource`): `10Gi`, `1.5G`, `12e6`.

/// Suffixes and what they multiply by.
const SUFFIXES: [(&str, u128); 12] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];
/// Digits of a number; more would not fit below the largest size.
const DIGITS_MAX: usize = 19;

/// A whole number of bytes, at most `i64::MAX` as in Kubernetes; `None` for anything else, also for fractions of a byte.
pub(super) fn bytes(text: &str) -> Option<u128> {
    let suffix = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (number, factor) = match suffix {
        Some(found) => found,
        None => match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent_factor(exponent)?),
            None => (text, 1),
        },
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number || digits.len() > DIGITS_MAX {
        return None;
    }
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let product = digits.parse::<u128>().ok()?.checked_mul(factor)?;
    let is_whole = product.checked_rem(scale)? == 0;
    let bytes = product.checked_div(scale)?;
    (is_whole && bytes <= u128::from(i64::MAX.unsigned_abs())).then_some(bytes)
}

fn exponent_factor(exponent: &str) -> Option<u128> {
    let digits = exponent.strip_prefix('+').unwrap_or(exponent);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    match is_number && digits.len() <= 2 {
        true => 10_u128.checked_pow(digits.parse().ok()?),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_whole_bytes() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1),
            ("10Gi", 10 << 30),
            ("1.5Gi", 3 << 29),
            ("0.5k", 500),
            ("12e6", 12_000_000),
            ("12E+6", 12_000_000),
            ("2E", 2_000_000_000_000_000_000),
            ("00010Mi", 10 << 20),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn everything_else_is_none() {
        for text in [
            "",
            " ",
            "Gi",
            "10GB",
            "10gi",
            "10 Gi",
            "-1",
            "+1",
            "1.5",
            ".5Gi",
            "1,5Gi",
            "0x10",
            "1e",
            "1e-3",
            "1e99",
            "10m",
            "9223372036854775808",
            "99Ei",
            "99999999999999999999999999",
            "١٠Gi",
            "1e6Gi",
            "ten",
        ] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
