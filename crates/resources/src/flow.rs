//! Flow style (JSON) for values that are inserted into a flow collection, in the style of what is there.

use serde_json::Value;

use crate::{node::Node, text::Lines};

/// How a flow collection is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Style {
    /// Indentation of its children and of one more level; `None` when everything stands on one line.
    lines: Option<(String, String)>,
    /// No space behind `:` and `,`.
    compact: bool,
}

impl Style {
    /// The style of the flow collection `node`, whose first child is `child`.
    pub(crate) fn of(lines: &Lines<'_>, node: &Node, child: Option<&Node>) -> Self {
        let own = lines.text().get(node.start..node.end).unwrap_or_default();
        let apart = child.and_then(|child| {
            let before = lines.text().get(lines.start(child.start)..child.start)?;
            let indent = lines.indent(child.start);
            let outer = lines.indent(node.start);
            (before.trim().is_empty() && child.start > lines.start(node.start)).then(|| {
                let unit = indent.strip_prefix(outer).filter(|unit| !unit.is_empty());
                (indent.to_owned(), unit.unwrap_or("  ").to_owned())
            })
        });
        // A child on the line of the opening bracket means one line.
        let apart =
            apart.filter(|_| child.is_some_and(|child| lines.start(child.start) > node.start));
        Self {
            lines: apart,
            compact: own.contains("\":") && !own.contains("\": "),
        }
    }

    /// Between two children.
    pub(crate) fn separator(&self) -> String {
        match (&self.lines, self.compact) {
            (Some((indent, _)), _) => format!(",\n{indent}"),
            (None, true) => ",".to_owned(),
            (None, false) => ", ".to_owned(),
        }
    }

    /// `"key": value` as a child.
    pub(crate) fn entry(&self, key: &str, value: &Value) -> String {
        let key = Value::String(key.to_owned());
        let gap = if self.compact { "" } else { " " };
        format!("{key}:{gap}{}", self.value(value))
    }

    /// A value as (part of) a child.
    pub(crate) fn value(&self, value: &Value) -> String {
        let indent = self.lines.as_ref().map(|(indent, _)| indent.clone());
        self.write(value, indent.as_deref())
    }

    /// A value in the place of the collection itself.
    pub(crate) fn outer(&self, value: &Value) -> String {
        let outer = self.lines.as_ref().map(|(indent, unit)| {
            indent
                .strip_suffix(unit.as_str())
                .unwrap_or_default()
                .to_owned()
        });
        self.write(value, outer.as_deref())
    }

    fn write(&self, value: &Value, indent: Option<&str>) -> String {
        let unit = self.lines.as_ref().map_or("", |(_, unit)| unit.as_str());
        let inner = indent.map(|indent| format!("{indent}{unit}"));
        let gap = if self.compact { "" } else { " " };
        let (open, close, parts): (_, _, Vec<String>) = match value {
            Value::Object(entries) if !entries.is_empty() => {
                let entry = |(key, value): (&String, &Value)| {
                    let key = Value::String(key.clone());
                    format!("{key}:{gap}{}", self.write(value, inner.as_deref()))
                };
                ('{', '}', entries.iter().map(entry).collect())
            }
            Value::Array(items) if !items.is_empty() => {
                let item = |value| self.write(value, inner.as_deref());
                ('[', ']', items.iter().map(item).collect())
            }
            _ => return value.to_string(),
        };
        match (indent, &inner) {
            (Some(indent), Some(inner)) => {
                format!(
                    "{open}\n{inner}{}\n{indent}{close}",
                    parts.join(&format!(",\n{inner}"))
                )
            }
            _ => format!("{open}{}{close}", parts.join(&format!(",{gap}"))),
        }
    }
}
