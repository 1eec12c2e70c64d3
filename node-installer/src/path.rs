//! Absolute paths on the host, as they are written in the configuration.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest path that Linux takes.
const LENGTH_MAX: usize = 4095;

/// A plain absolute path on the host: no `..`, no `.`, no empty parts, no control characters, and not `/` itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPath(String);

/// What is given is no plain absolute path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{found}` is no plain absolute path; write one that starts with `/`, without `.`, `..`, `//`, control characters and a `/` at its end"
)]
pub struct NotPlain {
    /// What was given.
    pub found: String,
}

impl HostPath {
    /// Takes a plain absolute path.
    ///
    /// # Errors
    /// When it is not plain, or not absolute.
    pub fn new(path: impl Into<String>) -> Result<Self, NotPlain> {
        let found = path.into();
        let plain = found.len() <= LENGTH_MAX
            && !found.chars().any(char::is_control)
            && found.strip_prefix('/').is_some_and(|relative| {
                relative
                    .split('/')
                    .all(|part| !matches!(part, "" | "." | ".."))
            });
        if plain {
            Ok(Self(found))
        } else {
            Err(NotPlain { found })
        }
    }

    /// The path itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as seen from the root.
    pub fn relative(&self) -> &str {
        self.0.strip_prefix('/').unwrap_or(&self.0)
    }

    /// The last part.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(_, name)| name)
    }

    /// The directory that it is in; `None` is the root.
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.0.rsplit_once('/')?;
        (!parent.is_empty()).then(|| Self(parent.to_owned()))
    }

    /// Every directory above it, outermost first, without the root.
    pub fn ancestors(&self) -> Vec<Self> {
        let mut all: Vec<Self> = std::iter::successors(self.parent(), Self::parent).collect();
        all.reverse();
        all
    }

    /// A path below it.
    ///
    /// # Errors
    /// When the result is not plain.
    pub fn join(&self, relative: &str) -> Result<Self, NotPlain> {
        Self::new(format!("{}/{relative}", self.0))
    }

    /// A file beside it, with a name that nobody else uses.
    #[must_use]
    pub(crate) fn beside(&self, suffix: &str) -> Self {
        let parent = self.parent().map_or_else(String::new, |parent| parent.0);
        Self(format!("{parent}/.{}.{suffix}", self.name()))
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HostPath {
    type Error = NotPlain;

    fn try_from(path: String) -> Result<Self, NotPlain> {
        Self::new(path)
    }
}

impl From<HostPath> for String {
    fn from(path: HostPath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_taken() {
        for path in ["/a", "/opt/edgeless/x-1/bin/..data", "/with space"] {
            assert!(HostPath::new(path).is_ok(), "{path}");
        }
        for path in [
            "", "/", "a", "a/b", "//a", "/a/", "/a//b", "/a/./b", "/a/../b", "/..", "/a\nb",
        ] {
            assert!(HostPath::new(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn ancestors_are_outermost_first() {
        let path = HostPath::new("/a/b/c").expect("plain");
        let all: Vec<String> = path.ancestors().iter().map(ToString::to_string).collect();
        assert_eq!(all, ["/a", "/a/b"]);
        assert_eq!(path.beside("tmp").as_str(), "/a/b/.c.tmp");
        assert_eq!(
            HostPath::new("/c").expect("plain").beside("x").as_str(),
            "/.c.x"
        );
    }
}
