//! An OpenAPI document (3.1) against what a server really answers.

use std::{borrow::Cow, collections::BTreeSet};

use percent_encoding::percent_decode_str;
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

    /// Compares an answer with the document: the operation knows the status, or has a `default`, the headers that it names are as it says,
    /// and the body meets the schema. `target` is that of the request, `header` looks a header up in the answer.
    ///
    /// # Errors
    /// What differs.
    pub fn check(
        &mut self,
        (method, target, status): (&str, &str, u16),
        header: impl Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Result<(), String> {
        let method = method.to_lowercase();
        let shown = format!("{method} {target}: {status}");
        let path = self.path_of(&method, target)?;
        let responses = &self.document["paths"][&path][&method]["responses"];
        let status = status.to_string();
        let status = match &responses[&status] {
            Value::Null => "default".to_owned(),
            _ => status,
        };
        let response = self.resolve(&responses[&status]);
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
        self.seen.insert((method, path, status));
        Ok(())
    }

    /// Compares a request with the document: parameters of the path and the query, as text, and the body meet their schemas. What the
    /// document does not name in the query is ignored.
    ///
    /// # Errors
    /// What differs.
    pub fn check_request(&self, (method, target): (&str, &str), body: &[u8]) -> Result<(), String> {
        let method = method.to_lowercase();
        let shown = format!("{method} {target}");
        let path = self.path_of(&method, target)?;
        let (asked, query) = target.split_once('?').unwrap_or((target, ""));
        let operation = &self.document["paths"][&path][&method];
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = self.resolve(parameter);
            let name = parameter["name"].as_str().unwrap_or_default();
            let found = match parameter["in"].as_str() {
                Some("path") => {
                    let mut pairs = path.split('/').zip(asked.split('/'));
                    let found = pairs.find(|(template, _)| *template == format!("{{{name}}}"));
                    found.map(|(_, value)| value)
                }
                _ => {
                    let mut pairs = query.split('&').filter_map(|one| one.split_once('='));
                    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
                }
            };
            match found.map(|value| percent_decode_str(value).decode_utf8()) {
                Some(value) => {
                    let value: Cow<'_, str> = value.map_err(|error| format!("{shown}: {error}"))?;
                    self.meets(&parameter["schema"], &value.into(), &shown)?;
                }
                None if parameter["required"] == true => {
                    return Err(format!("{shown}: parameter {name} is missing"));
                }
                None => {}
            }
        }
        let expected = self.resolve(&operation["requestBody"]);
        match (&expected["content"]["application/json"]["schema"], body) {
            (Value::Null, []) => Ok(()),
            (Value::Null, _) => Err(format!("{shown}: expected no body")),
            (_, []) if expected["required"] != true => Ok(()),
            (schema, body) => {
                let body = serde_json::from_slice(body);
                let body = body.map_err(|error| format!("{shown}: {error}"))?;
                self.meets(schema, &body, &shown)
            }
        }
    }

    /// The path of the document that a request means: of several, the one with the fewest parameters.
    fn path_of(&self, method: &str, target: &str) -> Result<String, String> {
        let asked = target.split('?').next().unwrap_or_default();
        let is_parameter = |segment: &str| segment.starts_with('{') && segment.ends_with('}');
        let fits = |path: &str| {
            path.split('/').count() == asked.split('/').count()
                && path.split('/').zip(asked.split('/')).all(
                    |(template, found)| match is_parameter(template) {
                        true => !found.is_empty(),
                        false => template == found,
                    },
                )
        };
        let paths = self.object("/paths");
        let fitting = paths.keys().filter(|path| fits(path));
        let found = fitting
            .min_by_key(|path| path.split('/').filter(|one| is_parameter(one)).count())
            .filter(|path| paths[*path][method].is_object());
        let found = found.cloned();
        found.ok_or_else(|| format!("{method} {target}: the document does not know that operation"))
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

    /// The operations, method and path, of which no answer was [`check`](Self::check)ed.
    pub fn uncalled(&self) -> Vec<(String, String)> {
        let called = |method: &str, path: &str| {
            let mut seen = self.seen.iter();
            seen.any(|(one, other, _)| one == method && other == path)
        };
        let operations: BTreeSet<_> = self
            .unseen()
            .into_iter()
            .map(|(method, path, _)| (method, path))
            .filter(|(method, path)| !called(method, path))
            .collect();
        operations.into_iter().collect()
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

    const PARAMETERS: &str = r##"{
        "paths": {
            "/a/{name}": {"post": {
                "parameters": [
                    {"name": "name", "in": "path", "required": true, "schema": {"pattern": "^a/b$"}},
                    {"name": "q", "in": "query", "required": true, "schema": {"type": "string", "maxLength": 1}}
                ],
                "requestBody": {"$ref": "#/components/requestBodies/B"},
                "responses": {"default": {"description": ""}}
            }},
            "/a/own": {"get": {"responses": {"200": {"description": ""}}}}
        },
        "components": {"requestBodies": {"B": {"content": {"application/json": {"schema": {"type": "object"}}}}}}
    }"##;

    #[test]
    fn requests_meet_their_schemas() {
        let api = OpenApi::parse(PARAMETERS).expect("a document");
        for (method, target, body) in [
            ("POST", "/a/a%2Fb?q=1", ""),
            ("POST", "/a/a%2Fb?other&q=1", "{}"),
            ("GET", "/a/own", ""),
        ] {
            let met = api.check_request((method, target), body.as_bytes());
            met.expect(target);
        }
        for (method, target, body) in [
            ("POST", "/a/a%2Fc?q=1", ""),
            ("POST", "/a/a%2Fb", ""),
            ("POST", "/a/a%2Fb?q=12", ""),
            ("POST", "/a/a%2Fb?q=1", "[]"),
            ("POST", "/a/a/b?q=1", ""),
            ("POST", "/a/?q=1", ""),
            ("POST", "/a/own", ""),
            ("GET", "/a/own", "{}"),
        ] {
            let met = api.check_request((method, target), body.as_bytes());
            met.expect_err(target);
        }
    }

    #[test]
    fn knows_which_operations_were_not_called() {
        let mut api = OpenApi::parse(PARAMETERS).expect("a document");
        assert_eq!(api.uncalled().len(), 2);
        let call = ("POST", "/a/a%2Fb?q=1", 299);
        api.check(call, none, b"").expect("the default");
        assert_eq!(api.uncalled(), [("get".into(), "/a/own".into())]);
    }
}
