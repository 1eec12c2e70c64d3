//! Any text is Kubernetes YAML or a typed error; what is only read stays byte for byte, and an edit says what it should or is
//! refused.
#![no_main]

use contrast_resources::{Step, YamlFile};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|text: &str| {
    let Ok(mut file) = YamlFile::parse(text.to_owned()) else {
        return;
    };
    assert!(
        file.text().is_ok_and(|same| same == text),
        "reading changed the text"
    );
    let documents = file.documents().unwrap_or_default();
    for document in &documents {
        let path = |keys: &[&str]| -> Vec<Step> {
            let keys = keys.iter().map(|key| Step::key(key));
            document.path.iter().cloned().chain(keys).collect()
        };
        // An edit that finds a scalar in its way is refused, and that is fine.
        let _ = file.set(
            document.index,
            &path(&["metadata", "annotations", "a"]),
            &json!("b: c"),
        );
        let _ = file.insert(
            document.index,
            &path(&["spec", "containers"]),
            0,
            &json!({"name": "x"}),
        );
    }
    let Ok(edited) = file.text() else { return };
    let again = YamlFile::parse(edited).map(|again| again.documents().unwrap_or_default());
    assert!(
        again.is_ok_and(|again| again == file.documents().unwrap_or_default()),
        "the text does not say what was intended"
    );
});
