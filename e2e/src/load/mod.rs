//! Clients that use replicated Coordinators without pause, and write down what they saw.
//!
//! Each client is a thread with connections of its own: it asks random replicas for certificates, reads and sets manifests, and asks
//! for the status. It calls the APIs directly over attested TLS, with the real proofs on both sides; `contrast` itself would be too
//! slow. What it saw becomes a [`Log`].

mod client;
mod connection;
mod deployment;
mod watch;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, spawn},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};

pub use connection::{Connection, Refusal};
pub use deployment::Deployment;
pub use watch::Watch;

use crate::linearizability::{Answer, Log, Operation, Question};
use client::Client;

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    deployment: Deployment,
    epoch: Instant,
    stop: AtomicBool,
    operations: Mutex<Vec<Operation>>,
    surprises: Mutex<Vec<String>>,
}

impl Shared {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn record(&self, operation: Operation) {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(operation);
    }

    /// An answer that no replica may give, whatever happens to the others.
    fn surprise(&self, what: String) {
        self.surprises
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
    }

    /// Some of them; empty when there were none.
    fn surprises(&self) -> String {
        let surprises = self.surprises.lock();
        let surprises = surprises.unwrap_or_else(PoisonError::into_inner);
        let Some(first) = surprises.first() else {
            return String::new();
        };
        let last = surprises.last().unwrap_or(first);
        format!(
            "; replicas gave {} answers that they may not give, from\n{first}\nto\n{last}",
            surprises.len()
        )
    }
}

impl Load {
    /// Starts `clients` threads; `seed` decides what they do.
    ///
    /// # Errors
    /// When a client cannot be made.
    pub fn start(deployment: Deployment, clients: u32, seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared {
            deployment,
            epoch: Instant::now(),
            stop: AtomicBool::new(false),
            operations: Mutex::default(),
            surprises: Mutex::default(),
        });
        let threads = (0..clients).map(|number| {
            let shared = Arc::clone(&shared);
            let seed = seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            spawn(move || Client::new(number, seed, shared)?.run())
        });
        Ok(Self {
            threads: threads.collect(),
            shared,
        })
    }

    /// Time on the log's clock.
    pub fn now(&self) -> Duration {
        self.shared.now()
    }

    /// What was seen so far.
    pub fn log(&self) -> Log {
        let operations = self.shared.operations.lock();
        Log(operations.unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Adds what somebody else did, for example a recovery by `contrast`.
    pub fn record(&self, question: Question, start: Duration, answer: Answer) {
        self.shared.record(Operation {
            client: u32::MAX,
            replica: u32::MAX,
            start,
            end: self.now(),
            question,
            answer,
        });
    }

    /// Waits until a `question` (`set`, `recover`, `read` or `issue`) that was asked after `since` is answered as it should be, by any client. Returns how long after
    /// `since` the answer was there.
    ///
    /// # Errors
    /// When `deadline` passes.
    pub fn await_success(
        &self,
        question: &str,
        since: Duration,
        deadline: Duration,
    ) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let log = self.log();
            let answered = log.0.iter().filter(|operation| {
                operation.start >= since
                    && operation.question.name() == question
                    && operation.answer.is_success()
            });
            if let Some(end) = answered.map(|operation| operation.end).min() {
                return Ok(end.saturating_sub(since));
            }
            if start.elapsed() > deadline {
                bail!(
                    "no {question} succeeded within {deadline:?}{}",
                    self.shared.surprises()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends all clients, reads the history once more as the log's last word, and returns the log.
    ///
    /// # Errors
    /// When a client failed or saw an answer that no replica may give, or no replica returns the history within `deadline`.
    pub fn finish(self, deadline: Duration) -> Result<Log> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        let mut last = Client::new(u32::MAX, 0, Arc::clone(&self.shared))?;
        last.read_until(deadline)?;
        let surprises = self.shared.surprises();
        ensure!(surprises.is_empty(), "the clients are done{surprises}");
        let operations = self.shared.operations.lock();
        Ok(Log(operations
            .unwrap_or_else(PoisonError::into_inner)
            .clone()))
    }
}
