//! Reading fields of Kubernetes objects.

use serde_json::Value;

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn words(value: &Value) -> Vec<String> {
    list(value)
        .iter()
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}

pub(super) fn texts(container: &Value, key: &str, field: &str) -> Vec<String> {
    list(&container[key])
        .iter()
        .filter_map(|item| item[field].as_str().map(str::to_owned))
        .collect()
}

/// A user or group id.
pub(super) fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

pub(super) fn ids(value: &Value) -> impl Iterator<Item = u32> + '_ {
    list(value).iter().filter_map(id)
}
