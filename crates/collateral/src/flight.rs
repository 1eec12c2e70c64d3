use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{Document, Item, Unavailable};

type Outcome = Result<Arc<Document>, Unavailable>;

/// Fetches under way: one for each item, however many callers want it.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Item, Arc<Flight>>>);

/// A fetch that callers wait for.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    outcome: Mutex<Option<Outcome>>,
    landed: Condvar,
}

/// What a caller who wants an item does.
pub(crate) enum Turn<'a> {
    /// Fetches it, and tells the others.
    Lead(Landing<'a>),
    /// Waits for the one who fetches it.
    Follow(Arc<Flight>),
    /// Gives up: there are too many fetches.
    Full,
}

impl Flights {
    /// A place in the fetch of `item`; a new one only while there are fewer than `limit`.
    pub(crate) fn join<'a>(&'a self, item: &'a Item, limit: usize) -> Turn<'a> {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(item) {
            return Turn::Follow(Arc::clone(flight));
        }
        if flights.len() >= limit {
            return Turn::Full;
        }
        let flight = Arc::<Flight>::default();
        flights.insert(item.clone(), Arc::clone(&flight));
        Turn::Lead(Landing {
            flights: self,
            item,
            flight,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Item, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// The outcome, if it comes before `until`.
    pub(crate) fn wait(&self, item: &Item, until: Instant) -> Outcome {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let timeout = until.saturating_duration_since(Instant::now());
        let (outcome, _) = self
            .landed
            .wait_timeout_while(outcome, timeout, |outcome| outcome.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let lost = || Err(Unavailable::Lost { item: item.clone() });
        outcome.clone().unwrap_or_else(lost)
    }
}

/// Ends a flight, even when the fetch panicked: those who wait must hear of it.
pub(crate) struct Landing<'a> {
    flights: &'a Flights,
    item: &'a Item,
    flight: Arc<Flight>,
}

impl Landing<'_> {
    pub(crate) fn land(self, outcome: Outcome) -> Outcome {
        self.tell(outcome.clone());
        outcome
    }

    fn tell(&self, outcome: Outcome) {
        let mut flights = self.flights.lock();
        // Once this flight has landed, the next one for the same item may be under way.
        let is_ours = |flight: &Arc<Flight>| Arc::ptr_eq(flight, &self.flight);
        if flights.get(self.item).is_some_and(is_ours) {
            flights.remove(self.item);
            let slot = self.flight.outcome.lock();
            *slot.unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            self.flight.landed.notify_all();
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
