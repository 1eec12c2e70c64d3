use std::{error::Error, fmt, str::FromStr};

use uuid::Uuid;

/// What the record of generations said, or why it said nothing.
pub type RecordError = Box<dyn Error + Send + Sync>;

/// Who remembers generations of volumes where the host cannot change them: the Coordinator.
pub trait GenerationRecord {
    /// The highest generation that was ever reported of the volume; `None` when it is not known.
    ///
    /// # Errors
    /// When it could not be asked, or its answer is not to be believed.
    fn recorded(&self, volume: Uuid) -> Result<Option<u64>, RecordError>;

    /// Records `generation`, if it is higher than what is recorded, and returns what is recorded then. Two that report the same are
    /// not both told that theirs was recorded.
    ///
    /// # Errors
    /// When it could not be asked, or its answer is not to be believed.
    fn advance(&self, volume: Uuid, generation: u64) -> Result<Advanced, RecordError>;
}

/// Answer to a reported generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advanced {
    /// It was recorded.
    Recorded,
    /// Another one is as high, or higher.
    Behind {
        /// The one that is recorded.
        recorded: u64,
    },
}

/// What happens when the disk is older than what was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RollbackRule {
    /// The volume is not opened.
    #[default]
    Strict,
    /// The volume is opened, with a warning in the log.
    Warn,
    /// Nobody is asked.
    Off,
}

/// When a device is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FormatRule {
    /// When it is blank.
    #[default]
    Blank,
    /// Never: the volume must be there. A host that puts a blank disk in its place is refused.
    Never,
    /// When it is blank, or holds anything but a volume of this program; that is lost.
    Discard,
}

/// Not the name of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is none of {expected}")]
pub struct RuleError {
    found: String,
    expected: &'static str,
}

impl FromStr for RollbackRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text {
            "strict" => Ok(Self::Strict),
            "warn" => Ok(Self::Warn),
            "off" => Ok(Self::Off),
            other => Err(RuleError {
                found: other.to_owned(),
                expected: "strict, warn and off",
            }),
        }
    }
}

impl FromStr for FormatRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text {
            "blank" => Ok(Self::Blank),
            "never" => Ok(Self::Never),
            "discard" => Ok(Self::Discard),
            other => Err(RuleError {
                found: other.to_owned(),
                expected: "blank, never and discard",
            }),
        }
    }
}

impl fmt::Display for RollbackRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Warn => "warn",
            Self::Off => "off",
        })
    }
}

impl fmt::Display for FormatRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blank => "blank",
            Self::Never => "never",
            Self::Discard => "discard",
        })
    }
}
