//! An OpenAPI document (3.1) against what a server really answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// A document, and which of its answers were seen.
#[derive(Debug)]
pub struct OpenApi {
    document: Value,
    seen: BTreeSet<Answer>,
}

/// Method in lower case, path, and status of an answer that the document knows.
pub type Answer = (String, String, String);

const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

impl OpenApi {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is not JSON, or a schema in it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let this = Self {
            document,
            seen: BTreeSet::new(),
        };
        for name in this.object("/components/schemas").keys() {
            this.validator(&json!({ "$ref": format!("#/components/schemas/{name}") }))?;
        }
        Ok(this)
    }

    /// Compares an answer with the document: the operation knows the status, the headers that it names are as it says, and the body meets the
    /// schema. `path` is one of the document's, `header` looks a header up in the answer.
    ///
    /// # Errors
    /// What differs.
    pub fn check(
        &mut self,
        (method, path, status): (&str, &str, u16),
        header: impl Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Result<(), String> {
        let method = method.to_lowercase();
        let shown = format!("{method} {path}: {status}");
        let operation = &self.document["paths"][path][&method];
        let response = &operation["responses"][status.to_string()];
        let response = self.resolve(response);
        if response.is_null() {
            return Err(format!("{shown}: the document does not know that answer"));
        }
        if let Some(headers) = response["headers"].as_object() {
            for (name, expected) in headers {
                let expected = self.resolve(expected);
                match header(name) {
                    Some(found) => self.meets(&expected["schema"], &found.into(), &shown)?,
                    None if expected["required"] == true => {
                        return Err(format!("{shown}: header {name} is missing"));
                    }
                    None => {}
                }
            }
        }
        let schema = &response["content"]["application/json"]["schema"];
        match (schema.is_null(), body.is_empty()) {
            (true, true) => {}
            (true, false) => return Err(format!("{shown}: expected no body")),
            (false, _) => {
                let body = serde_json::from_slice(body);
                let body = body.map_err(|error| format!("{shown}: {error}"))?;
                self.meets(schema, &body, &shown)?;
            }
        }
        self.seen
            .insert((method, path.to_owned(), status.to_string()));
        Ok(())
    }

    /// Compares a value with one of the document's schemas.
    ///
    /// # Errors
    /// What differs.
    pub fn check_schema(&self, name: &str, value: &Value) -> Result<(), String> {
        let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        self.meets(&schema, value, name)
    }

    /// Paths of the document.
    pub fn paths(&self) -> Vec<String> {
        self.object("/paths").keys().cloned().collect()
    }

    /// The answers that the document knows and that no successful [`check`](Self::check) has seen.
    pub fn unseen(&self) -> Vec<Answer> {
        let mut unseen = Vec::new();
        for (path, item) in self.object("/paths") {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let responses = operation["responses"].as_object();
                let known = METHODS.contains(&method.as_str());
                for status in responses.into_iter().filter(|_| known).flatten() {
                    let answer = (method.clone(), path.clone(), status.0.clone());
                    if !self.seen.contains(&answer) {
                        unseen.push(answer);
                    }
                }
            }
        }
        unseen
    }

    fn meets(&self, schema: &Value, value: &Value, shown: &str) -> Result<(), String> {
        let validator = self.validator(schema)?;
        let errors: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        match errors.is_empty() {
            true => Ok(()),
            false => Err(format!("{shown}: {}", errors.join("; "))),
        }
    }

    /// References of `schema` lead into the document.
    fn validator(&self, schema: &Value) -> Result<jsonschema::Validator, String> {
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema],
            "components": self.document["components"],
        });
        jsonschema::validator_for(&whole).map_err(|error| error.to_string())
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let reference = value["$ref"].as_str();
        let target = reference.and_then(|reference| reference.strip_prefix('#'));
        target.map_or(value, |target| {
            self.document.pointer(target).unwrap_or(&Value::Null)
        })
    }

    fn object(&self, pointer: &str) -> &serde_json::Map<String, Value> {
        static EMPTY: std::sync::LazyLock<serde_json::Map<String, Value>> =
            std::sync::LazyLock::new(serde_json::Map::new);
        let found = self.document.pointer(pointer).and_then(Value::as_object);
        found.unwrap_or(&EMPTY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r##"{
        "paths": {"/a": {"get": {"responses": {
            "200": {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}},
            "204": {"$ref": "#/components/responses/Empty"}
        }}}},
        "components": {
            "responses": {"Empty": {"description": "", "headers": {"X-A": {"required": true, "schema": {"const": "a"}}}}},
            "schemas": {"A": {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}}
        }
    }"##;

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn finds_what_differs_and_what_was_never_seen() {
        let mut api = OpenApi::parse(DOCUMENT).expect("a document");
        let get = |status| ("GET", "/a", status);
        for (status, body) in [(200, "{}"), (200, r#"{"a": "1"}"#), (200, ""), (404, "{}")] {
            api.check(get(status), none, body.as_bytes())
                .expect_err(body);
        }
        api.check(("POST", "/a", 200), none, b"{\"a\": 1}")
            .expect_err("another method");
        api.check(get(204), none, b"").expect_err("no header");
        api.check(get(204), |_| Some("b".into()), b"")
            .expect_err("another header");
        assert_eq!(api.unseen().len(), 2);
        api.check(get(200), none, b"{\"a\": 1}").expect("as said");
        api.check(get(204), |_| Some("a".into()), b"")
            .expect("as said");
        assert_eq!(api.unseen(), []);
    }
}
