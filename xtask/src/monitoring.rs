//! Alert rules and dashboards: that they look at metrics that exist, that nothing is left out, and that promtool understands all of it.

mod dashboards;
mod promtool;
mod reference;
mod rules;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use reference::Reference;
use rules::{Alert, Stories};

const DIRECTORY: &str = "deploy/monitoring";
const METRICS: &str = "docs/reference/metrics.md";
const RUNBOOK: &str = "docs/how-to/alerts.md";

/// Writes what is generated, then checks everything.
pub(crate) fn write(root: &Path) -> Result<()> {
    for (path, content) in generated(root)? {
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    check(root)
}

/// Checks everything and reports all violations together.
pub(crate) fn check(root: &Path) -> Result<()> {
    let reference = Reference::parse(&read(&root.join(METRICS))?);
    let directory = root.join(DIRECTORY);
    let alerts = Alert::all(&read(&directory.join("alerts.yaml"))?)?;
    let stories = Stories::parse(&read(&directory.join("alerts.test.yaml"))?)?;
    let mut violations = Vec::new();
    for (path, content) in generated(root)? {
        if fs::read_to_string(&path).ok().as_deref() != Some(&content) {
            violations.push(format!(
                "{} is out of date: run `cargo xtask monitoring`",
                path.display()
            ));
        }
    }
    for alert in &alerts {
        alert.check(&mut violations);
        stories.check(alert, &mut violations);
        check_names(&reference, &alert.name, &alert.expr, &mut violations);
    }
    check_runbook(&alerts, &read(&root.join(RUNBOOK))?, &mut violations);
    let mut shown = BTreeSet::new();
    let expressions = dashboards::expressions();
    for (panel, expression) in &expressions {
        check_names(&reference, panel, expression, &mut violations);
        shown.extend(reference::names(expression));
    }
    for metric in reference.metrics() {
        if !shown
            .iter()
            .any(|name| reference.is_sample_of(name, metric))
        {
            violations.push(format!("{metric}: no dashboard shows it"));
        }
    }
    if !violations.is_empty() {
        bail!(
            "monitoring does not hold together:\n  {}",
            violations.join("\n  ")
        );
    }
    promtool::check(&directory, &expressions)
}

/// Files that follow from others, with what is to be in them.
fn generated(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let directory = root.join(DIRECTORY);
    let mut files: Vec<_> = dashboards::all()
        .into_iter()
        .map(|(name, dashboard)| {
            let path = directory.join("dashboards").join(name);
            (path, format!("{dashboard:#}\n"))
        })
        .collect();
    let path = root.join(METRICS);
    let text = read(&path)?;
    let (before, rest) = text
        .split_once("<!-- alerts -->\n")
        .context("metrics.md has no place for alerts")?;
    let (_, after) = rest
        .split_once("<!-- end of alerts -->")
        .context("metrics.md has no end of alerts")?;
    let mut table = "| alert | severity | metrics |\n| --- | --- | --- |\n".to_owned();
    for alert in Alert::all(&read(&directory.join("alerts.yaml"))?)? {
        let names: BTreeSet<_> = reference::names(&alert.expr).collect();
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        let Alert { name, severity, .. } = &alert;
        let anchor = name.to_lowercase();
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            table,
            "| [{name}](../how-to/alerts.md#{anchor}) | {severity} | {} |",
            names.join(", ")
        );
    }
    let text = format!("{before}<!-- alerts -->\n{table}<!-- end of alerts -->{after}");
    files.push((path, text));
    Ok(files)
}

fn check_names(reference: &Reference, place: &str, expr: &str, violations: &mut Vec<String>) {
    for name in reference::names(expr) {
        if !reference.knows(name) {
            violations.push(format!(
                "{place}: expected a metric of {METRICS}, found {name}"
            ));
        }
    }
}

/// Each alert has a section with what somebody needs who was woken by it, and no section is left of an alert that is gone.
fn check_runbook(alerts: &[Alert], runbook: &str, violations: &mut Vec<String>) {
    let mut sections = BTreeSet::new();
    for section in runbook.split("\n## ").skip(1) {
        let (name, text) = section.split_once('\n').unwrap_or((section, ""));
        sections.insert(name);
        if name.starts_with("Contrast") {
            for part in ["**Meaning.**", "**Look at.**", "**Do.**"] {
                if !text.contains(part) {
                    violations.push(format!("{RUNBOOK}: {name} lacks {part}"));
                }
            }
            if !alerts.iter().any(|alert| alert.name == name) {
                violations.push(format!("{RUNBOOK}: no alert has the name {name}"));
            }
        }
    }
    for alert in alerts {
        if !sections.contains(alert.name.as_str()) {
            violations.push(format!("{RUNBOOK}: no section `## {}`", alert.name));
        }
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn alerts_dashboards_and_their_documents_hold_together() {
        check(&crate::workspace_root()).expect("all of it");
    }

    #[test]
    fn what_does_not_exist_is_found() {
        let reference = Reference::parse("| `contrast_a_total` | counter |\n");
        let mut violations = Vec::new();
        let expr = r#"rate(contrast_a_total{x="contrast_c"}[5m]) / contrast_b"#;
        check_names(&reference, "here", expr, &mut violations);
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert!(
            violations
                .iter()
                .all(|text| text.contains("found contrast_b"))
        );
        let mut violations = Vec::new();
        check_runbook(
            &[],
            "# T\n\n## ContrastGone\n\n**Meaning.** x\n",
            &mut violations,
        );
        assert_eq!(violations.len(), 3, "{violations:?}");
    }
}
