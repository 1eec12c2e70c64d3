use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use contrast_audit::{Event, Kind, Outcome, Subject};
use contrast_clock::WallClock;
use tokio::time::Instant;

use super::{
    QUEUE_LINES_MAX, Queue, Recent,
    journal::{Journal, Position},
    subject,
};
use crate::{
    api::ApiError,
    bucket::{Bucket, Pace},
    ops::AuditMetrics,
};

/// Refusals of one kind that are recorded one by one; further ones are counted. Everybody who reaches a port can be refused as often as
/// they like, and must not hide refusals of other kinds by that.
const REFUSALS: Pace = Pace {
    burst: 512,
    period: Duration::from_millis(50),
};

/// Takes every decision of this process.
pub(crate) struct Recorder {
    clock: Arc<dyn WallClock>,
    journal: Mutex<Journal>,
    refusals: BTreeMap<Kind, Bucket>,
    /// `None` when nothing is written.
    queue: Option<Queue>,
    metrics: AuditMetrics,
}

/// What a refusal of a request is recorded as.
#[derive(Debug)]
pub(crate) struct Refusing<'a> {
    pub(crate) recorder: &'a Recorder,
    pub(crate) kind: Kind,
    pub(crate) subject: Subject,
}

impl Recorder {
    pub(crate) fn new(
        clock: Arc<dyn WallClock>,
        queue: Option<Queue>,
        metrics: AuditMetrics,
    ) -> Self {
        Self {
            clock,
            journal: Mutex::default(),
            refusals: Kind::ALL
                .map(|kind| (kind, Bucket::full(REFUSALS, Instant::now())))
                .into(),
            queue,
            metrics,
        }
    }

    /// Records a decision. Never waits for a disk.
    pub(crate) fn record(&self, event: Event) {
        let (kind, outcome) = (event.kind, event.outcome);
        let refused = matches!(outcome, Outcome::Refused | Outcome::Failed);
        let bucket = self.refusals.get(&kind).filter(|_| refused);
        let flood = bucket.is_some_and(|bucket| bucket.take(Instant::now()).is_err());
        self.with_journal(|journal, now, room| {
            journal.count(now, kind, outcome);
            match flood {
                true => {
                    journal.skip();
                    Vec::new()
                }
                false => journal.append(now, event, room),
            }
        });
        self.metrics.decided(kind, outcome);
    }

    /// Says what is missing, although nothing else happened since.
    pub(crate) fn admit_losses(&self) {
        self.with_journal(Journal::admit_losses);
    }

    /// Records the end, and waits at most `within` until everything is written. True when it was.
    pub(crate) fn close(&self, event: Event, within: Duration) -> bool {
        self.record(event);
        self.queue.as_ref().is_none_or(|queue| queue.close(within))
    }

    /// The latest record.
    pub(crate) fn position(&self) -> Option<Position> {
        self.journal().position()
    }

    /// The latest records and the very latest.
    pub(crate) fn recent(&self) -> (Recent, Option<Position>) {
        let journal = self.journal();
        (journal.recent(), journal.position())
    }

    /// In one piece with the queue, so that lines get there in the order of the chain.
    fn with_journal(&self, change: impl FnOnce(&mut Journal, u64, usize) -> Vec<Arc<str>>) {
        let mut journal = self.journal();
        let now = self.clock.now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let room = self.queue.as_ref().map_or(QUEUE_LINES_MAX, Queue::room);
        let lines = change(&mut journal, now, room);
        self.metrics.lost(journal.lost());
        if let Some(queue) = &self.queue
            && !lines.is_empty()
        {
            queue.add(lines);
        }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // The thread must not wait for lines that nobody can add any more.
        if let Some(queue) = &self.queue {
            queue.close(Duration::ZERO);
        }
    }
}

impl Refusing<'_> {
    pub(crate) fn because(self, error: &ApiError) {
        self.recorder
            .record(subject::refusal(self.kind, self.subject, error));
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use contrast_audit::{Record, check};
    use contrast_clock::FixedWallClock;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("locks").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn flood_of_refusals_is_counted_and_the_chain_holds() {
        let out = Shared::default();
        let queue = Queue::start(
            out.clone(),
            prometheus_client::metrics::counter::Counter::default(),
        );
        let clock = Arc::new(FixedWallClock::new(
            SystemTime::UNIX_EPOCH + Duration::from_millis(1234),
        ));
        let queue = queue.expect("starts");
        let recorder = Recorder::new(clock, Some(queue), AuditMetrics::default());
        recorder.record(Event::done(Kind::Start, Subject::default()));
        for _ in 0..REFUSALS.burst + 7 {
            let refusing = Refusing {
                recorder: &recorder,
                kind: Kind::Certificate,
                subject: Subject::default(),
            };
            refusing.because(&ApiError::NotAttested);
        }
        let mut other = Event::done(Kind::Manifest, Subject::default());
        other.outcome = Outcome::Refused;
        recorder.record(other);
        let lost = recorder.position().expect("a head").lost;
        assert_eq!(lost, 7);
        let (recent, _) = recorder.recent();
        let refused = recent.counts.get(&(Kind::Certificate, Outcome::Refused));
        assert_eq!(refused, Some(&u64::from(REFUSALS.burst + 7)));
        assert_eq!(recent.since_ms, 1234);
        assert!(recorder.close(
            Event::done(Kind::Stop, Subject::default()),
            Duration::from_secs(9)
        ));
        let file = out.0.lock().expect("locks").clone();
        let checked = check(file.as_slice(), None, |_, record, _| {
            assert_eq!(record.time_ms, 1234);
        });
        let checked = checked.expect("holds");
        // The start, those that are not too many, what is missing, the refusal of another kind, and the stop.
        assert_eq!(checked.records, 1 + u64::from(REFUSALS.burst) + 3);
        assert_eq!(
            (checked.segments[0].lost, checked.segments[0].stopped),
            (7, true)
        );
        let (recent, position) = recorder.recent();
        let last = recent.other.last().expect("the stop");
        let hash = Record::parse(last).expect("a record").1;
        assert_eq!(position.expect("a head").hash, hash);
    }
}
