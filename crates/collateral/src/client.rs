use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use der::DateTime;

use crate::{
    Bundle, Document, Endpoints, FetchError, Item, Transport, Validity, fetch::Fetcher,
    memory::Memory, store::Store,
};

/// Bounds of what a vendor's service can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For one document, all attempts together. Below the deadline of an attested handshake.
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
/// A document that is valid is used at once, whatever the vendor does; [`Collateral::refresh_due`] replaces it in time. Only when
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
    flights: Mutex<HashMap<Item, Arc<Flight>>>,
}

/// A fetch that callers wait for.
#[derive(Debug, Default)]
struct Flight {
    outcome: Mutex<Option<Result<Arc<Document>, Unavailable>>>,
    landed: Condvar,
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

    /// Keeps what it fetches in `directory`, which is created when it is missing.
    ///
    /// # Errors
    /// When it cannot be created.
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
        let known = self.known(item, now);
        if let Some(document) = &known
            && document.validity.contains(now)
        {
            return Ok(Found {
                document: Arc::clone(document),
                stale: None,
            });
        }
        match (self.fetch_once(item, now), known) {
            (Ok(document), _) => Ok(Found {
                document,
                stale: None,
            }),
            (Err(error), Some(document)) => {
                let stale = Some(match error {
                    Unavailable::Offline { item } => Unavailable::Outdated {
                        item,
                        validity: document.validity,
                    },
                    error => error,
                });
                Ok(Found { document, stale })
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Fetches `item` even if it is known.
    ///
    /// # Errors
    /// When it cannot be fetched; what is known stays.
    pub fn fetch(&self, item: &Item, now: SystemTime) -> Result<Arc<Document>, Unavailable> {
        let Some(fetcher) = &self.fetcher else {
            return Err(Unavailable::Offline { item: item.clone() });
        };
        match fetcher.fetch(item, &self.limits) {
            Ok(document) => {
                let document = Arc::new(document);
                let kept = self.memory.learn(item, Arc::clone(&document), Some(now));
                if Arc::ptr_eq(&kept, &document) {
                    self.keep(item, &document);
                }
                tracing::debug!(%item, "fetched collateral");
                Ok(kept)
            }
            Err(error) => {
                let pause = match error.absent {
                    true => self.limits.after_absence,
                    false => self.limits.after_failure,
                };
                tracing::warn!(%error, retry_after_s = pause.as_secs(), "no collateral");
                let error = Arc::new(error);
                self.memory.fail(item, Arc::clone(&error), now + pause);
                Err(Unavailable::Fetch(error))
            }
        }
    }

    /// Fetches every document anew that was used once and whose time has come, one after the other. To be called every few
    /// minutes. Returns how many were fetched and how many could not be.
    pub fn refresh_due(&self, now: SystemTime) -> (usize, usize) {
        if self.fetcher.is_none() {
            return (0, 0);
        }
        let due = self.memory.due(now);
        let outcomes = due.iter().map(|item| self.fetch(item, now).is_ok());
        let (fetched, failed): (Vec<bool>, Vec<bool>) = outcomes.partition(|fetched| *fetched);
        (fetched.len(), failed.len())
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
            self.bundle.get(item).map(Arc::clone),
            on_disk.map(Arc::new),
            in_memory,
        ];
        let candidates = candidates.into_iter().flatten();
        let best = candidates
            .max_by_key(|document| (document.validity.contains(now), document.validity.from))?;
        Some(match best.validity.contains(now) {
            true => self.memory.learn(item, best, None),
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

    /// Fetches, unless somebody does or failed to do so just now.
    fn fetch_once(&self, item: &Item, now: SystemTime) -> Result<Arc<Document>, Unavailable> {
        if let Some(error) = self.memory.failure(item, now) {
            return Err(Unavailable::Fetch(error));
        }
        if self.fetcher.is_none() {
            return Err(Unavailable::Offline { item: item.clone() });
        }
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(item) {
                Some(flight) => Some(Arc::clone(flight)),
                None if flights.len() >= self.limits.concurrent => {
                    return Err(Unavailable::Busy {
                        item: item.clone(),
                        limit: self.limits.concurrent,
                    });
                }
                None => {
                    flights.insert(item.clone(), Arc::default());
                    None
                }
            }
        };
        match flight {
            Some(flight) => flight.wait(item, self.limits.deadline),
            None => {
                let landing = Landing {
                    flights: &self.flights,
                    item,
                };
                landing.land(self.fetch(item, now))
            }
        }
    }
}

impl Flight {
    fn wait(&self, item: &Item, deadline: Duration) -> Result<Arc<Document>, Unavailable> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, _) = self
            .landed
            .wait_timeout_while(outcome, deadline, |outcome| outcome.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let lost = || Err(Unavailable::Lost { item: item.clone() });
        outcome.clone().unwrap_or_else(lost)
    }
}

/// Ends a flight, even when the fetch panicked: those who wait must hear of it.
struct Landing<'a> {
    flights: &'a Mutex<HashMap<Item, Arc<Flight>>>,
    item: &'a Item,
}

impl Landing<'_> {
    fn land(
        self,
        result: Result<Arc<Document>, Unavailable>,
    ) -> Result<Arc<Document>, Unavailable> {
        self.tell(result.clone());
        result
    }

    fn tell(&self, result: Result<Arc<Document>, Unavailable>) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.remove(self.item) {
            *flight
                .outcome
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(result);
            flight.landed.notify_all();
        }
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.tell(Err(Unavailable::Lost {
            item: self.item.clone(),
        }));
    }
}
