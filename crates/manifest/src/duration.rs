use std::time::Duration;

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as `7d`, `168h`, `1h30m` or `90s`, found `{}`", .found.escape_debug())]
pub(crate) struct DurationError {
    found: String,
}

/// Units and their seconds, in the order in which they may follow each other.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];
/// Longer texts are refused unread: every unit with as many digits as a number of seconds can have is shorter.
const MAX_BYTES: usize = 96;

/// Reads whole numbers with units, the larger unit first, each at most once: the durations of Go and Kubernetes without fractions, and
/// days beside them.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    seconds(text)
        .map(Duration::from_secs)
        .ok_or_else(|| DurationError {
            found: text.chars().take(MAX_BYTES).collect(),
        })
}

fn seconds(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > MAX_BYTES {
        return None;
    }
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, from_unit) = rest.split_at(end);
        let unit = from_unit.chars().next()?;
        let (_, length) = units.find(|(name, _)| *name == unit)?;
        let number: u64 = digits.parse().ok()?;
        total = total.checked_add(number.checked_mul(*length)?)?;
        rest = from_unit.get(unit.len_utf8()..)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_and_days_are_read() {
        for (text, seconds) in [
            ("168h", 604_800),
            ("7d", 604_800),
            ("10m", 600),
            ("1h30m", 5400),
            ("90s", 90),
            ("168h0m0s", 604_800),
            ("1d2h3m4s", 93_784),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "0".repeat(95) + "1s";
        for text in [
            "",
            "10",
            "m",
            "1h30",
            "-1h",
            "+1h",
            "1.5h",
            "1m1h",
            "1h1h",
            "1 h",
            "1h ",
            "1ms",
            "1w",
            "1H",
            "1µs",
            "٣h",
            "18446744073709551615d",
            "18446744073709551616s",
            &long,
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with("expected a duration such as"), "{error}");
        }
    }
}
