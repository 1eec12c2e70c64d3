//! What an adversarial host may try: every field of every request changed, and requests dropped, replayed and reordered.

use serde_json::{Value, json};

/// A change of one field.
#[derive(Debug, Clone)]
pub(crate) struct Mutation {
    /// JSON pointer of the field.
    pub(crate) pointer: String,
    /// What was done to it.
    pub(crate) name: &'static str,
    /// The whole changed request.
    pub(crate) body: Value,
}

impl Mutation {
    /// The pointer with what an element is about instead of its position.
    pub(crate) fn place(&self, whole: &Value) -> String {
        let mut place = String::new();
        let mut value = whole;
        for part in self.pointer.split('/').skip(1) {
            let key = part.replace("~1", "/").replace("~0", "~");
            value = match value {
                Value::Array(items) => &items[key.parse::<usize>().expect("a position")],
                other => &other[key.as_str()],
            };
            place.push('/');
            match part.parse::<usize>() {
                Ok(_) => place.push_str(&about(value)),
                Err(_) => place.push_str(part),
            }
        }
        place
    }
}

pub(crate) fn about(element: &Value) -> String {
    let named = ["destination", "driver", "container_path", "Type"]
        .iter()
        .find_map(|key| element[*key].as_str());
    match (named, element.as_str()) {
        (Some(name), _) => name.replace('/', "~"),
        (None, Some(text)) => {
            let name = text.split_once('=').map_or(text, |(name, _)| name);
            name.replace('/', "~")
        }
        (None, None) => "*".to_owned(),
    }
}

/// Every single change.
pub(crate) fn all(body: &Value) -> Vec<Mutation> {
    let mut found = Vec::new();
    visit(body, String::new(), body, &mut found);
    found
}

/// The first change, and the second one on top, if its field is still there.
pub(crate) fn both(first: &Mutation, second: &Mutation) -> Option<Value> {
    let mut body = first.body.clone();
    let field = body.pointer_mut(&second.pointer)?;
    match second.body.pointer(&second.pointer) {
        Some(value) if second.name != "drop" => *field = value.clone(),
        _ if second.pointer.is_empty() => return None,
        _ => remove(&mut body, &second.pointer),
    }
    Some(body)
}

fn visit(whole: &Value, pointer: String, value: &Value, found: &mut Vec<Mutation>) {
    let mut push = |name, new: Option<Value>| {
        let mut body = whole.clone();
        match new {
            Some(new) => *body.pointer_mut(&pointer).expect("the field") = new,
            None => remove(&mut body, &pointer),
        }
        if body != *whole {
            found.push(Mutation {
                pointer: pointer.clone(),
                name,
                body,
            });
        }
    };
    if !pointer.is_empty() {
        push("drop", None);
        push("null", Some(Value::Null));
        push(
            "other type",
            Some(if value.is_object() {
                json!("x")
            } else {
                json!({"Evil": "x"})
            }),
        );
    }
    match value {
        Value::String(text) => {
            push("empty", Some(json!("")));
            push("append", Some(json!(format!("{text}x"))));
            push("prepend", Some(json!(format!("x{text}"))));
            push("newline", Some(json!(format!("{text}\n"))));
            push("space", Some(json!(format!("{text} "))));
            push("NUL", Some(json!(format!("{text}\0"))));
            push("case", Some(json!(swapped_case(text))));
            push(
                "confusable",
                Some(json!(text.replacen(['a', 'e', 'o', 'c'], "\u{430}", 1))),
            );
            push("parent", Some(json!(format!("{text}/../../x"))));
            push("path", Some(json!("/etc/passwd")));
        }
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or_default();
            push("plus one", Some(json!(number.saturating_add(1))));
            push("minus one", Some(json!(number.saturating_sub(1))));
            push("huge", Some(json!(i64::MAX)));
            push("text", Some(json!(number.to_string())));
        }
        Value::Bool(flag) => push("flip", Some(json!(!flag))),
        Value::Null => push("something", Some(json!("x"))),
        Value::Array(items) => {
            let mut longer = items.clone();
            longer.push(items.first().cloned().unwrap_or_else(|| json!("x")));
            push("duplicate", Some(json!(longer)));
            let mut strange = items.clone();
            strange.push(match items.first() {
                Some(Value::Object(_)) => json!({"Evil": "x"}),
                Some(Value::Number(_)) => json!(4711),
                _ => json!("evil"),
            });
            push("insert", Some(json!(strange)));
            let mut turned = items.clone();
            turned.reverse();
            push("reverse", Some(json!(turned)));
            push("empty", Some(json!([])));
        }
        Value::Object(_) => push("empty", Some(json!({}))),
    }
    match value {
        Value::Array(items) => {
            for (position, item) in items.iter().enumerate() {
                visit(whole, format!("{pointer}/{position}"), item, found);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                visit(whole, format!("{pointer}/{key}"), field, found);
            }
        }
        _ => {}
    }
}

fn remove(body: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').expect("not the root");
    let key = key.replace("~1", "/").replace("~0", "~");
    match body.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.shift_remove(&key)),
        Some(Value::Array(items)) => drop(items.remove(key.parse().expect("a position"))),
        _ => {}
    }
}

fn swapped_case(text: &str) -> String {
    let turned = text.chars().map(|c| match c.is_ascii_lowercase() {
        true => c.to_ascii_uppercase(),
        false => c.to_ascii_lowercase(),
    });
    turned.collect()
}
