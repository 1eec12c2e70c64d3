//! `contrast dashboard` as somebody who looks at it all the while, and what must hold from one look to the next.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use contrast_audit::{Kind, Record};
use contrast_e2e::harness::{Process, get, program};
use serde_json::Value;

use crate::{
    ledger::{Facts, Ledger, now_ms},
    probe::{Worker, pause},
};

const START_DEADLINE: Duration = Duration::from_secs(20);
/// Nobody who answers takes so long.
const SLOW: Duration = Duration::from_secs(4);
const PERIOD: Duration = Duration::from_secs(1);
/// The dashboard waits 5 s for each Coordinator.
const PATIENCE: Duration = Duration::from_secs(30);
/// Records of each sort that a Coordinator remembers.
pub(crate) const RECENT: usize = 256;
/// From when the owner knows that a manifest is set until everybody sees it, also while a replica that does not know it is cut off.
const NEWS_MS: u64 = 3_000;
/// A failure shows on a page that was begun so long before it: the dashboard waits 5 s for an answer.
const BEFORE_MS: u64 = 6_000;
/// A page that is begun so long after all vote again shows nothing of a failure. It could at once; the machine may be slow.
const AFTER_MS: u64 = 3_000;

pub(crate) type Counts = BTreeMap<(String, String), u64>;

/// What was shown of one process of a Coordinator.
#[derive(Default, Clone)]
pub(crate) struct Boot {
    pub(crate) sequence: u64,
    pub(crate) counts: Counts,
    /// When the records were made, by their hashes.
    pub(crate) records: BTreeMap<String, u64>,
}

/// Everything that was shown.
#[derive(Default, Clone)]
pub(crate) struct Shown {
    pub(crate) looks: u64,
    /// By replica and when its process started.
    pub(crate) boots: BTreeMap<(usize, u64), Boot>,
    /// Transitions, oldest first.
    steps: Vec<String>,
    /// Rows that said that a Coordinator does not answer or not serve.
    pub(crate) alarms: u64,
    /// Looks that took long although nothing had failed, and rows of Coordinators that did not serve although only another one had failed: an
    /// election takes less than the confirmation holds. The machine may be slow, but not often.
    pub(crate) slow: u64,
}

pub(crate) struct Board {
    address: SocketAddr,
    shown: Arc<Mutex<Shown>>,
    ledger: Ledger,
    looking: Option<Worker<()>>,
    _process: Process,
}

impl Board {
    /// Starts `contrast dashboard` and looks at it until it is dropped.
    pub(crate) fn start(workspace: &Path, logs: &Path, everywhere: &str, ledger: &Ledger) -> Self {
        let mut command = Command::new(program("contrast").expect("built"));
        command
            .args(["dashboard", "--listen=127.0.0.1:0", "-c", everywhere])
            .current_dir(workspace);
        let mut process = Process::start("dashboard", command, logs).expect("starts");
        process
            .wait_until("its address", START_DEADLINE, |process| {
                process.output().contains("until you interrupt it")
            })
            .expect("listens");
        let output = process.output();
        let address = output.lines().find_map(|line| {
            let line = line.strip_prefix("http://")?;
            line.trim_end_matches('/').parse().ok()
        });
        let mut board = Self {
            address: address.expect("an address"),
            shown: Arc::default(),
            ledger: ledger.clone(),
            looking: None,
            _process: process,
        };
        board.looking = Some(board.keep_looking());
        board
    }

    fn keep_looking(&self) -> Worker<()> {
        let (address, ledger) = (self.address, self.ledger.clone());
        let shown = Arc::clone(&self.shown);
        Worker::start(move |stop| {
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                match look(address) {
                    Some(state) => {
                        let facts = ledger.facts();
                        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                        shown.look(&state, start.elapsed() > SLOW, &facts, &ledger);
                    }
                    None => ledger.wrong("the dashboard does not answer"),
                }
                pause(stop, PERIOD);
            }
        })
    }

    pub(crate) fn shown(&self) -> Shown {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.clone()
    }

    /// What it shows of a moment that is not before now.
    pub(crate) fn now(&self) -> Value {
        let (start, now) = (Instant::now(), now_ms());
        loop {
            match look(self.address) {
                Some(state) if state["taken_ms"].as_u64() >= Some(now) => return state,
                _ => assert!(start.elapsed() < PATIENCE, "the dashboard is stuck"),
            }
            sleep(Duration::from_millis(100));
        }
    }
}

fn look(address: SocketAddr) -> Option<Value> {
    let answer = get(address, "/api/state", PATIENCE).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn counts(replica: &Value) -> Counts {
    let counts = list(&replica["counts"]).iter().map(|count| {
        let text = |name: &str| count[name].as_str().unwrap_or_default().to_owned();
        let number = count["count"].as_u64().unwrap_or_default();
        ((text("kind"), text("outcome")), number)
    });
    counts.collect()
}

/// Hashes of the records of a sort, in their order. Each must be the hash of what is shown.
pub(crate) fn hashes(replica: &Value, sort: &str) -> Result<Vec<String>, String> {
    let records = list(&replica["decisions"][sort]).iter();
    let hash = |shown: &Value| {
        let mut covered = shown.clone();
        let members = covered.as_object_mut().ok_or("no record")?;
        members.remove("hash");
        let record: Record = serde_json::from_value(covered).map_err(|e| e.to_string())?;
        let hash = record.hash().to_string();
        match shown["hash"] == hash.as_str() {
            true => Ok(hash),
            false => Err(format!("{shown} has the hash {hash}")),
        }
    };
    records.map(hash).collect()
}

/// All that were issued; all that were refused or failed; the others.
pub(crate) fn totals(counts: &Counts) -> [u64; 3] {
    let mut totals = [0; 3];
    for ((kind, outcome), count) in counts {
        let sort = match (kind.as_str(), outcome.as_str()) {
            (_, "refused" | "failed") => 1,
            (kind, _) if kind == Kind::Certificate.name() => 0,
            _ => 2,
        };
        totals[sort] += count;
    }
    totals
}

impl Shown {
    fn look(&mut self, state: &Value, slow: bool, facts: &Facts, ledger: &Ledger) {
        self.looks += 1;
        let taken = state["taken_ms"].as_u64().unwrap_or_default();
        let slow = slow && !explained(facts, None, taken);
        self.slow += u64::from(slow);
        let replicas = list(&state["replicas"]);
        ledger.require(replicas.len() == 3, || format!("3 replicas, not {state}"));
        for (number, replica) in replicas.iter().enumerate() {
            let status = &replica["status"];
            let fine = status["serving"] == true && replica["decisions_error"].is_null();
            if !fine {
                self.alarms += 1;
                // All three are disrupted when a majority is lost.
                let own = explained(facts, Some(number), taken);
                let other = !status.is_null() && explained(facts, None, taken);
                self.slow += u64::from(!own && other);
                ledger.require(slow || own || other, || {
                    format!(
                        "false alarm about replica {number}: {} {} {}",
                        replica["error"], status["not_serving_because"], replica["decisions_error"]
                    )
                });
            }
            if let Some(since) = replica["since_ms"].as_u64() {
                self.boot(number, since, replica, ledger);
            }
        }
        self.history(&state["history"], taken, facts, ledger);
    }

    fn boot(&mut self, number: usize, since: u64, replica: &Value, ledger: &Ledger) {
        let boot = self.boots.entry((number, since)).or_default();
        let counts = counts(replica);
        let audit = &replica["status"]["audit"];
        let sequence = audit["sequence"].as_u64().unwrap_or_default();
        ledger.require(audit["lost"] == 0, || {
            format!("replica {number} lost records: {audit}")
        });
        ledger.require(sequence >= boot.sequence, || {
            format!(
                "replica {number}: record {} became {sequence}",
                boot.sequence
            )
        });
        for (what, before) in &boot.counts {
            let now = counts.get(what).copied().unwrap_or_default();
            ledger.require(now >= *before, || {
                format!("replica {number}: {what:?} went from {before} to {now}")
            });
        }
        let recent = u64::try_from(RECENT).unwrap_or(u64::MAX);
        let sorts = ["issued", "refused", "other"];
        for (sort, total) in sorts.into_iter().zip(totals(&counts)) {
            match hashes(replica, sort) {
                Ok(hashes) => {
                    let shown = u64::try_from(hashes.len()).unwrap_or(u64::MAX);
                    ledger.require(shown == total.min(recent), || {
                        format!("replica {number} shows {shown} of {total} records {sort}")
                    });
                    let times = list(&replica["decisions"][sort])
                        .iter()
                        .map(|record| record["time_ms"].as_u64().unwrap_or_default());
                    boot.records.extend(hashes.into_iter().zip(times));
                }
                Err(why) => ledger.wrong(format!("replica {number}: {why}")),
            }
        }
        boot.sequence = sequence;
        boot.counts = counts;
    }

    fn history(&mut self, history: &Value, taken: u64, facts: &Facts, ledger: &Ledger) {
        if history.is_null() {
            ledger.require(explained(facts, None, taken), || "no history".to_owned());
            return;
        }
        ledger.require(list(&history["problems"]).is_empty(), || {
            format!("the history is broken: {}", history["problems"])
        });
        let steps: Vec<String> = list(&history["steps"])
            .iter()
            .filter_map(|step| step["transition"].as_str().map(str::to_owned))
            .collect();
        ledger.require(steps.starts_with(&self.steps), || {
            format!("the history went from {:?} to {steps:?}", self.steps)
        });
        for set in &facts.sets {
            if let Some(transition) = &set.transition
                && set.at_ms + NEWS_MS < taken
            {
                ledger.require(steps.contains(transition), || {
                    format!(
                        "manifest {} is set for {} ms and not shown",
                        set.manifest,
                        taken - set.at_ms
                    )
                });
            }
        }
        self.steps = steps;
    }
}

/// Whether the harness did something to a replica, or to any, that shows on a page begun at that time.
fn explained(facts: &Facts, replica: Option<usize>, taken: u64) -> bool {
    facts.disruptions.iter().any(|disruption| {
        let begun = disruption.from_ms <= taken + BEFORE_MS;
        let over = disruption
            .until_ms
            .is_some_and(|until| until + AFTER_MS < taken);
        begun && !over && replica.is_none_or(|replica| replica == disruption.replica)
    })
}
