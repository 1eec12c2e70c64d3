//! What the how-to says to type.

use std::{fs, path::Path};

const PAGE: &str = "docs/how-to/upgrade.md";

/// The `contrast` commands of one section, which are typed in their order.
pub(crate) struct Page {
    section: &'static str,
    commands: std::vec::IntoIter<String>,
}

impl Page {
    /// The section with this heading.
    pub(crate) fn section(heading: &'static str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let page = fs::read_to_string(root.join(PAGE)).expect("the how-to");
        let mut lines = page.lines();
        assert!(
            lines.any(|line| line == format!("## {heading}")),
            "{PAGE} has no section {heading}"
        );
        let section = lines.take_while(|line| !line.starts_with("## "));
        let commands = section.map(str::trim_start);
        let commands = commands.filter(|line| line.starts_with("contrast "));
        let commands: Vec<String> = commands.map(str::to_owned).collect();
        assert!(!commands.is_empty(), "{heading} has no commands");
        Self {
            section: heading,
            commands: commands.into_iter(),
        }
    }

    /// The words of the next command, which must begin with `contrast` and `expected`.
    pub(crate) fn next(&mut self, expected: &str) -> Vec<String> {
        let command = self.commands.next();
        let command =
            command.unwrap_or_else(|| panic!("{}: no more commands: {expected}", self.section));
        // What follows `#` is for the reader.
        let command = command.split(" #").next().unwrap_or_default().trim();
        let mut words = command.split_whitespace().map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some("contrast"));
        let words: Vec<String> = words.collect();
        assert!(
            words.join(" ").starts_with(expected),
            "{}: expected `{expected}` to be typed now, the page says `{command}`",
            self.section
        );
        words
    }

    /// Everything was typed.
    pub(crate) fn end(self) {
        let left: Vec<String> = self.commands.collect();
        assert!(left.is_empty(), "{}: not typed: {left:?}", self.section);
    }
}
