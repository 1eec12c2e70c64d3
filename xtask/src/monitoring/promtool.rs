use std::{
    fs,
    io::ErrorKind,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Pods as Kubernetes shows them to Prometheus, which Debian's promtool is built without.
const PODS: &str = "static_configs:
      - targets: [a]
        labels: {__meta_kubernetes_namespace: shop, __meta_kubernetes_pod_name: coordinator-0, __meta_kubernetes_pod_ip: 10.0.0.1, __meta_kubernetes_pod_phase: Running, __meta_kubernetes_pod_annotation_contrast_edgeless_systems_pod_role: coordinator}
      - targets: [b]
        labels: {__meta_kubernetes_namespace: shop, __meta_kubernetes_pod_name: coordinator-1, __meta_kubernetes_pod_ip: 'fd00::1', __meta_kubernetes_pod_phase: Running, __meta_kubernetes_pod_label_contrast_edgeless_systems_pod_role: coordinator}
      - targets: [c]
        labels: {__meta_kubernetes_namespace: shop, __meta_kubernetes_pod_name: web-0, __meta_kubernetes_pod_ip: 'fd00::2', __meta_kubernetes_pod_phase: Running, __meta_kubernetes_pod_annotation_contrast_edgeless_systems_servicemesh_metrics_port: '9100'}
      - targets: [d]
        labels: {__meta_kubernetes_namespace: shop, __meta_kubernetes_pod_name: web-1, __meta_kubernetes_pod_ip: 10.0.0.2, __meta_kubernetes_pod_phase: Running, __meta_kubernetes_pod_annotation_contrast_edgeless_systems_servicemesh_metrics_port: '9101'}
      - targets: [e]
        labels: {__meta_kubernetes_namespace: shop, __meta_kubernetes_pod_name: web-2, __meta_kubernetes_pod_ip: 10.0.0.3, __meta_kubernetes_pod_phase: Failed, __meta_kubernetes_pod_annotation_contrast_edgeless_systems_servicemesh_metrics_port: '9100'}
      - targets: [f]
        labels: {__meta_kubernetes_namespace: other, __meta_kubernetes_pod_name: other-0, __meta_kubernetes_pod_ip: 10.0.0.4, __meta_kubernetes_pod_phase: Running}
";
const DISCOVERY: &str = "kubernetes_sd_configs:\n      - role: pod\n";

/// Which targets each job finds among [`PODS`]: address and instance.
const FOUND: [(&str, [(&str, &str); 2]); 2] = [
    (
        "contrast-coordinator",
        [
            ("10.0.0.1:9102", "coordinator-0"),
            ("[fd00::1]:9102", "coordinator-1"),
        ],
    ),
    (
        "contrast-mesh",
        [("10.0.0.2:9101", "web-1"), ("[fd00::2]:9100", "web-0")],
    ),
];

/// Has promtool check rules, their tests, the expressions of dashboards, and what the scrape configuration finds; says so when there is
/// no promtool.
pub(super) fn check(directory: &Path, expressions: &[(String, String)]) -> Result<()> {
    if !is_there()? {
        skipped();
        return Ok(());
    }
    let rules = directory.join("alerts.yaml");
    promtool("check rules", &[&rules])?;
    promtool("test rules", &[&directory.join("alerts.test.yaml")])?;
    let scratch = crate::workspace_root().join("target/monitoring");
    fs::create_dir_all(&scratch)?;
    let panels = scratch.join("panels.yaml");
    fs::write(&panels, as_rules(expressions))?;
    promtool("check rules", &[&panels])?;
    let config = fs::read_to_string(directory.join("prometheus.yaml"))?;
    ensure!(
        config.matches(DISCOVERY).count() == FOUND.len(),
        "prometheus.yaml: expected {} jobs that discover pods",
        FOUND.len()
    );
    let rules = rules.display().to_string();
    let config = config
        .replace(DISCOVERY, PODS)
        .replace("- alerts.yaml", &format!("- {rules}"));
    let path = scratch.join("prometheus.yaml");
    fs::write(&path, config)?;
    promtool("check config", &[&path])?;
    FOUND
        .iter()
        .try_for_each(|(job, expected)| check_targets(&path, job, expected))
}

/// The expressions of panels as recording rules. What Grafana puts in stands in for itself.
fn as_rules(expressions: &[(String, String)]) -> String {
    let mut text = "groups:\n- name: panels\n  rules:\n".to_owned();
    for (number, (_, expression)) in expressions.iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "5m");
        // JSON is YAML.
        let quoted = Value::String(expression);
        text.push_str(&format!("  - record: panel:{number}\n    expr: {quoted}\n"));
    }
    text
}

fn check_targets(config: &Path, job: &str, expected: &[(&str, &str)]) -> Result<()> {
    let job = Path::new(job);
    let output = promtool("check service-discovery --timeout=1s", &[config, job])?;
    let targets: Value =
        serde_json::from_slice(&output.stdout).context("promtool: expected targets as JSON")?;
    let label = |target: &Value, name: &str| {
        let found = target.pointer(&format!("/labels/{name}"));
        found.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let targets = targets.as_array().into_iter().flatten();
    let mut found: Vec<_> = targets
        .map(|target| (label(target, "__address__"), label(target, "instance")))
        // Those that are dropped.
        .filter(|(address, _)| !address.is_empty())
        .collect();
    found.sort();
    let expected: Vec<_> = expected
        .iter()
        .map(|(address, instance)| ((*address).to_owned(), (*instance).to_owned()))
        .collect();
    ensure!(
        found == expected,
        "prometheus.yaml, job {}: expected targets {expected:?}, found {found:?}",
        job.display()
    );
    Ok(())
}

fn is_there() -> Result<bool> {
    match Command::new("promtool").arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        outcome => Ok(outcome.context("cannot start promtool")?.status.success()),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the edge where a skipped check reaches a person"
)]
fn skipped() {
    eprintln!("no promtool (Debian package `prometheus`): rules and expressions are not checked");
}

fn promtool(task: &str, arguments: &[&Path]) -> Result<Output> {
    let mut command = Command::new("promtool");
    command.args(task.split(' ')).args(arguments);
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        // Empty lines for each test that passed.
        let said: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
        bail!(
            "{command:?} ended with {}:\n{}",
            output.status,
            said.join("\n")
        );
    }
    Ok(output)
}
