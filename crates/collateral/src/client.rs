use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use der::DateTime;

use crate::{
    Bundle, Document, Endpoints, FetchError, Item, Transport, Validity,
    fetch::Fetcher,
    flight::{Flights, Turn},
    memory::{Memory, Origin},
    store::Store,
};

/// Bounds of what a vendor's service can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For everything that one piece of evidence lacks, all attempts together. Below the deadline of an attested handshake.
    pub deadline: Duration,
    /// For one attempt.
    pub attempt: Duration,
    /// Pause before the second attempt; later ones double, up to 2 s, each random by as much again.
    pub first_pause: Duration,
    /// How long nobody tries again after all attempts failed.
    pub after_failure: Duration,
    /// The same when the service said that there is no such document.
    pub after_absence: Duration,
    /// Documents that are fetched at the same time.
    pub concurrent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            attempt: Duration::from_secs(5),
            first_pause: Duration::from_millis(200),
            after_failure: Duration::from_mins(1),
            after_absence: Duration::from_mins(10),
            concurrent: 32,
        }
    }
}

/// Documents from memory, disk, bundle and vendor.
///
/// A document that is valid is used at once, whatever the vendor does; what is [due](Collateral::due) is replaced in time. Only when
/// none is valid somebody waits: one caller fetches, all others who want the same wait for it, and none longer than
/// [`Limits::deadline`]. After a failure nobody waits for a while.
///
/// Blocks; async callers use `spawn_blocking`.
#[derive(Debug, Default)]
pub struct Collateral {
    memory: Memory,
    store: Option<Store>,
    bundle: Bundle,
    fetcher: Option<Fetcher>,
    limits: Limits,
    flights: Flights,
    fetched: AtomicU64,
    failed: AtomicU64,
}

/// What an operator wants to watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Documents in memory: each was needed at least once.
    pub known: usize,
    /// Those of them that are not valid, so that evidence which needs them is refused.
    pub stale: usize,
    /// Documents that were fetched since the start.
    pub fetched: u64,
    /// Fetches that failed since the start, after all attempts.
    pub failed: u64,
}

/// A document, and why it is not a valid one if it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The document.
    pub document: Arc<Document>,
    /// Set when it is not valid now: why there is no other.
    pub stale: Option<Unavailable>,
}

/// There is no valid document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// Fetching it failed, now or a moment ago.
    #[error(transparent)]
    Fetch(Arc<FetchError>),
    /// Nothing may be fetched.
    #[error("the {item} is not in the collateral that was given, and nothing is fetched beside it")]
    Offline {
        /// What was looked for.
        item: Item,
    },
    /// Nothing may be fetched, and what is there is not valid.
    #[error(
        "the {item} that was given is valid from {} to {}, and nothing is fetched beside it",
        moment(validity.from), moment(validity.until)
    )]
    Outdated {
        /// What was looked for.
        item: Item,
        /// When it is valid.
        validity: Validity,
    },
    /// Others keep all places.
    #[error("cannot fetch the {item}: {limit} other documents are being fetched")]
    Busy {
        /// What was looked for.
        item: Item,
        /// [`Limits::concurrent`].
        limit: usize,
    },
    /// The caller who fetched it did not come to an end.
    #[error("fetching the {item} did not end in time")]
    Lost {
        /// What was looked for.
        item: Item,
    },
    /// Nobody waits for it now; it is [due](Collateral::due).
    #[error("the {item} is not known yet; it is being looked for")]
    Later {
        /// What was looked for.
        item: Item,
    },
}

/// How far to go for a document that is not at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Fetch it, and wait for that at most until then.
    Fetch(Instant),
    /// Make no one wait; let it be due.
    Defer,
}

/// RFC 3339 in UTC, to the second.
fn moment(time: SystemTime) -> String {
    DateTime::from_system_time(time).map_or_else(|_| format!("{time:?}"), |time| time.to_string())
}

impl Collateral {
    /// Knows nothing and fetches nothing.
    pub fn offline() -> Self {
        Self::default()
    }

    /// Knows `bundle`.
    #[must_use]
    pub fn with_bundle(mut self, bundle: Bundle) -> Self {
        self.bundle = bundle;
        self
    }

    /// Keeps what it fetches in `directory`, which is created when there is something to keep.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn with_cache(mut self, directory: &Path) -> io::Result<Self> {
        self.store = Some(Store::open(directory)?);
        Ok(self)
    }

    /// Fetches from `endpoints`.
    #[must_use]
    pub fn with_vendors(mut self, endpoints: Endpoints, transport: Box<dyn Transport>) -> Self {
        self.fetcher = Some(Fetcher {
            endpoints,
            transport,
        });
        self
    }

    /// Bounds what fetching may cost.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The document for `item` that is valid at `now`; when there is none, one that is not, with the reason.
    ///
    /// # Errors
    /// When there is no document at all.
    pub fn get(&self, item: &Item, now: SystemTime) -> Result<Found, Unavailable> {
        self.find(item, now, self.full_effort())
    }

    /// Fetching, with everything that one caller may wait for ahead of it.
    pub(crate) fn full_effort(&self) -> Effort {
        Effort::Fetch(Instant::now() + self.limits.deadline)
    }

    /// [`Collateral::get`] for several items at the same time: together they take as long as the slowest.
    pub(crate) fn find_all(
        &self,
        items: &[Item],
        now: SystemTime,
        effort: Effort,
    ) -> Vec<Result<Found, Unavailable>> {
        thread::scope(|scope| {
            let searches: Vec<_> = items
                .iter()
                .map(|item| {
                    let known = self.valid(item, now);
                    let waits = matches!(effort, Effort::Fetch(_))
                        && known.is_none()
                        && self.futile(item, now).is_none();
                    match (known, waits) {
                        (Some(document), _) => Ok(Ok(Found::valid(document))),
                        (None, false) => Ok(self.find(item, now, effort)),
                        (None, true) => Err(scope.spawn(move || self.find(item, now, effort))),
                    }
                })
                .collect();
            let lost = |item: &Item| Err(Unavailable::Lost { item: item.clone() });
            searches
                .into_iter()
                .zip(items)
                .map(|(search, item)| match search {
                    Ok(found) => found,
                    Err(thread) => thread.join().unwrap_or_else(|_| lost(item)),
                })
                .collect()
        })
    }

    fn find(&self, item: &Item, now: SystemTime, effort: Effort) -> Result<Found, Unavailable> {
        let known = self.known(item, now);
        if let Some(document) = &known
            && document.validity.contains(now)
        {
            return Ok(Found::valid(Arc::clone(document)));
        }
        let error = match self.fetch_once(item, now, effort) {
            Ok(document) => return Ok(Found::valid(document)),
            Err(error) => error,
        };
        // What was fetched and is not valid is known now, too.
        let Some(document) = known.or_else(|| self.memory.document(item)) else {
            return Err(error);
        };
        let stale = Some(match error {
            Unavailable::Offline { item } => Unavailable::Outdated {
                item,
                validity: document.validity,
            },
            error => error,
        });
        Ok(Found { document, stale })
    }

    /// Fetches `item` even if it is known.
    ///
    /// # Errors
    /// When it cannot be fetched; what is known stays.
    pub fn fetch(&self, item: &Item, now: SystemTime) -> Result<Arc<Document>, Unavailable> {
        self.fetch_until(item, now, Instant::now() + self.limits.deadline)
    }

    fn fetch_until(
        &self,
        item: &Item,
        now: SystemTime,
        until: Instant,
    ) -> Result<Arc<Document>, Unavailable> {
        let Some(fetcher) = &self.fetcher else {
            return Err(Unavailable::Offline { item: item.clone() });
        };
        match fetcher.fetch(item, &self.limits, until) {
            Ok(document) => {
                self.fetched.fetch_add(1, Ordering::Relaxed);
                let document = Arc::new(document);
                let kept = self
                    .memory
                    .learn(item, Arc::clone(&document), Origin::Vendor, now);
                if Arc::ptr_eq(&kept, &document) {
                    self.keep(item, &document);
                }
                tracing::debug!(%item, "fetched collateral");
                if !kept.validity.contains(now) {
                    let error = FetchError {
                        item: item.clone(),
                        url: fetcher.endpoints.url(item),
                        cause: format!(
                            "the answer is valid from {} to {}",
                            moment(kept.validity.from),
                            moment(kept.validity.until)
                        ),
                        attempts: 1,
                        elapsed: Duration::ZERO,
                        absent: false,
                    };
                    return Err(self.failed(item, error, now));
                }
                Ok(kept)
            }
            Err(error) => Err(self.failed(item, error, now)),
        }
    }

    /// Counts a failure; nobody tries again for a while.
    fn failed(&self, item: &Item, error: FetchError, now: SystemTime) -> Unavailable {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let pause = match error.absent {
            true => self.limits.after_absence,
            false => self.limits.after_failure,
        };
        match error.absent {
            // Anybody can name a chip that does not exist; the peer is told.
            true => tracing::debug!(%error, "no collateral"),
            false => tracing::warn!(%error, retry_after_s = pause.as_secs(), "no collateral"),
        }
        let error = Arc::new(error);
        self.memory.fail(item, Arc::clone(&error), now..now + pause);
        Unavailable::Fetch(error)
    }

    /// What is to be fetched in the background at `now`: documents that were used once and whose time has come, and those that
    /// [`Collateral::complete_at_hand`] missed. To be asked every minute, and each handed to [`Collateral::fetch`].
    pub fn due(&self, now: SystemTime) -> Vec<Item> {
        match self.fetcher {
            Some(_) => self.memory.due(now),
            None => Vec::new(),
        }
    }

    /// Makes items due that are not known.
    pub fn want(&self, items: &[Item]) {
        if self.fetcher.is_some() {
            for item in items {
                self.memory.want(item);
            }
        }
    }

    /// What is known and valid at `now`.
    pub(crate) fn valid(&self, item: &Item, now: SystemTime) -> Option<Arc<Document>> {
        self.known(item, now)
            .filter(|document| document.validity.contains(now))
    }

    /// Counts since the start, judged at `now`.
    pub fn statistics(&self, now: SystemTime) -> Statistics {
        let (known, stale) = self.memory.count(now);
        Statistics {
            known,
            stale,
            fetched: self.fetched.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// What memory, disk and bundle know: something valid if there is any, else whatever there is.
    fn known(&self, item: &Item, now: SystemTime) -> Option<Arc<Document>> {
        let in_memory = self.memory.document(item);
        if let Some(document) = &in_memory
            && document.validity.contains(now)
        {
            return in_memory;
        }
        let on_disk = self.store.as_ref().and_then(|store| store.read(item));
        let candidates = [
            self.bundle.get(item, now).map(Arc::clone),
            on_disk.map(Arc::new),
            in_memory,
        ];
        let candidates = candidates.into_iter().flatten();
        let best = candidates
            .max_by_key(|document| (document.validity.contains(now), document.validity.from))?;
        Some(match best.validity.contains(now) {
            true => self.memory.learn(item, best, Origin::Disk, now),
            false => best,
        })
    }

    fn keep(&self, item: &Item, document: &Document) {
        if let Some(store) = &self.store
            && let Err(error) = store.write(item, document)
        {
            tracing::warn!(%item, %error, "cannot keep collateral on disk; it is kept in memory");
        }
    }

    /// Why there is no use in trying to fetch.
    fn futile(&self, item: &Item, now: SystemTime) -> Option<Unavailable> {
        match self.fetcher {
            Some(_) => self.memory.failure(item, now).map(Unavailable::Fetch),
            None => Some(Unavailable::Offline { item: item.clone() }),
        }
    }

    /// Fetches, unless somebody does or failed to do so just now.
    fn fetch_once(
        &self,
        item: &Item,
        now: SystemTime,
        effort: Effort,
    ) -> Result<Arc<Document>, Unavailable> {
        if effort == Effort::Defer {
            self.want(std::slice::from_ref(item));
        }
        if let Some(error) = self.futile(item, now) {
            return Err(error);
        }
        let Effort::Fetch(until) = effort else {
            return Err(Unavailable::Later { item: item.clone() });
        };
        if until <= Instant::now() {
            // Nothing was tried, so nothing failed.
            return Err(Unavailable::Lost { item: item.clone() });
        }
        match self.flights.join(item, self.limits.concurrent) {
            Turn::Lead(landing) => landing.land(self.fetch_until(item, now, until)),
            Turn::Follow(flight) => flight.wait(item, until),
            Turn::Full => Err(Unavailable::Busy {
                item: item.clone(),
                limit: self.limits.concurrent,
            }),
        }
    }
}

impl Found {
    fn valid(document: Arc<Document>) -> Self {
        Self {
            document,
            stale: None,
        }
    }
}
