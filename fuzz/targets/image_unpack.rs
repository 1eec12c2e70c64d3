//! Any bytes are unpacked below the store or refused with a typed error; what is unpacked is what `generate` reads, and what is refused leaves
//! nothing. Needs root, as unpacking does.
#![no_main]

use std::{fs, sync::LazyLock};

use contrast_images::{LayerFacts, Store};
use libfuzzer_sys::fuzz_target;

static DIRECTORY: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("directory"));
static STORE: LazyLock<Store> =
    LazyLock::new(|| Store::open(&DIRECTORY.path().join("store"), "fuzzing").expect("a store"));

fuzz_target!(|bytes: &[u8]| {
    let added = STORE.add(bytes);
    let facts = LayerFacts::of(bytes);
    let layers = DIRECTORY.path().join("store/layers");
    match (added, facts) {
        (Ok(diff_id), Ok(facts)) => {
            assert_eq!(diff_id, facts.diff_id);
            fs::remove_dir_all(STORE.layer(diff_id).expect("there")).expect("removes");
        }
        // File systems refuse more, and the scan for users limits two files.
        (Err(error), _) => assert!(!error.to_string().contains(char::is_control), "{error}"),
        (Ok(diff_id), Err(error)) => {
            assert!(error.to_string().contains("has more than"), "{error}");
            fs::remove_dir_all(STORE.layer(diff_id).expect("there")).expect("removes");
        }
    }
    assert_eq!(fs::read_dir(layers).expect("layers").count(), 0);
    let outside = fs::read_dir(DIRECTORY.path()).expect("directory");
    assert_eq!(outside.count(), 1);
});
