//! Which file on the host is to be changed.

use std::{collections::VecDeque, time::Duration};

use toml_edit::{DocumentMut, Item};

use super::{
    ContainerdError, Dialect, Version,
    edit::{check_enabled, has_plugin, parse, version},
};
use crate::{
    config::Containerd,
    host::Host,
    path::HostPath,
    tree::{HostTree, Text},
};

/// Programs of containerd, where they may be.
const BINARIES: [&str; 4] = [
    "/usr/local/bin/containerd",
    "/usr/bin/containerd",
    "/bin/containerd",
    "/usr/sbin/containerd",
];
/// A program that only says its version or reads a file.
pub(crate) const QUICK: Duration = Duration::from_secs(20);
/// So many files may import each other.
const FILES_MAX: usize = 256;

/// The file to change.
#[derive(Debug, Clone)]
pub struct Target {
    /// Whose containerd it is.
    pub dialect: Dialect,
    /// The file to change, links followed.
    pub file: HostPath,
    /// What is in it now.
    pub current: Option<Text>,
    /// Version of its format.
    pub version: Version,
    /// Whether it is a template of Go, which k3s and RKE2 render.
    pub template: bool,
    /// The configuration that containerd reads: the file itself, the one that imports it, or the one that is rendered.
    pub main: HostPath,
    /// containerd's program, which can tell what it makes of a configuration.
    pub binary: Option<HostPath>,
    /// The units that run it.
    pub units: Vec<String>,
}

impl Target {
    /// The text of the file.
    ///
    /// # Errors
    /// When it is no text.
    pub fn text(&self) -> Result<Option<&str>, ContainerdError> {
        let current = self.current.as_ref();
        current
            .map(|current| as_text(&self.file, &current.bytes))
            .transpose()
    }

    /// Whether containerd reads this file first, and not through another one.
    pub fn is_main(&self) -> bool {
        !self.template && self.file == self.main
    }
}

/// Finds the file that has to be changed.
///
/// # Errors
/// When there is none that can be, or it is not known.
pub fn locate(
    tree: &HostTree,
    host: &dyn Host,
    config: &Containerd,
) -> Result<Target, ContainerdError> {
    let dialect = match config.dialect {
        Some(dialect) => dialect,
        None => detect(tree)?,
    };
    let units = config.units.clone().unwrap_or_else(|| {
        let known = dialect.units().iter();
        known.map(|unit| (*unit).to_owned()).collect()
    });
    match (&config.config, dialect) {
        (Some(path), _) if is_template(path) => template(tree, dialect, config, Some(path), units),
        (None, Dialect::K3s | Dialect::Rke2) => template(tree, dialect, config, None, units),
        (path, _) => plain(tree, host, dialect, config, path.as_ref(), units),
    }
}

/// Whether a file is a template of Go, by its name.
pub(crate) fn is_template(path: &HostPath) -> bool {
    path.name().ends_with(".tmpl")
}

fn detect(tree: &HostTree) -> Result<Dialect, ContainerdError> {
    let is_there = |dialect: Dialect| {
        tree.exists(&HostPath::new(dialect.directory())?)
            .map_err(ContainerdError::from)
    };
    match (is_there(Dialect::K3s)?, is_there(Dialect::Rke2)?) {
        (true, true) => Err(ContainerdError::Ambiguous),
        (true, false) => Ok(Dialect::K3s),
        (false, true) => Ok(Dialect::Rke2),
        (false, false) => Ok(Dialect::Containerd),
    }
}

/// The text of a file.
pub(crate) fn as_text<'a>(file: &HostPath, bytes: &'a [u8]) -> Result<&'a str, ContainerdError> {
    std::str::from_utf8(bytes).map_err(|_| ContainerdError::NotText { file: file.clone() })
}

/// A template: its version is that of what was rendered from it.
fn template(
    tree: &HostTree,
    dialect: Dialect,
    config: &Containerd,
    path: Option<&HostPath>,
    units: Vec<String>,
) -> Result<Target, ContainerdError> {
    let directory = match path.and_then(HostPath::parent) {
        Some(directory) => directory,
        None => HostPath::new(dialect.directory())?,
    };
    let rendered = directory.join("config.toml")?;
    let version = match (tree.read(&rendered)?, config.version) {
        (Some(text), _) => {
            let document = parse(&rendered, as_text(&rendered, &text.bytes)?)?;
            check_enabled(&rendered, &document)?;
            version(&rendered, &document)?
        }
        (None, Some(version)) => version,
        (None, None) => return Err(ContainerdError::NotRendered { dialect, rendered }),
    };
    let path = match (path, version) {
        (Some(path), _) => path.clone(),
        (None, Version::V2) => directory.join("config.toml.tmpl")?,
        (None, Version::V3) => directory.join("config-v3.toml.tmpl")?,
    };
    let file = tree.follow(&path)?;
    Ok(Target {
        dialect,
        current: tree.read(&file)?,
        file,
        version,
        template: true,
        main: rendered,
        binary: None,
        units,
    })
}

fn plain(
    tree: &HostTree,
    host: &dyn Host,
    dialect: Dialect,
    config: &Containerd,
    path: Option<&HostPath>,
    units: Vec<String>,
) -> Result<Target, ContainerdError> {
    let path = match path {
        Some(path) => path.clone(),
        None => HostPath::new("/etc/containerd/config.toml")?,
    };
    let main = tree.follow(&path)?;
    let binary = binary(tree)?;
    let Some(current) = tree.read(&main)? else {
        let version = match (config.version, &binary) {
            (Some(version), _) => Some(version),
            (None, Some(binary)) => ask_version(host, binary)?,
            (None, None) => None,
        };
        return Ok(Target {
            dialect,
            version: version
                .ok_or_else(|| ContainerdError::UnknownVersion { file: main.clone() })?,
            file: main.clone(),
            current: None,
            template: false,
            main,
            binary,
            units,
        });
    };
    let document = parse(&main, as_text(&main, &current.bytes)?)?;
    let version = version(&main, &document)?;
    let (file, current) = last_with_plugin(tree, &main, current, document, version)?;
    Ok(Target {
        dialect,
        file,
        current: Some(current),
        version,
        template: false,
        main,
        binary,
        units,
    })
}

fn binary(tree: &HostTree) -> Result<Option<HostPath>, ContainerdError> {
    for path in BINARIES {
        let path = HostPath::new(path)?;
        if tree.exists(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// `containerd --version` says: name, package, version, commit.
fn ask_version(host: &dyn Host, binary: &HostPath) -> Result<Option<Version>, ContainerdError> {
    let output = host.run(binary.as_str(), &["--version"], QUICK)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(2);
    let major = version.and_then(|version| version.trim_start_matches('v').split('.').next());
    Ok(match major {
        Some("1") => Some(Version::V2),
        Some("2") => Some(Version::V3),
        _ => None,
    })
}

/// containerd reads the main file, then what it imports, then what those import. Of two files that configure the same plugin, the
/// later one wins: in containerd 1 with the whole plugin, so that a runtime in an earlier file would be lost.
fn last_with_plugin(
    tree: &HostTree,
    main: &HostPath,
    current: Text,
    document: DocumentMut,
    version: Version,
) -> Result<(HostPath, Text), ContainerdError> {
    check_enabled(main, &document)?;
    let mut seen = vec![main.clone()];
    let mut waiting = VecDeque::from(imports(tree, main, &document)?);
    let mut last = (main.clone(), current);
    while let Some(path) = waiting.pop_front() {
        let path = tree.follow(&path)?;
        if seen.contains(&path) || seen.len() >= FILES_MAX {
            continue;
        }
        seen.push(path.clone());
        let Some(text) = tree.read(&path)? else {
            continue;
        };
        let document = parse(&path, as_text(&path, &text.bytes)?)?;
        check_enabled(&path, &document)?;
        waiting.extend(imports(tree, &path, &document)?);
        if has_plugin(&document, version) {
            last = (path, text);
        }
    }
    Ok(last)
}

fn imports(
    tree: &HostTree,
    file: &HostPath,
    document: &DocumentMut,
) -> Result<Vec<HostPath>, ContainerdError> {
    let mut all = Vec::new();
    let entries = document.get("imports").and_then(Item::as_array);
    for entry in entries.into_iter().flatten() {
        let strange = || ContainerdError::Import {
            file: file.clone(),
            import: entry
                .to_string()
                .trim()
                .trim_matches(['"', '\''])
                .to_owned(),
        };
        let import = entry.as_str().ok_or_else(strange)?;
        let path = match (import.starts_with('/'), file.parent()) {
            (false, Some(directory)) => directory.join(import),
            _ => HostPath::new(import),
        };
        let path = path.map_err(|_| strange())?;
        if !import.contains(['*', '?', '[']) {
            all.push(path);
            continue;
        }
        let directory = path.parent().ok_or_else(strange)?;
        if directory.as_str().contains(['*', '?', '[']) || path.name().contains(['?', '[']) {
            return Err(strange());
        }
        for name in tree.names(&directory)? {
            if matches(path.name(), &name) {
                all.push(directory.join(&name)?);
            }
        }
    }
    Ok(all)
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_those_of_a_shell() {
        for (pattern, name) in [
            ("*.toml", "a.toml"),
            ("*.toml", ".toml"),
            ("*", "x"),
            ("a*b*c", "a-b-b-c"),
            ("a.toml", "a.toml"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.toml", "a.toml.bak"),
            ("a*b*c", "a-c-b"),
            ("a.toml", "a.toml.bak"),
            ("a*a", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
