use serde_json::{Map, Number, Value};

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
    /// The node stands inside a flow collection, where only flow style fits.
    pub(crate) in_flow: bool,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Scalar {
        value: String,
        plain: bool,
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

    /// The node as JSON, with scalars as Kubernetes reads them.
    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar { value, plain: true } => plain_scalar(value),
            Content::Scalar {
                value,
                plain: false,
            } => Value::String(value.clone()),
            Content::Sequence { items, .. } => items.iter().map(Self::to_value).collect(),
            Content::Mapping { entries, .. } => {
                let mut object = Map::new();
                for (key, value) in entries {
                    match (&key.content, &value.content) {
                        (
                            Content::Scalar {
                                value: name,
                                plain: true,
                            },
                            Content::Mapping { entries, .. },
                        ) if name == "<<" => {
                            for (key, value) in entries {
                                object
                                    .entry(key_text(key))
                                    .or_insert_with(|| value.to_value());
                            }
                        }
                        _ => {
                            object.insert(key_text(key), value.to_value());
                        }
                    }
                }
                Value::Object(object)
            }
        }
    }
}

fn key_text(key: &Node) -> String {
    match &key.content {
        Content::Scalar { value, .. } => value.clone(),
        _ => key.to_value().to_string(),
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
