use std::fmt;

/// One comparison of evidence with a reference value.
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
        self.0.push(Check {
            field: field.into(),
            expected: expected.into(),
            found: found.into(),
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
