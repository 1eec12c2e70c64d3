//! Writes HTML in which no text can become markup.
//!
//! A template crate would escape HTML as well, but names must also not disguise themselves, and then one place has to see every text. Here
//! the compiler keeps the two apart: markup is a `&'static str`, so nothing that came from outside can be it.

use std::fmt::Write as _;

use contrast_attestation::is_deceptive;

/// A page that is being written.
#[derive(Debug, Default)]
pub(super) struct Markup(String);

impl Markup {
    /// Appends markup that is part of this program.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Appends text of any origin, for element content and double-quoted attributes alike.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other if is_deceptive(other) => {
                    let _ = write!(self.0, "\\u{{{:x}}}", u32::from(other));
                }
                other => self.0.push(other),
            }
        }
        self
    }

    /// Appends text that is quoted: set apart from the page's own words, whatever its direction.
    pub(super) fn code(&mut self, text: &str) -> &mut Self {
        self.raw("<code>").text(text).raw("</code>")
    }

    pub(super) fn into_page(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut markup = Markup::default();
        markup.text(text);
        markup.into_page()
    }

    #[test]
    fn no_character_can_open_or_close_markup() {
        assert_eq!(
            escaped("\"'><script>&amp;"),
            "&quot;&#39;&gt;&lt;script&gt;&amp;amp;"
        );
    }

    #[test]
    fn what_cannot_be_seen_is_written_out_and_letters_of_all_scripts_stay() {
        assert_eq!(
            escaped("a\u{202e}b\u{200b}c\0\n"),
            "a\\u{202e}b\\u{200b}c\\u{0}\\u{a}"
        );
        assert_eq!(
            escaped("Zürich \u{5e9}\u{1f512}"),
            "Zürich \u{5e9}\u{1f512}"
        );
    }
}
