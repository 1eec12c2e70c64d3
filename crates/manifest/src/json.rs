//! JSON text to a tree that remembers what `serde_json::Value` forgets: duplicate keys.

use std::{cell::RefCell, fmt};

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Position in a JSON document, written like `$.Policies["ab…"].SANs[0]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct JsonPath(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Segment {
    Key(String),
    Index(usize),
}

impl JsonPath {
    /// The whole document, `$`.
    pub fn root() -> Self {
        Self::default()
    }

    /// The member `key` of this object.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    /// The element `index` of this array, from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// Whether this is `prefix` or lies below it.
    pub fn starts_with(&self, prefix: &Self) -> bool {
        self.0.starts_with(&prefix.0)
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The closest object member that contains this node.
    pub(crate) fn enclosing_member(mut self) -> Self {
        while matches!(self.0.last(), Some(Segment::Index(_))) {
            self.0.pop();
        }
        self
    }
}

impl FromIterator<Segment> for JsonPath {
    fn from_iter<I: IntoIterator<Item = Segment>>(segments: I) -> Self {
        Self(segments.into_iter().collect())
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A hash may happen to start with a letter; it is a key to quote all the same.
        const LONGEST_NAME: usize = 40;
        f.write_str("$")?;
        for segment in &self.0 {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key)
                    if key.len() <= LONGEST_NAME
                        && key.starts_with(|c: char| c.is_ascii_alphabetic())
                        && key.chars().all(|c| c.is_ascii_alphanumeric()) =>
                {
                    write!(f, ".{key}")?;
                }
                Segment::Key(key) => write!(f, "[{}]", Value::from(key.as_str()))?,
            }
        }
        Ok(())
    }
}

/// A document and the members that it names twice.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: Value,
    pub(crate) duplicates: Vec<JsonPath>,
}

/// Parses exactly one JSON value; of a member that is there twice the last one stays.
pub(crate) fn parse(bytes: &[u8]) -> Result<Tree, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let duplicates = RefCell::default();
    let root = Node {
        path: JsonPath::root(),
        duplicates: &duplicates,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Tree {
        root,
        duplicates: duplicates.into_inner(),
    })
}

struct Node<'a> {
    path: JsonPath,
    duplicates: &'a RefCell<Vec<JsonPath>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            let node = Self {
                path: self.path.index(array.len()),
                duplicates: self.duplicates,
            };
            match elements.next_element_seed(node)? {
                Some(element) => array.push(element),
                None => return Ok(Value::Array(array)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let path = self.path.key(&key);
            if object.contains_key(&key) {
                self.duplicates.borrow_mut().push(path.clone());
            }
            let value = members.next_value_seed(Self {
                path,
                duplicates: self.duplicates,
            })?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_duplicates_at_every_depth() {
        let tree = parse(br#"{"a": 1, "b": [{"c": 1, "c": 2}], "a": 3}"#).expect("JSON");
        let paths: Vec<String> = tree.duplicates.iter().map(ToString::to_string).collect();
        assert_eq!(paths, ["$.b[0].c", "$.a"]);
    }

    #[test]
    fn agrees_with_serde_json_on_the_tree() {
        let text = br#"{"n": null, "t": true, "i": -3, "u": 18446744073709551615, "f": 0.5, "s": "\u00e4", "o": {}, "l": [[]]}"#;
        let expected: Value = serde_json::from_slice(text).expect("JSON");
        assert_eq!(parse(text).expect("JSON").root, expected);
    }

    #[test]
    fn refuses_trailing_bytes_and_endless_nesting() {
        assert!(parse(b"{} {}").is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn quotes_hashes_and_odd_keys() {
        let hash = "ab".repeat(32);
        let path = JsonPath::root()
            .key("Policies")
            .key(&hash)
            .key("a \"b\"")
            .index(3);
        assert_eq!(
            path.to_string(),
            format!(r#"$.Policies["{hash}"]["a \"b\""][3]"#)
        );
    }
}
