use std::collections::BTreeMap;

/// What Prometheus itself makes.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

/// The metrics that there are, by name, with their types.
#[derive(Debug)]
pub(super) struct Reference(BTreeMap<String, String>);

impl Reference {
    /// Reads the tables of the reference: rows of name, type and more.
    pub(super) fn parse(markdown: &str) -> Self {
        let rows = markdown.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.strip_suffix('`')?;
            let kind = cells.next()?.trim_end_matches(" |");
            let known = ["counter", "gauge", "histogram"].contains(&kind);
            known.then(|| (name.to_owned(), kind.to_owned()))
        });
        Self(rows.collect())
    }

    pub(super) fn metrics(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether an expression may use `name`.
    pub(super) fn knows(&self, name: &str) -> bool {
        OF_PROMETHEUS.contains(&name)
            || self.metrics().any(|metric| self.is_sample_of(name, metric))
    }

    /// Whether samples of `metric` have this name.
    pub(super) fn is_sample_of(&self, name: &str, metric: &str) -> bool {
        match self.0.get(metric).map(String::as_str) {
            Some("histogram") => name
                .strip_prefix(metric)
                .is_some_and(|suffix| ["_bucket", "_sum", "_count"].contains(&suffix)),
            Some(_) => name == metric,
            None => false,
        }
    }
}

/// Names of metrics in an expression. Ours, and of others those that our rules use: whatever else stands there is a function, a keyword
/// or a label.
pub(super) fn names(expr: &str) -> impl Iterator<Item = &str> {
    // What stands in quotes are values of labels.
    let outside = expr.split('"').step_by(2);
    let words = outside
        .flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':'));
    words.filter(|word| {
        word.starts_with("contrast_")
            || word.starts_with("process_")
            || OF_PROMETHEUS.contains(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_labels_and_values() {
        let expr = r#"sum by (namespace) (rate(contrast_x_bucket{a="contrast_no",b=~"up"}[5m])) / on (up_to) up{job="x"} > 1"#;
        assert_eq!(names(expr).collect::<Vec<_>>(), ["contrast_x_bucket", "up"]);
    }

    #[test]
    fn histograms_have_samples_and_no_value_of_their_own() {
        let table = "| metric | type |\n| --- | --- |\n| `contrast_x` | histogram | `a` |\n| `contrast_y` | gauge | |\n| `z` | a word |\n";
        let reference = Reference::parse(table);
        assert_eq!(
            reference.metrics().collect::<Vec<_>>(),
            ["contrast_x", "contrast_y"]
        );
        for (name, is_known) in [
            ("contrast_x_bucket", true),
            ("contrast_x", false),
            ("contrast_y", true),
            ("contrast_y_count", false),
            ("up", true),
        ] {
            assert_eq!(reference.knows(name), is_known, "{name}");
        }
    }
}
