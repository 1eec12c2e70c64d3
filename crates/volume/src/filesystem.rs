use std::{fmt, str::FromStr};

/// What a volume is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filesystem {
    /// ext4.
    #[default]
    Ext4,
    /// XFS. Needs 350 MiB.
    Xfs,
}

/// Not the name of a file system that volumes are formatted with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no file system that volumes are formatted with; expected ext4 or xfs")]
pub struct FilesystemError(String);

impl Filesystem {
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Ext4 => 1,
            Self::Xfs => 2,
        }
    }

    pub(crate) const fn of_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Ext4),
            2 => Some(Self::Xfs),
            _ => None,
        }
    }

    /// As `mount(2)` knows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Filesystem {
    type Err = FilesystemError;

    fn from_str(text: &str) -> Result<Self, FilesystemError> {
        match text {
            "ext4" => Ok(Self::Ext4),
            "xfs" => Ok(Self::Xfs),
            other => Err(FilesystemError(other.to_owned())),
        }
    }
}
