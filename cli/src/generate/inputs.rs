//! The user's files: found, read, and nothing that is not one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use contrast_resources::{FILE_MAX, ResourceError, YamlFile};

use super::{GenerateError, destination::Destination};
use crate::lint::Source;

/// A file of the user.
pub(crate) struct InputFile {
    /// As it was named or found.
    pub(crate) path: PathBuf,
    /// Its path below the directory that was named, or its own name.
    pub(super) relative: PathBuf,
    pub(crate) yaml: YamlFile,
}

/// What there is to work on.
pub(crate) struct Inputs {
    pub(crate) files: Vec<InputFile>,
    /// Files in directories that are YAML, but have no Kubernetes objects.
    pub(crate) passed_over: Vec<PathBuf>,
}

/// A path that was found.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    path: PathBuf,
    relative: PathBuf,
    /// The user named it, so it must be usable.
    named: bool,
}

pub(crate) fn read(paths: &[PathBuf], destination: &Destination) -> Result<Inputs, GenerateError> {
    let mut found = BTreeSet::new();
    for path in paths {
        let metadata = fs::metadata(path).map_err(|source| read_failed(path, source))?;
        if metadata.is_dir() {
            let mut search = Search {
                root: path,
                destination,
                found: &mut found,
                ancestors: Vec::new(),
            };
            search.directory(path)?;
        } else {
            let relative = path.file_name().map_or_else(|| path.clone(), PathBuf::from);
            found.insert(Candidate {
                path: path.clone(),
                relative,
                named: true,
            });
        }
    }
    let mut inputs = Inputs {
        files: Vec::new(),
        passed_over: Vec::new(),
    };
    let mut seen = BTreeSet::new();
    for candidate in found {
        let real = fs::canonicalize(&candidate.path)
            .map_err(|source| read_failed(&candidate.path, source))?;
        // The same file may be named and found, or named twice.
        if seen.insert(real) {
            inputs.add(candidate)?;
        }
    }
    match inputs.files.is_empty() {
        true => Err(GenerateError::NoFiles {
            paths: paths.to_vec(),
        }),
        false => Ok(inputs),
    }
}

impl Inputs {
    /// For `lint`.
    pub(crate) fn sources(&self) -> Vec<Source<'_>> {
        let files = self.files.iter();
        files
            .map(|file| Source {
                path: &file.path,
                yaml: &file.yaml,
            })
            .collect()
    }

    fn add(&mut self, candidate: Candidate) -> Result<(), GenerateError> {
        let Candidate {
            path,
            relative,
            named,
        } = candidate;
        let unusable = |source| GenerateError::Resource {
            path: path.clone(),
            source,
        };
        let metadata = fs::metadata(&path).map_err(|source| read_failed(&path, source))?;
        // A pipe or a device might never end.
        if !metadata.is_file() {
            return Err(GenerateError::NotAFile { path });
        }
        if metadata.len() > FILE_MAX {
            return Err(unusable(ResourceError::TooLarge {
                found: metadata.len(),
                limit: FILE_MAX,
            }));
        }
        let bytes = fs::read(&path).map_err(|source| read_failed(&path, source))?;
        let text = String::from_utf8(bytes).map_err(|error| GenerateError::NotText {
            path: path.clone(),
            offset: error.utf8_error().valid_up_to(),
        })?;
        match YamlFile::parse(text) {
            Ok(yaml) => self.files.push(InputFile {
                path,
                relative,
                yaml,
            }),
            // Values of charts, settings of tools, manifests: what lies beside Kubernetes objects.
            Err(ResourceError::NotKubernetes { objects: false, .. }) if !named => {
                if path.extension().is_none_or(|extension| extension != "json") {
                    self.passed_over.push(path);
                }
            }
            Err(source) => return Err(unusable(source)),
        }
        Ok(())
    }
}

struct Search<'a> {
    root: &'a Path,
    destination: &'a Destination,
    found: &'a mut BTreeSet<Candidate>,
    /// Real paths of the directories in which the search is now.
    ancestors: Vec<PathBuf>,
}

impl Search<'_> {
    fn directory(&mut self, directory: &Path) -> Result<(), GenerateError> {
        let failed = |source| read_failed(directory, source);
        let real = fs::canonicalize(directory).map_err(failed)?;
        if self.ancestors.contains(&real) {
            return Err(GenerateError::Loop {
                path: directory.to_owned(),
                target: real,
            });
        }
        // What an earlier run wrote is no input.
        if self.destination.is(&real) {
            return Ok(());
        }
        self.ancestors.push(real);
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let ours = matches!(extension, Some("yaml" | "yml" | "json"));
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.directory(&path)?,
                Err(source) if ours => return Err(read_failed(&path, source)),
                Ok(_) if ours && !self.destination.is(&path) => {
                    let relative = path.strip_prefix(self.root).unwrap_or(&path).to_owned();
                    self.found.insert(Candidate {
                        path,
                        relative,
                        named: false,
                    });
                }
                _ => {}
            }
        }
        self.ancestors.pop();
        Ok(())
    }
}

pub(super) fn read_failed(path: &Path, source: std::io::Error) -> GenerateError {
    GenerateError::File {
        action: "read",
        path: path.to_owned(),
        source,
    }
}
