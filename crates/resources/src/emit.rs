//! Block-style YAML for values that are inserted.

use serde_json::Value;

/// `value` as block YAML whose lines start at column `indent`; no newline at the end. Scalars and empty collections are one
/// line without indentation.
pub(crate) fn block(value: &Value, indent: usize) -> String {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(entries) if !entries.is_empty() => entries
            .iter()
            .map(|(key, value)| format!("{pad}{}", entry(key, value, indent)))
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .map(|value| format!("{pad}{}", item(value, indent)))
            .collect::<Vec<_>>()
            .join("\n"),
        _ => scalar(value),
    }
}

/// `key: value` for a mapping at column `indent`, without the first line's indentation.
pub(crate) fn entry(key: &str, value: &Value, indent: usize) -> String {
    let key = scalar(&Value::String(key.to_owned()));
    match is_collection(value) {
        true => format!("{key}:\n{}", block(value, indent.saturating_add(2))),
        false => format!("{key}: {}", scalar(value)),
    }
}

/// `- value` for a sequence at column `indent`, without the first line's indentation.
pub(crate) fn item(value: &Value, indent: usize) -> String {
    let inner = indent.saturating_add(2);
    let text = block(value, inner);
    format!(
        "- {}",
        text.strip_prefix(&" ".repeat(inner)).unwrap_or(&text)
    )
}

pub(crate) fn is_collection(value: &Value) -> bool {
    match value {
        Value::Object(entries) => !entries.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// One line: plain where that cannot be misread, else double-quoted (JSON strings are valid YAML).
pub(crate) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    const RESERVED: [&str; 12] = [
        "true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf", "~",
    ];
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let safe = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_./=+".contains(c));
    starts_well && safe && !RESERVED.contains(&text.to_ascii_lowercase().as_str())
}
