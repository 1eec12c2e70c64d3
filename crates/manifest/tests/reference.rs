//! `docs/reference/manifest.md` has every field, in the words of the model's own documentation.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fmt;

use contrast_manifest::{
    InsecureReferenceValue, ManifestDocument, MinimumTcb, PolicyDocument, ReferenceValues,
    SealedSecretDocument, SnpGuestPolicyDocument, SnpPlatformInfoDocument, SnpReferenceValue,
    TdxReferenceValue, VtpmDocument,
};
use contrast_testbed::reference::hold;
use serde::{Deserialize, Deserializer, de, forward_to_deserialize_any};

const MODEL: &str = include_str!("../src/model.rs");

/// Where each object stands in the file, and its fields as serde knows them.
fn objects() -> Vec<(&'static str, &'static str, Fields)> {
    vec![
        ("ManifestDocument", "The file", fields::<ManifestDocument>()),
        (
            "PolicyDocument",
            "Each of `Policies`",
            fields::<PolicyDocument>(),
        ),
        (
            "SealedSecretDocument",
            "Each of `SealedSecrets`",
            fields::<SealedSecretDocument>(),
        ),
        (
            "ReferenceValues",
            "`ReferenceValues`",
            fields::<ReferenceValues>(),
        ),
        (
            "SnpReferenceValue",
            "Each of `ReferenceValues.snp`",
            fields::<SnpReferenceValue>(),
        ),
        ("MinimumTcb", "`MinimumTCB`", fields::<MinimumTcb>()),
        (
            "SnpGuestPolicyDocument",
            "`GuestPolicy`",
            fields::<SnpGuestPolicyDocument>(),
        ),
        (
            "SnpPlatformInfoDocument",
            "`PlatformInfo`",
            fields::<SnpPlatformInfoDocument>(),
        ),
        (
            "TdxReferenceValue",
            "Each of `ReferenceValues.tdx`",
            fields::<TdxReferenceValue>(),
        ),
        ("VtpmDocument", "`VTPM`", fields::<VtpmDocument>()),
        (
            "InsecureReferenceValue",
            "Each of `ReferenceValues.insecure`",
            fields::<InsecureReferenceValue>(),
        ),
    ]
}

type Fields = &'static [&'static str];

/// With `UPDATE_REFERENCE=1` the test writes it there.
#[test]
fn every_field_is_in_the_reference() {
    let model = model();
    let objects = objects();
    assert_eq!(
        model.len(),
        objects.len(),
        "an object of the model has no place here"
    );
    let mut sections = String::new();
    for (name, title, known) in objects {
        let object = model.iter().find(|object| object.name == name);
        let object = object.unwrap_or_else(|| panic!("no {name} in the model"));
        let names: Vec<&str> = object
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        assert_eq!(
            names, known,
            "the fields of {name}, as this test reads them"
        );
        sections.push_str(&format!("## {title}\n\n{}\n\n", object.about));
        sections.push_str("| field | type | meaning |\n| --- | --- | --- |\n");
        for field in &object.fields {
            let Field { name, kind, .. } = field;
            let about = without_links(&field.about, object);
            sections.push_str(&format!("| `{name}` | {kind} | {about} |\n"));
        }
        sections.push('\n');
    }
    hold("manifest.md", "fields", &sections);
}

struct Object {
    name: String,
    about: String,
    fields: Vec<Field>,
}

struct Field {
    name: String,
    in_rust: String,
    kind: &'static str,
    about: String,
}

/// The structs of the model with their documentation, from its source.
fn model() -> Vec<Object> {
    let mut objects = Vec::<Object>::new();
    let (mut about, mut attributes, mut pascal) = (Vec::new(), String::new(), false);
    for line in MODEL.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("/// ") {
            about.push(text);
        } else if line.starts_with("#[") {
            attributes.push_str(line);
        } else if let Some(name) = line.strip_prefix("pub struct ") {
            pascal = attributes.contains("rename_all = \"PascalCase\"");
            objects.push(Object {
                name: name.trim_end_matches(" {").to_owned(),
                about: about.join(" "),
                fields: Vec::new(),
            });
        } else if let Some((name, kind)) = field(line) {
            let renamed = attributes
                .split_once("rename = \"")
                .and_then(|(_, rest)| rest.split_once('"'));
            let field = Field {
                name: match renamed {
                    Some((renamed, _)) => renamed.to_owned(),
                    None if pascal => in_pascal_case(name),
                    None => name.to_owned(),
                },
                kind: in_json(kind),
                in_rust: name.to_owned(),
                about: about.join(" "),
            };
            objects
                .last_mut()
                .expect("a field is in a struct")
                .fields
                .push(field);
        }
        if !line.starts_with("///") && !line.starts_with("#[") {
            about.clear();
            attributes.clear();
        }
    }
    objects
}

fn field(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("pub ")?
        .strip_suffix(',')?
        .split_once(": ")
}

fn in_pascal_case(name: &str) -> String {
    let words = name.split('_');
    words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        })
        .collect()
}

fn in_json(kind: &str) -> &'static str {
    let kind = kind.trim_start_matches("Option<");
    match kind.split(['<', '>']).next().unwrap_or_default() {
        "String" => "string",
        "Vec" => "list",
        "i64" | "u64" => "number",
        "bool" => "bool",
        _ => "object",
    }
}

/// Documentation links fields by their names in Rust, which are not those of the file.
fn without_links(about: &str, object: &Object) -> String {
    let mut text = about.to_owned();
    for field in &object.fields {
        let link = format!("[`Self::{}`]", field.in_rust);
        text = text.replace(&link, &format!("`{}`", field.name));
    }
    assert!(
        !text.contains("[`"),
        "a link that the file's reader cannot follow: {text}"
    );
    text
}

/// The names that serde reads for `T`.
fn fields<'de, T: Deserialize<'de>>() -> Fields {
    let mut fields: Fields = &[];
    // Reading ends with an error on purpose: the names are known by then.
    let _ = T::deserialize(Names(&mut fields));
    fields
}

struct Names<'a>(&'a mut Fields);

#[derive(Debug)]
struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ended")
    }
}

impl std::error::Error for Ended {}

impl de::Error for Ended {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Ended;

    fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Ended> {
        Err(Ended)
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: Fields,
        _: V,
    ) -> Result<V::Value, Ended> {
        *self.0 = fields;
        Err(Ended)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
