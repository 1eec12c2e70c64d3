//! Places in a text: lines, indentation, and what stands around a node.

use crate::node::Node;

pub(crate) fn line_start(text: &str, offset: usize) -> usize {
    text.get(..offset)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |newline| newline.saturating_add(1))
}

/// Offset behind the line in which the byte before `offset` stands.
pub(crate) fn after_line(text: &str, offset: usize) -> usize {
    let last = offset.saturating_sub(1);
    match text.get(last..).and_then(|rest| rest.find('\n')) {
        Some(newline) => last.saturating_add(newline).saturating_add(1),
        None => text.len(),
    }
}

/// White space at the start of the line in which `offset` stands.
pub(crate) fn line_indent(text: &str, offset: usize) -> &str {
    let line = text.get(line_start(text, offset)..).unwrap_or_default();
    let end = line.find(|c| c != ' ' && c != '\t').unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// Where a node's content starts when its properties (`&anchor`, `!tag`) start at `offset`.
pub(crate) fn skip_properties(text: &str, offset: usize) -> usize {
    let mut at = offset;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        if !rest.starts_with(['&', '!']) {
            return at;
        }
        let token = rest.find(char::is_whitespace).unwrap_or(rest.len());
        at = skip_space(text, at.saturating_add(token));
    }
}

/// Where the next thing that is neither white space nor comment starts.
fn skip_space(text: &str, mut at: usize) -> usize {
    loop {
        let rest = text.get(at..).unwrap_or_default();
        at = at.saturating_add(rest.len().saturating_sub(rest.trim_start().len()));
        match text.get(at..) {
            Some(rest) if rest.starts_with('#') => at = after_line(text, at.saturating_add(1)),
            _ => return at,
        }
    }
}

/// Start of the lines that belong to item `at` of a block sequence: comments directly above it are its own.
pub(crate) fn item_start(text: &str, items: &[Node], at: usize, first_dash: usize) -> usize {
    let column = first_dash.saturating_sub(line_start(text, first_dash));
    let before = at.checked_sub(1).and_then(|previous| items.get(previous));
    let (from, dash) = match before {
        // The dash of an item is the first thing behind the item before.
        Some(previous) => {
            let from = after_line(text, previous.last_byte());
            (from, skip_space(text, from))
        }
        None => (line_start(text, first_dash), first_dash),
    };
    let mut start = line_start(text, dash);
    while start > 0 {
        let above = line_start(text, start.saturating_sub(1));
        let line = text.get(above..start).unwrap_or_default();
        let comment =
            line.trim_start().starts_with('#') && line_indent(text, above).len() == column;
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
