use serde_json::Value;

use crate::{
    ResourceError, Step,
    parse::{ParsedDocument, parse},
    patch,
};

/// A YAML (or JSON) file of Kubernetes objects, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlFile {
    text: String,
}

/// One object of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Number in the file, from 0; empty documents count.
    pub index: usize,
    /// Path to the object inside the document: empty, or `items[i]` for a member of a `List`.
    pub path: Vec<Step>,
    /// The object as JSON, aliases resolved.
    pub object: Value,
}

impl YamlFile {
    /// Takes over a file's text.
    ///
    /// # Errors
    /// When it is not YAML, or a document is no Kubernetes object.
    pub fn parse(text: String) -> Result<Self, ResourceError> {
        let file = Self { text };
        file.documents()?;
        Ok(file)
    }

    /// The text, with all patches so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every object, the members of lists included, in order.
    ///
    /// # Errors
    /// As [`YamlFile::parse`].
    pub fn documents(&self) -> Result<Vec<Document>, ResourceError> {
        let mut documents = Vec::new();
        for (index, parsed) in parse(&self.text)?.iter().enumerate() {
            let Some(root) = &parsed.root else { continue };
            let object = root.to_value();
            check_object(&object, index, parsed)?;
            if object["kind"] == "List" && object["apiVersion"] == "v1" {
                for (position, item) in object["items"].as_array().into_iter().flatten().enumerate()
                {
                    check_object(item, index, parsed)?;
                    let path = vec![Step::key("items"), Step::Index(position)];
                    documents.push(Document {
                        index,
                        path,
                        object: item.clone(),
                    });
                }
            } else {
                documents.push(Document {
                    index,
                    path: Vec::new(),
                    object,
                });
            }
        }
        Ok(documents)
    }

    /// Sets the value at `path` of document `index`, making the mappings on the way.
    ///
    /// # Errors
    /// When the path leads through something that is no mapping, or the place cannot be edited safely.
    pub fn set(&mut self, index: usize, path: &[Step], value: &Value) -> Result<(), ResourceError> {
        self.text = patch::set(&self.text, index, path, value)?;
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
        self.text = patch::insert(&self.text, index, path, at, value)?;
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
        self.text = patch::replace(&self.text, index, path, at, value)?;
        Ok(())
    }
}

fn check_object(
    object: &Value,
    index: usize,
    parsed: &ParsedDocument,
) -> Result<(), ResourceError> {
    let missing: Vec<&str> = ["apiVersion", "kind"]
        .into_iter()
        .filter(|key| !object[key].is_string())
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(ResourceError::NotKubernetes {
            index: index.saturating_add(1),
            line: parsed.line,
            reason: format!("it has no `{}`", missing.join("` and no `")),
        }),
    }
}
