//! `docs/reference/chart.md`: one row for each value, from the schema and the defaults.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::Value;

const BEFORE: &str = "# Values of the Helm chart

Of `deploy/chart`. Values of other names or forms are refused, and the refusal names their path. How to install: [install.md](../how-to/install.md).
<!-- Made by `cargo xtask manifests` from values.schema.json and values.yaml. -->

| value | form | default | meaning |
| --- | --- | --- | --- |
";

const AFTER: &str = "
A *quantity* is a Kubernetes quantity as text, for example `200Mi`. `PLATFORM` is one of those above, as in [platforms](platforms.md) without `contrast-cc-`.

The objects have fixed names, because the programs look for them: one release with a Coordinator in a namespace. What becomes of a change of values:

| change | what happens |
| --- | --- |
| `coordinator.replicas` | nothing restarts, the policy stays: [how to scale](../how-to/scale-coordinators.md) |
| image, environment, resources, `streams` | another policy: `contrast generate --keep-coordinator`, `contrast set`, then apply ([upgrade](../how-to/upgrade.md)) |
| everything else in the pod | Kubernetes replaces one replica after the other; with one replica that costs its memory, and owners [recover](../explanation/high-availability.md#recovering) |
| `coordinator.storage` | Kubernetes refuses it: claims of a StatefulSet do not change |
| `platforms.PLATFORM` | Helm removes the class and the installer that are no longer there. Running pods go on, and cannot start again: install a new `runtimeVersion` as a release of its own, and move the pods first |
";

pub(super) fn page(chart: &Path, defaults: &Value) -> Result<String> {
    let text = fs::read_to_string(chart.join("values.schema.json"))?;
    let schema: Value = serde_json::from_str(&text).context("values.schema.json is no JSON")?;
    let mut page = BEFORE.to_owned();
    rows(&schema, defaults, "", &mut page)?;
    rows(
        &schema["definitions"]["platform"],
        &Value::Null,
        "platforms.PLATFORM.",
        &mut page,
    )?;
    page.push_str(AFTER);
    Ok(page)
}

fn rows(object: &Value, defaults: &Value, prefix: &str, page: &mut String) -> Result<()> {
    let properties = object["properties"].as_object();
    for (name, property) in properties.context("expected properties")? {
        let path = format!("{prefix}{name}");
        let description = property["description"].as_str();
        let description =
            description.with_context(|| format!("{path}: expected a description in the schema"))?;
        let default = &defaults[name];
        let platforms = path == "platforms";
        if property["properties"].is_object() && !platforms {
            rows(property, default, &format!("{path}."), page)?;
            continue;
        }
        let named = property["allOf"][0]["$ref"].as_str();
        // Their settings have rows of their own.
        if named == Some("#/definitions/platform") {
            continue;
        }
        let required = object["required"].as_array();
        let required = required.is_some_and(|required| required.iter().any(|one| one == name));
        let default = match default {
            Value::Null if required => "required".to_owned(),
            Value::Null => "none".to_owned(),
            Value::String(text) if text.is_empty() => "empty".to_owned(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let form = match platforms {
            true => names(property),
            false => form(property)
                .with_context(|| format!("{path}: a form that the reference cannot tell"))?,
        };
        writeln!(page, "| `{path}` | {form} | {default} | {description} |")?;
    }
    Ok(())
}

fn names(property: &Value) -> String {
    let names = property["properties"].as_object().into_iter().flatten();
    let names = names.map(|(name, settings)| {
        let description = settings["description"].as_str().unwrap_or_default();
        format!("`{name}` ({})", description.trim_end_matches('.'))
    });
    names.collect::<Vec<_>>().join("; ")
}

fn form(property: &Value) -> Result<String> {
    let reference = property["allOf"][0]["$ref"].as_str();
    if let Some(definition) = reference.and_then(|name| name.strip_prefix("#/definitions/")) {
        return Ok(match definition {
            "quantity" | "optionalQuantity" => "quantity",
            "labels" => "texts by name",
            "tolerations" => "list of tolerations",
            "peers" => "list of NetworkPolicy peers",
            other => bail!("nobody says what `{other}` is"),
        }
        .to_owned());
    }
    if let Some(choice) = property["enum"].as_array() {
        let choice = choice.iter().map(|one| match one {
            Value::String(text) if text.is_empty() => "empty".to_owned(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        });
        return Ok(choice.collect::<Vec<_>>().join(", "));
    }
    Ok(match property["type"].as_str() {
        Some("string") => "text".to_owned(),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("integer") => match (&property["minimum"], &property["maximum"]) {
            (Value::Number(least), Value::Number(most)) => format!("{least} to {most}"),
            (Value::Number(least), _) => format!("number, at least {least}"),
            _ => "number".to_owned(),
        },
        Some("array") => match property["items"]["$ref"].as_str() {
            Some("#/definitions/name") => "list of names".to_owned(),
            Some("#/definitions/file") => {
                "list of `source` (`file:///...`), `path`, and if wanted `integrity` (`sha256-...`) and `mode` (`0755`)".to_owned()
            }
            Some("#/definitions/unit" | "#/definitions/annotationPattern") => "list of names".to_owned(),
            _ => "list of objects".to_owned(),
        },
        Some("object") if property["additionalProperties"]["type"] == "string" => {
            "texts by name".to_owned()
        }
        Some("object") => "object".to_owned(),
        other => bail!("nobody says what the type {other:?} is"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn value_without_description_is_refused() {
        let schema = json!({"properties": {"a": {"properties": {"b": {"type": "string"}}, "description": "A."}}});
        let error = rows(&schema, &json!({}), "", &mut String::new());
        let error = error.expect_err("refused").to_string();
        assert_eq!(error, "a.b: expected a description in the schema");
    }

    #[test]
    fn row_has_form_default_and_meaning() {
        let schema = json!({"properties": {"replicas": {"type": "integer", "enum": [1, 3], "description": "How many."}}});
        let mut page = String::new();
        rows(&schema, &json!({"replicas": 1}), "", &mut page).expect("rows");
        assert_eq!(page, "| `replicas` | `1`, `3` | `1` | How many. |\n");
    }
}
