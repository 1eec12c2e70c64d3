/// Characters of a foreign text that are shown.
const CHARS_MAX: usize = 300;

/// What a stranger wrote, for a message: control characters and marks that change the direction of writing become escapes, and it
/// is cut.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (position, char) in text.chars().enumerate() {
        if position == CHARS_MAX {
            shown.push('…');
            break;
        }
        match char {
            '\'' | '"' | '\\' => shown.push(char),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_text_only() {
        assert_eq!(shown("ä'\\\u{1b}[2J\n"), "ä'\\\\u{1b}[2J\\n");
        assert_eq!(shown("\u{202e}cba"), "\\u{202e}cba");
        assert_eq!(shown(&"a".repeat(9999)).chars().count(), CHARS_MAX + 1);
    }
}
