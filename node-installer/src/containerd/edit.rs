//! What is added to the configuration, and taken out again. Pure: text in, text out.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Key, TableLike, Value};

use super::{
    ContainerdError, Entry, Version,
    block::{Blocks, Name},
};
use crate::path::HostPath;

/// On top of a configuration that was not there.
const WRITTEN: &str = "# Written by contrast-node-installer, because there was none. It goes with the last runtime that is uninstalled.\n";
/// What k3s and RKE2 would have rendered.
const BASE_TEMPLATE: &str = "{{ template \"base\" . }}\n";
const IMAGES_PLUGIN: &str = "io.containerd.cri.v1.images";
const DEFAULT_RUNTIME: &str = "runc";
const DEFAULT_RUNTIME_TYPE: &str = "io.containerd.runc.v2";

/// A table that is to be there, and its values.
struct Wanted {
    path: Vec<String>,
    values: Vec<(&'static str, Value)>,
}

impl Wanted {
    fn new<const N: usize>(path: [&str; N], values: Vec<(&'static str, Value)>) -> Self {
        Self {
            path: path.map(str::to_owned).to_vec(),
            values,
        }
    }

    fn name(&self) -> String {
        let keys: Vec<String> = self.path.iter().map(|key| key_text(key)).collect();
        keys.join(".")
    }

    fn text(&self) -> String {
        let mut text = format!("[{}]\n", self.name());
        for (key, value) in &self.values {
            text.push_str(&format!("{key} = {}\n", value.to_string().trim()));
        }
        text
    }

    /// Whether a document has it, with these values; `None`: it has no such table.
    fn is_in(&self, document: &DocumentMut) -> Option<bool> {
        let table = find(document, &self.path)?;
        Some(self.values.iter().all(|(key, value)| {
            table
                .get(key)
                .and_then(Item::as_value)
                .is_some_and(|found| same(found, value))
        }))
    }
}

fn key_text(key: &str) -> String {
    Key::new(key).to_string()
}

/// Compares values, not how they are written.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.value() == b.value(),
        (Value::Boolean(a), Value::Boolean(b)) => a.value() == b.value(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b))
        }
        _ => false,
    }
}

/// The tables of a runtime itself.
fn runtime_tables(version: Version, entry: &Entry) -> Vec<Wanted> {
    let runtime = &entry.runtime;
    let annotations: Array = runtime.pod_annotations.iter().map(String::as_str).collect();
    let mut values: Vec<(&'static str, Value)> = vec![
        ("runtime_type", runtime.runtime_type.as_str().into()),
        ("runtime_path", runtime.shim.as_str().into()),
        ("privileged_without_host_devices", true.into()),
        ("pod_annotations", annotations.into()),
    ];
    if let Some(snapshotter) = &runtime.snapshotter {
        values.push(("snapshotter", snapshotter.name.as_str().into()));
    }
    let handler = entry.handler.as_str();
    let runtimes = ["plugins", version.plugin(), "containerd", "runtimes"];
    let [a, b, c, d] = runtimes;
    let mut tables = vec![
        Wanted::new([a, b, c, d, handler], values),
        Wanted::new(
            [a, b, c, d, handler, "options"],
            vec![("ConfigPath", runtime.config.as_str().into())],
        ),
    ];
    // containerd 2 pulls images in another plugin, which must know the snapshotter as well.
    if let (Version::V3, Some(snapshotter)) = (version, &runtime.snapshotter) {
        tables.push(Wanted::new(
            ["plugins", IMAGES_PLUGIN, "runtime_platforms", handler],
            vec![("snapshotter", snapshotter.name.as_str().into())],
        ));
    }
    tables
}

fn snapshotter_table(entry: &Entry) -> Option<Wanted> {
    let snapshotter = entry.runtime.snapshotter.as_ref()?;
    let address = snapshotter.address.as_ref()?;
    Some(Wanted::new(
        ["proxy_plugins", &snapshotter.name],
        vec![
            ("type", "snapshot".into()),
            ("address", address.as_str().into()),
        ],
    ))
}

/// containerd 1 forgets its built-in `runc` as soon as the configuration names any runtime, and then serves no pod at all.
fn defaults_table(version: Version, foreign: &DocumentMut) -> Option<Wanted> {
    let containerd = ["plugins", version.plugin(), "containerd"];
    let path = containerd.map(str::to_owned);
    let table = find(foreign, &path);
    let default = table.and_then(|table| table.get("default_runtime_name")?.as_str());
    let some = table
        .and_then(|table| table.get("runtimes")?.as_table_like())
        .is_some_and(|runtimes| !runtimes.is_empty());
    let [a, b, c] = containerd;
    (!some && default.is_none_or(|name| name == DEFAULT_RUNTIME)).then(|| {
        Wanted::new(
            [a, b, c, "runtimes", DEFAULT_RUNTIME],
            vec![("runtime_type", DEFAULT_RUNTIME_TYPE.into())],
        )
    })
}

/// Whether runtimes of somebody else were added since, and count on the entry for the default one.
fn needs_default(foreign: &str, version: Version) -> bool {
    let Ok(document) = foreign.parse::<DocumentMut>() else {
        return false;
    };
    let path = ["plugins", version.plugin(), "containerd", "runtimes"].map(str::to_owned);
    find(&document, &path)
        .is_some_and(|runtimes| !runtimes.is_empty() && !runtimes.contains_key(DEFAULT_RUNTIME))
}

fn find<'a>(document: &'a DocumentMut, path: &[String]) -> Option<&'a dyn TableLike> {
    let mut table: &dyn TableLike = document.as_table();
    for key in path {
        table = table.get(key)?.as_table_like()?;
    }
    Some(table)
}

/// Parses a configuration of containerd.
pub(super) fn parse(file: &HostPath, text: &str) -> Result<DocumentMut, ContainerdError> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(1, |before| before.matches('\n').count() + 1);
        ContainerdError::Toml {
            file: file.clone(),
            message: format!("line {line}: {}", error.message().replace('\n', " ")),
        }
    })
}

/// Version of the format that a configuration says it has.
pub(super) fn version(file: &HostPath, document: &DocumentMut) -> Result<Version, ContainerdError> {
    let file = file.clone();
    match document.get("version").map(Item::as_integer) {
        None => Err(ContainerdError::OldVersion {
            file,
            found: "no version, which means 1".into(),
        }),
        Some(Some(found)) if found < 2 => Err(ContainerdError::OldVersion {
            file,
            found: format!("version {found}"),
        }),
        Some(found) => {
            let shown = found.map_or_else(|| "no number".into(), |found| found.to_string());
            found
                .and_then(|found| Version::try_from(found).ok())
                .ok_or(ContainerdError::NewVersion { file, found: shown })
        }
    }
}

/// Refuses a containerd that serves no kubelet.
pub(super) fn check_enabled(
    file: &HostPath,
    document: &DocumentMut,
) -> Result<(), ContainerdError> {
    let disabled = document.get("disabled_plugins").and_then(Item::as_array);
    let mut names = disabled.into_iter().flatten().filter_map(Value::as_str);
    let serves = |name: &str| {
        let of_versions = [Version::V2, Version::V3].map(Version::plugin);
        name == "cri" || name == IMAGES_PLUGIN || of_versions.contains(&name)
    };
    match names.find(|name| serves(name)) {
        None => Ok(()),
        Some(plugin) => Err(ContainerdError::Disabled {
            file: file.clone(),
            plugin: plugin.into(),
        }),
    }
}

/// Whether a configuration has anything for the plugin in which runtimes are configured.
pub(super) fn has_plugin(document: &DocumentMut, version: Version) -> bool {
    find(document, &["plugins", version.plugin()].map(str::to_owned)).is_some()
}

/// The configuration with the runtime in it; the same text if it is there already. `current` is `None` when there is no configuration.
///
/// # Errors
/// When somebody else uses the same names, or nothing can be added without changing what is there.
pub fn install(
    file: &HostPath,
    current: Option<&str>,
    version: Version,
    template: bool,
    entry: &Entry,
) -> Result<String, ContainerdError> {
    let written;
    let current = match current {
        Some(current) => current,
        None => {
            written = header(version, template);
            &written
        }
    };
    let own = Name::Runtime(entry.handler.clone());
    let runtime = runtime_tables(version, entry);
    let snapshotter = snapshotter_table(entry);
    let mut blocks = Blocks::parse(current)?;

    let mut shared = Vec::new();
    if template {
        shared.extend(snapshotter.map(|table| (snapshotter_name(entry), table)));
    } else {
        let others = parse(file, &blocks.without(|name| *name == own))?;
        let there = runtime.iter().filter_map(|table| table.is_in(&others));
        match there.collect::<Vec<bool>>().as_slice() {
            [] => {}
            // Somebody who rewrites the file may have dropped the marks, which are comments.
            all if all.iter().all(|same| *same) && all.len() == runtime.len() => {
                return Ok(current.to_owned());
            }
            _ => return Err(taken(file, runtime.first())),
        }
        let foreign = parse(file, &blocks.foreign())?;
        let defaults = defaults_table(version, &foreign);
        shared.extend(defaults.map(|table| (Name::Defaults, table)));
        if let Some(table) = snapshotter {
            match table.is_in(&foreign) {
                None => shared.push((snapshotter_name(entry), table)),
                Some(true) => {}
                Some(false) => return Err(taken(file, Some(&table))),
            }
        }
    }

    for (name, table) in &shared {
        let text = table.text();
        if let (Name::Snapshotter(_), Some(body)) = (name, blocks.body(name))
            && body != text
            && others_use(&blocks, &own, entry)
        {
            return Err(taken(file, Some(table)));
        }
        blocks.put(name.clone(), text);
    }
    let body: Vec<String> = runtime.iter().map(Wanted::text).collect();
    blocks.put(own, body.join("\n"));
    blocks.sweep();
    let text = blocks.render();
    if template || text.parse::<DocumentMut>().is_ok() {
        return Ok(text);
    }
    let all = shared.into_iter().map(|(_, table)| table).chain(runtime);
    insert(file, current, all)
}

fn snapshotter_name(entry: &Entry) -> Name {
    let snapshotter = entry.runtime.snapshotter.as_ref();
    Name::Snapshotter(snapshotter.map_or_else(String::new, |one| one.name.clone()))
}

/// Whether a runtime beside this one needs its snapshotter.
fn others_use(blocks: &Blocks, own: &Name, entry: &Entry) -> bool {
    let mut others = blocks.clone();
    others.remove(own);
    others.body(&snapshotter_name(entry)).is_some()
}

fn taken(file: &HostPath, table: Option<&Wanted>) -> ContainerdError {
    ContainerdError::Taken {
        file: file.clone(),
        table: table.map_or_else(String::new, Wanted::name),
    }
}

fn header(version: Version, template: bool) -> String {
    match template {
        true => format!("{WRITTEN}{BASE_TEMPLATE}"),
        false => format!("{WRITTEN}version = {}\n", i64::from(version)),
    }
}

/// For configurations whose tables are inline or dotted, which no header may extend: the values go where the others are.
fn insert(
    file: &HostPath,
    current: &str,
    tables: impl Iterator<Item = Wanted>,
) -> Result<String, ContainerdError> {
    let stubborn = |message: String| ContainerdError::Stubborn {
        file: file.clone(),
        message,
    };
    let mut document = parse(file, current)?;
    for wanted in tables {
        let mut table: &mut dyn TableLike = document.as_table_mut();
        let mut rest = wanted.path.as_slice();
        while let Some((key, deeper)) = rest.split_first() {
            if !table.contains_key(key) {
                break;
            }
            table = table
                .get_mut(key)
                .and_then(Item::as_table_like_mut)
                .ok_or_else(|| stubborn(format!("`{key}` is no table")))?;
            rest = deeper;
        }
        let values: InlineTable = wanted
            .values
            .iter()
            .map(|(key, value)| (*key, value.clone()))
            .collect();
        match rest.split_first() {
            Some((key, deeper)) => {
                let nested = deeper.iter().rev().fold(values, |inner, key| {
                    InlineTable::from_iter([(key.as_str(), Value::from(inner))])
                });
                table.insert(key, nested.into());
            }
            None => {
                for (key, value) in values {
                    table.insert(&key, value.into());
                }
            }
        }
    }
    let text = document.to_string();
    match text.parse::<DocumentMut>() {
        Ok(_) => Ok(text),
        Err(error) => Err(stubborn(error.message().to_owned())),
    }
}

/// The configuration without the runtime; `None`: nothing is left that somebody else wrote. `ours` says that a runtime without marks is
/// ours as well.
///
/// # Errors
/// When the configuration cannot be read.
pub fn uninstall(
    file: &HostPath,
    current: &str,
    version: Version,
    template: bool,
    handler: &str,
    ours: bool,
) -> Result<Option<String>, ContainerdError> {
    let mut blocks = Blocks::parse(current)?;
    blocks.take_out(&Name::Runtime(handler.into()));
    if !template && !blocks.has_runtimes() && needs_default(&blocks.foreign(), version) {
        blocks.hand_over(&Name::Defaults);
    }
    blocks.sweep();
    let mut text = blocks.render();
    if !template && ours {
        let mut document = parse(file, &text)?;
        let mut found = false;
        for path in [
            ["plugins", version.plugin(), "containerd", "runtimes"].as_slice(),
            ["plugins", IMAGES_PLUGIN, "runtime_platforms"].as_slice(),
        ] {
            let mut table: Option<&mut dyn TableLike> = Some(document.as_table_mut());
            for key in path {
                table = table.and_then(|table| table.get_mut(key)?.as_table_like_mut());
            }
            found |= table.is_some_and(|table| table.remove(handler).is_some());
        }
        if found {
            text = document.to_string();
        }
    }
    Ok((text != header(version, template)).then_some(text))
}

#[cfg(test)]
#[path = "edit/tests.rs"]
mod tests;
