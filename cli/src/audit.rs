//! What `contrast audit` shows.
//!
//! Whoever stores an audit stream may have written all of it, so only printable characters of its texts are kept.

use std::{
    io::{self, Write},
    time::{Duration, UNIX_EPOCH},
};

use chrono::{DateTime, SecondsFormat, Utc};
use contrast_audit::{Checked, Hash, Record, Subject};
use serde::Serialize;

use crate::{
    output::{Paint, Render},
    status::{printable, table},
};

/// Hex digits of a hash in a table.
const SHORT_DIGITS: usize = 12;

/// A file whose chains hold.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    records: u64,
    other_lines: u64,
    /// Lines of processes that were killed, or still write.
    cut_lines: u64,
    chains: Vec<Chain>,
    /// Line of the record that was asked for; null when none was.
    head_line: Option<u64>,
    head: Option<Hash>,
}

/// The records of one process.
#[derive(Debug, Serialize)]
struct Chain {
    line: u64,
    first: u64,
    last: u64,
    head: Hash,
    stopped: bool,
    lost: u64,
}

impl Verdict {
    /// Of what was found; `head` is the record that had to be there.
    pub(crate) fn of(checked: &Checked, head: Option<Hash>) -> Self {
        let chains = checked.segments.iter().map(|segment| Chain {
            line: segment.line,
            first: segment.first,
            last: segment.last,
            head: segment.head,
            stopped: segment.stopped,
            lost: segment.lost,
        });
        Self {
            records: checked.records,
            other_lines: checked.other_lines,
            cut_lines: checked.cut_lines,
            chains: chains.collect(),
            head_line: checked.head_line,
            head,
        }
    }
}

impl Render for Verdict {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        writeln!(
            out,
            "{} {} record(s) of {} process(es); {} other line(s) skipped",
            paint.good("holds:"),
            self.records,
            self.chains.len(),
            self.other_lines
        )?;
        for chain in &self.chains {
            let end = match chain.stopped {
                true => "stopped".to_owned(),
                false => {
                    paint.alarming("no stop: it runs, was killed, or its last records are missing")
                }
            };
            writeln!(
                out,
                "  from line {}: records {} to {}, head {}, {end}",
                chain.line, chain.first, chain.last, chain.head
            )?;
            if chain.first > 0 {
                let missing = format!(
                    "the file begins in the middle: {} record(s) before it are missing",
                    chain.first
                );
                writeln!(out, "    {}", paint.alarming(&missing))?;
            }
            if chain.lost > 0 {
                let lost = format!(
                    "the Coordinator itself counted {} decision(s) that it did not record",
                    chain.lost
                );
                writeln!(out, "    {}", paint.alarming(&lost))?;
            }
        }
        if self.cut_lines > 0 {
            writeln!(
                out,
                "{} line(s) end early: a process was killed while it wrote, or still writes",
                self.cut_lines
            )?;
        }
        match (self.head, self.head_line) {
            (Some(head), Some(line)) => writeln!(
                out,
                "the record {head} is at line {line}: it and those of its process before it are as they were written"
            ),
            _ => writeln!(
                out,
                "without --head this shows accidents only: whoever stores the records can have written them anew, or cut off the end; \
                 `contrast status` names the latest record"
            ),
        }
    }
}

/// Records, as a table.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Records(pub(crate) Vec<Row>);

/// One record and its hash.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Place in the chain.
    pub sequence: u64,
    /// RFC 3339, UTC.
    time: String,
    kind: String,
    outcome: String,
    reason: String,
    subject: Subject,
    hash: Hash,
}

impl Row {
    /// Of a record with this hash.
    pub(crate) fn of(record: &Record, hash: Hash) -> Self {
        let time = UNIX_EPOCH.checked_add(Duration::from_millis(record.time_ms));
        // A time that no calendar has was not written by a Coordinator.
        let time = time
            .filter(|_| record.time_ms < 1 << 47)
            .map(DateTime::<Utc>::from);
        let time = time.map_or_else(
            || format!("{} ms", record.time_ms),
            |time| time.to_rfc3339_opts(SecondsFormat::Millis, true),
        );
        Self {
            sequence: record.sequence,
            time,
            kind: record.kind.to_string(),
            outcome: record.outcome.to_string(),
            reason: printable(&record.reason),
            subject: record.subject.clone(),
            hash,
        }
    }

    fn cells(&self) -> [String; 6] {
        [
            self.sequence.to_string(),
            self.time.clone(),
            self.kind.clone(),
            self.outcome.clone(),
            match self.reason.as_str() {
                "" => "-".to_owned(),
                reason => reason.to_owned(),
            },
            about(&self.subject),
        ]
    }
}

impl Render for Records {
    fn text(&self, out: &mut dyn Write, _: Paint) -> io::Result<()> {
        let heads = ["RECORD", "TIME", "KIND", "OUTCOME", "REASON", "ABOUT"];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(self.0.iter().map(Row::cells));
        table(out, &rows)
    }
}

/// Whom a record is about, in one line.
fn about(subject: &Subject) -> String {
    let Subject {
        version,
        boot,
        policy,
        names,
        tee,
        insecure,
        reference,
        checks,
        key,
        serial,
        expires_ms: _,
        secrets,
        manifest,
        transition,
        approvals,
        missing,
        volume,
        generation,
        recorded,
        cluster,
        node,
        role,
        leader,
        term,
        lost,
    } = subject;
    let mut parts = Vec::new();
    if !names.is_empty() {
        parts.push(printable(&names.join(",")));
    }
    let hash = |hash: &Option<Hash>| {
        hash.map(|hash| hash.to_string().chars().take(SHORT_DIGITS).collect())
    };
    let text = |text: &Option<String>| text.as_deref().map(printable);
    let number = |number: &Option<u64>| number.map(|number| number.to_string());
    let list = |list: &[String]| (!list.is_empty()).then(|| printable(&list.join(",")));
    let marked = [
        ("checks", list(checks)),
        ("secrets", list(secrets)),
        ("version", text(version)),
        ("boot", text(boot)),
        ("role", text(role)),
        ("node", text(node)),
        ("leader", text(leader)),
        ("term", number(term)),
        ("cluster", hash(cluster)),
        ("transition", hash(transition)),
        ("manifest", hash(manifest)),
        ("approvals", number(approvals)),
        ("missing", number(missing)),
        ("volume", text(volume)),
        ("generation", number(generation)),
        ("recorded", number(recorded)),
        ("lost", number(lost)),
        ("policy", hash(policy)),
        ("tee", text(tee)),
        ("reference", text(reference)),
        ("key", hash(key)),
        ("serial", text(serial)),
    ];
    for (name, value) in marked {
        if let Some(value) = value {
            parts.push(format!("{name}={value}"));
        }
    }
    if *insecure {
        parts.push("INSECURE".to_owned());
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use contrast_audit::{Chain as Writer, Event, Kind};

    use super::*;

    #[test]
    fn text_of_whoever_stores_the_file_cannot_move_the_cursor_or_reverse_text() {
        let subject = Subject {
            names: vec!["a\u{202e}b".to_owned()],
            reference: Some("\u{200b}x".to_owned()),
            ..Subject::default()
        };
        let mut entry = Writer::default().append(5, Event::done(Kind::Certificate, subject));
        entry.record.reason = "\u{1b}[2J".to_owned();
        let cells = Row::of(&entry.record, entry.hash).cells().join("|");
        assert!(
            !cells.chars().any(|c| c.is_control() || c == '\u{202e}'),
            "{cells:?}"
        );
        assert!(cells.contains("1970-01-01T00:00:00.005Z"), "{cells}");
        entry.record.time_ms = u64::MAX;
        let cells = Row::of(&entry.record, entry.hash).cells().join("|");
        assert!(cells.contains("18446744073709551615 ms"), "{cells}");
    }
}
