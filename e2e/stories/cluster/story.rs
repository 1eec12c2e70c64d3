//! Replicas of the Coordinator under load, and the judgement at the end.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use contrast_e2e::{
    harness::{Cluster, Output, ReplicaSet, no_network_because},
    linearizability::{Answer, Hash, Question, Summary, check},
    load::{Deployment, Load, Watch},
};
use serde_json::Value;

/// Certificates may be so old. The default is 10 s; tests have less time.
pub(crate) const BOUND: Duration = Duration::from_secs(3);
/// Until something that happens by itself must have happened.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
const CLIENTS: u32 = 4;

/// One story at a time: each is a handful of busy processes.
pub(crate) static TURN: Mutex<()> = Mutex::new(());

pub(crate) struct Story {
    pub(crate) replicas: ReplicaSet,
    pub(crate) watch: Watch,
    pub(crate) load: Load,
    pub(crate) cluster: Cluster,
    name: &'static str,
    begun: Instant,
    directory: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Story {
    /// Starts `running` of `places` replicas with a manifest and clients that use all places; `None`, with a message, where that is not
    /// possible.
    pub(crate) fn begin(name: &'static str, places: usize, running: usize) -> Option<Self> {
        if let Some(reason) = no_network_because() {
            eprintln!("{name}: skipped, because {reason}");
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        let mut directory = tempfile::tempdir().expect("directory");
        // A story that fails leaves what everybody logged.
        directory.disable_cleanup(true);
        let cluster = Cluster::create(directory.path(), 60).expect("cluster");
        cluster.generate().expect("generates");
        let bound = BOUND.as_secs().to_string();
        let environment = [("CONTRAST_CONFIRMATION_BOUND", bound.as_str())];
        let replicas = ReplicaSet::create(&cluster, places, &environment).expect("replicas");
        for replica in 0..running {
            replicas.start(replica).expect("starts");
        }
        let deployment = Deployment::of(&cluster, &replicas).expect("deployment");
        let places = (0..places).map(|replica| replicas.place(replica)).collect();
        let mut story = Self {
            watch: Watch::new(&deployment, places).expect("watch"),
            load: Load::start(deployment, CLIENTS, 5).expect("clients"),
            replicas,
            cluster,
            name,
            begun,
            directory,
            _turn: turn,
        };
        story.set();
        for replica in 0..running {
            story
                .replicas
                .await_ready(replica, DEADLINE)
                .expect("ready");
        }
        let voters: Vec<usize> = (0..running).collect();
        story.watch.await_voters(&voters, DEADLINE).expect("voters");
        eprintln!(
            "{name}: {running} replicas vote after {:?}; logs are in {} until the story succeeds",
            begun.elapsed(),
            story.directory.path().display()
        );
        Some(story)
    }

    /// Addresses of all user APIs, for `--coordinator`.
    pub(crate) fn everywhere(&self) -> String {
        self.replicas.user_apis(0..self.replicas.count())
    }

    /// Runs `contrast set` on whoever answers, again when a client was faster, and has it judged with the rest.
    pub(crate) fn set(&mut self) {
        let everywhere = self.everywhere();
        let arguments = ["set", "-c", &everywhere, "--format", "json", "resources"];
        let begin = Instant::now();
        let (start, output) = loop {
            let start = self.load.now();
            let output = self.contrast(&arguments);
            let overtaken = output.code == 4 && begin.elapsed() < DEADLINE;
            if !overtaken {
                break (start, output);
            }
        };
        assert_eq!(output.code, 0, "{}", output.stderr);
        let set: Value = serde_json::from_str(&output.stdout).expect("JSON");
        let question = Question::Set {
            base: hash(&set["base_transition"]),
            manifest: hash(&set["manifest_sha256"]),
        };
        let transition = hash(&set["transition"]);
        self.load
            .record(question, start, Answer::Done { transition });
    }

    /// Runs `contrast recover` at one replica with `guard`, and has it judged with the rest if it succeeds.
    pub(crate) fn recover(&self, replica: usize, guard: Hash) -> Output {
        let start = self.load.now();
        let address = self.replicas.user_api(replica).to_string();
        let guard = String::from(guard);
        let output = self.contrast(&[
            "recover",
            "-c",
            &address,
            "--latest-transition",
            &guard,
            "--format",
            "json",
        ]);
        if output.code == 0 {
            let recovered: Value = serde_json::from_str(&output.stdout).expect("JSON");
            let transition = hash(&recovered["transition"]);
            self.load
                .record(Question::Recover, start, Answer::Done { transition });
        }
        output
    }

    pub(crate) fn contrast(&self, arguments: &[&str]) -> Output {
        self.cluster.owner().try_contrast(arguments).expect("runs")
    }

    /// `contrast status` of one replica: the exit code and the JSON, null without one.
    pub(crate) fn status(&self, replica: usize) -> (i32, Value) {
        let address = self.replicas.user_api(replica).to_string();
        let output = self.contrast(&["status", "-c", &address, "--format", "json"]);
        (
            output.code,
            serde_json::from_str(&output.stdout).unwrap_or_default(),
        )
    }

    /// Waits until a replica is ready; `what` says what that means here.
    pub(crate) fn serves(&self, replica: usize, what: &str) {
        self.replicas.await_ready(replica, DEADLINE).expect(what);
    }

    /// Waits until exactly these replicas vote; `what` says what that means here.
    pub(crate) fn vote(&mut self, replicas: &[usize], what: &str) {
        self.watch.await_voters(replicas, DEADLINE).expect(what);
    }

    /// Lets the clients work, and checks that each kind of question gets its answer by somebody.
    pub(crate) fn works_for(&self, time: Duration) {
        let since = self.load.now();
        for question in ["issue", "read", "set"] {
            let after = self.load.await_success(question, since, DEADLINE);
            after.expect("somebody answers");
        }
        let left = time.saturating_sub(self.load.now().saturating_sub(since));
        std::thread::sleep(left);
    }

    /// Ends the clients and judges what they saw.
    pub(crate) fn end(mut self) -> Summary {
        let log = self.load.finish(DEADLINE).expect("clients");
        let seen = self.directory.path().join("clients.jsonl");
        log.write(&seen).expect("writes");
        let summary = check(&log, BOUND).unwrap_or_else(|violation| {
            let seen = seen.display();
            panic!("{}: {violation}\nwhat the clients saw: {seen}", self.name)
        });
        eprintln!(
            "{}, {:?}: {summary:?}; longest time without a certificate {:?}, without a set {:?}",
            self.name,
            self.begun.elapsed(),
            log.longest_gap("issue"),
            log.longest_gap("set")
        );
        assert!(summary.issued > 0 && summary.reads > 0 && summary.acknowledged > 1);
        let keep = std::env::var_os("CONTRAST_KEEP_STORIES").is_some();
        self.directory.disable_cleanup(keep);
        summary
    }
}

fn hash(value: &Value) -> Hash {
    let text = value.as_str().expect("hash").to_owned();
    Hash::try_from(text).expect("hash")
}

/// Waits until `condition` holds.
pub(crate) fn await_that(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "still waiting until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
