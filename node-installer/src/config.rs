//! The configuration: one JSON or TOML document, read into a type that cannot be invalid.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use contrast_platform::{Platform, UnknownClass};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    containerd::{Dialect, Version},
    integrity::Integrity,
    path::HostPath,
};

/// Stands for the handler's name in paths.
const PLACEHOLDER: &str = "{handler}";
const RESTART_TIMEOUT_SECONDS: u64 = 180;

/// What is to be on the node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the runtime handler, which is the one of the runtime class.
    pub handler: String,
    /// What it is for.
    pub platform: Platform,
    /// What to copy.
    pub files: Vec<File>,
    /// The runtime that containerd is to know.
    pub runtime: Runtime,
    /// How containerd is configured on the node.
    pub containerd: Containerd,
}

/// A file, or a directory of files, to copy to the host.
#[derive(Debug, Clone)]
pub struct File {
    /// Where it is in the image of the installer.
    pub source: PathBuf,
    /// Where it goes.
    pub path: HostPath,
    /// What it must hash to.
    pub integrity: Option<Integrity>,
    /// Its permissions; without them 0755 if the source is executable, else 0644.
    pub mode: Option<u32>,
}

/// The runtime that containerd is to know.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Name of the shim as containerd writes it: `io.containerd.contrast-cc.v2`.
    pub runtime_type: String,
    /// The shim's program.
    pub shim: HostPath,
    /// Configuration of Kata.
    pub config: HostPath,
    /// Whether the shim is Kata's runtime-rs, which reads another configuration.
    pub rs: bool,
    /// Annotations of pods that the shim gets to see.
    pub pod_annotations: Vec<String>,
    /// Unpacks images for this runtime only.
    pub snapshotter: Option<Snapshotter>,
}

/// A snapshotter for one runtime.
#[derive(Debug, Clone)]
pub struct Snapshotter {
    /// Its name.
    pub name: String,
    /// Its socket, when containerd is to be told of it.
    pub address: Option<HostPath>,
}

/// How containerd is configured on the node.
#[derive(Debug, Clone)]
pub struct Containerd {
    /// Whose containerd it is; `None`: find out.
    pub dialect: Option<Dialect>,
    /// Its configuration or template, when it is at an unusual place.
    pub config: Option<HostPath>,
    /// Version of a configuration that is to be written, when there is none and containerd does not say.
    pub version: Option<Version>,
    /// Units of which one is restarted; empty: nothing is restarted.
    pub units: Option<Vec<String>>,
    /// How long a restart may take.
    pub restart_timeout_seconds: u64,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {}; name one with --config", path.display())]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its name says neither JSON nor TOML.
    #[error("{} is of no known format; name it .json or .toml", path.display())]
    Format {
        /// Where it is.
        path: PathBuf,
    },
    /// A value is missing, unknown or of the wrong kind.
    #[error("{}: at `{field}`: {message}", path.display())]
    Field {
        /// Where it is.
        path: PathBuf,
        /// The path in the document.
        field: String,
        /// What was expected and found.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    handler: String,
    files: Vec<FileEntry>,
    runtime: RuntimeEntry,
    #[serde(default)]
    containerd: ContainerdEntry,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    source: Source,
    path: Template,
    integrity: Option<Integrity>,
    #[serde(default, deserialize_with = "mode")]
    mode: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuntimeEntry {
    #[serde(rename = "type", deserialize_with = "runtime_type")]
    runtime_type: String,
    shim: Template,
    config: Template,
    #[serde(default)]
    rs: bool,
    #[serde(default = "kata_annotations", deserialize_with = "annotations")]
    pod_annotations: Vec<String>,
    snapshotter: Option<SnapshotterEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotterEntry {
    #[serde(deserialize_with = "name")]
    name: String,
    address: Option<Template>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ContainerdEntry {
    #[serde(default)]
    dialect: DialectEntry,
    config: Option<HostPath>,
    config_version: Option<Version>,
    #[serde(default, deserialize_with = "units")]
    units: Option<Vec<String>>,
    restart_timeout_seconds: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum DialectEntry {
    #[default]
    Auto,
    Containerd,
    K3s,
    Rke2,
}

/// A path with `{handler}` in it, or without.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Template(String);

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = text.replace(PLACEHOLDER, "handler");
        HostPath::new(&*plain).map_err(|error| error.to_string())?;
        // Both end up in a template of Go where k3s renders the configuration.
        match plain.contains(['{', '}', '"', '\\', '\'']) {
            true => Err(format!(
                "`{text}` has braces, quotes or backslashes; leave them out, only {PLACEHOLDER} is replaced"
            )),
            false => Ok(Self(text)),
        }
    }
}

impl Template {
    /// Checked with a name of the same kind in its place.
    fn with(&self, handler: &str) -> Result<HostPath, String> {
        let path = self.0.replace(PLACEHOLDER, handler);
        HostPath::new(path).map_err(|error| error.to_string())
    }
}

/// `file:` and an absolute path in the image of the installer.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Source(PathBuf);

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Err(format!(
                "`{text}` is on the network, and the installer fetches nothing; put the file into its image and write `file:///...`"
            ));
        }
        let path = text.strip_prefix("file:");
        let path = path.map(|path| path.strip_prefix("//").unwrap_or(path));
        match path {
            Some(path) if HostPath::new(path).is_ok() => Ok(Self(path.into())),
            _ => Err(format!(
                "expected `file://` and a plain absolute path, found `{text}`"
            )),
        }
    }
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if octal && mode <= 0o777 && mode & 0o400 != 0 && mode & 0o022 == 0 => {
            Ok(Some(mode))
        }
        _ => Err(D::Error::custom(format!(
            "expected permissions in octal like \"0755\", readable by their owner and writable by nobody else, found \"{text}\""
        ))),
    }
}

fn runtime_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parts: Vec<&str> = text.split('.').collect();
    let known = matches!(parts.as_slice(), ["io", "containerd", name, "v2"] if is_name(name));
    if known {
        Ok(text)
    } else {
        Err(D::Error::custom(format!(
            "expected a name like `io.containerd.contrast-cc.v2`, found `{text}`"
        )))
    }
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_name(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(format!(
            "expected letters, digits, `-` and `_`, found `{text}`"
        )))
    }
}

fn annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let all = Vec::<String>::deserialize(deserializer)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./*".contains(c);
    match all
        .iter()
        .find(|one| one.is_empty() || !one.chars().all(allowed))
    {
        None => Ok(all),
        Some(other) => Err(D::Error::custom(format!(
            "expected names of annotations, in which `*` stands for anything, found `{other}`"
        ))),
    }
}

fn units<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let all = Vec::<String>::deserialize(deserializer)?;
    let is_unit = |unit: &String| {
        let name = unit.strip_suffix(".service");
        name.is_some_and(|name| !name.is_empty() && !name.starts_with('-'))
            && unit
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.@:".contains(c))
    };
    match all.iter().find(|unit| !is_unit(unit)) {
        None => Ok(Some(all)),
        Some(other) => Err(D::Error::custom(format!(
            "expected names like `containerd.service`, found `{other}`"
        ))),
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.bytes().all(allowed)
}

fn kata_annotations() -> Vec<String> {
    vec!["io.katacontainers.*".into()]
}

impl Config {
    /// Reads and checks the document at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or a field in it cannot be used; the error names the field.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let document: Result<Document, (String, String)> =
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => {
                    let mut json = serde_json::Deserializer::from_str(&text);
                    serde_path_to_error::deserialize(&mut json)
                        .map_err(described)
                        .and_then(|document| {
                            let end = json.end();
                            end.map_err(|error| (".".into(), error.to_string()))?;
                            Ok(document)
                        })
                }
                Some("toml") => toml::Deserializer::parse(&text)
                    .map_err(|error| (".".into(), error.to_string().trim().to_owned()))
                    .and_then(|toml| serde_path_to_error::deserialize(toml).map_err(described)),
                _ => {
                    return Err(ConfigError::Format {
                        path: path.to_owned(),
                    });
                }
            };
        document
            .and_then(Self::check)
            .map_err(|(field, message)| ConfigError::Field {
                path: path.to_owned(),
                field,
                message,
            })
    }

    /// What no single field shows.
    fn check(document: Document) -> Result<Self, (String, String)> {
        let Document {
            handler,
            files,
            runtime,
            containerd,
        } = document;
        let platform = Platform::of_class(&handler)
            .map_err(|error: UnknownClass| ("handler".into(), error.to_string()))?;
        let put = |field: &str, template: &Template| {
            template
                .with(&handler)
                .map_err(|message| (field.to_owned(), message))
        };
        let mut seen = BTreeSet::new();
        let mut checked = Vec::new();
        for (index, entry) in files.into_iter().enumerate() {
            let field = format!("files[{index}].path");
            let path = put(&field, &entry.path)?;
            if !seen.insert(path.clone()) {
                return Err((field, format!("{path} is there twice; remove one of them")));
            }
            checked.push(File {
                source: entry.source.0,
                path,
                integrity: entry.integrity,
                mode: entry.mode,
            });
        }
        if containerd.restart_timeout_seconds == Some(0) {
            return Err((
                "containerd.restart_timeout_seconds".into(),
                "expected at least 1, found 0".into(),
            ));
        }
        let snapshotter = runtime
            .snapshotter
            .map(|entry| -> Result<_, (String, String)> {
                let address = entry.address;
                let address = address.map(|path| put("runtime.snapshotter.address", &path));
                Ok(Snapshotter {
                    name: entry.name,
                    address: address.transpose()?,
                })
            });
        Ok(Self {
            platform,
            files: checked,
            runtime: Runtime {
                shim: put("runtime.shim", &runtime.shim)?,
                config: put("runtime.config", &runtime.config)?,
                runtime_type: runtime.runtime_type,
                rs: runtime.rs,
                pod_annotations: runtime.pod_annotations,
                snapshotter: snapshotter.transpose()?,
            },
            containerd: Containerd {
                dialect: match containerd.dialect {
                    DialectEntry::Auto => None,
                    DialectEntry::Containerd => Some(Dialect::Containerd),
                    DialectEntry::K3s => Some(Dialect::K3s),
                    DialectEntry::Rke2 => Some(Dialect::Rke2),
                },
                config: containerd.config,
                version: containerd.config_version,
                units: containerd.units,
                restart_timeout_seconds: containerd
                    .restart_timeout_seconds
                    .unwrap_or(RESTART_TIMEOUT_SECONDS),
            },
            handler,
        })
    }
}

fn described<E: std::fmt::Display>(error: serde_path_to_error::Error<E>) -> (String, String) {
    let field = error.path().to_string();
    let message = error.into_inner().to_string();
    (field, message.trim().replace('\n', " "))
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
