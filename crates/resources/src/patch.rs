//! Edits as splices of the text.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    ResourceError, emit,
    node::{Content, Node},
    parse::parse,
};

/// One step of a path into a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Entry of a mapping.
    Key(String),
    /// Item of a sequence, from 0.
    Index(usize),
}

impl Step {
    /// Entry `key` of a mapping.
    pub fn key(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

/// A path as people write it: `spec.containers[0].name`.
pub(crate) fn show(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        // Writing to a `String` cannot fail.
        let _ = match step {
            Step::Key(key) if text.is_empty() => write!(text, "{key}"),
            Step::Key(key) => write!(text, ".{key}"),
            Step::Index(index) => write!(text, "[{index}]"),
        };
    }
    text
}

pub(crate) fn set(
    text: &str,
    index: usize,
    path: &[Step],
    value: &Value,
) -> Result<String, ResourceError> {
    let root = root(text, index)?;
    let (parent, rest) = deepest(&root, path);
    if rest.is_empty() {
        if parent.to_value() == *value {
            return Ok(text.to_owned());
        }
        let edited = replace_node(text, parent, path, value)?;
        return checked(edited, index, path, value);
    }
    let Some((Step::Key(key), below)) = rest.split_first() else {
        return Err(refuse(parent, path, "there is no such item"));
    };
    let mut missing = value.clone();
    for step in below.iter().rev() {
        missing = match step {
            Step::Key(key) => json!({ key: missing }),
            Step::Index(_) => json!([missing]),
        };
    }
    let edited = add_entry(text, parent, path, key, &missing)?;
    checked(edited, index, path, value)
}

pub(crate) fn insert(
    text: &str,
    index: usize,
    path: &[Step],
    at: usize,
    value: &Value,
) -> Result<String, ResourceError> {
    let root = root(text, index)?;
    let (node, rest) = deepest(&root, path);
    if !rest.is_empty() {
        return set(text, index, path, &json!([value]));
    }
    let mut wanted = node.to_value();
    if wanted.is_null() {
        wanted = json!([]);
    }
    let Some(list) = wanted.as_array_mut() else {
        return Err(refuse(node, path, "it is not a list"));
    };
    let at = at.min(list.len());
    list.insert(at, value.clone());
    let edited = match &node.content {
        Content::Sequence { items, flow: false } if !node.alias && !items.is_empty() => {
            let column = dash_column(text, items, path)?;
            let line = format!("{}{}\n", " ".repeat(column), emit::item(value, column));
            let place = match items.get(at) {
                Some(item) => line_start(text, item.start),
                None => after_line(text, node.last_byte()),
            };
            splice(text, place, place, &line)
        }
        _ => replace_node(text, node, path, &wanted)?,
    };
    checked(edited, index, path, &wanted)
}

pub(crate) fn replace(
    text: &str,
    index: usize,
    path: &[Step],
    at: usize,
    value: &Value,
) -> Result<String, ResourceError> {
    let root = root(text, index)?;
    let (node, rest) = deepest(&root, path);
    let Content::Sequence { items, flow } = &node.content else {
        return Err(refuse(node, path, "it is not a list"));
    };
    let Some(item) = items.get(at).filter(|_| rest.is_empty()) else {
        return Err(refuse(node, path, "there is no such item"));
    };
    let mut wanted = node.to_value();
    if let Some(slot) = wanted.get_mut(at) {
        if slot == value {
            return Ok(text.to_owned());
        }
        *slot = value.clone();
    }
    let edited = match flow {
        false if !node.alias => {
            let column = dash_column(text, items, path)?;
            let new = format!("{}{}\n", " ".repeat(column), emit::item(value, column));
            let end = after_line(text, item.last_byte());
            splice(text, line_start(text, item.start), end, &new)
        }
        _ => replace_node(text, node, path, &wanted)?,
    };
    checked(edited, index, path, &wanted)
}

/// Replaces a whole node by `value`.
fn replace_node(
    text: &str,
    node: &Node,
    path: &[Step],
    value: &Value,
) -> Result<String, ResourceError> {
    if node.column == 0
        && !node.in_flow
        && matches!(node.content, Content::Mapping { flow: true, .. })
    {
        // A JSON document stays one.
        let json = serde_json::to_string_pretty(value)
            .map_err(|error| refuse(node, path, &error.to_string()))?;
        return Ok(splice(text, node.start, node.end, &json));
    }
    let line = text
        .get(line_start(text, node.start)..node.start)
        .unwrap_or_default();
    let indent = line.len().saturating_sub(line.trim_start().len());
    let after_key = line.trim_end().ends_with(':') && !node.in_flow;
    let one_line = !value.is_object() && !value.is_array()
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty);
    let new = match (one_line, after_key) {
        (true, _) if node.in_flow => value.to_string(),
        (true, _) => emit::scalar(value),
        (false, true) => format!("\n{}", emit::block(value, indent.saturating_add(2))),
        // Inside a flow collection only flow style fits.
        (false, false) => value.to_string(),
    };
    let start = match new.starts_with('\n') {
        true => node
            .start
            .saturating_sub(line.len().saturating_sub(line.trim_end().len())),
        false => node.start,
    };
    Ok(match node.start == node.end && !new.starts_with('\n') {
        // An absent value (`key:`): the parser places it right behind the colon.
        true => splice(
            text,
            node.start,
            node.end,
            &format!(" {}", new.trim_start()),
        ),
        false => splice(
            text,
            start,
            node.last_byte().max(node.end.min(node.last_byte())),
            &new,
        ),
    })
}

fn add_entry(
    text: &str,
    parent: &Node,
    path: &[Step],
    key: &str,
    value: &Value,
) -> Result<String, ResourceError> {
    if parent.alias {
        return Err(refuse(parent, path, "it is an alias; write the value out"));
    }
    match &parent.content {
        Content::Mapping {
            entries,
            flow: false,
        } if !entries.is_empty() => {
            let indent = parent.column;
            let entry = emit::entry(key, value, indent);
            let place = after_line(text, parent.last_byte());
            let new = format!("{}{entry}\n", " ".repeat(indent));
            Ok(splice(text, place, place, &new))
        }
        Content::Mapping { .. } | Content::Scalar { .. } => {
            let mut wanted = parent.to_value();
            if wanted.is_null() {
                wanted = json!({});
            }
            let Some(object) = wanted.as_object_mut() else {
                return Err(refuse(parent, path, "a scalar stands in the way"));
            };
            object.insert(key.to_owned(), value.clone());
            replace_node(text, parent, path, &wanted)
        }
        Content::Sequence { .. } => Err(refuse(parent, path, "a list stands in the way")),
    }
}

/// The node at the longest part of `path` that exists, and the rest of the path.
fn deepest<'a, 'b>(root: &'a Node, path: &'b [Step]) -> (&'a Node, &'b [Step]) {
    let mut node = root;
    let mut rest = path;
    while let Some((step, below)) = rest.split_first() {
        let next = match (step, &node.content) {
            (Step::Key(key), _) => node.get(key),
            (Step::Index(at), Content::Sequence { items, .. }) => items.get(*at),
            (Step::Index(_), _) => None,
        };
        let Some(next) = next else { break };
        (node, rest) = (next, below);
    }
    (node, rest)
}

fn root(text: &str, index: usize) -> Result<Node, ResourceError> {
    parse(text)?
        .into_iter()
        .nth(index)
        .and_then(|document| document.root)
        .ok_or_else(|| ResourceError::Patch {
            path: String::new(),
            line: 0,
            reason: format!("there is no document {}", index.saturating_add(1)),
        })
}

/// The pair to every edit: what was written must be what is read.
fn checked(
    edited: String,
    index: usize,
    path: &[Step],
    value: &Value,
) -> Result<String, ResourceError> {
    let root = root(&edited, index)?;
    let (node, rest) = deepest(&root, path);
    match rest.is_empty() && node.to_value() == *value {
        true => Ok(edited),
        false => Err(refuse(
            node,
            path,
            "the edit would not say what it should; write this part in block style",
        )),
    }
}

fn dash_column(text: &str, items: &[Node], path: &[Step]) -> Result<usize, ResourceError> {
    let Some(first) = items.first() else {
        return Ok(0);
    };
    let line = text
        .get(line_start(text, first.start)..first.start)
        .unwrap_or_default();
    match line.rfind('-') {
        Some(column) if line.get(..column).is_some_and(|pad| pad.trim().is_empty()) => Ok(column),
        _ => Err(refuse(
            first,
            path,
            "the list does not start on a line of its own",
        )),
    }
}

fn line_start(text: &str, offset: usize) -> usize {
    text.get(..offset)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |newline| newline.saturating_add(1))
}

/// Offset behind the line in which the byte before `offset` stands.
fn after_line(text: &str, offset: usize) -> usize {
    let last = offset.saturating_sub(1);
    match text.get(last..).and_then(|rest| rest.find('\n')) {
        Some(newline) => last.saturating_add(newline).saturating_add(1),
        None => text.len(),
    }
}

fn splice(text: &str, start: usize, end: usize, new: &str) -> String {
    let before = text.get(..start).unwrap_or(text);
    let after = text.get(end..).unwrap_or_default();
    let newline = match new.ends_with('\n') && !before.is_empty() && !before.ends_with('\n') {
        true => "\n",
        false => "",
    };
    format!("{before}{newline}{new}{after}")
}

fn refuse(node: &Node, path: &[Step], reason: &str) -> ResourceError {
    ResourceError::Patch {
        path: show(path),
        line: node.line,
        reason: reason.to_owned(),
    }
}
