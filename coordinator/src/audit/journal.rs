use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use contrast_audit::{Chain, Event, Hash, Kind, Outcome, Subject};

use super::{RECENT_BYTES_MAX, RECENT_MAX};

/// The chain of this process, its latest records, and what is missing from it.
#[derive(Debug, Default)]
pub(super) struct Journal {
    chain: Chain,
    issued: Ring,
    refused: Ring,
    other: Ring,
    /// Not in the chain yet, by why.
    flood: u64,
    full: u64,
    lost: u64,
    counts: BTreeMap<(Kind, Outcome), u64>,
    since_ms: Option<u64>,
}

/// The latest records, oldest first, as their lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent {
    pub(crate) issued: Vec<Arc<str>>,
    pub(crate) refused: Vec<Arc<str>>,
    pub(crate) other: Vec<Arc<str>>,
    /// All since the start, recorded or lost.
    pub(crate) counts: BTreeMap<(Kind, Outcome), u64>,
    /// When the first one was decided.
    pub(crate) since_ms: u64,
}

/// The latest record, and how many are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) sequence: u64,
    pub(crate) hash: Hash,
    pub(crate) lost: u64,
}

impl Journal {
    /// Counts a decision, whatever becomes of its record.
    pub(super) fn count(&mut self, time_ms: u64, kind: Kind, outcome: Outcome) {
        self.since_ms.get_or_insert(time_ms);
        *self.counts.entry((kind, outcome)).or_default() += 1;
    }

    /// Appends a decision and returns the lines to write: its own, after those that say what is missing before it. At most `room` lines; a
    /// decision that does not fit is missing itself.
    pub(super) fn append(&mut self, time_ms: u64, event: Event, room: usize) -> Vec<Arc<str>> {
        let missing = usize::from(self.flood > 0) + usize::from(self.full > 0);
        if room <= missing {
            self.full += 1;
            self.lost += 1;
            return Vec::new();
        }
        let mut lines = self.admit_losses(time_ms, room);
        lines.push(self.add(time_ms, event));
        lines
    }

    /// A refusal that is one too many.
    pub(super) fn skip(&mut self) {
        self.flood += 1;
        self.lost += 1;
    }

    /// Says what is missing although nothing follows it.
    pub(super) fn admit_losses(&mut self, time_ms: u64, room: usize) -> Vec<Arc<str>> {
        let mut lines = Vec::new();
        for (reason, outcome) in [
            ("FLOOD", Outcome::Refused),
            ("WRITER_BEHIND", Outcome::Failed),
        ] {
            let count = match outcome {
                Outcome::Refused => &mut self.flood,
                _ => &mut self.full,
            };
            if *count == 0 || lines.len() >= room {
                continue;
            }
            let lost = Some(std::mem::take(count));
            let event = Event {
                kind: Kind::Lost,
                outcome,
                reason: reason.into(),
                subject: Subject {
                    lost,
                    ..Subject::default()
                },
            };
            lines.push(self.add(time_ms, event));
        }
        lines
    }

    fn add(&mut self, time_ms: u64, event: Event) -> Arc<str> {
        let entry = self.chain.append(time_ms, event);
        let line: Arc<str> = entry.line.into();
        let ring = match (entry.record.kind, entry.record.outcome) {
            (_, Outcome::Refused | Outcome::Failed) => &mut self.refused,
            (Kind::Certificate, _) => &mut self.issued,
            _ => &mut self.other,
        };
        ring.push(entry.record.kind, Arc::clone(&line));
        line
    }

    pub(super) fn recent(&self) -> Recent {
        Recent {
            issued: self.issued.lines(),
            refused: self.refused.lines(),
            other: self.other.lines(),
            counts: self.counts.clone(),
            since_ms: self.since_ms.unwrap_or_default(),
        }
    }

    /// `None` before the first record.
    pub(super) fn position(&self) -> Option<Position> {
        let (sequence, hash) = self.chain.head()?;
        Some(Position {
            sequence,
            hash,
            lost: self.lost,
        })
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

/// The latest lines, within both limits. What is one too many is the oldest of the kind that has the most, so that many of one kind leave
/// room for the others.
#[derive(Debug, Default)]
struct Ring {
    kinds: BTreeMap<Kind, Lane>,
    next: u64,
}

/// Lines of one kind, each with its place among all.
#[derive(Debug, Default)]
struct Lane {
    lines: VecDeque<(u64, Arc<str>)>,
    bytes: usize,
}

impl Lane {
    fn count(&self) -> usize {
        self.lines.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Ring {
    fn push(&mut self, kind: Kind, line: Arc<str>) {
        let lane = self.kinds.entry(kind).or_default();
        lane.bytes += line.len();
        lane.lines.push_back((self.next, line));
        self.next += 1;
        self.shrink(RECENT_MAX, Lane::count);
        self.shrink(RECENT_BYTES_MAX, Lane::bytes);
    }

    fn shrink(&mut self, limit: usize, size: fn(&Lane) -> usize) {
        while self.kinds.values().map(size).sum::<usize>() > limit {
            let largest = self.kinds.values_mut().max_by_key(|lane| size(lane));
            let Some(lane) = largest else { return };
            if let Some((_, line)) = lane.lines.pop_front() {
                lane.bytes -= line.len();
            }
        }
    }

    fn lines(&self) -> Vec<Arc<str>> {
        let mut all: Vec<_> = self.kinds.values().flat_map(|lane| &lane.lines).collect();
        all.sort_unstable_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, line)| Arc::clone(line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use contrast_audit::{Record, check};

    use super::*;

    fn certificate() -> Event {
        Event::done(Kind::Certificate, Subject::default())
    }

    fn refusal() -> Event {
        Event {
            kind: Kind::Certificate,
            outcome: Outcome::Refused,
            reason: "KEY_DENIED".into(),
            subject: Subject::default(),
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_in_a_chain_that_holds() {
        let mut journal = Journal::default();
        let mut written = journal.append(1, Event::done(Kind::Start, Subject::default()), 9);
        assert!(journal.append(2, certificate(), 0).is_empty());
        assert!(journal.append(2, certificate(), 0).is_empty());
        journal.skip();
        assert_eq!(journal.lost(), 3);
        // One line of room is not enough for what is missing and the decision.
        assert!(journal.append(3, certificate(), 2).is_empty());
        written.extend(journal.append(4, certificate(), 3));
        written.extend(journal.append(5, certificate(), 1));
        let file = written.join("\n");
        let mut reasons = Vec::new();
        let checked = check(file.as_bytes(), None, |_, record, _| {
            reasons.push((record.reason.clone(), record.subject.lost));
        });
        let checked = checked.expect("holds");
        assert_eq!((checked.records, checked.segments[0].lost), (5, 4));
        assert_eq!(reasons[1], ("FLOOD".to_owned(), Some(1)));
        assert_eq!(reasons[2], ("WRITER_BEHIND".to_owned(), Some(3)));
        let position = journal.position().expect("a head");
        assert_eq!((position.sequence, position.lost), (4, 4));
        assert_eq!(position.hash, checked.segments[0].head);
    }

    #[test]
    fn losses_are_admitted_although_nothing_follows() {
        let mut journal = Journal::default();
        journal.skip();
        assert!(journal.admit_losses(1, 0).is_empty());
        assert_eq!(journal.admit_losses(1, 1).len(), 1);
        assert!(journal.admit_losses(1, 1).is_empty());
    }

    #[test]
    fn latest_records_are_kept_by_what_they_are_and_within_limits() {
        let mut journal = Journal::default();
        for _ in 0..=RECENT_MAX {
            journal.append(1, certificate(), 1);
        }
        journal.append(2, refusal(), 1);
        journal.append(3, Event::done(Kind::Start, Subject::default()), 1);
        let recent = journal.recent();
        let counts = (
            recent.issued.len(),
            recent.refused.len(),
            recent.other.len(),
        );
        assert_eq!(counts, (RECENT_MAX, 1, 1));
        let (oldest, _) = Record::parse(&recent.issued[0]).expect("a record");
        assert_eq!(oldest.sequence, 1);

        let mut ring = Ring::default();
        for _ in 0..RECENT_MAX {
            ring.push(Kind::Certificate, "x".repeat(8 << 10).into());
        }
        assert_eq!(ring.lines().len(), RECENT_BYTES_MAX / (8 << 10));
    }

    #[test]
    fn flood_of_one_kind_hides_no_other() {
        let mut ring = Ring::default();
        ring.push(Kind::Manifest, "large".repeat(1000).into());
        for number in 0..2 * RECENT_MAX {
            ring.push(Kind::Attestation, number.to_string().into());
        }
        for _ in 0..4 {
            ring.push(Kind::Certificate, "x".repeat(RECENT_BYTES_MAX / 4).into());
        }
        let of = |kind| ring.kinds.get(&kind).map_or(0, Lane::count);
        assert_eq!(
            [Kind::Manifest, Kind::Attestation, Kind::Certificate].map(of),
            [1, RECENT_MAX - 5, 3]
        );
        let lines = ring.lines();
        assert_eq!(*lines[1], *(RECENT_MAX + 5).to_string());
    }
}
