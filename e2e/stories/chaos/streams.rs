//! The audit streams that the Coordinators wrote, one chain for each of their processes.

use std::collections::{BTreeMap, BTreeSet};

use contrast_audit::{Kind, Outcome, Record, check};
use contrast_e2e::harness::ReplicaSet;

/// Everything that one process of a Coordinator recorded.
#[derive(Default)]
pub(crate) struct Chain {
    /// With their hashes, in order.
    pub(crate) records: Vec<(Record, String)>,
}

impl Chain {
    /// When its process started, which tells it from the others of its replica.
    pub(crate) fn since_ms(&self) -> u64 {
        self.records.first().map_or(0, |(record, _)| record.time_ms)
    }

    pub(crate) fn counts(&self) -> BTreeMap<(String, String), u64> {
        let mut counts = BTreeMap::new();
        for (record, _) in &self.records {
            if record.kind != Kind::Lost {
                let key = (
                    record.kind.name().to_owned(),
                    record.outcome.name().to_owned(),
                );
                *counts.entry(key).or_default() += 1;
            }
        }
        counts
    }

    pub(crate) fn hashes(&self) -> BTreeSet<&str> {
        self.records.iter().map(|(_, hash)| hash.as_str()).collect()
    }

    /// Hashes of the latest records of a sort, as the Coordinator remembers them: for each that is one too many, the oldest of the kind that
    /// has the most is forgotten.
    pub(crate) fn latest(&self, most: usize, sort: Sort) -> Vec<String> {
        let mut kept: Vec<&(Record, String)> = Vec::new();
        for entry in self.records.iter().filter(|(record, _)| sort(record)) {
            kept.push(entry);
            if kept.len() <= most {
                continue;
            }
            let mut counts = BTreeMap::<Kind, usize>::new();
            for (record, _) in &kept {
                *counts.entry(record.kind).or_default() += 1;
            }
            let largest = counts.into_iter().max_by_key(|(_, count)| *count);
            let largest = largest.map(|(kind, _)| kind);
            let oldest = kept
                .iter()
                .position(|(record, _)| Some(record.kind) == largest);
            kept.remove(oldest.expect("a record of the kind that has the most"));
        }
        kept.into_iter().map(|(_, hash)| hash.clone()).collect()
    }
}

/// Which records are meant.
pub(crate) type Sort = fn(&Record) -> bool;

pub(crate) fn is_issued(record: &Record) -> bool {
    record.kind == Kind::Certificate && record.outcome == Outcome::Done
}

pub(crate) fn is_refused(record: &Record) -> bool {
    matches!(record.outcome, Outcome::Refused | Outcome::Failed)
}

pub(crate) fn is_other(record: &Record) -> bool {
    !is_issued(record) && !is_refused(record)
}

/// The chains of one replica, oldest first.
///
/// # Errors
/// Where a chain does not hold.
pub(crate) fn read(replicas: &ReplicaSet, replica: usize) -> Result<Vec<Chain>, String> {
    let text = replicas.log(replica);
    let mut chains: Vec<Chain> = Vec::new();
    let checked = check(text.as_bytes(), None, |_, record, hash| {
        if record.kind == Kind::Start {
            chains.push(Chain::default());
        }
        if let Some(chain) = chains.last_mut() {
            chain.records.push((record.clone(), hash.to_string()));
        }
    });
    match checked {
        Ok(checked) if checked.records > 0 => Ok(chains),
        Ok(_) => Err(format!("replica {replica}: no audit stream")),
        Err(error) => Err(format!(
            "replica {replica}: {:#}",
            anyhow::Error::new(error)
        )),
    }
}

#[test]
fn latest_records_of_a_rare_kind_outlast_many_of_another() {
    use contrast_audit::{Event, Subject};
    let mut journal = contrast_audit::Chain::default();
    let mut chain = Chain::default();
    let kinds = [Kind::Start, Kind::Leader, Kind::Leader, Kind::Leader];
    for (time, kind) in (0..).zip(kinds) {
        let entry = journal.append(time, Event::done(kind, Subject::default()));
        chain.records.push((entry.record, time.to_string()));
    }
    assert_eq!(chain.latest(3, is_other), ["0", "2", "3"]);
    assert_eq!(chain.latest(4, is_other), ["0", "1", "2", "3"]);
    assert!(chain.latest(3, is_issued).is_empty());
}
