//! The simulated world around a plain Raft cluster, whose rules are openraft's and no others.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "plain/replica.rs"]
mod replica;

use std::time::Duration;

use bytes::Bytes;
use contrast_coordinator::{
    cluster::{Answer, Change, FoundingDocuments, NodeId},
    state::{Transition, TransitionHash},
};
use contrast_manifest::ManifestHash;
use contrast_pki::shares::SeedSharesDocument;
use contrast_sim::{
    checker::Checker,
    dice::Dice,
    disk::{Disk, FileName},
    journal::Journal,
    network::{Link, Network},
    runtime::{Node, NodeRuntime, elapsed, sleep_in_world},
};
use openraft::AsyncRuntime;
use replica::{CLUSTER, Plain, derivation, place};

const NODES: [NodeId; 3] = [1, 2, 3];

/// What the host does with disks while their replicas are down.
#[derive(Clone, Copy, PartialEq)]
enum Host {
    Honest,
    RollsBack,
}

struct World {
    dice: Dice,
    journal: Journal,
    checker: Checker,
    network: Network,
    disks: [Disk; 3],
    replicas: [Option<(Node, Plain)>; 3],
    boots: u64,
    sets: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let journal = Journal::default();
        let checker = Checker::new(&journal, Duration::from_secs(10));
        let network = Network::new(Dice::new(seed, "network"), &journal, &checker);
        Self {
            dice: Dice::new(seed, "world"),
            disks: NODES.map(|id| Disk::new(Dice::new(seed ^ id, "disk"))),
            replicas: [const { None }; 3],
            journal,
            checker,
            network,
            boots: 0,
            sets: 0,
        }
    }

    async fn boot(&mut self, at: usize) {
        self.boots += 1;
        let process = Node::new(&format!("node-{}.{}", NODES[at], self.boots));
        process.set_drift(self.dice.within(0..20_000) as i32 - 10_000);
        let (disk, network, started) = (
            self.disks[at].clone(),
            self.network.clone(),
            process.clone(),
        );
        let task = process.spawn(async move {
            let plain = Plain::start(NODES[at], &started, &disk, &network).await;
            if let Ok(plain) = &plain {
                plain.found(&NODES).await;
            }
            plain
        });
        self.journal.event(format_args!("boot {process:?}"));
        self.replicas[at] = match task.await {
            Ok(Ok(plain)) => Some((process, plain)),
            Ok(Err(error)) => {
                self.journal
                    .broken(format_args!("{process:?} does not start: {error}"));
                None
            }
            Err(_) => None,
        };
    }

    /// Ends a replica at some point of its future.
    async fn crash(&mut self, at: usize, host: Host) {
        let Some((process, _)) = self.replicas[at].take() else {
            return;
        };
        match self.dice.chance(500) {
            true => process.kill_after_polls(self.dice.within(0..200)),
            false => process.kill_after_disk_operations(self.dice.within(0..60)),
        }
        let patience = self.dice.duration(Duration::ZERO..Duration::from_secs(2));
        sleep_in_world(patience).await;
        process.kill();
        self.journal.event(format_args!("{process:?} ended"));
        self.disks[at].lose_power();
        if host == Host::RollsBack && self.dice.chance(700) {
            let undone = self.disks[at].roll_back(FileName::Log);
            self.journal.event(format_args!(
                "{undone} writes of {} undone",
                place(NODES[at])
            ));
        }
    }

    async fn set(&mut self) {
        let at = self.dice.index(3);
        let Some((process, plain)) = self.replicas[at].clone() else {
            return;
        };
        self.sets += 1;
        let change = change(&plain.chain(), self.sets);
        let (operation, checker) = (self.checker.begin(), self.checker.clone());
        let name = process.name().to_owned();
        let task = process.spawn(async move {
            let write = plain.raft.client_write(change.into());
            let answer = NodeRuntime::timeout(Duration::from_secs(2), write).await;
            let applied = answer.ok()?.ok()?;
            if let Answer::Applied(_) = applied.data {
                checker.end(
                    &operation,
                    &format!("set at {name}"),
                    &plain.chain(),
                    elapsed(),
                );
                return Some(plain.chain().len());
            }
            None
        });
        let outcome = task.await;
        self.journal
            .event(format_args!("set {}: {outcome:?}", self.sets));
    }

    fn look(&self) {
        for (process, plain) in self.replicas.iter().flatten() {
            if process.is_alive() {
                self.checker.look(CLUSTER, process.name(), &plain.chain());
            }
            if let Some(contrast_sim::runtime::Ending::Panicked(message)) = process.ending() {
                self.journal
                    .broken(format_args!("{process:?} panicked: {message}"));
            }
        }
    }

    async fn run(mut self, steps: u64, host: Host) -> Journal {
        for at in 0..3 {
            self.boot(at).await;
        }
        for _ in 0..steps {
            let at = self.dice.index(3);
            match self.dice.within(0..10) {
                0..4 => self.set().await,
                4 | 5 => self.crash(at, host).await,
                6 | 7 if self.replicas[at].is_none() => self.boot(at).await,
                8 => {
                    let (from, to) = (place(NODES[at]), place(NODES[self.dice.index(3)]));
                    let cut = self.dice.chance(500);
                    self.journal
                        .event(format_args!("{from} to {to}: cut {cut}"));
                    self.network.change(&from, &to, |link| {
                        link.cut = cut;
                        link.loss = 100;
                        link.doubles = 100;
                        link.delay.1 = Duration::from_millis(300);
                    });
                }
                _ => self.network.replay(),
            }
            let pause = self.dice.duration(Duration::ZERO..Duration::from_secs(1));
            sleep_in_world(pause).await;
            self.look();
        }
        // Faults end; a set succeeds, and everybody has it.
        self.network.set_all(Link::default());
        for at in 0..3 {
            if self.replicas[at]
                .as_ref()
                .is_none_or(|(process, _)| !process.is_alive())
            {
                self.boot(at).await;
            }
        }
        let mut lengths = Vec::new();
        for _ in 0..60 {
            sleep_in_world(Duration::from_millis(500)).await;
            self.set().await;
            self.look();
            let replicas = self.replicas.iter().flatten();
            lengths = replicas.map(|(_, plain)| plain.chain().len()).collect();
            if lengths[0] > 0 && lengths.iter().all(|length| *length == lengths[0]) {
                return self.journal;
            }
        }
        self.journal
            .broken(format_args!("no progress without faults: {lengths:?}"));
        self.journal
    }
}

fn change(chain: &[TransitionHash], number: u64) -> Change {
    let previous = chain.last().copied().unwrap_or(TransitionHash::NONE);
    let manifest = Bytes::from(format!("manifest {number}"));
    let key = derivation().transition_signing_key().expect("derives");
    let mesh_ca = format!("mesh CA {number}");
    let hash = ManifestHash::of(&manifest);
    let shares = SeedSharesDocument {
        salt: vec![2; 32],
        threshold: 1,
        set: Vec::new(),
        shares: Vec::new(),
    };
    Change {
        transition: Transition::sign(
            hash,
            previous,
            mesh_ca.as_bytes(),
            shares.digest().expect("JSON"),
            &key,
        )
        .expect("signs"),
        manifest,
        policies: Vec::new(),
        founding: (previous == TransitionHash::NONE).then(|| FoundingDocuments {
            seed_shares: shares.to_json().expect("JSON").into(),
            root_certificate: Bytes::from_static(b"root certificate"),
        }),
    }
}

fn run(seed: u64, host: Host) -> Journal {
    NodeRuntime::with_seed(seed).block_on(World::new(seed).run(60, host))
}

#[test]
fn plain_raft_keeps_its_promises_while_disks_are_honest() {
    for seed in 0..8 {
        let journal = run(seed, Host::Honest);
        if let Some(verdict) = journal.verdict() {
            panic!("seed {seed}: {verdict}\n{}", journal.tail(60).join("\n"));
        }
    }
}

#[test]
fn seed_repeats_the_whole_run() {
    let (first, second) = (run(5, Host::Honest), run(5, Host::Honest));
    assert_eq!(first.tail(1000), second.tail(1000));
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_ne!(first.fingerprint(), run(6, Host::Honest).fingerprint());
}

#[test]
fn host_that_puts_old_disks_back_breaks_plain_raft_and_the_checker_notices() {
    let broken = (0..60).find_map(|seed| run(seed, Host::RollsBack).verdict());
    let verdict = broken.expect("a rolled-back disk makes Raft forget");
    assert!(
        verdict.contains("forks") || verdict.contains("without") || verdict.contains("committed"),
        "{verdict}"
    );
}
