//! A deployment that begins with the earlier programs, and what must hold whatever is replaced.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use contrast_e2e::harness::{Build, Cluster, Output, Pod, ReplicaSet, no_network_because};
use serde_json::{Value, json};

use crate::page::Page;

/// Certificates may be so old. The default is 10 s; tests have less time.
pub(crate) const BOUND: Duration = Duration::from_secs(3);
/// Until something that happens by itself must have happened.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// A workload with a secret.
const WORKLOAD: &str = "votes";
const COORDINATOR: &str = "coordinator";

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) replicas: ReplicaSet,
    pub(crate) earlier: Build,
    pub(crate) this: Build,
    /// Initdata documents of the earlier Coordinator and, once it is generated, of this one.
    pub(crate) documents: Documents,
    /// Root CA certificate and workload secret, from when they are known.
    lasting: Option<[String; 2]>,
    count: u32,
    name: &'static str,
    begun: Instant,
    directory: tempfile::TempDir,
}

#[derive(Default)]
pub(crate) struct Documents {
    pub(crate) earlier: Vec<u8>,
    pub(crate) this: Vec<u8>,
}

impl World {
    /// Replicas of the earlier Coordinator, with a manifest that the earlier `contrast` set; `None`, with a message, where that is not possible.
    pub(crate) fn begin(name: &'static str, number: u8, replicas: usize) -> Option<Self> {
        let Some(earlier) = Build::earlier() else {
            eprintln!(
                "{name}: skipped, because no earlier programs are named; `cargo xtask skew` builds them"
            );
            return None;
        };
        if let Some(reason) = no_network_because() {
            eprintln!("{name}: skipped, because {reason}");
            return None;
        }
        let begun = Instant::now();
        let mut directory = tempfile::tempdir().expect("directory");
        // A story that fails leaves what everybody logged.
        directory.disable_cleanup(true);
        eprintln!("{name}: logs are in {}", directory.path().display());
        let cluster = Cluster::create(directory.path(), number).expect("cluster");
        let cluster = cluster.of(&earlier);
        cluster.generate().expect("generates");
        let bound = BOUND.as_secs().to_string();
        let environment = [("CONTRAST_CONFIRMATION_BOUND", bound.as_str())];
        let set = ReplicaSet::create(&cluster, replicas, &environment).expect("replicas");
        let mut world = Self {
            this: Build::this().expect("programs"),
            documents: Documents::default(),
            lasting: None,
            count: 0,
            replicas: set,
            cluster,
            earlier,
            name,
            begun,
            directory,
        };
        world.documents.earlier = world.coordinator_document();
        for replica in 0..replicas {
            world.replicas.start(replica).expect("starts");
        }
        let everywhere = world.everywhere();
        let earlier = world.earlier.clone();
        world.succeeds(&earlier, &["set", "-c", &everywhere, "resources"]);
        world.all_vote();
        world.say("runs on the earlier programs");
        Some(world)
    }

    pub(crate) fn say(&self, what: &str) {
        eprintln!("{}, {:.1?}: {what}", self.name, self.begun.elapsed());
    }

    /// Addresses of all user APIs, for `-c`.
    pub(crate) fn everywhere(&self) -> String {
        self.replicas.user_apis(0..self.replicas.count())
    }

    /// Initdata document of the Coordinator in the YAML.
    pub(crate) fn coordinator_document(&self) -> Vec<u8> {
        let mut workloads = self.cluster.workloads().expect("workloads");
        workloads.remove(COORDINATOR).expect("coordinator").initdata
    }

    /// Puts another Coordinator's image into the YAML.
    pub(crate) fn change_image(&self) {
        let path = self.cluster.owner().file("resources/coordinator.yml");
        let yaml = fs::read_to_string(&path).expect("reads");
        let (head, tail) = yaml.split_once("@sha256:").expect("an image with a digest");
        let other = match tail.starts_with('0') {
            true => '1',
            false => '0',
        };
        fs::write(&path, format!("{head}@sha256:{other}{}", &tail[1..])).expect("writes");
    }

    pub(crate) fn runs(&self, build: &Build, arguments: &[&str]) -> Output {
        let owner = self.cluster.owner();
        owner.try_contrast_of(build, arguments).expect("runs")
    }

    pub(crate) fn succeeds(&self, build: &Build, arguments: &[&str]) -> Output {
        let output = self.runs(build, arguments);
        assert_eq!(
            output.code, 0,
            "{arguments:?}\n{}{}",
            output.stdout, output.stderr
        );
        output
    }

    /// Types what the page says next, with the `contrast` of `build`. No image is in a registry here, and Coordinators have no name.
    pub(crate) fn types(&self, page: &mut Page, build: &Build, expected: &str) -> Output {
        let everywhere = self.everywhere();
        let mut words = page.next(expected);
        for word in &mut words {
            if word == COORDINATOR {
                word.clone_from(&everywhere);
            }
        }
        if expected.starts_with("generate") {
            words.insert(1, "--offline".to_owned());
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.succeeds(build, &words)
    }

    /// Replaces a replica as Kubernetes does: its process ends, and one of `build` starts with the same volume at the same place.
    pub(crate) fn replace(&self, replica: usize, build: &Build) {
        self.replicas.stop(replica, DEADLINE).expect("ends");
        self.install(replica, build);
        self.replicas.start(replica).expect("starts");
    }

    pub(crate) fn install(&self, replica: usize, build: &Build) {
        let document = match *build == self.this {
            true => &self.documents.this,
            false => &self.documents.earlier,
        };
        let installed = self.replicas.install(replica, build, document);
        installed.expect("installs");
    }

    /// What a replica says of itself; null when it says nothing.
    pub(crate) fn status(&self, replica: usize) -> Value {
        let address = self.replicas.user_api(replica).to_string();
        let output = self.runs(&self.this, &["status", "-c", &address, "--format", "json"]);
        serde_json::from_str(&output.stdout).unwrap_or_default()
    }

    /// Waits for what the page says to wait for: all serve, and each has a vote.
    pub(crate) fn all_vote(&self) {
        let all = self.replicas.count();
        let begin = Instant::now();
        for replica in 0..all {
            self.replicas.await_ready(replica, DEADLINE).expect("ready");
            loop {
                let status = self.status(replica);
                let members = status["cluster"]["members"].as_array();
                let voters = members.into_iter().flatten();
                let voters = voters.filter(|member| member["voter"] == true).count();
                if status["serving"] == true && voters == all {
                    break;
                }
                assert!(begin.elapsed() < DEADLINE, "replica {replica}: {status}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Policies that the members have proven to `replica`, each 64 hex digits.
    pub(crate) fn policies_seen_by(&self, replica: usize) -> BTreeSet<String> {
        let status = self.status(replica);
        let members = status["cluster"]["members"].as_array();
        let evidence = members
            .into_iter()
            .flatten()
            .map(|member| &member["evidence"]);
        let policies = evidence.filter_map(|evidence| evidence["policy"].as_str());
        policies.map(str::to_owned).collect()
    }

    /// Starts the Initializer of `build` for one more pod, at one replica, and compares what it gets with what others got.
    pub(crate) fn join(&mut self, build: &Build, replica: usize) -> Pod {
        self.count += 1;
        let workloads = self.cluster.workloads().expect("workloads");
        let spec = workloads[WORKLOAD].replica(&format!("{WORKLOAD}-{}", self.count));
        self.cluster.run_pods_of(build);
        let pod = self.cluster.enrol(&spec, self.replicas.mesh_api(replica));
        let pod = pod.expect("joins");
        let installed = [
            "tls-config/coordinator-root-ca.pem",
            "secrets/workload-secret-seed",
        ];
        let installed = installed.map(|name| fs::read_to_string(pod.file(name)).expect(name));
        let lasting = self.lasting.get_or_insert_with(|| installed.clone());
        assert_eq!(
            *lasting, installed,
            "root CA or workload secret changed on the way"
        );
        pod
    }

    /// Both builds of `contrast` and of the Initializer with every replica; `set` by both.
    pub(crate) fn everybody_works_with_everybody(&mut self, what: &str) {
        for build in [self.earlier.clone(), self.this.clone()] {
            self.sets(&build);
            for replica in 0..self.replicas.count() {
                let address = self.replicas.user_api(replica).to_string();
                self.succeeds(&build, &["verify", "-c", &address]);
                let status = self.succeeds(&build, &["status", "-c", &address]);
                assert!(status.stdout.contains("serving: "), "{}", status.stdout);
                self.join(&build, replica);
            }
        }
        self.say(what);
    }

    /// An owner gives a workload another name.
    pub(crate) fn sets(&mut self, build: &Build) {
        self.count += 1;
        let name = format!("update-{}.example", self.count);
        let edited = self.cluster.owner().edit_manifest(|manifest| {
            let policies = manifest["Policies"].as_object_mut().expect("policies");
            let entry = policies.values_mut().find(|entry| entry["Role"] == "");
            entry.expect("a workload")["SANs"] = json!([name, "*"]);
        });
        edited.expect("edits");
        let everywhere = self.everywhere();
        self.succeeds(build, &["set", "-c", &everywhere, "resources"]);
    }

    /// The story is told.
    pub(crate) fn end(mut self) {
        self.say("told");
        let keep = std::env::var_os("CONTRAST_KEEP_STORIES").is_some();
        self.directory.disable_cleanup(keep);
    }
}
