//! What happened in a run, for people, and a fingerprint of it.

use std::{
    collections::hash_map::DefaultHasher,
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::runtime::elapsed;

/// Events in order. Clones are the same journal.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    lines: Vec<String>,
    hasher: DefaultHasher,
    broken: Vec<String>,
}

impl Journal {
    /// A fault, or what a client did and heard: shown to people.
    pub fn event(&self, what: impl fmt::Display) {
        let line = format!("{:>12.6} {what}", elapsed().as_secs_f64());
        let mut content = self.content();
        line.hash(&mut content.hasher);
        content.lines.push(line);
    }

    /// Something too frequent to be shown; part of the fingerprint all the same.
    pub fn detail(&self, what: impl Hash) {
        let mut content = self.content();
        elapsed().hash(&mut content.hasher);
        what.hash(&mut content.hasher);
    }

    /// A promise was broken. The first one ends the run.
    pub fn broken(&self, what: impl fmt::Display) {
        self.event(format_args!("BROKEN: {what}"));
        self.content().broken.push(what.to_string());
    }

    /// The first promise that was broken.
    pub fn verdict(&self) -> Option<String> {
        self.content().broken.first().cloned()
    }

    /// The last `count` events.
    pub fn tail(&self, count: usize) -> Vec<String> {
        let content = self.content();
        let start = content.lines.len().saturating_sub(count);
        content.lines.iter().skip(start).cloned().collect()
    }

    /// Hash of all events and details: equal for equal runs of one build.
    pub fn fingerprint(&self) -> u64 {
        self.content().hasher.finish()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_depends_on_events_details_and_their_order() {
        let of = |events: &[&str], details: &[u8]| {
            let journal = Journal::default();
            events.iter().for_each(|event| journal.event(event));
            details.iter().for_each(|detail| journal.detail(detail));
            journal.fingerprint()
        };
        assert_eq!(of(&["a", "b"], &[1]), of(&["a", "b"], &[1]));
        assert_ne!(of(&["a", "b"], &[1]), of(&["b", "a"], &[1]));
        assert_ne!(of(&["a", "b"], &[1]), of(&["a", "b"], &[2]));
    }

    #[test]
    fn first_broken_promise_is_the_verdict() {
        let journal = Journal::default();
        assert_eq!(journal.verdict(), None);
        journal.broken("one");
        journal.broken("two");
        assert_eq!(journal.verdict().as_deref(), Some("one"));
        assert_eq!(journal.tail(1), ["    0.000000 BROKEN: two"]);
    }
}
