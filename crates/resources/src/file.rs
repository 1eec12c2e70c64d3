use std::borrow::Cow;

use serde_json::{Value, json};

use crate::{
    Positions, ResourceError, Step, parse::parse, split::split, step::show, update::update,
    work::examined,
};

/// Most bytes of a file that is read; etcd takes objects of 1.5 MB.
pub const FILE_MAX: u64 = 16 * 1024 * 1024;

const BOM: char = '\u{feff}';
/// Lists may contain lists; no tool writes more levels than this.
const LIST_DEPTH_MAX: usize = 8;

/// A YAML (or JSON) file of Kubernetes objects: the user's text, and what was changed in it.
///
/// Edits are collected and cost no parsing; [`YamlFile::text`] writes all edits of a document at once.
#[derive(Debug, Clone, PartialEq)]
pub struct YamlFile {
    bom: bool,
    pieces: Vec<Piece>,
}

/// The text of one document, with the marker and the comments that belong to it.
#[derive(Debug, Clone, PartialEq)]
struct Piece {
    text: String,
    /// Line of the file on which it starts, from 0.
    line: usize,
    /// Line of the first content, from 1. Every edit names it, so it is not searched each time.
    first_line: usize,
    /// What the text says; `None` for a document without content.
    original: Option<Value>,
    /// What it is to say, once it was edited.
    wanted: Option<Value>,
}

/// One object of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Number in the file, from 0; empty documents count.
    pub index: usize,
    /// Path to the object inside the document: empty, or `items[i]` for a member of a list.
    pub path: Vec<Step>,
    /// The object as JSON, aliases resolved. A member of a typed list (`DeploymentList`) has the `apiVersion` and `kind` that
    /// follow from the list's when it has none.
    pub object: Value,
}

impl YamlFile {
    /// Takes over a file's text.
    ///
    /// # Errors
    /// When it is longer than [`FILE_MAX`], is not YAML, has a key twice, or a document is no Kubernetes object.
    pub fn parse(text: String) -> Result<Self, ResourceError> {
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if length > FILE_MAX {
            return Err(ResourceError::TooLarge {
                found: length,
                limit: FILE_MAX,
            });
        }
        let (bom, body) = match text.strip_prefix(BOM) {
            Some(body) => (true, body),
            None => (false, text.as_str()),
        };
        let mut line = 0_usize;
        let mut pieces = Vec::new();
        for piece in split(body) {
            let original = read(piece).map_err(|error| template(error, piece).below(line))?;
            pieces.push(Piece {
                text: piece.to_owned(),
                line,
                first_line: line.saturating_add(blank_lines(piece)).saturating_add(1),
                original,
                wanted: None,
            });
            line = line.saturating_add(piece.matches('\n').count());
        }
        let file = Self { bom, pieces };
        file.documents()?;
        Ok(file)
    }

    /// The text, with all edits so far. Without edits it is the user's, byte for byte.
    ///
    /// # Errors
    /// When an edit cannot be written without changing something else, as in a value that an alias shares.
    pub fn text(&self) -> Result<String, ResourceError> {
        let mut text = String::new();
        if self.bom {
            text.push(BOM);
        }
        for piece in &self.pieces {
            text.push_str(&piece.written()?);
        }
        Ok(text)
    }

    /// Every object, the members of lists included, in order, with all edits so far.
    ///
    /// # Errors
    /// When a document is no Kubernetes object.
    pub fn documents(&self) -> Result<Vec<Document>, ResourceError> {
        let mut documents = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            if let Some(value) = piece.value() {
                let objects = collect(index, &mut Vec::new(), Cow::Borrowed(value), &mut documents);
                objects.map_err(|reason| ResourceError::NotKubernetes {
                    index: index.saturating_add(1),
                    line: piece.first_line,
                    reason,
                    objects: self.pieces.iter().filter_map(Piece::value).any(is_object),
                })?;
            }
        }
        Ok(documents)
    }

    /// Where the parts of document `index` stand in the text that was parsed. Costs as much as parsing the document.
    ///
    /// # Errors
    /// When there is no such document.
    pub fn positions(&self, index: usize) -> Result<Positions, ResourceError> {
        let Some(piece) = self.pieces.get(index) else {
            let reason = format!("there is no document {}", index.saturating_add(1));
            return Err(refuse(0, &[], &reason));
        };
        let documents = parse(&piece.text).map_err(|error| error.below(piece.line))?;
        Ok(Positions {
            root: documents.into_iter().find_map(|document| document.root),
            before: piece.line,
        })
    }

    /// What stands at `path` of document `index`, with all edits so far.
    pub fn get(&self, index: usize, path: &[Step]) -> Option<&Value> {
        let value = self.pieces.get(index)?.value()?;
        path.iter().try_fold(value, |value, step| step.of(value))
    }

    /// Sets the value at `path` of document `index`, making the mappings on the way.
    ///
    /// # Errors
    /// When the path leads through something that is no mapping.
    pub fn set(&mut self, index: usize, path: &[Step], value: &Value) -> Result<(), ResourceError> {
        if self.get(index, path) != Some(value) {
            *self.slot(index, path)? = value.clone();
        }
        Ok(())
    }

    /// Inserts `value` into the sequence at `path` before position `at` (or at its end), making the sequence if needed.
    ///
    /// # Errors
    /// As [`YamlFile::set`].
    pub fn insert(
        &mut self,
        index: usize,
        path: &[Step],
        at: usize,
        value: &Value,
    ) -> Result<(), ResourceError> {
        let line = self.line(index);
        let slot = self.slot(index, path)?;
        if slot.is_null() {
            *slot = json!([]);
        }
        let Some(list) = slot.as_array_mut() else {
            return Err(refuse(line, path, "it is not a list"));
        };
        list.insert(at.min(list.len()), value.clone());
        Ok(())
    }

    /// Replaces the item of the sequence at `path` at position `at`.
    ///
    /// # Errors
    /// As [`YamlFile::set`], and when there is no such item.
    pub fn replace(
        &mut self,
        index: usize,
        path: &[Step],
        at: usize,
        value: &Value,
    ) -> Result<(), ResourceError> {
        let line = self.line(index);
        let list = self.get(index, path).and_then(Value::as_array);
        match list.map(|list| list.get(at)) {
            None => return Err(refuse(line, path, "it is not a list")),
            Some(None) => return Err(refuse(line, path, "there is no such item")),
            Some(Some(old)) if old == value => return Ok(()),
            Some(Some(_)) => {}
        }
        let item: Vec<Step> = path.iter().cloned().chain([Step::Index(at)]).collect();
        *self.slot(index, &item)? = value.clone();
        Ok(())
    }

    /// Removes the item of the sequence or the entry of the mapping at `path`; nothing when there is none.
    ///
    /// # Errors
    /// When there is no such document.
    pub fn remove(&mut self, index: usize, path: &[Step]) -> Result<(), ResourceError> {
        let Some((last, parent)) = path.split_last() else {
            return Err(refuse(
                self.line(index),
                path,
                "a whole document cannot be removed",
            ));
        };
        if self.get(index, path).is_none() {
            return Ok(());
        }
        let slot = self.slot(index, parent)?;
        match (last, slot) {
            (Step::Key(key), Value::Object(entries)) => drop(entries.shift_remove(key)),
            (Step::Index(at), Value::Array(items)) if *at < items.len() => drop(items.remove(*at)),
            _ => {}
        }
        Ok(())
    }

    fn line(&self, index: usize) -> usize {
        self.pieces.get(index).map_or(0, |piece| piece.first_line)
    }

    /// The place at `path`, made if it is missing.
    fn slot(&mut self, index: usize, path: &[Step]) -> Result<&mut Value, ResourceError> {
        let line = self.line(index);
        let piece = self
            .pieces
            .get_mut(index)
            .filter(|piece| piece.original.is_some());
        let Some(piece) = piece else {
            let reason = format!("there is no document {}", index.saturating_add(1));
            return Err(refuse(line, path, &reason));
        };
        let mut slot = piece
            .wanted
            .get_or_insert_with(|| piece.original.clone().unwrap_or_default());
        for step in path {
            if slot.is_null() && matches!(step, Step::Key(_)) {
                *slot = json!({});
            }
            slot = match (step, slot) {
                (Step::Key(key), Value::Object(entries)) => {
                    entries.entry(key.as_str()).or_insert(Value::Null)
                }
                (Step::Index(at), Value::Array(items)) if *at < items.len() => &mut items[*at],
                (Step::Index(_), _) => return Err(refuse(line, path, "there is no such item")),
                (Step::Key(_), Value::Array(_)) => {
                    return Err(refuse(line, path, "a list stands in the way"));
                }
                (Step::Key(_), _) => return Err(refuse(line, path, "a scalar stands in the way")),
            };
        }
        Ok(slot)
    }
}

impl Piece {
    fn value(&self) -> Option<&Value> {
        self.wanted.as_ref().or(self.original.as_ref())
    }

    fn written(&self) -> Result<Cow<'_, str>, ResourceError> {
        match (&self.original, &self.wanted) {
            (Some(original), Some(wanted)) if original != wanted => {
                let text = update(&self.text, original, wanted);
                text.map(Cow::Owned).map_err(|error| error.below(self.line))
            }
            _ => Ok(Cow::Borrowed(&self.text)),
        }
    }
}

/// Lines before the first content.
fn blank_lines(piece: &str) -> usize {
    let blank = piece.lines().take_while(|line| {
        examined(line.len());
        let line = line.trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "---"
    });
    blank.count()
}

fn read(piece: &str) -> Result<Option<Value>, ResourceError> {
    let mut roots = parse(piece)?
        .into_iter()
        .filter_map(|document| document.root);
    let value = roots.next().map(|root| root.to_value()).transpose()?;
    match roots.next() {
        None => Ok(value),
        Some(second) => Err(ResourceError::Structure {
            line: second.line,
            column: second.column.saturating_add(1),
            reason: "a second document starts here without a line `---` before it".into(),
        }),
    }
}

/// Templates fail in many ways, all of which mean the same.
fn template(error: ResourceError, piece: &str) -> ResourceError {
    // In quotes, and in the middle of text, braces are what a program behind Kubernetes reads.
    let unquoted = |line: &str| {
        let line = line.trim_start();
        line.starts_with("{{") || line.contains(": {{") || line.contains("- {{")
    };
    match piece.lines().position(unquoted) {
        Some(line) => ResourceError::Template {
            line: line.saturating_add(1),
        },
        None => error,
    }
}

fn is_object(value: &Value) -> bool {
    value["apiVersion"].is_string() && value["kind"].is_string()
}

/// Adds `value`, or the members of the list that it is.
fn collect(
    index: usize,
    path: &mut Vec<Step>,
    value: Cow<'_, Value>,
    documents: &mut Vec<Document>,
) -> Result<(), String> {
    let missing: Vec<&str> = ["apiVersion", "kind"]
        .into_iter()
        .filter(|key| !value[key].is_string())
        .collect();
    if !missing.is_empty() {
        let place = if path.is_empty() {
            "it".to_owned()
        } else {
            format!("`{}`", show(path))
        };
        return Err(format!("{place} has no `{}`", missing.join("` and no `")));
    }
    let kind = value["kind"].as_str().unwrap_or_default();
    let items = value["items"].as_array();
    let (Some(member), Some(items)) = (kind.strip_suffix("List"), items) else {
        documents.push(Document {
            index,
            path: path.clone(),
            object: value.into_owned(),
        });
        return Ok(());
    };
    if path.len() >= LIST_DEPTH_MAX.saturating_mul(2) {
        return Err(format!(
            "lists are nested deeper than {LIST_DEPTH_MAX} levels"
        ));
    }
    for (position, item) in items.iter().enumerate() {
        path.extend([Step::key("items"), Step::Index(position)]);
        let item = match item {
            Value::Object(entries) if !member.is_empty() && !is_object(item) => {
                let mut entries = entries.clone();
                entries
                    .entry("apiVersion")
                    .or_insert_with(|| value["apiVersion"].clone());
                entries.entry("kind").or_insert_with(|| json!(member));
                Cow::Owned(Value::Object(entries))
            }
            item => Cow::Borrowed(item),
        };
        collect(index, path, item, documents)?;
        path.truncate(path.len().saturating_sub(2));
    }
    Ok(())
}

fn refuse(line: usize, path: &[Step], reason: &str) -> ResourceError {
    ResourceError::Patch {
        path: show(path),
        line,
        reason: reason.to_owned(),
    }
}
