//! How two manifests differ, for the person who has to decide whether that is all right.

mod words;

use std::{fmt, iter::zip};

use contrast_attestation::printable;
use serde_json::Value;

use crate::{JsonPath, json};

/// Differences beyond this many are counted, not shown.
const MAX_SHOWN: usize = 20;
/// Bytes shown before and after the first byte that differs.
const CONTEXT_BYTES: usize = 24;
/// Values longer than this are cut.
const MAX_VALUE_CHARS: usize = 300;

/// How two manifests differ. `Display` gives one line for each difference.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestDiff {
    /// They are the same bytes.
    Equal,
    /// They mean different things.
    Values(Vec<Difference>),
    /// They differ in bytes only (white space, order of fields), or one is no JSON.
    Bytes {
        /// Offset, from 0, of the first byte that differs.
        offset: usize,
        /// Line of that byte in the expected manifest, from 1.
        line: usize,
        /// Column of that byte, in bytes, from 1.
        column: usize,
        /// What surrounds it in the expected manifest, escaped.
        expected: String,
        /// What surrounds it in the manifest that was found, escaped.
        found: String,
        /// Whether both are JSON with equal values.
        same_meaning: bool,
    },
}

/// One value that differs; `None` where it is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub path: JsonPath,
    /// Compact JSON of the expected value.
    pub expected: Option<String>,
    /// Compact JSON of the value that was found.
    pub found: Option<String>,
}

/// Compares two manifests.
pub fn explain(expected: &[u8], found: &[u8]) -> ManifestDiff {
    if expected == found {
        return ManifestDiff::Equal;
    }
    let trees = json::parse(expected).ok().zip(json::parse(found).ok());
    let same_meaning = trees.is_some();
    if let Some((expected, found)) = trees {
        let mut differences = Vec::new();
        compare(
            &expected.root,
            &found.root,
            &JsonPath::root(),
            &mut differences,
        );
        if !differences.is_empty() {
            return ManifestDiff::Values(differences);
        }
    }
    let offset = zip(expected, found).take_while(|(a, b)| a == b).count();
    let before = expected.get(..offset).unwrap_or_default();
    let line_start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at.saturating_add(1));
    ManifestDiff::Bytes {
        offset,
        line: before
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            .saturating_add(1),
        column: offset.saturating_sub(line_start).saturating_add(1),
        expected: context(expected, offset),
        found: context(found, offset),
        same_meaning,
    }
}

fn compare(expected: &Value, found: &Value, path: &JsonPath, differences: &mut Vec<Difference>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                match found.get(key) {
                    Some(other) => compare(value, other, &path.key(key), differences),
                    None => differences.push(absent_in_found(path.key(key), value)),
                }
            }
            for (key, value) in found.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                differences.push(absent_in_expected(path.key(key), value));
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            for (index, (value, other)) in zip(expected, found).enumerate() {
                compare(value, other, &path.index(index), differences);
            }
            for (index, value) in expected.iter().enumerate().skip(found.len()) {
                differences.push(absent_in_found(path.index(index), value));
            }
            for (index, value) in found.iter().enumerate().skip(expected.len()) {
                differences.push(absent_in_expected(path.index(index), value));
            }
        }
        (expected, found) if expected == found => {}
        (expected, found) => differences.push(Difference {
            path: path.clone(),
            expected: Some(expected.to_string()),
            found: Some(found.to_string()),
        }),
    }
}

fn absent_in_found(path: JsonPath, value: &Value) -> Difference {
    Difference {
        path,
        expected: Some(value.to_string()),
        found: None,
    }
}

fn absent_in_expected(path: JsonPath, value: &Value) -> Difference {
    Difference {
        path,
        expected: None,
        found: Some(value.to_string()),
    }
}

fn context(bytes: &[u8], offset: usize) -> String {
    let start = offset.saturating_sub(CONTEXT_BYTES).min(bytes.len());
    let end = offset.saturating_add(CONTEXT_BYTES).min(bytes.len());
    bytes
        .get(start..end)
        .unwrap_or_default()
        .escape_ascii()
        .to_string()
}

impl fmt::Display for ManifestDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => f.write_str("the manifests are the same"),
            Self::Values(differences) => {
                let count = differences.len();
                let noun = if count == 1 { "value" } else { "values" };
                write!(f, "the manifests differ in {count} {noun}:")?;
                for difference in differences.iter().take(MAX_SHOWN) {
                    write!(f, "\n  {difference}")?;
                }
                match count.saturating_sub(MAX_SHOWN) {
                    0 => Ok(()),
                    more => write!(f, "\n  and {more} more"),
                }
            }
            Self::Bytes {
                offset,
                line,
                column,
                expected,
                found,
                same_meaning,
            } => {
                let meaning = match same_meaning {
                    true => " (white space or the order of fields; the values are the same)",
                    false => "",
                };
                write!(
                    f,
                    "the manifests differ from byte {offset} on, line {line}, column {column}{meaning}:\n  \
                     expected …{expected}…\n  found    …{found}…"
                )
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        match (&self.expected, &self.found) {
            (Some(expected), Some(found)) => {
                write!(f, "expected {}, found {}", cut(expected), cut(found))?;
                let at = zip(expected.chars(), found.chars())
                    .take_while(|(a, b)| a == b)
                    .count();
                // In long hex strings the eye needs help.
                if expected.len().min(found.len()) > 32 && at > 0 {
                    write!(f, " (first difference at character {at})")?;
                }
            }
            (Some(expected), None) => write!(f, "expected {}, found nothing", cut(expected))?,
            (None, Some(found)) => write!(f, "expected nothing, found {}", cut(found))?,
            (None, None) => {}
        }
        // Keys of a manifest that nobody has checked may be in it.
        words::of(self).map_or(Ok(()), |words| write!(f, "; {}", printable(&cut(&words))))
    }
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_value_that_differs_by_one_byte() {
        let expected = format!(
            r#"{{"ReferenceValues": {{"snp": [{{"TrustedMeasurement": "{}"}}]}}}}"#,
            "a0".repeat(48)
        );
        let found = expected.replacen("a0a0a0", "a0a1a0", 1);
        let text = explain(expected.as_bytes(), found.as_bytes()).to_string();
        assert!(text.starts_with("the manifests differ in 1 value:\n  $.ReferenceValues.snp[0].TrustedMeasurement: expected \"a0a0"));
        assert!(
            text.ends_with("(first difference at character 4)"),
            "{text}"
        );
    }

    #[test]
    fn white_space_is_shown_with_line_and_column() {
        let diff = explain(b"{\n  \"a\": 1\n}\n", b"{\n  \"a\":  1\n}\n");
        assert!(
            matches!(
                diff,
                ManifestDiff::Bytes {
                    offset: 9,
                    line: 2,
                    column: 8,
                    same_meaning: true,
                    ..
                }
            ),
            "{diff:?}"
        );
    }

    #[test]
    fn added_and_removed_values_are_named() {
        let text = explain(
            br#"{"a": {"x": 1}, "l": [1]}"#,
            br#"{"a": {"y": 2}, "l": [1, 2]}"#,
        );
        assert_eq!(
            text.to_string(),
            "the manifests differ in 3 values:\n  $.a.x: expected 1, found nothing\n  \
             $.a.y: expected nothing, found 2\n  $.l[1]: expected nothing, found 2"
        );
    }

    #[test]
    fn bytes_that_are_no_json_fall_back_to_the_offset() {
        let diff = explain(b"{}", b"\xff\xfe");
        assert!(matches!(
            diff,
            ManifestDiff::Bytes {
                offset: 0,
                same_meaning: false,
                ..
            }
        ));
        assert!(diff.to_string().contains(r"\xff\xfe"));
    }

    #[test]
    fn truncated_manifest_is_a_difference_at_its_end() {
        assert!(matches!(
            explain(b"{} ", b"{}"),
            ManifestDiff::Bytes { offset: 2, .. }
        ));
        assert_eq!(explain(b"{}", b"{}"), ManifestDiff::Equal);
    }
}
