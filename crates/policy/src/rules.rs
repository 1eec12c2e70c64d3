//! The rules' text.

const SOURCES: [&str; 7] = [
    include_str!("rules/base.rego"),
    include_str!("rules/sandbox.rego"),
    include_str!("rules/create.rego"),
    include_str!("rules/process.rego"),
    include_str!("rules/mounts.rego"),
    include_str!("rules/run.rego"),
    include_str!("rules/copy.rego"),
];

/// All rules without comments, empty lines and indentation: what is in every policy is kept small, what people read is in
/// the sources.
pub(crate) fn text() -> String {
    let mut text = String::new();
    let lines = SOURCES.iter().flat_map(|source| source.lines());
    for line in lines.map(str::trim) {
        if !line.is_empty() && !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
