//! Several things at the same time.

use std::{
    collections::BTreeMap,
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Layers that are read at the same time, for each processor: one waits while another is hashed.
const LAYERS_PER_PROCESSOR: usize = 2;
const LAYERS_AT_ONCE_MAX: usize = 8;

pub(crate) fn layers_at_once() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    processors
        .saturating_mul(LAYERS_PER_PROCESSOR)
        .min(LAYERS_AT_ONCE_MAX)
}

/// Applies `work` to all items, some at the same time; results are in the order of the items.
pub(crate) fn parallel<T: Sync, R: Send>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, R>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..at_once.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(position) else {
                        break;
                    };
                    let result = work(item);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.insert(position, result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_values().collect()
}
