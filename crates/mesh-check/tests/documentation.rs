//! `docs/how-to/mesh-check.md` has a row for every reason.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

use contrast_mesh_check::Reason;
use serde::{
    Deserialize as _,
    de::value::{Error, StrDeserializer},
};

/// The words of all reasons, from the message about a word that is none.
fn reasons() -> BTreeSet<String> {
    let nothing = StrDeserializer::<Error>::new("nothing");
    let message = Reason::deserialize(nothing)
        .expect_err("no reason")
        .to_string();
    let (_, known) = message.split_once("expected one of ").expect("the words");
    known
        .split(", ")
        .map(|word| word.trim_matches('`').to_owned())
        .collect()
}

#[test]
fn every_reason_has_a_meaning_and_a_remedy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/how-to/mesh-check.md");
    let text = fs::read_to_string(path).expect("the page");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let mut documented = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        let words = cells[0].split(", ");
        documented.extend(words.map(|word| word.trim().trim_matches('`').to_owned()));
    }
    assert!(documented.len() > 20);
    assert_eq!(documented, reasons());
}
