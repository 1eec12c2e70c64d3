//! Places in a text: lines, indentation, and what stands around a node.

use crate::{node::Node, work::examined};

/// A text with the places of its lines. A lookup costs the logarithm of their number, however long they are: JSON may be one
/// line of megabytes, and every edit asks where its line starts.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    /// Where every line starts, ascending; the first is 0.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let behind = text
            .match_indices('\n')
            .map(|(newline, _)| newline.saturating_add(1));
        Self {
            text,
            starts: [0].into_iter().chain(behind).collect(),
        }
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// Start of the line in which `offset` stands.
    pub(crate) fn start(&self, offset: usize) -> usize {
        let behind = self.starts.partition_point(|start| *start <= offset);
        let line = behind.saturating_sub(1);
        self.starts.get(line).copied().unwrap_or_default()
    }

    /// Offset behind the line in which the byte before `offset` stands.
    pub(crate) fn after(&self, offset: usize) -> usize {
        let last = offset.saturating_sub(1);
        let behind = self.starts.partition_point(|start| *start <= last);
        self.starts.get(behind).copied().unwrap_or(self.text.len())
    }

    /// White space at the start of the line in which `offset` stands.
    pub(crate) fn indent(&self, offset: usize) -> &'a str {
        let line = self.text.get(self.start(offset)..).unwrap_or_default();
        let end = line.find(|c| c != ' ' && c != '\t').unwrap_or(line.len());
        examined(end);
        line.get(..end).unwrap_or_default()
    }
}

/// Where a node's content starts when its properties (`&anchor`, `!tag`) start at `offset`.
pub(crate) fn skip_properties(text: &str, offset: usize) -> usize {
    let mut at = offset;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        if !rest.starts_with(['&', '!']) {
            return at;
        }
        // Neither anchors nor tags have flow indicators in them, unless a tag is verbatim (YAML 1.2.2, 6.8.1 and 6.9.2).
        let verbatim = rest.starts_with("!<");
        let token = rest
            .find(|c: char| c.is_whitespace() || (!verbatim && ",[]{}".contains(c)))
            .unwrap_or(rest.len());
        examined(token);
        at = skip_space(text, at.saturating_add(token));
    }
}

/// Where the next thing that is neither white space nor comment starts.
fn skip_space(text: &str, mut at: usize) -> usize {
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let space = rest.len().saturating_sub(rest.trim_start().len());
        at = at.saturating_add(space);
        match text.get(at..) {
            Some(rest) if rest.starts_with('#') => {
                let comment = rest
                    .find('\n')
                    .map_or(rest.len(), |end| end.saturating_add(1));
                examined(space.saturating_add(comment));
                at = at.saturating_add(comment);
            }
            _ => {
                examined(space);
                return at;
            }
        }
    }
}

/// Start of the lines that belong to item `at` of a block sequence: comments directly above it are its own.
pub(crate) fn item_start(lines: &Lines<'_>, items: &[Node], at: usize, first_dash: usize) -> usize {
    let column = first_dash.saturating_sub(lines.start(first_dash));
    let before = at.checked_sub(1).and_then(|previous| items.get(previous));
    let (from, dash) = match before {
        // The dash of an item is the first thing behind the item before.
        Some(previous) => {
            let from = lines.after(previous.last_byte());
            (from, skip_space(lines.text(), from))
        }
        None => (lines.start(first_dash), first_dash),
    };
    let mut start = lines.start(dash);
    while start > 0 {
        let above = lines.start(start.saturating_sub(1));
        let line = lines.text().get(above..start).unwrap_or_default();
        let comment = line.trim_start().starts_with('#') && lines.indent(above).len() == column;
        if !comment || (before.is_some() && above < from) {
            break;
        }
        start = above;
    }
    start
}

/// The dash of a block sequence's first item. The parser reports the start of a sequence that is not indented behind it.
pub(crate) fn first_dash(text: &str, start: usize, items: &[Node]) -> usize {
    let at = skip_properties(text, start);
    let on_dash = text.get(at..).is_some_and(|rest| rest.starts_with('-'))
        && items.first().is_none_or(|item| at < item.start);
    let before = text.get(..at).unwrap_or_default().trim_end();
    match on_dash || !before.ends_with('-') {
        true => at,
        false => before.len().saturating_sub(1),
    }
}
