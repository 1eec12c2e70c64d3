use std::io::{self, BufRead, Read};

use super::{
    hash::Hash,
    record::{Kind, LINE_BYTES_MAX, PREFIX, ParseError, Record},
};

/// What to expect of a file: the record that an attested Coordinator named as its latest.
pub type Head = Hash;

/// The records of one process in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Line of its first record, from 1.
    pub line: u64,
    /// Sequence number of its first record; not 0 when the file begins in the middle of a chain.
    pub first: u64,
    /// Sequence number of its last record.
    pub last: u64,
    /// Hash of its last record.
    pub head: Hash,
    /// Whether the process said that it stops; else it was killed, still runs, or its last records are missing.
    pub stopped: bool,
    /// Records that the Coordinator says it did not write.
    pub lost: u64,
}

/// A file whose chains hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Chains, in the order of the file.
    pub segments: Vec<Segment>,
    /// All records.
    pub records: u64,
    /// Lines that are no records, for example of the log.
    pub other_lines: u64,
    /// Lines that begin as a record and end early, where nothing of their process follows: it was killed, or still writes.
    pub cut_lines: u64,
    /// Line of the record that was expected, where one was.
    pub head_line: Option<u64>,
}

/// A file does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// It cannot be read.
    #[error("the records cannot be read")]
    Read(#[source] io::Error),
    /// A line begins as a record and is none.
    #[error("line {line} is no record")]
    Record {
        /// From 1.
        line: u64,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// A line is too long.
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes, which no record is")]
    TooLong {
        /// From 1.
        line: u64,
    },
    /// What a record says was changed.
    #[error("line {line} was changed: expected the hash {expected} of what it says, found {found}")]
    Hash {
        /// From 1.
        line: u64,
        /// Computed.
        expected: Hash,
        /// In the line.
        found: Hash,
    },
    /// Records are missing, or were put in another order.
    #[error(
        "the chain breaks at line {line}: expected record {expected}, found record {found}; records were removed or moved"
    )]
    Sequence {
        /// From 1.
        line: u64,
        /// Of the record that had to follow.
        expected: u64,
        /// Of the record that does.
        found: u64,
    },
    /// A record follows another one than the one before it in the file.
    #[error(
        "the chain breaks at line {line}: expected a record that follows {expected}, found one that follows {found}"
    )]
    Previous {
        /// From 1.
        line: u64,
        /// Hash of the record before.
        expected: Hash,
        /// What the record names.
        found: Hash,
    },
    /// A first record is none.
    #[error(
        "line {line} is record 0 of a chain, and not a `start` that follows nothing, but `{found}`"
    )]
    Start {
        /// From 1.
        line: u64,
        /// Its kind.
        found: Kind,
    },
    /// The record that an attested Coordinator named is missing.
    #[error(
        "record {expected}, which the Coordinator named as its latest, is not there: the file is older than that, or records were \
         removed from its end"
    )]
    Head {
        /// Its hash.
        expected: Hash,
    },
}

/// Checks all records of `file`, which may hold other lines and several chains, one after the other. `record` hears of each record that
/// holds so far.
///
/// # Errors
/// Where the first chain breaks, or when `head` is named and is not the hash of a record in the file.
pub fn check(
    mut file: impl BufRead,
    head: Option<Head>,
    mut record: impl FnMut(u64, &Record, Hash),
) -> Result<Checked, CheckError> {
    let mut checked = Checked::default();
    let mut number = 0;
    let mut line = Vec::new();
    // What is wrong with a line after which nothing of its process may follow.
    let mut cut = None;
    while next_line(&mut file, &mut line).map_err(CheckError::Read)? {
        number += 1;
        if !line.starts_with(PREFIX.as_bytes()) {
            checked.other_lines += 1;
            continue;
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(CheckError::TooLong { line: number });
        }
        let (parsed, found) = match parse(&line) {
            Ok(record) => record,
            Err(source) => {
                let error = CheckError::Record {
                    line: number,
                    source,
                };
                match cut.replace(error) {
                    None => continue,
                    Some(first) => return Err(first),
                }
            }
        };
        match cut.take() {
            Some(error) if parsed.sequence > 0 => return Err(error),
            Some(_) => checked.cut_lines += 1,
            None => {}
        }
        let expected = parsed.hash();
        if expected != found {
            return Err(CheckError::Hash {
                line: number,
                expected,
                found,
            });
        }
        append(&mut checked.segments, number, &parsed, found)?;
        checked.records += 1;
        if head == Some(found) {
            checked.head_line = Some(number);
        }
        record(number, &parsed, found);
    }
    checked.cut_lines += u64::from(cut.is_some());
    match head {
        Some(expected) if checked.head_line.is_none() => Err(CheckError::Head { expected }),
        _ => Ok(checked),
    }
}

fn parse(line: &[u8]) -> Result<(Record, Hash), ParseError> {
    let text = str::from_utf8(line).map_err(|error| ParseError::Spelling {
        found: error.to_string(),
    })?;
    Record::parse(text)
}

fn append(
    segments: &mut Vec<Segment>,
    line: u64,
    record: &Record,
    hash: Hash,
) -> Result<(), CheckError> {
    let lost = record.subject.lost.unwrap_or_default();
    let stopped = record.kind == Kind::Stop;
    if record.sequence == 0 {
        if record.kind != Kind::Start || record.previous != Hash::NONE {
            return Err(CheckError::Start {
                line,
                found: record.kind,
            });
        }
    } else if let Some(last) = segments.last_mut() {
        let expected = last.last.saturating_add(1);
        if record.sequence != expected {
            return Err(CheckError::Sequence {
                line,
                expected,
                found: record.sequence,
            });
        }
        if record.previous != last.head {
            return Err(CheckError::Previous {
                line,
                expected: last.head,
                found: record.previous,
            });
        }
        last.last = record.sequence;
        last.head = hash;
        last.stopped = stopped;
        last.lost = last.lost.saturating_add(lost);
        return Ok(());
    }
    segments.push(Segment {
        line,
        first: record.sequence,
        last: record.sequence,
        head: hash,
        stopped,
        lost,
    });
    Ok(())
}

/// Reads a line without its line feed. Of one that is too long for a record, only so much is kept that this can be told.
fn next_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    const KEPT: u64 = LINE_BYTES_MAX as u64 + 2;
    line.clear();
    if file.by_ref().take(KEPT).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == KEPT {
        file.skip_until(b'\n')?;
    }
    Ok(true)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
