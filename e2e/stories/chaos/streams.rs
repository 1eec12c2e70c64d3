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

    /// Hashes of the latest records of a sort, as the Coordinator remembers them.
    pub(crate) fn latest(&self, most: usize, sort: Sort) -> Vec<String> {
        let all = self.records.iter().filter(|(record, _)| sort(record));
        let all: Vec<String> = all.map(|(_, hash)| hash.clone()).collect();
        all[all.len().saturating_sub(most)..].to_vec()
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
