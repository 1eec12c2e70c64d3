use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use crate::{Document, FetchError, Item};

/// A deployment has a few CPUs' worth of items for each of its nodes. Peers can name items (chips, platforms) in evidence that is
/// not verified yet, which is why there is an end.
const CAPACITY: usize = 4096;
const DAY: Duration = Duration::from_hours(24);
const MONTH: Duration = Duration::from_hours(30 * 24);

/// What is known about items.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    slots: HashMap<Item, Slot>,
    /// Counts uses: an order that no clock disturbs.
    tick: u64,
}

#[derive(Debug, Default)]
struct Slot {
    document: Option<Known>,
    failure: Option<Failure>,
    /// Somebody needs it, and waits for nothing.
    is_wanted: bool,
    last_used: u64,
}

#[derive(Debug)]
struct Known {
    document: Arc<Document>,
    refresh_at: SystemTime,
}

/// Where a document comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Just fetched.
    Vendor,
    /// Fetched by an earlier process, or collected elsewhere, some time ago.
    Disk,
}

#[derive(Debug)]
struct Failure {
    error: Arc<FetchError>,
    /// When nobody tries again.
    pause: Range<SystemTime>,
}

impl Memory {
    /// The document, valid or not.
    pub(crate) fn document(&self, item: &Item) -> Option<Arc<Document>> {
        let mut slots = self.lock();
        slots.tick = slots.tick.wrapping_add(1);
        let tick = slots.tick;
        let slot = slots.slots.get_mut(item)?;
        slot.last_used = tick;
        Some(Arc::clone(&slot.document.as_ref()?.document))
    }

    /// The last failure, while nobody is to try again.
    pub(crate) fn failure(&self, item: &Item, now: SystemTime) -> Option<Arc<FetchError>> {
        let slots = self.lock();
        let failure = slots.slots.get(item)?.failure.as_ref()?;
        // A clock that was put back ends the pause; one that was ahead must not prolong it.
        failure
            .pause
            .contains(&now)
            .then(|| Arc::clone(&failure.error))
    }

    /// Keeps a document that was fetched at `now` or was on disk then, unless the one that is known was issued later and is valid.
    /// Returns the one that is kept.
    pub(crate) fn learn(
        &self,
        item: &Item,
        document: Arc<Document>,
        origin: Origin,
        now: SystemTime,
    ) -> Arc<Document> {
        let mut slots = self.lock();
        let slot = slots.slot(item);
        if origin == Origin::Vendor {
            slot.failure = None;
        }
        let fetched = (origin == Origin::Vendor).then_some(now);
        let mut refresh_at = refresh_at(item, &document, fetched);
        let mut kept = document;
        if let Some(known) = slot.document.take()
            && kept.validity.from < known.document.validity.from
            && known.document.validity.contains(now)
        {
            // The vendor, or somebody in between, went back in time. Ask again later.
            refresh_at = refresh_at.max(known.refresh_at);
            kept = known.document;
        }
        slot.document = Some(Known {
            document: Arc::clone(&kept),
            refresh_at,
        });
        kept
    }

    /// Remembers that a fetch failed; nobody tries again during `pause`.
    pub(crate) fn fail(&self, item: &Item, error: Arc<FetchError>, pause: Range<SystemTime>) {
        self.lock().slot(item).failure = Some(Failure { error, pause });
    }

    /// Remembers that `item` is needed, known or not.
    pub(crate) fn want(&self, item: &Item) {
        self.lock().slot(item).is_wanted = true;
    }

    /// Items whose document should be fetched anew at `now`, although it may still be valid, and those that are wanted and missing.
    pub(crate) fn due(&self, now: SystemTime) -> Vec<Item> {
        let slots = self.lock();
        let due = |slot: &Slot| {
            let failure = slot.failure.as_ref();
            let paused = failure.is_some_and(|failure| failure.pause.contains(&now));
            let is_old = |known: &Known| known.refresh_at <= now;
            !paused && slot.document.as_ref().map_or(slot.is_wanted, is_old)
        };
        let mut items: Vec<Item> = slots
            .slots
            .iter()
            .filter(|(_, slot)| due(slot))
            .map(|(item, _)| item.clone())
            .collect();
        items.sort();
        items
    }

    /// How many documents are known, and how many of them are not valid at `now`.
    pub(crate) fn count(&self, now: SystemTime) -> (usize, usize) {
        let slots = self.lock();
        let known = || {
            slots
                .slots
                .values()
                .filter_map(|slot| slot.document.as_ref())
        };
        let is_stale = |known: &&Known| !known.document.validity.contains(now);
        (known().count(), known().filter(is_stale).count())
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// The slot of `item`, most recently used. When there are too many, the least recently used one goes; one without a document
    /// first, because a stranger can name items that do not exist.
    fn slot(&mut self, item: &Item) -> &mut Slot {
        if self.slots.len() >= CAPACITY && !self.slots.contains_key(item) {
            let oldest = self
                .slots
                .iter()
                .min_by_key(|(_, slot)| (slot.document.is_some(), slot.last_used));
            if let Some(oldest) = oldest.map(|(item, _)| item.clone()) {
                self.slots.remove(&oldest);
            }
        }
        self.tick = self.tick.wrapping_add(1);
        let slot = self.slots.entry(item.clone()).or_default();
        slot.last_used = self.tick;
        slot
    }
}

/// When to look for a newer document: for statements about the present after a day, or half-way to their end if that is
/// earlier; for certificates a month before their end.
fn refresh_at(item: &Item, document: &Document, fetched: Option<SystemTime>) -> SystemTime {
    let until = document.validity.until;
    if !item.is_news() {
        return until.checked_sub(MONTH).unwrap_or(until);
    }
    let learned = fetched.unwrap_or(document.validity.from);
    let left = until.duration_since(learned).unwrap_or_default();
    learned + DAY.min(left / 2)
}

#[cfg(test)]
mod tests {
    use contrast_attestation::tdx::PckIssuer;

    use super::*;
    use crate::{Content, Validity};

    fn at(day: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * u32::try_from(day).expect("small")
    }

    fn document(from: u64, until: u64) -> Arc<Document> {
        Arc::new(Document {
            content: Content::Certificate(vec![]),
            validity: Validity {
                from: at(from),
                until: at(until),
            },
        })
    }

    #[test]
    fn news_are_refreshed_after_a_day_or_half_way() {
        let memory = Memory::default();
        memory.learn(&Item::RootCrl, document(1, 31), Origin::Vendor, at(10));
        assert_eq!(memory.due(at(10)), []);
        assert_eq!(memory.due(at(11)), [Item::RootCrl]);
        memory.learn(&Item::RootCrl, document(2, 13), Origin::Vendor, at(12));
        assert_eq!(memory.due(at(12)), []);
        assert_eq!(memory.due(at(12) + DAY / 2), [Item::RootCrl]);
    }

    #[test]
    fn a_document_of_unknown_age_is_as_old_as_it_says() {
        let memory = Memory::default();
        memory.learn(&Item::RootCrl, document(1, 31), Origin::Disk, at(1));
        assert_eq!(memory.due(at(2)), [Item::RootCrl]);
    }

    #[test]
    fn an_older_document_never_replaces_a_newer_one() {
        let memory = Memory::default();
        memory.learn(&Item::QeIdentity, document(5, 35), Origin::Vendor, at(6));
        let kept = memory.learn(&Item::QeIdentity, document(4, 34), Origin::Vendor, at(7));
        assert_eq!(kept.validity.from, at(5));
        assert_eq!(memory.document(&Item::QeIdentity), Some(kept));
    }

    #[test]
    fn a_document_from_the_future_gives_way_to_one_that_is_valid() {
        let memory = Memory::default();
        memory.learn(&Item::QeIdentity, document(90, 99), Origin::Vendor, at(6));
        for origin in [Origin::Disk, Origin::Vendor] {
            let kept = memory.learn(&Item::QeIdentity, document(5, 35), origin, at(7));
            assert_eq!(kept.validity.from, at(5));
        }
    }

    #[test]
    fn names_without_a_document_go_first() {
        let memory = Memory::default();
        let issuer = PckIssuer::Platform;
        memory.learn(
            &Item::PckCrl { issuer },
            document(1, 2),
            Origin::Vendor,
            at(1),
        );
        for number in 0..=CAPACITY as u64 {
            let [_, _, fmspc @ ..] = number.to_be_bytes();
            memory.want(&Item::TcbInfo { fmspc });
        }
        assert!(memory.document(&Item::PckCrl { issuer }).is_some());
    }

    #[test]
    fn failures_pause_and_documents_stay() {
        let memory = Memory::default();
        memory.learn(&Item::RootCrl, document(1, 31), Origin::Vendor, at(1));
        let error = Arc::new(FetchError {
            item: Item::RootCrl,
            url: String::new(),
            cause: String::new(),
            attempts: 1,
            elapsed: Duration::ZERO,
            absent: false,
        });
        memory.fail(&Item::RootCrl, Arc::clone(&error), at(2)..at(4));
        assert_eq!(memory.due(at(3)), []);
        assert_eq!(memory.due(at(4)), [Item::RootCrl]);
        assert_eq!(memory.failure(&Item::RootCrl, at(3)), Some(error));
        assert_eq!(memory.failure(&Item::RootCrl, at(4)), None);
        assert_eq!(memory.failure(&Item::RootCrl, at(1)), None, "put back");
        assert!(memory.document(&Item::RootCrl).is_some());
    }

    #[test]
    fn what_is_wanted_is_due_until_it_is_there() {
        let memory = Memory::default();
        memory.want(&Item::RootCrl);
        assert_eq!(memory.due(at(1)), [Item::RootCrl]);
        memory.learn(&Item::RootCrl, document(1, 31), Origin::Vendor, at(1));
        assert_eq!(memory.due(at(1)), []);
    }

    #[test]
    fn the_least_recently_used_slot_goes() {
        let memory = Memory::default();
        let item = |number: u64| {
            let [_, _, fmspc @ ..] = number.to_be_bytes();
            Item::TcbInfo { fmspc }
        };
        for number in 0..CAPACITY {
            memory.learn(&item(number as u64), document(1, 2), Origin::Vendor, at(1));
        }
        assert!(memory.document(&item(0)).is_some());
        let issuer = PckIssuer::Platform;
        memory.learn(
            &Item::PckCrl { issuer },
            document(1, 2),
            Origin::Vendor,
            at(1),
        );
        assert!(memory.document(&item(0)).is_some(), "used last");
        assert!(memory.document(&item(1)).is_none(), "oldest");
    }
}
