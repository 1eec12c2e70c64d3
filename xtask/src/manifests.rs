//! The chart, rendered: what is kept in the repository, and whether everything else that it can render is right.
//!
//! | part | what it does |
//! | --- | --- |
//! | `cases` | which values are rendered, and which must be refused |
//! | `xtask/chart/render.py` | renders with Helm's own engine, and validates against the schemas of Kubernetes |
//! | `meaning` | what no schema says: names that must be those of something else |
//! | `reference` | the table of values |

mod cases;
mod meaning;
mod reference;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{tools, workspace_root};
use cases::Case;

const CHART: &str = "deploy/chart";
const PLUGIN: &str = "deploy/helm-plugin/plugin.yaml";
const MANIFESTS: &str = "deploy/manifests";
/// Versions of Kubernetes whose schemas count: the oldest and the newest that people run, and one between them.
const VERSIONS: [&str; 3] = ["1.32", "1.34", "1.37"];
/// How many problems are shown.
const SHOWN: usize = 20;

/// A case after rendering.
#[derive(Debug)]
struct Rendered {
    case: Case,
    /// Why Helm refused the values, if it did.
    refused: Option<String>,
    /// Templates with what they became, in the order of their names.
    files: Vec<(String, String)>,
    objects: Vec<Value>,
    /// What the schemas of Kubernetes say.
    invalid: Vec<String>,
}

/// Everything that one run of the renderer says.
#[derive(Debug)]
struct Answer {
    defaults: Value,
    metadata: Value,
    lint: Vec<String>,
    cases: Vec<Rendered>,
}

/// Renders and checks everything, and writes what is kept.
pub(crate) fn write() -> Result<()> {
    run(false)
}

/// Renders and checks everything, and compares what is kept. Whoever asks for that does not want to hear that it was left out.
pub(crate) fn check() -> Result<()> {
    run(true)
}

/// The same for the lint, which has more to say: where nothing can be rendered, it says what is missing and goes on.
#[expect(clippy::print_stderr, reason = "a note for the person at the terminal")]
pub(crate) fn check_or_explain() -> Result<()> {
    match tools::CHART.python() {
        Ok(_) => check(),
        Err(error) => {
            eprintln!("note: the chart is not checked: {error:#}");
            Ok(())
        }
    }
}

fn run(check: bool) -> Result<()> {
    let root = workspace_root();
    let answer = render(&root, cases::all(&root)?)?;
    let mut problems = answer.lint.clone();
    problems.extend(versions(&root, &answer.metadata)?);
    let facts = meaning::Facts::read(&root)?;
    let mut objects = 0;
    for rendered in &answer.cases {
        objects += rendered.objects.len();
        problems.extend(judge(rendered, &facts));
    }
    let mut files = vec![(
        PathBuf::from("docs/reference/chart.md"),
        reference::page(&root.join(CHART), &answer.defaults)?,
    )];
    for rendered in &answer.cases {
        if let Some(name) = rendered.case.kept {
            files.push((Path::new(MANIFESTS).join(name), kept(rendered)));
        }
    }
    if check {
        problems.extend(differences(&root, &files)?);
    }
    let (shown, rest) = problems.split_at(problems.len().min(SHOWN));
    ensure!(
        problems.is_empty(),
        "the chart is not right:\n{}{}",
        shown.join("\n"),
        match rest.len() {
            0 => String::new(),
            more => format!("\nand {more} more"),
        }
    );
    if !check {
        for (path, text) in &files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().context("a directory")?)?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    report(&format!(
        "{} sets of values, {objects} objects, valid for Kubernetes {}; {} files {}",
        answer.cases.len(),
        VERSIONS.join(", "),
        files.len(),
        if check { "are up to date" } else { "written" },
    ));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of the task")]
fn report(text: &str) {
    println!("{text}");
}

fn render(root: &Path, cases: Vec<Case>) -> Result<Answer> {
    let task = json!({
        "chart": root.join(CHART),
        "schemas": root.join("xtask/chart/schemas"),
        "versions": VERSIONS,
        "cases": cases
            .iter()
            .map(|case| json!({
                "name": case.name, "namespace": case.namespace, "values": case.values, "lint": case.kept.is_some(),
            }))
            .collect::<Vec<_>>(),
    });
    let mut python = tools::CHART.python()?;
    let mut renderer = python
        .arg(root.join("xtask/chart/render.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start python3")?;
    let mut input = renderer.stdin.take().context("standard input")?;
    input.write_all(task.to_string().as_bytes())?;
    drop(input);
    let output = renderer.wait_with_output()?;
    ensure!(
        output.status.success(),
        "xtask/chart/render.py ended with {}",
        output.status
    );
    let answer: Value = serde_json::from_slice(&output.stdout)
        .context("xtask/chart/render.py did not answer with JSON")?;
    let outcomes = answer["cases"].as_array().context("no cases")?;
    ensure!(
        outcomes.len() == cases.len(),
        "expected an answer for each case"
    );
    let cases = cases.into_iter().zip(outcomes);
    Ok(Answer {
        defaults: answer["defaults"].clone(),
        metadata: answer["metadata"].clone(),
        lint: texts(&answer["lint"]),
        cases: cases
            .map(|(case, outcome)| Rendered::new(case, outcome))
            .collect(),
    })
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Rendered {
    fn new(case: Case, outcome: &Value) -> Self {
        let files = outcome["files"].as_object().into_iter().flatten();
        let invalid = outcome["invalid"].as_array().into_iter().flatten();
        Self {
            case,
            refused: outcome["refused"].as_str().map(str::to_owned),
            files: files
                .filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())))
                .collect(),
            objects: outcome["objects"].as_array().cloned().unwrap_or_default(),
            invalid: invalid
                .map(|one| {
                    let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
                    format!(
                        "{}: {} ({})",
                        text("object"),
                        text("problem"),
                        text("version")
                    )
                })
                .collect(),
        }
    }
}

/// What is wrong with a case.
fn judge(rendered: &Rendered, facts: &meaning::Facts) -> Vec<String> {
    let name = &rendered.case.name;
    let said = |problem: String| format!("{name}: {problem}");
    match (&rendered.case.refusal, &rendered.refused) {
        (Some(expected), Some(reason)) => expected
            .iter()
            .filter(|part| !reason.contains(**part))
            .map(|part| said(format!("expected `{part}` in the refusal, found: {reason}")))
            .collect(),
        (Some(_), None) => vec![said("expected to be refused, found objects".to_owned())],
        (None, Some(reason)) => vec![said(format!("expected objects, found a refusal: {reason}"))],
        (None, None) => {
            let mut problems = rendered.invalid.clone();
            problems.extend(meaning::check(&rendered.objects, facts));
            problems.into_iter().map(said).collect()
        }
    }
}

/// Chart and programs are released together.
fn versions(root: &Path, metadata: &Value) -> Result<Vec<String>> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let version = manifest
        .split("[workspace.package]")
        .nth(1)
        .and_then(|package| {
            package
                .lines()
                .find_map(|line| line.strip_prefix("version = "))
        })
        .context("Cargo.toml: no version of the workspace")?
        .trim_matches('"');
    let fields = ["version", "appVersion"].into_iter();
    let other = fields.filter(|field| metadata[field] != version);
    let mut problems: Vec<String> = other
        .map(|field| {
            format!(
                "{CHART}/Chart.yaml: expected {field} {version} as in Cargo.toml, found {}",
                metadata[field]
            )
        })
        .collect();
    let plugin = fs::read_to_string(root.join(PLUGIN))?;
    if !plugin.contains(&format!("\nversion: {version}\n")) {
        problems.push(format!(
            "{PLUGIN}: expected version {version} as in Cargo.toml"
        ));
    }
    Ok(problems)
}

/// The manifest that is kept: what `helm template` prints, without the notes, and how to make it.
fn kept(rendered: &Rendered) -> String {
    let Case {
        namespace, values, ..
    } = &rendered.case;
    let mut text = format!(
        "# Made by `cargo xtask manifests` from {CHART}; change it there. The same from Helm, with other values where you need them:\n\
         # echo '{values}' | helm template contrast {CHART} --namespace {namespace} --values -\n"
    );
    let manifests = rendered.files.iter();
    let manifests = manifests.filter(|(name, _)| !name.ends_with("NOTES.txt"));
    for (_, manifest) in manifests {
        let manifest = manifest.trim();
        if !manifest.starts_with("---") {
            text.push_str("---\n");
        }
        text.push_str(manifest);
        text.push('\n');
    }
    text
}

/// Files that are not what they should be, and manifests that nothing makes.
fn differences(root: &Path, files: &[(PathBuf, String)]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (path, wanted) in files {
        let there = fs::read_to_string(root.join(path)).unwrap_or_default();
        if there != *wanted {
            let diff = similar::TextDiff::from_lines(there.as_str(), wanted.as_str());
            let name = path.display().to_string();
            let diff = diff.unified_diff().header(&name, "rendered").to_string();
            found.push(format!(
                "{name} is out of date; run `cargo xtask manifests`\n{diff}"
            ));
        }
    }
    for entry in fs::read_dir(root.join(MANIFESTS))? {
        let name = entry?.file_name();
        let path = Path::new(MANIFESTS).join(&name);
        if !files.iter().any(|(file, _)| *file == path) {
            found.push(format!("{}: nothing renders it; remove it", path.display()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renders if the renderer is installed; else says that the test skips.
    fn rendered(cases: Vec<Case>) -> Option<Vec<Rendered>> {
        let root = workspace_root();
        if !root.join("target/tools/chart-python").is_dir() {
            eprintln!("skipped: `cargo xtask tools` installs what renders the chart");
            return None;
        }
        Some(render(&root, cases).expect("renders").cases)
    }

    #[test]
    fn schemas_of_kubernetes_refuse_what_they_do_not_know() {
        let mut case = cases::everything();
        case.values["networkPolicy"]["egress"]["to"] = json!([{"prots": []}]);
        let Some(rendered) = rendered(vec![case]) else {
            return;
        };
        let found = rendered[0].invalid.join("\n");
        for version in VERSIONS {
            assert!(found.contains(&format!("({version})")), "{found}");
        }
        assert!(
            found.contains("NetworkPolicy coordinator: /spec/egress/2:")
                && found.contains("'prots' was unexpected"),
            "{found}"
        );
    }

    /// Puts one mistake after the other into what the chart renders.
    #[test]
    fn each_mistake_is_noticed() {
        let Some(rendered) = rendered(vec![cases::everything()]) else {
            return;
        };
        let facts = meaning::Facts::read(&workspace_root()).expect("reads");
        let objects = &rendered[0].objects;
        assert_eq!(meaning::check(objects, &facts), Vec::<String>::new());
        for (kind, name, pointer, value, expected) in meaning::mistakes::ALL {
            let mut objects = objects.clone();
            let object = objects
                .iter_mut()
                .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
                .unwrap_or_else(|| panic!("{kind} {name}"));
            let place = object
                .pointer_mut(pointer)
                .unwrap_or_else(|| panic!("{kind} {name} {pointer}"));
            *place = serde_json::from_str(value).expect("JSON");
            let found = meaning::check(&objects, &facts).join("\n");
            assert!(found.contains(expected), "{kind} {name} {pointer}: {found}");
        }
    }

    #[test]
    fn values_that_must_be_refused_but_are_not_are_noticed() {
        let mut case = cases::everything();
        case.refusal = Some(vec!["/coordinator"]);
        let Some(rendered) = rendered(vec![case]) else {
            return;
        };
        let facts = meaning::Facts::read(&workspace_root()).expect("reads");
        let problems = judge(&rendered[0], &facts).join("\n");
        assert!(problems.contains("expected to be refused"), "{problems}");
    }

    #[test]
    fn chart_of_another_version_is_noticed() {
        let found = versions(
            &workspace_root(),
            &json!({"version": "9.9.9", "appVersion": "9.9.9"}),
        );
        assert_eq!(found.expect("reads").len(), 2);
    }

    #[test]
    fn difference_is_shown_line_by_line() {
        let root = workspace_root();
        let files = [(
            PathBuf::from("deploy/manifests/coordinator-1.yaml"),
            "kind: None\n".to_owned(),
        )];
        let found = differences(&root, &files).expect("reads").join("\n");
        assert!(found.contains("+kind: None"), "{found}");
        assert!(
            found.contains("deploy/manifests/coordinator-3.yaml: nothing renders it"),
            "{found}"
        );
    }
}
