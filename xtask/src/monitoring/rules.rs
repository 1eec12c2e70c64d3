use std::collections::BTreeSet;

use anyhow::{Context, Result};
use contrast_resources::YamlFile;
use serde_json::Value;

use super::RUNBOOK;

/// One alert rule.
#[derive(Debug)]
pub(super) struct Alert {
    pub(super) name: String,
    pub(super) expr: String,
    pub(super) severity: String,
    summary: String,
    description: String,
    runbook_url: String,
}

impl Alert {
    /// All of `alerts.yaml`.
    pub(super) fn all(yaml: &str) -> Result<Vec<Self>> {
        let document = parse(yaml).context("alerts.yaml")?;
        let rules = list(&document, "groups").flat_map(|group| list(group, "rules"));
        let alerts = rules.map(|rule| {
            let name = text(rule, "/alert");
            Self {
                expr: text(rule, "/expr"),
                severity: text(rule, "/labels/severity"),
                summary: text(rule, "/annotations/summary"),
                description: text(rule, "/annotations/description"),
                runbook_url: text(rule, "/annotations/runbook_url"),
                name,
            }
        });
        Ok(alerts.collect())
    }

    /// What promtool does not ask for.
    pub(super) fn check(&self, violations: &mut Vec<String>) {
        let name = &self.name;
        let mut violated = |what: String| violations.push(format!("alert {name}: {what}"));
        if !name.starts_with("Contrast") {
            violated("expected a name that begins with Contrast".to_owned());
        }
        if !["critical", "warning"].contains(&self.severity.as_str()) {
            let severity = &self.severity;
            violated(format!(
                "expected severity critical or warning, found `{severity}`"
            ));
        }
        if self.summary.is_empty() || self.description.is_empty() {
            violated("expected a summary and a description".to_owned());
        }
        let expected = format!("{RUNBOOK}#{}", name.to_lowercase());
        if self.runbook_url != expected {
            let found = &self.runbook_url;
            violated(format!("expected runbook_url {expected}, found `{found}`"));
        }
    }
}

/// Of each story in `alerts.test.yaml`, which alerts fire at each moment that is looked at.
#[derive(Debug)]
pub(super) struct Stories(Vec<Vec<BTreeSet<String>>>);

impl Stories {
    pub(super) fn parse(yaml: &str) -> Result<Self> {
        let document = parse(yaml).context("alerts.test.yaml")?;
        let firing = |moment: &Value| {
            let samples = list(moment, "exp_samples");
            let names = samples.filter_map(|sample| {
                let labels = text(sample, "/labels");
                let (_, rest) = labels.split_once("alertname=\"")?;
                Some(rest.split_once('"')?.0.to_owned())
            });
            names.collect()
        };
        let stories = list(&document, "tests").map(|story| {
            let moments = list(story, "promql_expr_test");
            moments.map(firing).collect()
        });
        Ok(Self(stories.collect()))
    }

    /// An alert fires in some story, at one moment and not at another.
    pub(super) fn check(&self, alert: &Alert, violations: &mut Vec<String>) {
        let shown = self.0.iter().any(|moments| {
            let fires = |moment: &BTreeSet<String>| moment.contains(&alert.name);
            moments.iter().any(fires) && !moments.iter().all(fires)
        });
        if !shown {
            violations.push(format!(
                "alert {}: expected a story in alerts.test.yaml in which it fires at one moment and not at another",
                alert.name
            ));
        }
    }
}

fn parse(yaml: &str) -> Result<Value> {
    // The parser reads objects of Kubernetes only.
    let file = YamlFile::parse(format!("apiVersion: v1\nkind: Rules\n{yaml}"))?;
    file.get(0, &[]).cloned().context("there is no document")
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test fails by panicking")]

    use super::*;

    const RULE: &str = "groups:\n- rules:\n  - alert: ContrastX\n    expr: contrast_x\n    labels: {severity: warning}\n    annotations:\n      summary: s\n      description: d\n      runbook_url: docs/how-to/alerts.md#contrastx\n";
    const STORY: &str = "tests:\n- promql_expr_test:\n  - exp_samples: []\n  - exp_samples:\n    - labels: 'ALERTS{alertname=\"ContrastX\"}'\n";

    fn violations(rule: &str, stories: &str) -> Vec<String> {
        let mut violations = Vec::new();
        let stories = Stories::parse(stories).expect("stories");
        for alert in Alert::all(rule).expect("rules") {
            alert.check(&mut violations);
            stories.check(&alert, &mut violations);
        }
        violations
    }

    #[test]
    fn rule_needs_severity_words_runbook_and_a_story_with_two_ends() {
        assert_eq!(violations(RULE, STORY), Vec::<String>::new());
        for (old, new) in [
            ("warning", "low"),
            ("summary: s", "summary: ''"),
            ("description: d", "about: d"),
            ("#contrastx", "#contrasty"),
        ] {
            let found = violations(&RULE.replace(old, new), STORY);
            assert_eq!(found.len(), 1, "{new}: {found:?}");
        }
        for stories in [
            STORY.replace("ContrastX", "ContrastY"),
            STORY.replace("  - exp_samples: []\n", ""),
        ] {
            let found = violations(RULE, &stories);
            assert_eq!(found.len(), 1, "{stories}: {found:?}");
        }
    }
}
