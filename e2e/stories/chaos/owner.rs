//! The owner: sets manifests while things fail, and recovers when a majority is lost.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use contrast_e2e::harness::{Cluster, Output};
use contrast_manifest::ManifestHash;
use serde_json::{Value, json};

use crate::{
    ledger::{Ledger, Set, now_ms},
    probe::{Worker, pause},
    random::Random,
};

const RECOVERY_DEADLINE: Duration = Duration::from_secs(60);

/// One person with one workspace, who does one thing at a time.
#[derive(Clone)]
pub(crate) struct Person {
    cluster: Arc<Cluster>,
    everywhere: String,
    ledger: Ledger,
    /// How many manifests were written.
    turn: Arc<Mutex<u64>>,
}

impl Person {
    pub(crate) fn new(cluster: Arc<Cluster>, everywhere: String, ledger: Ledger) -> Self {
        Self {
            cluster,
            everywhere,
            ledger,
            turn: Arc::default(),
        }
    }

    /// Until it is dropped the owner sets nothing.
    pub(crate) fn hold(&self) -> MutexGuard<'_, u64> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets another manifest at whoever answers.
    pub(crate) fn set(&self) {
        let arguments = [
            "set",
            "-c",
            &self.everywhere,
            "--format",
            "json",
            "resources",
        ];
        self.set_by(|cluster| cluster.owner().try_contrast(&arguments).expect("runs"));
    }

    /// The same, by another way to run `contrast`.
    pub(crate) fn set_by(&self, run: impl FnOnce(&Cluster) -> Output) {
        let mut written = self.hold();
        *written += 1;
        let owner = self.cluster.owner();
        let lifetime = format!("{}s", 60 + *written % 100_000);
        owner
            .edit_manifest(|manifest| {
                manifest["MeshCertLifetime"] = json!(lifetime);
                manifest["MeshCAOverlap"] = json!("4s");
            })
            .expect("edits");
        let text = owner.read("manifest.json").expect("reads");
        let start = Instant::now();
        let output = run(&self.cluster);
        let told: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let transition = told["transition"].as_str().map(str::to_owned);
        let transition = transition.filter(|_| output.code == 0);
        let what = match &transition {
            Some(_) => format!("manifest {lifetime} set in {:?}", start.elapsed()),
            None => format!(
                "manifest {lifetime}: `contrast set` ended with {} after {:?}: {}",
                output.code,
                start.elapsed(),
                output.stderr
            ),
        };
        self.ledger.happened(what);
        let set = Set {
            manifest: ManifestHash::of(text.as_bytes()).to_string(),
            transition,
            at_ms: now_ms(),
        };
        self.ledger.note(|facts| facts.sets.push(set));
    }

    /// Sets manifests at random times.
    pub(crate) fn keep_changing(&self, seed: u64) -> Worker<()> {
        let person = self.clone();
        Worker::start(move |stop| {
            let mut random = Random::new(seed, "manifests");
            loop {
                pause(stop, Duration::from_millis(4000 + random.below(6000)));
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                person.set();
            }
        })
    }

    /// Recovers the replica at `address`; the caller holds the owner.
    pub(crate) fn recover(&self, address: &str) {
        let owner = self.cluster.owner();
        let start = Instant::now();
        loop {
            let arguments = ["recover", "-c", address, "--format", "json"];
            let output = owner.try_contrast(&arguments).expect("runs");
            if output.code == 0 {
                let told: Value = serde_json::from_str(&output.stdout).expect("JSON");
                let transition = told["transition"]
                    .as_str()
                    .expect("a transition")
                    .to_owned();
                self.ledger
                    .happened(format!("recovered {address} in {:?}", start.elapsed()));
                self.ledger.note(|facts| facts.recoveries.push(transition));
                return;
            }
            let why = output.stderr.trim().to_owned();
            self.ledger.happened(format!(
                "recovery of {address} ended with {}: {why}",
                output.code
            ));
            if start.elapsed() > RECOVERY_DEADLINE {
                self.ledger
                    .wrong(format!("cannot recover {address}: {why}"));
                return;
            }
            sleep(Duration::from_millis(300));
        }
    }
}
