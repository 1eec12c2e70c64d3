//! Fields that the user wrote and that generate writes otherwise.

use serde_json::Value;

/// One field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overwritten {
    /// Path of the field; items of lists by their names.
    pub(super) path: String,
    /// What the user wrote.
    pub(super) found: Value,
    /// What stands there now; `None` if it is removed.
    pub(super) written: Option<Value>,
}

impl Overwritten {
    /// For people.
    pub(super) fn text(&self) -> String {
        match &self.written {
            Some(written) => format!("{}: replaced {} by {written}", self.path, self.found),
            None => format!("{}: removed {}", self.path, self.found),
        }
    }
}

/// Keys by which items of lists are known, in the order in which they are tried.
const ITEM_KEYS: [&str; 3] = ["mountPath", "devicePath", "name"];

/// Every field of `found` that is another one in `written`, or none. What only `written` has overwrites nothing.
pub(super) fn fields(path: &str, found: &Value, written: &Value) -> Vec<Overwritten> {
    let mut all = Vec::new();
    collect(path, found, Some(written), &mut all);
    all
}

fn collect(path: &str, found: &Value, written: Option<&Value>, all: &mut Vec<Overwritten>) {
    match (found, written) {
        (Value::Null, _) => {}
        (found, Some(written)) if found == written => {}
        (Value::Object(found), Some(Value::Object(written))) => {
            for (key, value) in found {
                collect(&format!("{path}.{key}"), value, written.get(key), all);
            }
        }
        (Value::Array(items), Some(Value::Array(others))) if items.iter().all(is_named) => {
            for item in items {
                let Some((key, name)) = name(item) else {
                    continue;
                };
                let other = others.iter().find(|other| other[key] == name);
                collect(&format!("{path}[{name}]"), item, other, all);
            }
        }
        (found, written) => all.push(Overwritten {
            path: path.to_owned(),
            found: found.clone(),
            written: written.cloned(),
        }),
    }
}

fn is_named(item: &Value) -> bool {
    name(item).is_some()
}

fn name(item: &Value) -> Option<(&'static str, &str)> {
    ITEM_KEYS
        .iter()
        .find_map(|key| Some((*key, item.get(key)?.as_str()?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(found: &Value, written: &Value) -> Vec<String> {
        fields("c", found, written)
            .iter()
            .map(Overwritten::text)
            .collect()
    }

    #[test]
    fn each_field_is_named_with_both_values() {
        let found = json!({
            "name": "x", "image": "mine", "command": ["/a", "b"], "tty": true, "stdin": null,
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "w", "mountPath": "/contrast"}],
            "resources": {"limits": {"memory": "1Gi", "cpu": "1"}},
        });
        let written = json!({
            "name": "x", "image": "ours", "command": ["/a"], "restartPolicy": "Always",
            "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
            "volumeMounts": [{"name": "s", "mountPath": "/contrast"}],
            "resources": {"limits": {"memory": "50Mi"}},
        });
        let mut texts = texts(&found, &written);
        texts.sort();
        assert_eq!(
            texts,
            [
                r#"c.command: replaced ["/a","b"] by ["/a"]"#,
                r#"c.env[A]: removed {"name":"A","value":"1"}"#,
                r#"c.env[B].value: replaced "2" by "3""#,
                r#"c.image: replaced "mine" by "ours""#,
                r#"c.resources.limits.cpu: removed "1""#,
                r#"c.resources.limits.memory: replaced "1Gi" by "50Mi""#,
                "c.tty: removed true",
                r#"c.volumeMounts[/a]: removed {"name":"v","mountPath":"/a"}"#,
                r#"c.volumeMounts[/contrast].name: replaced "w" by "s""#,
            ]
        );
    }

    #[test]
    fn what_is_only_added_is_no_news() {
        assert_eq!(
            texts(
                &json!({"a": 1, "l": []}),
                &json!({"a": 1, "b": 2, "l": [{"name": "x"}]})
            ),
            [""; 0]
        );
    }
}
