use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{ErrorKind, Write as _},
    path::Path,
    process::{Command, Stdio},
};

/// Everything that one program exposes, to be compared with its section of `docs/reference/metrics.md`.
#[derive(Debug, Clone, Copy)]
pub struct MetricsReference<'a> {
    /// Name of the section.
    pub section: &'static str,
    /// OpenMetrics text in which no metric is missing.
    pub exposition: &'a str,
}

#[derive(Default)]
struct Metric<'a> {
    kind: &'a str,
    help: &'a str,
    labels: Vec<&'a str>,
}

impl MetricsReference<'_> {
    /// Compares, or writes with `UPDATE_REFERENCE=1`.
    ///
    /// # Panics
    /// When the table is out of date.
    pub fn check(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.md");
        let text = fs::read_to_string(&path).expect("the reference");
        let section = self.section;
        let (begin, end) = (
            format!("<!-- {section} -->\n"),
            format!("<!-- end of {section} -->"),
        );
        let (before, rest) = text.split_once(&begin).expect("a beginning");
        let (_, after) = rest.split_once(&end).expect("an end");
        let expected = format!("{before}{begin}{}{end}{after}", self.table());
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            fs::write(&path, &expected).expect("writes");
        } else {
            assert!(
                text == expected,
                "{} is out of date: run this test with UPDATE_REFERENCE=1",
                path.display()
            );
        }
    }

    fn table(&self) -> String {
        let mut table =
            "| metric | type | labels | unit | meaning |\n| --- | --- | --- | --- | --- |\n"
                .to_owned();
        for (name, metric) in self.metrics() {
            let Metric { kind, help, labels } = metric;
            let name = match kind {
                "counter" => format!("{name}_total"),
                _ => name.to_owned(),
            };
            let unit = ["seconds", "bytes", "entries"]
                .into_iter()
                .find(|unit| name.trim_end_matches("_total").ends_with(unit))
                .unwrap_or_default();
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = labels.join(", ");
            let help = help.trim_end_matches('.');
            // Writing to a `String` cannot fail.
            let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {unit} | {help} |");
        }
        table.replace("|  |", "| |").replace("|  |", "| |")
    }

    fn metrics(&self) -> BTreeMap<&str, Metric<'_>> {
        let mut metrics: BTreeMap<&str, Metric<'_>> = BTreeMap::new();
        let mut current = "";
        for line in self.exposition.lines() {
            if let Some((name, help)) = line
                .strip_prefix("# HELP ")
                .and_then(|line| line.split_once(' '))
            {
                current = name;
                metrics.entry(name).or_default().help = help;
            } else if let Some((name, kind)) = line
                .strip_prefix("# TYPE ")
                .and_then(|line| line.split_once(' '))
            {
                metrics.entry(name).or_default().kind = kind;
            } else if !line.starts_with('#') {
                let metric = metrics.entry(current).or_default();
                for label in labels(line) {
                    // Which bucket of a histogram it is.
                    if label != "le" && !metric.labels.contains(&label) {
                        metric.labels.push(label);
                    }
                }
            }
        }
        metrics
    }
}

/// Names of the labels of a sample. Values have no commas and quotes in the expositions of tests.
fn labels(sample: &str) -> impl Iterator<Item = &str> {
    let inside = sample
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let pairs = inside.map_or("", |(inside, _)| inside).split(',');
    pairs.filter_map(|pair| Some(pair.split_once('=')?.0))
}

/// Has promtool look at metrics in Prometheus' text form; says so when there is no promtool.
///
/// # Panics
/// When promtool finds fault with them.
pub fn lint_metrics(exposition: &str) {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match started {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!(
                "skipped: no promtool (Debian package `prometheus`), so metrics are not linted"
            );
            return;
        }
        started => started.expect("promtool"),
    };
    let mut input = promtool.stdin.take().expect("a pipe");
    input
        .write_all(exposition.as_bytes())
        .expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    assert!(
        output.status.success(),
        "promtool finds fault:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
