//! What the harness did and what it saw, written down where no program under test can reach it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use contrast_clock::{SystemWallClock, WallClock as _};

/// Milliseconds since 1970, the clock of the audit streams.
pub(crate) fn now_ms() -> u64 {
    let since = SystemWallClock
        .now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a Coordinator decided so long before it is killed may not be in its stream.
const UNWRITTEN_MS: u64 = 250;

/// Shared by all parts of the story.
#[derive(Clone)]
pub(crate) struct Ledger {
    seed: u64,
    begun: Instant,
    facts: Arc<Mutex<Facts>>,
}

#[derive(Default, Clone)]
pub(crate) struct Facts {
    /// Certificates whose serial number was seen, each once.
    pub(crate) serials: BTreeMap<String, Received>,
    /// By policy.
    pub(crate) enrolled: BTreeMap<String, Enrolled>,
    /// Attempts of strangers, by what is unique in each: a policy or the hash of a manifest.
    pub(crate) refusals: BTreeMap<String, Refusal>,
    /// Connections of clients that proved nothing and got nothing.
    pub(crate) unattested: u64,
    pub(crate) sets: Vec<Set>,
    /// Transitions that recoveries made.
    pub(crate) recoveries: Vec<String>,
    /// When a Coordinator was killed.
    pub(crate) kills: Vec<(usize, u64)>,
    /// When something was wrong with a Coordinator, by the harness's doing.
    pub(crate) disruptions: Vec<Disruption>,
    pub(crate) workloads_killed: u64,
    pub(crate) cuts: u64,
    pub(crate) joins_ms: Vec<u64>,
    /// What happened, for people.
    happened: Vec<(Duration, String)>,
    wrong: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) policy: String,
    /// When it was seen, which is at most so long after it arrived.
    pub(crate) at_ms: u64,
    pub(crate) late_ms: u64,
}

/// Attempts of one workload, all its processes together.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Enrolled {
    pub(crate) received: u64,
    /// Attempts of which nobody knows whether they led to a certificate that did not arrive.
    pub(crate) unknown: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) kind: &'static str,
    /// As the stranger was told; `None` when the answer was lost, so that there may be no record.
    pub(crate) reason: Option<String>,
    pub(crate) at_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) manifest: String,
    /// `None` when the owner does not know what became of it.
    pub(crate) transition: Option<String>,
    pub(crate) at_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Disruption {
    pub(crate) replica: usize,
    pub(crate) from_ms: u64,
    /// When all replicas voted again.
    pub(crate) until_ms: Option<u64>,
}

impl Ledger {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            begun: Instant::now(),
            facts: Arc::default(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn note<T>(&self, note: impl FnOnce(&mut Facts) -> T) -> T {
        note(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn facts(&self) -> Facts {
        self.note(|facts| facts.clone())
    }

    /// For whoever reads a failure.
    pub(crate) fn happened(&self, what: impl Into<String>) {
        let at = self.elapsed();
        self.note(|facts| facts.happened.push((at, what.into())));
    }

    /// Whether a Coordinator was killed between so long before a moment, and that moment, so that it may not have written what it did then.
    pub(crate) fn unwritten(
        facts: &Facts,
        replica: Option<usize>,
        at_ms: u64,
        late_ms: u64,
    ) -> bool {
        let from = at_ms.saturating_sub(late_ms + UNWRITTEN_MS);
        let kills = facts.kills.iter();
        kills
            .filter(|(one, _)| replica.is_none_or(|replica| *one == replica))
            .any(|(_, kill)| (from..=at_ms + UNWRITTEN_MS).contains(kill))
    }

    /// Something that must not be; the story goes on, and fails at its end.
    pub(crate) fn wrong(&self, what: impl Into<String>) {
        let what = format!("at {:.1} s: {}", self.elapsed().as_secs_f32(), what.into());
        eprintln!("chaos: WRONG {what}");
        self.note(|facts| facts.wrong.push(what));
    }

    pub(crate) fn require(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what());
        }
    }

    /// `late_ms`: how long ago it may have arrived.
    pub(crate) fn received(&self, policy: &str, serial: String, late_ms: u64) {
        let received = Received {
            policy: policy.to_owned(),
            at_ms: now_ms(),
            late_ms,
        };
        self.note(|facts| {
            facts.serials.entry(serial).or_insert(received);
        });
    }

    /// Fails with the seed, the time, everything that differed, and what happened before.
    pub(crate) fn require_nothing_wrong(&self, logs: &Path) {
        let facts = self.facts();
        let happened = facts
            .happened
            .iter()
            .map(|(at, what)| format!("{:7.1} s {what}\n", at.as_secs_f32()));
        let happened: String = happened.collect();
        let story = logs.join("happened.txt");
        std::fs::write(&story, happened).expect("writes");
        if facts.wrong.is_empty() {
            return;
        }
        panic!(
            "seed {}: {} things differ:\n{}\nwhat happened: {}",
            self.seed,
            facts.wrong.len(),
            facts.wrong.join("\n"),
            story.display()
        );
    }
}
