//! ConfigMaps and Secrets.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

/// ConfigMaps and Secrets that pods refer to.
#[derive(Debug, Clone, Default)]
pub struct ConfigObjects(BTreeMap<(String, String, String), BTreeMap<String, Vec<u8>>>);

impl ConfigObjects {
    /// Takes a ConfigMap or Secret in; other objects, and values that are not text or base64, are left out.
    pub fn insert(&mut self, object: &Value) {
        let Some(kind @ ("ConfigMap" | "Secret")) = object["kind"].as_str() else {
            return;
        };
        if object["apiVersion"] != "v1" {
            return;
        }
        let text = |value: &Value| value.as_str().map(|text| text.as_bytes().to_vec());
        let binary = |value: &Value| {
            let folded: String = value.as_str()?.split_ascii_whitespace().collect();
            STANDARD.decode(folded).ok()
        };
        type Decode<'a> = &'a dyn Fn(&Value) -> Option<Vec<u8>>;
        let parts: [(&str, Decode<'_>); 2] = match kind {
            "ConfigMap" => [("data", &text), ("binaryData", &binary)],
            // What is in both is taken from the second.
            _ => [("data", &binary), ("stringData", &text)],
        };
        let mut values = BTreeMap::new();
        for (part, decode) in parts {
            for (key, value) in object[part].as_object().into_iter().flatten() {
                if let Some(value) = decode(value) {
                    values.insert(key.clone(), value);
                }
            }
        }
        let metadata = &object["metadata"];
        let field = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        let key = (kind.to_owned(), field("namespace"), field("name"));
        self.0.insert(key, values);
    }

    /// Values by key. An object without a namespace is in that of whoever asks.
    pub fn get(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<&BTreeMap<String, Vec<u8>>> {
        let find = |namespace: &str| {
            let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
            self.0.get(&key)
        };
        namespace
            .and_then(find)
            .or_else(|| find(""))
            .or_else(|| find("default").filter(|_| namespace.is_none()))
    }
}
