use serde_json::{Map, Number, Value};

use crate::{ResourceError, emit, text::skip_properties};

/// A parsed YAML node with its place in the text (byte offsets into the file).
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column, from 0.
    pub(crate) column: usize,
    /// The node was written as an alias of an anchor somewhere else; its children stand there.
    pub(crate) alias: bool,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Scalar {
        value: String,
        plain: bool,
        /// Literal or folded.
        block: bool,
    },
    Mapping {
        entries: Vec<(Node, Node)>,
        flow: bool,
    },
    Sequence {
        items: Vec<Node>,
        flow: bool,
    },
}

impl Node {
    /// Where the node's last character stands: block collections have no end of their own, so it is their last leaf's.
    pub(crate) fn last_byte(&self) -> usize {
        match &self.content {
            _ if self.alias => self.end,
            Content::Mapping {
                entries,
                flow: false,
            } => entries
                .last()
                .map_or(self.end, |(key, value)| value.last_byte().max(key.end)),
            Content::Sequence { items, flow: false } => {
                items.last().map_or(self.end, Self::last_byte)
            }
            _ => self.end,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Mapping { entries, .. } => entries
                .iter()
                .find(|(found, _)| matches!(&found.content, Content::Scalar { value, .. } if value == key))
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a scalar key; `None` for a collection, which JSON has no keys of.
    pub(crate) fn key_text(&self) -> Option<String> {
        match &self.content {
            Content::Scalar { value, .. } => Some(value.clone()),
            _ => None,
        }
    }

    /// Whether this is the key `<<`, which merges what stands behind it.
    pub(crate) fn is_merge(&self) -> bool {
        matches!(&self.content, Content::Scalar { value, plain: true, .. } if value == "<<")
    }

    /// Where the node starts behind its anchor and tag.
    pub(crate) fn start_of_content(&self, text: &str) -> usize {
        skip_properties(text, self.start)
    }

    /// Where the header (`|`, `>-`) of a block scalar stands, which the parser leaves out.
    pub(crate) fn header(&self, text: &str) -> Option<usize> {
        let Content::Scalar { block: true, .. } = &self.content else {
            return None;
        };
        let before = text.get(..self.start)?;
        let indicator = before.rfind(['|', '>'])?;
        Some(indicator)
    }

    /// A scalar in the quotes of the one that it replaces.
    pub(crate) fn scalar_like(&self, text: &str, value: &Value) -> String {
        let old = text.get(self.start_of_content(text)..).unwrap_or_default();
        let is_scalar = matches!(&self.content, Content::Scalar { .. });
        match value {
            Value::String(new) if is_scalar && old.starts_with('"') => {
                Value::String(new.clone()).to_string()
            }
            Value::String(new)
                if is_scalar
                    && old.starts_with('\'')
                    && !new.contains(['\''])
                    && !new.contains(char::is_control) =>
            {
                format!("'{new}'")
            }
            other => emit::scalar(other),
        }
    }

    /// The node as JSON, with scalars as Kubernetes reads them.
    ///
    /// # Errors
    /// When a mapping has a key twice or one that is no scalar, or a merge key has no mapping behind it.
    pub(crate) fn to_value(&self) -> Result<Value, ResourceError> {
        Ok(match &self.content {
            Content::Scalar {
                value, plain: true, ..
            } => plain_scalar(value),
            Content::Scalar { value, .. } => Value::String(value.clone()),
            Content::Sequence { items, .. } => {
                Value::Array(items.iter().map(Self::to_value).collect::<Result<_, _>>()?)
            }
            Content::Mapping { entries, .. } => {
                let mut object = Map::new();
                for (key, value) in entries.iter().filter(|(key, _)| !key.is_merge()) {
                    let Some(name) = key.key_text() else {
                        return Err(key
                            .structure("a key must be a scalar, and this is a collection".into()));
                    };
                    let value = value.to_value()?;
                    if object.insert(name.clone(), value).is_some() {
                        return Err(key.structure(format!(
                            "the key `{name}` stands here for the second time; remove one of the two"
                        )));
                    }
                }
                for (key, merged) in entries.iter().filter(|(key, _)| key.is_merge()) {
                    key.merge(merged, &mut object)?;
                }
                Value::Object(object)
            }
        })
    }

    /// Adds what `merged` (a mapping or a list of them) has and `object` has not.
    fn merge(&self, merged: &Self, object: &mut Map<String, Value>) -> Result<(), ResourceError> {
        let sources = match &merged.content {
            Content::Sequence { items, .. } => items.as_slice(),
            _ => std::slice::from_ref(merged),
        };
        for source in sources {
            let Value::Object(source) = source.to_value()? else {
                return Err(self
                    .structure("the merge key `<<` needs a mapping or a list of mappings".into()));
            };
            for (key, value) in source {
                object.entry(key).or_insert(value);
            }
        }
        Ok(())
    }

    fn structure(&self, reason: String) -> ResourceError {
        ResourceError::Structure {
            line: self.line,
            column: self.column.saturating_add(1),
            reason,
        }
    }
}

/// Plain scalars of YAML 1.1 as Kubernetes' own reader resolves them.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if let Some(octal) = text.strip_prefix("0o").or_else(|| octal_digits(text))
        && let Ok(number) = i64::from_str_radix(octal, 8)
    {
        return Value::Number(number.into());
    }
    if let Some(hex) = text.strip_prefix("0x")
        && let Ok(number) = i64::from_str_radix(hex, 16)
    {
        return Value::Number(number.into());
    }
    if let Ok(number) = text.parse::<i64>() {
        return Value::Number(number.into());
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(number) if numeric => Value::Number(number),
        _ => Value::String(text.to_owned()),
    }
}

/// YAML 1.1 octal: a leading zero, as in file modes.
fn octal_digits(text: &str) -> Option<&str> {
    let digits = text.strip_prefix('0')?;
    (!digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte)))
        .then_some(digits)
}
