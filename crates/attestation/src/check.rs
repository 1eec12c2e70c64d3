use std::{borrow::Cow, fmt};

/// One comparison of evidence with a reference value. Evidence is quoted in it, so that none of its texts holds a character
/// that [`printable`] replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was compared, in the field's own term, for example `MEASUREMENT` or `reported TCB microcode`.
    pub field: String,
    /// What the reference value or the specification demands.
    pub expected: String,
    /// What the evidence shows.
    pub found: String,
    /// Whether `found` satisfies `expected`.
    pub passed: bool,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            expected,
            found,
            passed,
        } = self;
        match passed {
            true => write!(f, "{field}: {found}"),
            false => write!(f, "{field}: expected {expected}, found {found}"),
        }
    }
}

/// Collects the checks of one reference value; a failed check never stops the ones after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckList(Vec<Check>);

impl CheckList {
    /// Records a comparison whose outcome the caller computed.
    pub fn record(
        &mut self,
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        passed: bool,
    ) {
        let one_line = |text: String| match printable(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(escaped) => escaped,
        };
        self.0.push(Check {
            field: one_line(field.into()),
            expected: one_line(expected.into()),
            found: one_line(found.into()),
            passed,
        });
    }

    /// Records that `found` must equal `expected`.
    pub fn equal<T: PartialEq + fmt::Display>(&mut self, field: &str, expected: &T, found: &T) {
        self.record(
            field,
            expected.to_string(),
            found.to_string(),
            expected == found,
        );
    }

    /// Records that two byte strings must be equal; both are shown in hex.
    pub fn equal_bytes(&mut self, field: &str, expected: &[u8], found: &[u8]) {
        self.record(
            field,
            hex::encode(expected),
            hex::encode(found),
            expected == found,
        );
    }

    /// Records that `found` must be at least `minimum`.
    pub fn at_least<T: PartialOrd + fmt::Display>(&mut self, field: &str, minimum: &T, found: &T) {
        self.record(
            field,
            format!("at least {minimum}"),
            found.to_string(),
            found >= minimum,
        );
    }

    /// Records a failure that prevents further comparison, for example a broken signature.
    pub fn fail(&mut self, field: &str, expected: impl Into<String>, found: impl Into<String>) {
        self.record(field, expected, found, false);
    }

    /// Adds the checks of `other` after the own ones.
    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether every check passed; an empty list passed nothing and is a failure.
    pub fn passed(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|check| check.passed)
    }

    /// All checks in the order they were made.
    pub fn checks(&self) -> &[Check] {
        &self.0
    }
}

/// Text from evidence for a terminal or a log: control characters (line breaks and escape sequences among them) and those that
/// change the direction of text are written as `\u{..}`. Whoever made the evidence cannot forge a line of a result or hide one.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_deceptive) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match is_deceptive(character) {
            true => escaped.extend(character.escape_unicode()),
            false => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// Whether a reader would not see this character for what it is: controls, what turns or joins text (Unicode Standard Annex 9, table 4; Annex
/// 34), every blank but the space, and what is not shown at all (`Default_Ignorable_Code_Point` of DerivedCoreProperties.txt, Unicode 17). Two
/// names that differ only in such characters look the same.
pub fn is_deceptive(character: char) -> bool {
    let blank = character.is_whitespace() && character != ' ';
    blank
        || character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_cannot_forge_or_hide_a_line() {
        let mut checks = CheckList::default();
        let text = "x\u{1b}[2J\nok    all\r\u{9b}8m\u{202e}";
        checks.record(text, text, text, false);
        let check = &checks.checks()[0];
        let expected = "x\\u{1b}[2J\\u{a}ok    all\\u{d}\\u{9b}8m\\u{202e}";
        assert_eq!([&check.field, &check.expected, &check.found], [expected; 3]);
    }

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        for hidden in [
            '\u{ad}',
            '\u{200b}',
            '\u{feff}',
            '\u{1d173}',
            '\u{2800}',
            '\u{fff0}',
            '\u{2003}',
            '\u{e0041}',
            '\t',
        ] {
            let shown = printable(&format!("a{hidden}b")).into_owned();
            assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(hidden)));
        }
    }

    #[test]
    fn ordinary_text_is_left_alone() {
        let text = "AMD's ARK-Milan, `SEV-VCEK`, Zürich \u{1f512}";
        assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
    }
}
