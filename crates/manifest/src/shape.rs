//! JSON tree to document: types and names of fields, nothing about their meaning.

use serde_json::Value;
use serde_path_to_error::{Segment as SerdeSegment, Track};

use crate::{
    JsonPath, ManifestDocument, ManifestError, Problem, ProblemKind,
    json::{self, Segment},
    problem::Problems,
};

/// More mistakes of type than this are not listed one by one.
const MAX_TYPE_PROBLEMS: usize = 100;

/// Reads a document and everything that is wrong with its shape.
///
/// serde stops at the first value of a wrong type. So that all of them are listed, the member that holds it is noted, cut
/// out of the tree, and the rest read again; every field of the model may be absent.
pub(crate) fn read(bytes: &[u8]) -> Result<(ManifestDocument, Problems), ManifestError> {
    let mut tree = json::parse(bytes).map_err(|error| {
        ManifestError::single(JsonPath::root(), format!("not a JSON document: {error}"))
    })?;
    if !tree.root.is_object() {
        let message = format!("expected a JSON object, found {}", name_of_type(&tree.root));
        return Err(ManifestError::single(JsonPath::root(), message));
    }
    let mut problems: Vec<Problem> = Vec::new();
    for path in tree.duplicates {
        problems.push(malformed(
            path,
            "the field is there twice; keep one of them".to_owned(),
        ));
    }
    let mut settled = Vec::new();
    while settled.len() < MAX_TYPE_PROBLEMS {
        let mut unknown = Vec::new();
        let mut track = Track::new();
        let tracked = serde_path_to_error::Deserializer::new(&tree.root, &mut track);
        let attempt: Result<ManifestDocument, serde_json::Error> =
            serde_ignored::deserialize(tracked, |path| unknown.push(from_ignored(&path)));
        match attempt {
            Ok(document) => {
                for path in unknown {
                    let message = "unknown field; remove it, correct its name, or use the version that knows it";
                    problems.push(malformed(path, message.to_owned()));
                }
                return Ok((document, Problems::new(problems, settled)));
            }
            Err(error) => {
                let path = from_serde(&track.path());
                let member = path.clone().enclosing_member();
                problems.push(malformed(path, error.to_string()));
                let removed = remove(&mut tree.root, member.segments());
                settled.push(member);
                if !removed {
                    break;
                }
            }
        }
    }
    Err(ManifestError::new(problems))
}

fn malformed(path: JsonPath, message: String) -> Problem {
    Problem {
        path,
        message,
        kind: ProblemKind::Malformed,
    }
}

fn remove(node: &mut Value, path: &[Segment]) -> bool {
    match (node, path) {
        (Value::Object(object), [Segment::Key(key)]) => object.shift_remove(key).is_some(),
        (Value::Object(object), [Segment::Key(key), rest @ ..]) => {
            object.get_mut(key).is_some_and(|child| remove(child, rest))
        }
        (Value::Array(array), [Segment::Index(index), rest @ ..]) => array
            .get_mut(*index)
            .is_some_and(|child| remove(child, rest)),
        _ => false,
    }
}

fn from_serde(path: &serde_path_to_error::Path) -> JsonPath {
    path.iter()
        .filter_map(|segment| match segment {
            SerdeSegment::Seq { index } => Some(Segment::Index(*index)),
            SerdeSegment::Map { key } => Some(Segment::Key(key.clone())),
            SerdeSegment::Enum { .. } | SerdeSegment::Unknown => None,
        })
        .collect()
}

fn from_ignored(path: &serde_ignored::Path<'_>) -> JsonPath {
    use serde_ignored::Path;
    match path {
        Path::Root => JsonPath::root(),
        Path::Seq { parent, index } => from_ignored(parent).index(*index),
        Path::Map { parent, key } => from_ignored(parent).key(key),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => from_ignored(parent),
    }
}

fn name_of_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
