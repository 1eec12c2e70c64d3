//! Readiness as guards: each part registers what it still has to do and drops the guard when it is done.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use super::exposure::PUBLIC;

/// The parts that a service is still waiting for.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

/// Held by a part until it is ready.
#[derive(Debug)]
#[must_use = "dropping the guard says that the part is ready"]
pub struct Pending {
    part: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Registers `part` as not ready yet.
    pub fn register(&self, part: &'static str) -> Pending {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(part);
        Pending {
            part,
            readiness: self.clone(),
        }
    }

    /// Names of the parts that are not ready yet; empty means ready.
    pub fn awaited(&self) -> Vec<&'static str> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut parts = self
            .readiness
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        parts.remove(self.part);
        match parts.is_empty() {
            true => tracing::info!(part = self.part, exposure = PUBLIC, "ready"),
            false => {
                tracing::info!(part = self.part, still_awaited = ?parts, exposure = PUBLIC, "part is ready")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_guard_is_dropped() {
        let readiness = Readiness::default();
        let ports = readiness.register("ports");
        let store = readiness.register("store");
        drop(ports);
        assert_eq!(readiness.awaited(), ["store"]);
        drop(store);
        assert!(readiness.awaited().is_empty());
    }
}
