use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{ciphertext::from_base64, failure::Failure};

/// Most items of one batch.
pub(super) const BATCH_MAX: usize = 1000;

/// A request's body, or one item of its batch. What is not listed is ignored, as Vault does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    pub(super) plaintext: Option<String>,
    pub(super) ciphertext: Option<String>,
    pub(super) associated_data: Option<String>,
    #[serde(deserialize_with = "number")]
    pub(super) key_version: u32,
    /// Of keys that are derived from others: there are none here.
    context: Option<String>,
    /// Of convergent encryption: there is none here.
    nonce: Option<String>,
    pub(super) input: Option<String>,
    pub(super) algorithm: Option<String>,
    pub(super) hash_algorithm: Option<String>,
    pub(super) marshaling_algorithm: Option<String>,
    pub(super) prehashed: bool,
    pub(super) hmac: Option<String>,
    pub(super) signature: Option<String>,
    pub(super) format: Option<String>,
    #[serde(deserialize_with = "number")]
    pub(super) bits: u32,
    #[serde(deserialize_with = "number")]
    pub(super) bytes: u32,
    pub(super) reference: Option<String>,
    batch_input: Option<Vec<Object>>,
    #[serde(deserialize_with = "number")]
    pub(super) partial_failure_response_code: u32,
}

/// Fields that were an object: serde would take an array, too, with the fields in the order above.
#[derive(Debug)]
struct Object(Fields);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Object;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Object, M::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// Vault's own command line sends numbers as text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u32),
        Text(String),
        Nothing(()),
    }
    match Number::deserialize(deserializer) {
        Ok(Number::Whole(number)) => Ok(number),
        Ok(Number::Nothing(())) => Ok(0),
        Ok(Number::Text(text)) if text.is_empty() => Ok(0),
        Ok(Number::Text(text)) => text.parse().map_err(D::Error::custom),
        Err(_) => Err(D::Error::custom(format!(
            "expected a whole number from 0 to {}",
            u32::MAX
        ))),
    }
}

impl Fields {
    /// Reads a body; none is as an empty object.
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let Object(fields) = serde_json::from_slice(body).map_err(|error| {
            // Only the place: the rest of serde's text can quote the body.
            let (line, column) = (error.line(), error.column());
            match error.is_data() {
                true => Failure::bad(format!(
                    "a field of the body has another type than the documented one, at line {line} column {column}"
                )),
                false => Failure::bad(format!(
                    "expected a JSON object as body, found an error at line {line} column {column}"
                )),
            }
        })?;
        match fields.batch_input.as_ref().map(Vec::len) {
            Some(0) => Err(Failure::bad("batch_input: expected at least one item")),
            Some(count) if count > BATCH_MAX => Err(Failure::bad(format!(
                "batch_input: expected at most {BATCH_MAX} items, found {count}"
            ))),
            _ => Ok(fields),
        }
    }

    /// The items, if it is a batch.
    pub(super) fn batch(&self) -> Option<impl ExactSizeIterator<Item = &Self>> {
        let items = self.batch_input.as_ref()?;
        Some(items.iter().map(|Object(fields)| fields))
    }

    /// Refuses what would change the key or the nonce, and is not there.
    pub(super) fn refuse_derivation(&self) -> Result<(), Failure> {
        let given = |field: &Option<String>| field.as_ref().is_some_and(|text| !text.is_empty());
        if given(&self.context) {
            return Err(Failure::bad(
                "context: keys of this engine are not derived; leave it out, or put it into associated_data",
            ));
        }
        match given(&self.nonce) {
            true => Err(Failure::bad(
                "nonce: this engine draws every nonce itself; leave it out",
            )),
            false => Ok(()),
        }
    }

    pub(super) fn associated_data(&self) -> Result<Vec<u8>, Failure> {
        let text = self.associated_data.as_deref().unwrap_or_default();
        from_base64("associated_data", text)
    }

    pub(super) fn input(&self) -> Result<Vec<u8>, Failure> {
        required("input", self.input.as_deref(), "base64")
            .and_then(|text| from_base64("input", text))
    }
}

/// A field that has to be there; it may be empty.
pub(super) fn required<'a>(
    name: &str,
    field: Option<&'a str>,
    expected: &str,
) -> Result<&'a str, Failure> {
    field.ok_or_else(|| Failure::bad(format!("{name}: missing; expected {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_text_and_unknown_fields_are_ignored() {
        let read = |text: &str| Fields::read(text.as_bytes());
        let versions = [
            (r#"{"key_version": 3, "unknown": {"a": []}}"#, 3),
            (r#"{"key_version": "3"}"#, 3),
            (r#"{"key_version": ""}"#, 0),
            (r#"{"key_version": null}"#, 0),
            ("{}", 0),
            (" \n", 0),
        ];
        for (text, version) in versions {
            assert_eq!(read(text).expect(text).key_version, version, "{text}");
        }
        for text in [
            "[]",
            "{",
            "null",
            r#"{"key_version": -1}"#,
            r#"{"key_version": 4294967296}"#,
            r#"{"key_version": "x"}"#,
            r#"{"plaintext": 7}"#,
            r#"{"batch_input": []}"#,
            r#"{"batch_input": {}}"#,
            r#"{"batch_input": [["AAEC"]]}"#,
        ] {
            assert!(matches!(read(text), Err(Failure::Bad(_))), "{text}");
        }
    }

    #[test]
    fn errors_do_not_repeat_the_body() {
        let error = Fields::read(br#"{"plaintext": "c2VjcmV0", "key_version": "c2VjcmV0"}"#);
        let text = error.expect_err("refused").to_string();
        assert!(!text.contains("c2Vj"), "{text}");
        let error = Fields::read(br#"{"plaintext": "c2VjcmV0" "#);
        let text = error.expect_err("refused").to_string();
        assert!(!text.contains("c2Vj"), "{text}");
    }

    #[test]
    fn batches_are_bounded() {
        let items = vec!["{}"; BATCH_MAX + 1].join(",");
        let error = Fields::read(format!("{{\"batch_input\": [{items}]}}").as_bytes());
        let text = error.expect_err("refused").to_string();
        assert!(text.contains("at most 1000 items, found 1001"), "{text}");
    }
}
