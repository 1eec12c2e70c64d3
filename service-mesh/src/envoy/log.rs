//! Envoy's log lines as events of ours, and the last of them for error messages.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Value of Envoy's `--log-format`: level, logger and message, separated by `|`.
pub const FORMAT: &str = "%l|%n|%v";

/// Target of the events, for log directives such as `envoy=debug`.
pub const TARGET: &str = "envoy";

/// Lines that are kept.
const KEPT_LINES: usize = 20;

/// The last lines of Envoy's log that are warnings or worse, or not in [`FORMAT`].
#[derive(Debug, Clone, Default)]
pub struct LogTail(Arc<Mutex<VecDeque<String>>>);

impl LogTail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl fmt::Display for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.is_empty() {
            return f.write_str("it logged no warnings");
        }
        f.write_str("its last warnings and errors:")?;
        lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Turns each line of `output` into an event until `output` ends.
pub async fn forward(output: impl AsyncRead + Unpin, tail: LogTail) {
    let mut lines = BufReader::new(output).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        let (level, logger, message) = parse(&line);
        match level {
            Level::Trace => tracing::trace!(target: TARGET, logger, "{message}"),
            Level::Debug => tracing::debug!(target: TARGET, logger, "{message}"),
            Level::Info => tracing::info!(target: TARGET, logger, "{message}"),
            Level::Warning => tracing::warn!(target: TARGET, logger, "{message}"),
            Level::Error => tracing::error!(target: TARGET, logger, "{message}"),
        }
        if level >= Level::Warning {
            tail.push(message.to_owned());
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
}

/// Level, logger and message. What Envoy prints before its logging is set up, or when it crashes, has no level.
fn parse(line: &str) -> (Level, &str, &str) {
    let mut fields = line.splitn(3, '|');
    let level = match fields.next() {
        Some("trace") => Level::Trace,
        Some("debug") => Level::Debug,
        Some("info") => Level::Info,
        Some("warning") => Level::Warning,
        Some("error" | "critical") => Level::Error,
        _ => return (Level::Warning, "", line),
    };
    match (fields.next(), fields.next()) {
        (Some(logger), Some(message)) => (level, logger, message),
        _ => (Level::Warning, "", line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_level_and_bars_in_the_message() {
        assert_eq!(parse("critical|main|a|b"), (Level::Error, "main", "a|b"));
        assert_eq!(parse("debug|dns|"), (Level::Debug, "dns", ""));
        assert_eq!(parse("info|short"), (Level::Warning, "", "info|short"));
        assert_eq!(parse("Aborted"), (Level::Warning, "", "Aborted"));
    }

    #[tokio::test]
    async fn tail_keeps_the_last_warnings_only() {
        let tail = LogTail::default();
        let text: String = (0..30)
            .map(|n| format!("info|main|quiet {n}\nwarning|main|loud {n}\n"))
            .collect();
        forward(text.as_bytes(), tail.clone()).await;
        let shown = tail.to_string();
        assert!(
            !shown.contains("quiet") && !shown.contains("loud 9\n"),
            "{shown}"
        );
        assert!(
            shown.ends_with("loud 29") && shown.contains("loud 10\n"),
            "{shown}"
        );
    }
}
