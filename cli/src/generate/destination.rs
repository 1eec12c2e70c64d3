//! Where the changed resources go.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{GenerateError, inputs::InputFile, write::Change};

/// Where the changed resources go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Into the inputs.
    InPlace,
    /// All into one file.
    File(PathBuf),
    /// Each into a file of its own below this directory, under the path that it has below the input directory.
    Directory(PathBuf),
    /// All to standard output.
    Stdout,
}

/// What becomes of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Files are written.
    Write,
    /// Nothing is written: what would change is shown as a unified diff.
    Diff,
    /// Nothing is written: whether anything would change is the result.
    Check,
}

impl Destination {
    /// `-` is standard output, an existing directory or a path that ends with a slash a directory, anything else a file.
    pub fn parse(path: &Path) -> Self {
        let text = path.as_os_str().as_encoded_bytes();
        match text {
            b"-" => Self::Stdout,
            _ if text.ends_with(b"/") || path.is_dir() => Self::Directory(path.to_owned()),
            _ => Self::File(path.to_owned()),
        }
    }

    /// Whether `path` is where the resources go.
    pub(super) fn is(&self, path: &Path) -> bool {
        let (Self::File(own) | Self::Directory(own)) = self else {
            return false;
        };
        let real = |path: &Path| fs::canonicalize(path).ok();
        real(own).is_some_and(|own| real(path) == Some(own))
    }

    /// The resources' changes, and what goes to standard output.
    pub(super) fn changes(
        &self,
        files: &[InputFile],
    ) -> Result<(Vec<Change>, Option<String>), GenerateError> {
        let mut texts = Vec::new();
        for file in files {
            let text = file.yaml.text().map_err(|source| GenerateError::Resource {
                path: file.path.clone(),
                source,
            })?;
            texts.push((file, text));
        }
        let change = |path: PathBuf, text: String| Change::public(path, text.into());
        Ok(match self {
            Self::InPlace => {
                let changes = texts
                    .into_iter()
                    .map(|(file, text)| change(file.path.clone(), text));
                (changes.collect(), None)
            }
            Self::Directory(directory) => {
                let changes: Vec<Change> = texts
                    .into_iter()
                    .map(|(file, text)| Change::below(directory.join(&file.relative), text.into()))
                    .collect();
                if let Some(path) = twice(&changes) {
                    return Err(GenerateError::SameOutput { path });
                }
                (changes, None)
            }
            Self::File(path) => (vec![change(path.clone(), join(texts))], None),
            Self::Stdout => (Vec::new(), Some(join(texts))),
        })
    }
}

fn twice(changes: &[Change]) -> Option<PathBuf> {
    let mut paths: Vec<&Path> = changes.iter().map(Change::path).collect();
    paths.sort_unstable();
    paths
        .windows(2)
        .find(|pair| pair.first() == pair.last())
        .and_then(|pair| pair.first())
        .map(|path| path.to_path_buf())
}

/// One stream of documents. The files' own text stays; only markers between them are added where there is none.
fn join(texts: Vec<(&InputFile, String)>) -> String {
    let mut all = String::new();
    for (_, text) in texts {
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let text = text.strip_prefix("---\n").unwrap_or(text);
        if !all.is_empty() {
            all.push_str("---\n");
        }
        all.push_str(text);
        if !text.ends_with('\n') {
            all.push('\n');
        }
    }
    all
}
