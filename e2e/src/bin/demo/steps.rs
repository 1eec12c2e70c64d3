//! Steps that are numbered, timed and explained.

use std::time::Instant;

use anyhow::{Context, Result};

const LINE_CHARS: usize = 110;

/// The lines that start with one of `starts`, cut to a terminal's width.
pub(crate) fn only(text: &str, starts: &[&str]) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| starts.iter().any(|start| line.starts_with(start)))
        .map(|line| line.chars().take(LINE_CHARS).collect())
        .collect()
}

/// Numbers, names and times each step.
#[derive(Default)]
pub(crate) struct Steps {
    pub(crate) count: usize,
    started: Option<Instant>,
}

impl Steps {
    pub(crate) fn begin(&mut self, name: &str) {
        self.count += 1;
        self.started = Some(Instant::now());
        say(&format!("{:>2}. {name}", self.count));
    }

    pub(crate) fn end(&mut self, facts: &[String]) {
        for fact in facts.iter().filter(|fact| !fact.is_empty()) {
            say(&format!("      {fact}"));
        }
        let seconds = self
            .started
            .take()
            .map_or(0.0, |started| started.elapsed().as_secs_f32());
        say(&format!("    ok ({seconds:.1} s)"));
    }

    pub(crate) fn run(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<Vec<String>>,
    ) -> Result<()> {
        self.run_with(name, || Ok(((), work()?)))
    }

    pub(crate) fn run_with<T>(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<(T, Vec<String>)>,
    ) -> Result<T> {
        self.begin(name);
        let (value, facts) = work().with_context(|| name.to_owned())?;
        self.end(&facts);
        Ok(value)
    }
}

#[expect(clippy::print_stdout, reason = "the demo talks to a person")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
