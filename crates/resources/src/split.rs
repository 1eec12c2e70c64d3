//! A file's documents as pieces of text that are YAML each.

/// Cuts before every document marker. A line that starts with `---` is one wherever it stands, also inside a block scalar
/// (YAML 1.2.2, 9.1.2). What holds only comments and directives stays with the document that follows it.
pub(crate) fn split(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0_usize;
    let mut at = 0_usize;
    let mut empty = true;
    for line in text.split_inclusive('\n') {
        if is_marker(line, "---") && !empty {
            pieces.extend(text.get(start..at));
            start = at;
        }
        at = at.saturating_add(line.len());
        // A document that is only a marker is one nevertheless.
        let trimmed = line.trim();
        if is_marker(line, "...") && !empty {
            pieces.extend(text.get(start..at));
            (start, empty) = (at, true);
        } else if !(trimmed.is_empty() || trimmed.starts_with('#') || line.starts_with('%')) {
            empty = false;
        }
    }
    // What follows the last document belongs to it.
    match (pieces.pop(), empty && start < text.len()) {
        (Some(last), true) => {
            let from = start.saturating_sub(last.len());
            pieces.extend(text.get(from..));
        }
        (last, _) => {
            pieces.extend(last);
            pieces.extend(text.get(start..).filter(|rest| !rest.is_empty()));
        }
    }
    pieces
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}
