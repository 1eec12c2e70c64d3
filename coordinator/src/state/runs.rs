//! Collections that only grow and whose clones are cheap, for a history of which many versions are in memory at once.
//!
//! Elements are in runs that never change and that clones share. A new element is a run of its own, which is joined with the runs
//! before it while those are not longer. So there are at most log2(n) + 2 runs, each longer than the one after it, and an element
//! is copied about log2(n) times in its life.

use std::{cmp::Ordering, fmt, sync::Arc};

type Run<T> = Arc<[T]>;

fn push<T>(runs: &mut Vec<Run<T>>, element: T, join: impl Fn(&[T], &[T]) -> Run<T>) {
    let mut new: Run<T> = Arc::new([element]);
    while let Some(last) = runs.pop_if(|last| last.len() <= new.len()) {
        new = join(&last, &new);
    }
    runs.push(new);
}

/// A list in the order of insertion.
#[derive(Clone)]
pub(crate) struct List<T>(Vec<Run<T>>);

impl<T: Clone> List<T> {
    /// Appends an element.
    pub(crate) fn push(&mut self, element: T) {
        push(&mut self.0, element, |before, after| {
            before.iter().chain(after).cloned().collect()
        });
    }
}

impl<T> List<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|run| run.len()).sum()
    }

    /// All elements. Elements at the end are found without going through those before.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.0.iter().flat_map(|run| run.iter())
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let run: Run<T> = elements.into_iter().collect();
        Self(if run.is_empty() {
            Vec::new()
        } else {
            vec![run]
        })
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({} elements)", self.len())
    }
}

/// A map; what is in it stays as it is.
#[derive(Clone)]
pub(crate) struct Map<K, V>(Vec<Run<(K, V)>>);

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// Adds a value unless the key has one. Returns whether it was added.
    pub(crate) fn insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> bool {
        if self.contains(&key) {
            return false;
        }
        push(&mut self.0, (key, value()), |before, after| {
            merge(before, after)
        });
        true
    }
}

impl<K: Ord, V> Map<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.iter().find_map(|run| {
            let place = run.binary_search_by(|(found, _)| found.cmp(key)).ok()?;
            run.get(place).map(|(_, value)| value)
        })
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// All keys with their values, sorted.
    pub(crate) fn sorted(&self) -> Vec<(&K, &V)> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .flat_map(|run| run.iter().map(|(key, value)| (key, value)))
            .collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Of equal keys the first one counts.
impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.dedup_by(|(later, _), (earlier, _)| later == earlier);
        Self(if entries.is_empty() {
            Vec::new()
        } else {
            vec![entries.into()]
        })
    }
}

impl<K, V> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: usize = self.0.iter().map(|run| run.len()).sum();
        write!(f, "Map({entries} entries)")
    }
}

/// Both runs in the order of keys, of which they share none.
fn merge<K: Ord + Clone, V: Clone>(a: &[(K, V)], b: &[(K, V)]) -> Run<(K, V)> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let next = move || {
        let from_a = match (a.peek(), b.peek()) {
            (Some((x, _)), Some((y, _))) => x.cmp(y) == Ordering::Less,
            (x, _) => x.is_some(),
        };
        if from_a { a.next() } else { b.next() }.cloned()
    };
    std::iter::from_fn(next).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn list_is_what_was_pushed_and_clones_keep_what_they_had(
            start in prop::collection::vec(any::<u8>(), 0..20), pushed in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut list: List<u8> = start.iter().copied().collect();
            let mut expected = start;
            let mut taken = Vec::new();
            for element in pushed {
                taken.push((list.clone(), expected.clone()));
                list.push(element);
                expected.push(element);
            }
            taken.push((list, expected));
            for (list, expected) in taken {
                prop_assert_eq!(list.len(), expected.len());
                prop_assert!(list.iter().eq(&expected));
                prop_assert!(list.iter().rev().eq(expected.iter().rev()));
            }
        }

        #[test]
        fn map_keeps_the_first_value_of_a_key_and_clones_keep_what_they_had(
            start in prop::collection::vec(any::<(u8, u8)>(), 0..20), added in prop::collection::vec(any::<(u8, u8)>(), 0..200),
        ) {
            let mut expected = BTreeMap::new();
            for (key, value) in &start {
                expected.entry(*key).or_insert(*value);
            }
            let mut map: Map<u8, u8> = start.into_iter().collect();
            let mut taken = Vec::new();
            for (key, value) in added {
                taken.push((map.clone(), expected.clone()));
                let is_new = !expected.contains_key(&key);
                prop_assert_eq!(map.insert_with(key, || value), is_new);
                expected.entry(key).or_insert(value);
            }
            taken.push((map, expected));
            for (map, expected) in taken {
                prop_assert!(map.sorted().into_iter().eq(expected.iter()));
                for key in 0..=u8::MAX {
                    prop_assert_eq!(map.get(&key), expected.get(&key));
                }
            }
        }
    }

    #[test]
    fn a_thousand_elements_are_in_ten_runs_at_most_and_a_clone_shares_all_but_the_last() {
        let mut list = List::default();
        let mut map = Map::default();
        for element in 0..1000_u32 {
            list.push(element);
            map.insert_with(element.wrapping_mul(0x9e37_79b1), || element);
            assert!(list.0.len() <= 10 && map.0.len() <= 10);
        }
        let (mut longer, before) = (list.clone(), list.0.len());
        longer.push(1000);
        let shared = list.0.iter().zip(&longer.0);
        let shared = shared.filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared + 1 >= before, "{shared} of {before} runs are shared");
    }
}
