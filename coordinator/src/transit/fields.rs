use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, Error, IgnoredAny, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
        value::MapAccessDeserializer,
    },
};

use super::{ciphertext::from_base64, failure::Failure};

/// Most items of one batch.
pub(super) const BATCH_MAX: usize = 1000;

/// Name of the field that has the items of a batch.
const BATCH: &str = "batch_input";

/// A request's body without its batch, or one item of the batch. What is not listed is ignored, as Vault does.
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
    #[serde(deserialize_with = "number")]
    pub(super) partial_failure_response_code: u32,
}

/// A request's body.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) fields: Fields,
    batch: Option<Batch>,
}

/// The items of a batch. What an item takes in memory is many times its text, so those beyond the limit are counted and not kept.
#[derive(Debug)]
struct Batch {
    items: Vec<Fields>,
    found: usize,
}

/// One item. Only an object: serde would take an array, too, with the fields in the order above. A batch in an item is an unknown field.
struct Item(Fields);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Item;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Item, M::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map)).map(Item)
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Batch;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of objects")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Batch, S::Error> {
                let mut items = Vec::new();
                while items.len() < BATCH_MAX {
                    let Some(Item(fields)) = list.next_element()? else {
                        let found = items.len();
                        return Ok(Batch { items, found });
                    };
                    items.push(fields);
                }
                let mut found = BATCH_MAX;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    found = found.saturating_add(1);
                }
                Ok(Batch { items, found })
            }
        }

        deserializer.deserialize_seq(Reader)
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Input;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Input, M::Error> {
                let mut batch = None;
                let rest = Apart {
                    map,
                    batch: &mut batch,
                };
                let fields = Fields::deserialize(MapAccessDeserializer::new(rest))?;
                let batch = batch.flatten();
                Ok(Input { fields, batch })
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// An object whose batch is put apart.
struct Apart<'a, M> {
    map: M,
    batch: &'a mut Option<Option<Batch>>,
}

impl<'de, M: MapAccess<'de>> MapAccess<'de> for Apart<'_, M> {
    type Error = M::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, M::Error> {
        while let Some(name) = self.map.next_key::<String>()? {
            if name != BATCH {
                return seed.deserialize(name.into_deserializer()).map(Some);
            }
            if self.batch.is_some() {
                return Err(M::Error::duplicate_field(BATCH));
            }
            *self.batch = Some(self.map.next_value()?);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, M::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Vault's own command line sends numbers as text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    struct Reader;

    impl Visitor<'_> for Reader {
        type Value = u32;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "a whole number from 0 to {}", u32::MAX)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
            u32::try_from(number).map_err(E::custom)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u32, E> {
            match text {
                "" => Ok(0),
                text => text.parse().map_err(E::custom),
            }
        }

        fn visit_unit<E: Error>(self) -> Result<u32, E> {
            Ok(0)
        }
    }

    deserializer.deserialize_any(Reader)
}

impl Input {
    /// Reads a body; none is as an empty object.
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let input: Self = serde_json::from_slice(body).map_err(|error| {
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
        match input.batch.as_ref().map(|batch| batch.found) {
            Some(0) => Err(Failure::bad("batch_input: expected at least one item")),
            Some(count) if count > BATCH_MAX => Err(Failure::bad(format!(
                "batch_input: expected at most {BATCH_MAX} items, found {count}"
            ))),
            _ => Ok(input),
        }
    }

    /// The items, if it is a batch.
    pub(super) fn batch(&self) -> Option<&[Fields]> {
        self.batch.as_ref().map(|batch| batch.items.as_slice())
    }
}

impl Fields {
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
        let read = |text: &str| Input::read(text.as_bytes());
        let versions = [
            (r#"{"key_version": 3, "unknown": {"a": []}}"#, 3),
            (r#"{"key_version": "3"}"#, 3),
            (r#"{"key_version": ""}"#, 0),
            (r#"{"key_version": null}"#, 0),
            ("{}", 0),
            (" \n", 0),
        ];
        for (text, version) in versions {
            assert_eq!(
                read(text).expect(text).fields.key_version,
                version,
                "{text}"
            );
        }
        for text in [
            "[]",
            "{",
            "null",
            r#"{"key_version": -1}"#,
            r#"{"key_version": 4294967296}"#,
            r#"{"key_version": "x"}"#,
            r#"{"key_version": [1]}"#,
            r#"{"plaintext": 7}"#,
            r#"{"batch_input": []}"#,
            r#"{"batch_input": {}}"#,
            r#"{"batch_input": [["AAEC"]]}"#,
            r#"{"batch_input": [{}], "batch_input": [{}]}"#,
        ] {
            assert!(matches!(read(text), Err(Failure::Bad(_))), "{text}");
        }
    }

    #[test]
    fn errors_do_not_repeat_the_body() {
        let error = Input::read(br#"{"plaintext": "c2VjcmV0", "key_version": "c2VjcmV0"}"#);
        let text = error.expect_err("refused").to_string();
        assert!(!text.contains("c2Vj"), "{text}");
        let error = Input::read(br#"{"plaintext": "c2VjcmV0" "#);
        let text = error.expect_err("refused").to_string();
        assert!(!text.contains("c2Vj"), "{text}");
    }

    fn batch_of(item: &str, count: usize) -> String {
        format!("{{\"batch_input\": [{}]}}", vec![item; count].join(","))
    }

    #[test]
    fn batches_are_bounded() {
        let whole = Input::read(batch_of("{}", BATCH_MAX).as_bytes()).expect("reads");
        assert_eq!(whole.batch().map(<[Fields]>::len), Some(BATCH_MAX));
        let error = Input::read(batch_of("{}", BATCH_MAX + 1).as_bytes());
        let text = error.expect_err("refused").to_string();
        assert!(text.contains("at most 1000 items, found 1001"), "{text}");
    }

    #[test]
    fn items_beyond_the_limit_are_counted_and_not_kept() {
        let count = 300_000;
        let read = serde_json::from_str::<Input>(&batch_of("{}", count)).expect("JSON");
        let batch = read.batch.expect("a batch");
        assert_eq!((batch.found, batch.items.len()), (count, BATCH_MAX));
        assert!(batch.items.capacity() <= 2 * BATCH_MAX);
    }

    #[test]
    fn a_batch_in_an_item_is_an_unknown_field() {
        // Even what no batch may be is ignored there, so nothing of it is kept.
        for inner in [batch_of("{}", BATCH_MAX + 1), batch_of("7", 1)] {
            let text = batch_of(&inner, 1);
            let read = Input::read(text.as_bytes()).expect("reads");
            assert_eq!(read.batch().map(<[Fields]>::len), Some(1));
        }
        let none = Input::read(br#"{"batch_input": null}"#).expect("reads");
        assert!(none.batch().is_none());
    }
}
