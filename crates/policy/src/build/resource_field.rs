//! `resourceFieldRef`: what a container asks for, as a variable.

use contrast_quantity::Quantity;
use serde_json::Value;

/// The value that the kubelet gives (`ExtractContainerResourceValue`): the quantity over the divisor, rounded up. `None` when the node decides, because the pod names no
/// such quantity, or zero.
pub(super) fn value(spec: &Value, own: &str, reference: &Value) -> Option<u64> {
    let container = reference["containerName"].as_str().unwrap_or(own);
    let (kind, resource) = reference["resource"].as_str()?.split_once('.')?;
    let lists = ["initContainers", "containers"].into_iter();
    let mut containers = lists.flat_map(|list| spec[list].as_array().into_iter().flatten());
    let resources = &containers.find(|one| one["name"] == container)?["resources"];
    // Kubernetes takes limits for requests that are not there.
    let written = match kind {
        "requests" => resources["requests"]
            .get(resource)
            .or_else(|| resources["limits"].get(resource)),
        "limits" => resources["limits"].get(resource),
        _ => None,
    };
    let asked = match (kind, written) {
        ("requests", None) => Quantity::default(),
        (_, written) => quantity(written?)?,
    };
    // The node fills limits in that are not there, but no requests.
    if kind == "limits" && asked == Quantity::default() {
        return None;
    }
    let divisor = match reference.get("divisor") {
        None | Some(Value::Null) => None,
        Some(divisor) => Some(quantity(divisor)?),
    };
    let divisor = divisor.filter(|divisor| *divisor != Quantity::default());
    // Of CPU there are thousandths, of everything else whole units.
    match resource {
        "cpu" => {
            let divisor = divisor.map_or(Some(1000), Quantity::milli)?;
            Some(asked.milli()?.div_ceil(divisor))
        }
        _ => {
            let divisor = divisor.map_or(Some(1), Quantity::value)?;
            Some(asked.value()?.div_ceil(divisor))
        }
    }
}

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn value_is_what_the_kubelet_gives() {
        let spec = json!({
            "initContainers": [{"name": "init", "resources": {"limits": {"cpu": 3}}}],
            "containers": [
                {"name": "app", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}},
                {"name": "bare"},
                {"name": "zero", "resources": {"limits": {"cpu": "0"}}},
            ],
        });
        for (own, reference, expected) in [
            ("app", json!({"resource": "limits.cpu"}), Some(2)),
            (
                "app",
                json!({"resource": "limits.cpu", "divisor": "1m"}),
                Some(1500),
            ),
            (
                "app",
                json!({"resource": "limits.cpu", "divisor": "0"}),
                Some(2),
            ),
            ("app", json!({"resource": "requests.cpu"}), Some(1)),
            ("app", json!({"resource": "limits.memory"}), Some(64 << 20)),
            (
                "app",
                json!({"resource": "limits.memory", "divisor": "1Mi"}),
                Some(64),
            ),
            (
                "app",
                json!({"resource": "limits.memory", "divisor": "60Mi"}),
                Some(2),
            ),
            (
                "app",
                json!({"resource": "requests.memory", "divisor": "1Mi"}),
                Some(64),
            ),
            (
                "app",
                json!({"resource": "limits.cpu", "containerName": "init"}),
                Some(3),
            ),
            ("bare", json!({"resource": "limits.cpu"}), None),
            ("zero", json!({"resource": "limits.cpu"}), None),
            ("bare", json!({"resource": "requests.memory"}), Some(0)),
            ("zero", json!({"resource": "requests.cpu"}), Some(0)),
            ("app", json!({"resource": "limits.ephemeral-storage"}), None),
            ("app", json!({"resource": "cpu"}), None),
            (
                "app",
                json!({"resource": "limits.cpu", "divisor": "x"}),
                None,
            ),
            ("gone", json!({"resource": "limits.cpu"}), None),
        ] {
            assert_eq!(value(&spec, own, &reference), expected, "{own} {reference}");
        }
    }
}
