//! Which items of a list are still the same after an edit.

use serde_json::Value;

/// Most comparisons that are spent on one list; longer ones are compared by position.
const COMPARISONS_MAX: usize = 1_000_000;

/// For every wanted item the old one that it came from, ascending; `None` for a new item.
pub(crate) fn align(old: &[Value], wanted: &[Value]) -> Vec<Option<usize>> {
    let head = old.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    let old_rest = old.get(head..).unwrap_or_default();
    let wanted_rest = wanted.get(head..).unwrap_or_default();
    let tail = old_rest
        .iter()
        .rev()
        .zip(wanted_rest.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let old_end = old.len().saturating_sub(tail);
    let wanted_end = wanted.len().saturating_sub(tail);
    let mut from: Vec<Option<usize>> = (0..head).map(Some).collect();
    from.extend(middle(
        old.get(head..old_end).unwrap_or_default(),
        wanted.get(head..wanted_end).unwrap_or_default(),
        head,
    ));
    from.extend((old_end..old.len()).map(Some));
    from
}

fn middle(old: &[Value], wanted: &[Value], offset: usize) -> Vec<Option<usize>> {
    let mut from = vec![None; wanted.len()];
    let pairs = match old.len().saturating_mul(wanted.len()) > COMPARISONS_MAX {
        true => Vec::new(),
        false => common(old, wanted),
    };
    // Between two items that are the same, old and wanted ones are paired by position.
    let (mut i, mut j) = (0, 0);
    for (a, b) in pairs.into_iter().chain([(old.len(), wanted.len())]) {
        let gap = a.saturating_sub(i).min(b.saturating_sub(j));
        for step in 0..gap {
            let (a, b) = (i.saturating_add(step), j.saturating_add(step));
            let named =
                |value: Option<&Value>| value.is_some_and(|value| value["name"].is_string());
            // Two items with different names are two things, not one that was renamed.
            if !(named(old.get(a)) && named(wanted.get(b)))
                && let Some(slot) = from.get_mut(b)
            {
                *slot = Some(offset.saturating_add(a));
            }
        }
        if let Some(slot) = from.get_mut(b) {
            *slot = Some(offset.saturating_add(a));
        }
        (i, j) = (a.saturating_add(1), b.saturating_add(1));
    }
    from
}

/// Longest common subsequence of items that are equal or have the same name.
fn common(old: &[Value], wanted: &[Value]) -> Vec<(usize, usize)> {
    let width = wanted.len().saturating_add(1);
    let cell = |i: usize, j: usize| i.saturating_mul(width).saturating_add(j);
    let mut lengths = vec![0_usize; cell(old.len(), width)];
    let length = |lengths: &[usize], i, j| lengths.get(cell(i, j)).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in wanted.iter().enumerate().rev() {
            let best = match same(a, b) {
                true => {
                    length(&lengths, i.saturating_add(1), j.saturating_add(1)).saturating_add(1)
                }
                false => length(&lengths, i.saturating_add(1), j).max(length(
                    &lengths,
                    i,
                    j.saturating_add(1),
                )),
            };
            if let Some(slot) = lengths.get_mut(cell(i, j)) {
                *slot = best;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut pairs = Vec::new();
    while let (Some(a), Some(b)) = (old.get(i), wanted.get(j)) {
        if same(a, b) {
            pairs.push((i, j));
            (i, j) = (i.saturating_add(1), j.saturating_add(1));
        } else if length(&lengths, i.saturating_add(1), j)
            >= length(&lengths, i, j.saturating_add(1))
        {
            i = i.saturating_add(1);
        } else {
            j = j.saturating_add(1);
        }
    }
    pairs
}

fn same(a: &Value, b: &Value) -> bool {
    match (a["name"].as_str(), b["name"].as_str()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}
