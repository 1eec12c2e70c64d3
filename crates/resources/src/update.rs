//! From a wanted value to the fewest splices of the text that make it say so.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    ResourceError, Step, align, emit,
    flow::Style,
    node::{Content, Node},
    parse::parse,
    step::show,
    text::{Lines, first_dash, item_start},
};

/// Replacement of `start..end`. Several at one place are written in the order in which they were made.
struct Splice {
    start: usize,
    end: usize,
    new: String,
}

/// Where a node stands, which decides what may replace it.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// The document itself.
    Root,
    /// Behind a key of a block mapping at this column.
    Entry { column: usize },
    /// Behind the dash of a block sequence at this column.
    Item { dash: usize },
    /// Inside a flow collection.
    Flow(&'a Style),
}

/// `text` (one document that says `old`) changed so that it says `wanted`.
///
/// # Errors
/// When that cannot be done without changing something else.
pub(crate) fn update(text: &str, old: &Value, wanted: &Value) -> Result<String, ResourceError> {
    // Edits may then rely on every line having an end.
    let unended = !text.ends_with('\n');
    let text = &match unended {
        true => format!("{text}\n"),
        false => text.to_owned(),
    };
    let Some(root) = parse(text)?.into_iter().find_map(|document| document.root) else {
        return Err(refuse(1, &[], "the document is empty"));
    };
    let mut editor = Editor {
        text,
        lines: Lines::of(text),
        splices: Vec::new(),
        path: Vec::new(),
    };
    editor.change(&root, old, wanted, Place::Root)?;
    let mut edited = splice(text, editor.splices);
    if unended && edited.ends_with('\n') {
        edited.pop();
        if edited.ends_with('\r') {
            edited.pop();
        }
    }
    check(&edited, &root, wanted)?;
    Ok(edited)
}

/// The pair to every edit: what was written must be what is read, everywhere in the document.
fn check(edited: &str, before: &Node, wanted: &Value) -> Result<(), ResourceError> {
    let now = parse(edited).ok().and_then(|documents| {
        let root = documents.into_iter().find_map(|document| document.root);
        root.and_then(|root| root.to_value().ok())
    });
    if now.as_ref() == Some(wanted) {
        return Ok(());
    }
    let mut path = Vec::new();
    if let Some(now) = &now {
        difference(now, wanted, &mut path);
    }
    let mut node = before;
    let mut alias = node.alias;
    for step in &path {
        let next = match (step, &node.content) {
            (Step::Key(key), _) => node.get(key),
            (Step::Index(at), Content::Sequence { items, .. }) => items.get(*at),
            (Step::Index(_), _) => None,
        };
        let Some(next) = next else { break };
        node = next;
        alias |= node.alias;
    }
    Err(refuse(
        node.line,
        &path,
        match alias {
            true => {
                "it is an alias, and a change here would change every other place that uses the same anchor; \
                 write the value out instead of the alias"
            }
            false => {
                "the edit would not say what it should; write this part in plain block style, without anchors"
            }
        },
    ))
}

/// Extends `path` to the first place where `now` and `wanted` differ.
fn difference(now: &Value, wanted: &Value, path: &mut Vec<Step>) {
    match (now, wanted) {
        (Value::Object(now), Value::Object(wanted)) => {
            let keys = now.keys().chain(wanted.keys());
            for key in keys {
                match (now.get(key), wanted.get(key)) {
                    (a, b) if a == b => {}
                    (Some(a), Some(b)) => {
                        path.push(Step::key(key));
                        return difference(a, b, path);
                    }
                    _ => return path.push(Step::key(key)),
                }
            }
        }
        (Value::Array(now), Value::Array(wanted)) => {
            let differing = now.iter().zip(wanted).position(|(a, b)| a != b);
            if let Some(at) = differing {
                path.push(Step::Index(at));
                if let (Some(a), Some(b)) = (now.get(at), wanted.get(at)) {
                    difference(a, b, path);
                }
            }
        }
        _ => {}
    }
}

struct Editor<'a> {
    text: &'a str,
    lines: Lines<'a>,
    splices: Vec<Splice>,
    path: Vec<Step>,
}

impl Editor<'_> {
    fn change(
        &mut self,
        node: &Node,
        old: &Value,
        wanted: &Value,
        place: Place<'_>,
    ) -> Result<(), ResourceError> {
        // An alias follows its anchor. Whether that is what is wanted, `check` finds out.
        if old == wanted || node.alias {
            return Ok(());
        }
        match (&node.content, old, wanted) {
            (Content::Mapping { entries, flow }, Value::Object(old), Value::Object(wanted))
                if !entries.is_empty() && !wanted.is_empty() =>
            {
                self.mapping(node, entries, *flow, (old, wanted), place)
            }
            (Content::Sequence { items, flow }, Value::Array(old), Value::Array(wanted))
                if !items.is_empty() && !wanted.is_empty() =>
            {
                self.sequence(node, items, *flow, (old, wanted))
            }
            _ => self.replace(node, wanted, place),
        }
    }

    fn mapping(
        &mut self,
        node: &Node,
        entries: &[(Node, Node)],
        flow: bool,
        (old, wanted): (&Map<String, Value>, &Map<String, Value>),
        place: Place<'_>,
    ) -> Result<(), ResourceError> {
        let own: Vec<(String, &Node, &Node)> = entries
            .iter()
            .filter(|(key, _)| !key.is_merge())
            .filter_map(|(key, value)| Some((key.key_text()?, key, value)))
            .collect();
        let style =
            flow.then(|| Style::of(&self.lines, node, entries.first().map(|entry| &entry.0)));
        let removed = own.iter().filter(|(key, ..)| !wanted.contains_key(key));
        let removed: Vec<_> = removed.collect();
        // The first entry may share its line with a dash, and flow entries share commas.
        let awkward = removed.iter().any(|(_, key, _)| {
            flow || self
                .text
                .get(self.lines.start(key.start)..key.start)
                .is_some_and(|before| !before.trim().is_empty())
        });
        if awkward && let Some(style) = &style {
            let new = style.outer(&Value::Object(wanted.clone()));
            self.splice(node.start_of_content(self.text), node.end, new);
            return Ok(());
        }
        if awkward || removed.len() == entries.len() {
            return self.replace(node, &Value::Object(wanted.clone()), place);
        }
        for (_, key, value) in &removed {
            let end = self.lines.after(value.last_byte().max(key.end));
            self.splice(self.lines.start(key.start), end, String::new());
        }
        for (key, _, value) in &own {
            let (Some(old), Some(wanted)) = (old.get(key), wanted.get(key)) else {
                continue;
            };
            self.path.push(Step::key(key));
            let place = match &style {
                Some(style) => Place::Flow(style),
                None => Place::Entry {
                    column: node.column,
                },
            };
            self.change(value, old, wanted, place)?;
            self.path.pop();
        }
        // What a merge key brings is overridden by an entry of its own.
        let added = wanted.iter().filter(|(key, value)| {
            old.get(*key) != Some(value) && own.iter().all(|(other, ..)| other != *key)
        });
        for (key, value) in added {
            match &style {
                Some(style) => {
                    let end = entries
                        .last()
                        .map_or(node.end, |(key, value)| value.end.max(key.end));
                    let new = format!("{}{}", style.separator(), style.entry(key, value));
                    self.splice(end, end, new);
                }
                None => {
                    let at = self.lines.after(node.last_byte());
                    let pad = " ".repeat(node.column);
                    self.splice(
                        at,
                        at,
                        format!("{pad}{}\n", emit::entry(key, value, node.column)),
                    );
                }
            }
        }
        Ok(())
    }

    fn sequence(
        &mut self,
        node: &Node,
        items: &[Node],
        flow: bool,
        (old, wanted): (&[Value], &[Value]),
    ) -> Result<(), ResourceError> {
        let from = align::align(old, wanted);
        let style = flow.then(|| Style::of(&self.lines, node, items.first()));
        let dash = first_dash(self.text, node.start, items);
        let column = dash.saturating_sub(self.lines.start(dash));
        let own_line = self.lines.indent(dash).len() == column;
        let kept: BTreeSet<usize> = from.iter().flatten().copied().collect();
        let removed: Vec<usize> = (0..items.len()).filter(|at| !kept.contains(at)).collect();
        let rewrite = match &style {
            Some(_) => !removed.is_empty(),
            None => !own_line && (from.len() != items.len() || !removed.is_empty()),
        };
        if rewrite && let Some(style) = &style {
            let new = style.outer(&Value::Array(wanted.to_vec()));
            self.splice(node.start_of_content(self.text), node.end, new);
            return Ok(());
        }
        if rewrite {
            return Err(self.refuse(node, "the list does not start on a line of its own"));
        }
        for at in removed {
            if let Some(item) = items.get(at) {
                let start = item_start(&self.lines, items, at, dash);
                let end = self
                    .lines
                    .after(item.last_byte().max(start.saturating_add(column + 1)));
                self.splice(start, end, String::new());
            }
        }
        let mut next = 0;
        for (position, (origin, value)) in from.iter().zip(wanted).enumerate() {
            if let Some(at) = origin
                && let (Some(item), Some(old)) = (items.get(*at), old.get(*at))
            {
                self.path.push(Step::Index(position));
                let place = match &style {
                    Some(style) => Place::Flow(style),
                    None => Place::Item { dash: column },
                };
                self.change(item, old, value, place)?;
                self.path.pop();
                next = at.saturating_add(1);
                continue;
            }
            match &style {
                Some(style) => match items.get(next) {
                    Some(item) => {
                        let new = format!("{}{}", style.value(value), style.separator());
                        self.splice(item.start, item.start, new);
                    }
                    None => {
                        let end = items.last().map_or(node.end, |item| item.end);
                        let new = format!("{}{}", style.separator(), style.value(value));
                        self.splice(end, end, new);
                    }
                },
                None => {
                    let at = match next < items.len() {
                        true => item_start(&self.lines, items, next, dash),
                        false => self.lines.after(node.last_byte()),
                    };
                    let new = format!("{}{}\n", " ".repeat(column), emit::item(value, column));
                    self.splice(at, at, new);
                }
            }
        }
        Ok(())
    }

    /// Replaces a whole node by `value`.
    fn replace(
        &mut self,
        node: &Node,
        value: &Value,
        place: Place<'_>,
    ) -> Result<(), ResourceError> {
        let style;
        let place = match (place, &node.content) {
            // A JSON document stays one.
            (Place::Root, Content::Mapping { flow: true, .. }) => {
                style = Style::of(&self.lines, node, None);
                Place::Flow(&style)
            }
            (other, _) => other,
        };
        let start = node.start_of_content(self.text);
        if let Place::Flow(style) = place {
            let end = node.end.max(start);
            let gap = self
                .text
                .get(..start)
                .is_some_and(|before| before.ends_with(':'));
            let new = format!("{}{}", if gap { " " } else { "" }, style.value(value));
            self.splice(start, end, new);
            return Ok(());
        }
        let flat = !emit::is_collection(value);
        let was_block = matches!(
            &node.content,
            Content::Mapping { flow: false, .. } | Content::Sequence { flow: false, .. }
        );
        let (start, end) = match &node.content {
            Content::Scalar { .. } => (node.header(self.text).unwrap_or(start), node.end),
            _ => (start, node.last_byte()),
        };
        let new = match (flat, place) {
            (true, _) => node.scalar_like(self.text, value),
            (false, Place::Entry { column }) => {
                format!("\n{}", emit::block(value, column.saturating_add(2)))
            }
            (false, Place::Item { dash }) => emit::block(value, dash.saturating_add(2))
                .trim_start()
                .to_owned(),
            (false, Place::Root | Place::Flow(_)) => {
                emit::block(value, node.column).trim_start().to_owned()
            }
        };
        // What stood on lines of its own moves behind its key, and the other way round.
        let before = self
            .text
            .get(..start)
            .unwrap_or_default()
            .trim_end_matches([' ', '\t', '\r', '\n']);
        let behind_key = before.ends_with(':');
        let block_end = matches!(&node.content, Content::Scalar { .. })
            && self
                .text
                .get(start..end)
                .is_some_and(|old| old.ends_with('\n'));
        let (start, new) = match place {
            Place::Entry { .. } if behind_key && (flat || was_block || new.starts_with('\n')) => {
                let gap = if new.starts_with('\n') { "" } else { " " };
                (before.len(), format!("{gap}{new}"))
            }
            Place::Entry { .. } if was_block && flat => {
                return Err(
                    self.refuse(node, "a comment or an anchor stands between key and value")
                );
            }
            Place::Item { .. } if node.start == node.end && !was_block => {
                (start, format!(" {new}"))
            }
            _ => (start, new),
        };
        let new = if block_end { format!("{new}\n") } else { new };
        self.splice(start, end.max(start), new);
        Ok(())
    }

    fn splice(&mut self, start: usize, end: usize, new: String) {
        self.splices.push(Splice { start, end, new });
    }

    fn refuse(&self, node: &Node, reason: &str) -> ResourceError {
        refuse(node.line, &self.path, reason)
    }
}

fn splice(text: &str, mut splices: Vec<Splice>) -> String {
    let crlf = text.contains("\r\n");
    splices.sort_by_key(|splice| splice.start);
    let mut edited = String::with_capacity(text.len());
    let mut at = 0;
    for splice in splices {
        edited.push_str(text.get(at..splice.start).unwrap_or_default());
        match crlf {
            true => edited.push_str(&splice.new.replace('\n', "\r\n")),
            false => edited.push_str(&splice.new),
        }
        at = at.max(splice.end);
    }
    edited.push_str(text.get(at..).unwrap_or_default());
    edited
}

fn refuse(line: usize, path: &[Step], reason: &str) -> ResourceError {
    ResourceError::Patch {
        path: show(path),
        line,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{YamlFile, work::count::bytes_of};

    /// `pods` pods as a List on one line.
    fn list(pods: usize) -> Value {
        let pod = |number| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("pod-{number}"), "annotations": {"note": "a [b] {c}, 'd'"}},
                "spec": {"containers": [{"name": "web", "image": "web", "args": ["--port", "80"]}], "volumes": []},
            })
        };
        let items: Vec<Value> = (0..pods).map(pod).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }

    /// Bytes that searches look at while every pod is edited.
    fn work(pods: usize) -> usize {
        let text = list(pods).to_string();
        bytes_of(|| {
            let mut file = YamlFile::parse(text).expect("parses");
            for pod in 0..pods {
                let mut set = |path: &[&str], value: Value| {
                    let pod = [Step::key("items"), Step::Index(pod)].into_iter();
                    let path: Vec<Step> =
                        pod.chain(path.iter().map(|key| Step::key(key))).collect();
                    file.set(0, &path, &value).expect("sets");
                };
                set(&["metadata", "annotations", "policy"], json!("x"));
                set(&["metadata", "name"], json!("other"));
                set(&["spec", "volumes"], json!([{"name": "secrets"}]));
            }
            let edited = file.text().expect("writes");
            assert_eq!(edited.matches(r#""policy":"x""#).count(), pods);
        })
    }

    #[test]
    fn work_on_one_line_grows_with_its_length() {
        let (small, large) = (work(50), work(400));
        assert!(small > 0, "nothing was counted");
        assert!(
            large < small.saturating_mul(9),
            "eight times the text took {small}, then {large} bytes to look at"
        );
    }
}
