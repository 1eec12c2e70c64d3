//! The examples of `docs/how-to`, run as they stand there.

use std::{fs, path::Path};

use crate::{context::Context, generate::APPLICATION};

/// Annotations that users write: the rows of the reference, which is made from the table of `generate`.
fn annotations() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/annotations.md");
    let text = fs::read_to_string(path).expect("the reference");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

pub(crate) fn pages() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to");
    let entries = fs::read_dir(directory).expect("the how-to pages");
    let read = |path: std::path::PathBuf| {
        (
            path.display().to_string(),
            fs::read_to_string(&path).expect("text"),
        )
    };
    let paths = entries.map(|entry| entry.expect("entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(read)
        .collect()
}

/// Other blocks are settings of another program, or a part of a pod.
pub(crate) fn holds_confidential_pods(yaml: &str) -> bool {
    yaml.contains("runtimeClassName: contrast")
}

#[test]
fn every_example_is_generated_and_its_policy_says_what_the_page_says() {
    let (coordinator, _) = APPLICATION.split_once("---\n").expect("two objects");
    let mut examples = 0;
    for (page, text) in pages() {
        for block in text.split("```yaml\n").skip(1) {
            let (yaml, rest) = block.split_once("```\n").expect("the block ends");
            if !holds_confidential_pods(yaml) {
                continue;
            }
            let context = Context::new();
            context.file("coordinator.yml", coordinator);
            context.file("example.yml", yaml);
            let claim = rest
                .strip_prefix("<!-- policy of ")
                .expect("a claim behind the example");
            let (claim, _) = claim.split_once(" -->").expect("the claim ends");
            let (pod, says) = claim
                .split_once(" says: ")
                .expect("a pod, and what its policy says");
            let (pod, flag) = match pod.split_once(" with ") {
                Some((pod, flag)) => (pod, Some(flag)),
                None => (pod, None),
            };
            let mut arguments = vec![
                "generate",
                "--reference-values",
                "metal-qemu-snp",
                "coordinator.yml",
                "example.yml",
            ];
            arguments.extend(flag);
            let shown = context.run(&arguments);
            assert!(shown.contains("exit code: 0"), "{page}: {shown}");
            let policy = context.run(&["policy", "show", pod, "example.yml"]);
            assert!(policy.contains(says), "{page}: expected {says} in {policy}");
            examples += 1;
        }
    }
    assert!(examples >= 9, "only {examples} examples were found");
}

#[test]
fn every_annotation_has_a_page() {
    let all: String = pages().into_iter().map(|(_, text)| text).collect();
    let annotations = annotations();
    assert!(annotations.len() >= 11, "{annotations:?}");
    for annotation in annotations {
        assert!(
            all.contains(&format!("`{annotation}"))
                || all.contains(&format!("systems/{annotation}")),
            "{annotation}"
        );
    }
}
