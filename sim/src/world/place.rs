//! A place: a machine, and the process that runs there.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contrast_coordinator::{
    replica::{Ended, Replica, Timing, message::Place},
    state::{Collection, TransitionHash},
};

use super::World;
use crate::{
    SimTypes,
    clock::SimWallClock,
    deployment::coordinator_policy,
    dice::Dice,
    disk::Disk,
    network::Identity,
    process::{Machine, Process},
    runtime::{Ending, Node, elapsed, spawn_in_world},
};

/// A machine that runs a replica, or is to.
pub(super) struct Slot {
    pub(super) machine: Machine,
    /// The version that the next process has.
    pub(super) version: u64,
    /// Whether a replica is to run here.
    pub(super) wanted: bool,
    pub(super) running: Option<Running>,
    pub(super) boots: u64,
    /// Not started before this time.
    pub(super) down_until: Duration,
    /// A disk that could not be opened.
    pub(super) unusable: bool,
    pub(super) since_not_serving: Option<Duration>,
}

/// A process.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) replica: Arc<Replica<SimTypes>>,
    pub(super) version: u64,
    /// Seed shares that owners handed in, in the memory of the process.
    pub(super) collection: Arc<Mutex<Collection>>,
    /// Set when its identity is over.
    ended: Arc<Mutex<Option<Ended>>>,
}

impl Running {
    fn ended(&self) -> Option<Ended> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.clone()
    }

    /// How many transitions have the manifest of the one before.
    pub(super) fn renewals(&self) -> usize {
        let snapshot = self.replica.guard().snapshot();
        let Some(history) = snapshot.history() else {
            return 0;
        };
        let manifests: Vec<_> = history
            .links()
            .map(|link| link.transition.manifest_hash)
            .collect();
        manifests
            .windows(2)
            .filter(|pair| pair.first() == pair.last())
            .count()
    }

    /// The history that it takes part with, oldest first; empty while it has none.
    pub(super) fn chain(&self) -> Vec<TransitionHash> {
        chain_of(&self.replica)
    }
}

pub(super) fn chain_of(replica: &Replica<SimTypes>) -> Vec<TransitionHash> {
    let snapshot = replica.guard().snapshot();
    match snapshot.active() {
        Ok(active) => active.history().links().map(|link| link.hash).collect(),
        Err(_) => Vec::new(),
    }
}

impl World {
    pub(super) fn add_place(&mut self) -> usize {
        let index = self.slots.len();
        let name = format!("{}:7000", char::from(b'a' + (index % 26) as u8));
        let place = Place::new(&name);
        self.network.list(&place);
        let disk = Disk::new(Dice::new(self.seed ^ index as u64, "disk"));
        self.slots.push(Slot {
            machine: Machine {
                place,
                disk,
                clock: Arc::new(SimWallClock::default()),
                network: self.network.clone(),
            },
            version: 1,
            wanted: true,
            running: None,
            boots: 0,
            down_until: Duration::ZERO,
            unusable: false,
            since_not_serving: None,
        });
        index
    }

    pub(super) async fn boot(&mut self, index: usize) {
        let version = self.deployment.version();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.boots += 1;
        slot.version = version;
        let name = format!("{}.{}", slot.machine.place, slot.boots);
        let node = Node::new(&name);
        if self.weather.clocks {
            let drift = self.dice.within(0..401);
            node.set_drift(i32::try_from(drift).unwrap_or(0) - 200);
        }
        if self.weather.crash_points && !self.calm && self.dice.chance(100) {
            node.kill_after_disk_operations(self.dice.within(0..120));
        }
        self.journal
            .event(format_args!("{name} starts, version {version}"));
        let identity = Identity {
            name: name.clone(),
            place: slot.machine.place.clone(),
            policy: coordinator_policy(version),
            genuine: true,
        };
        let timing = Timing {
            dead_member_grace: Duration::from_secs(20),
            ..Timing::default()
        };
        // Never given twice, in this run or another.
        let entropy = self.seed ^ (index as u64) << 48 ^ slot.boots << 32;
        let machine = slot.machine.clone();
        match Process::boot(&machine, node.clone(), identity, timing, entropy).await {
            Ok(Some(process)) => self.watch(index, process, version),
            Ok(None) => self.stay_down(index),
            Err(error) => {
                let well = node.is_alive();
                node.kill();
                self.stay_down(index);
                self.journal.event(format_args!("{name}: {error}"));
                if !self.weather.storage && !self.weather.full_disks && well {
                    self.journal
                        .broken(format_args!("{name} cannot use a faithful disk: {error}"));
                }
                if let Some(slot) = self.slots.get_mut(index) {
                    // Nobody gives up a disk because it was full, or the process was killed.
                    slot.unusable = well && self.weather.storage && !machine.disk.is_full();
                }
            }
        }
    }

    fn watch(&mut self, index: usize, process: Process, version: u64) {
        let ended = Arc::new(Mutex::new(None));
        let running = Running {
            node: process.node.clone(),
            replica: Arc::clone(&process.replica),
            version,
            collection: Arc::default(),
            ended: Arc::clone(&ended),
        };
        if let Some(slot) = self.slots.get_mut(index) {
            slot.running = Some(running);
            slot.unusable = false;
            slot.since_not_serving = None;
        }
        spawn_in_world(async move {
            let outcome = process.ended().await;
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
        });
    }

    fn stay_down(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.down_until = elapsed() + Duration::from_secs(1);
        }
    }

    /// Ends a process; what was not flushed may be lost.
    pub(super) fn kill(&mut self, index: usize) {
        let delay = self.dice.duration(Duration::ZERO..Duration::from_secs(8));
        let loses_power = self.dice.chance(500);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(running) = slot.running.take() else {
            return;
        };
        running.node.kill();
        drop(running);
        if loses_power {
            slot.machine.disk.lose_power();
        }
        slot.down_until = elapsed() + delay;
    }

    /// Sees to processes that have ended.
    pub(super) fn reap(&mut self) {
        for index in 0..self.slots.len() {
            let Some(running) = self.slots.get(index).and_then(|slot| slot.running.clone()) else {
                continue;
            };
            let name = running.node.name().to_owned();
            if let Some(Ending::Panicked(message)) = running.node.ending() {
                self.journal
                    .broken(format_args!("{name} panicked: {message}"));
            }
            if let Some(ended) = running.ended() {
                self.journal.event(format_args!("{name} ends: {ended}"));
                let disk_failed = self.weather.storage || self.weather.full_disks;
                if matches!(ended, Ended::Stopped(_)) && !disk_failed && running.node.is_alive() {
                    self.journal
                        .broken(format_args!("{name} stopped without a fault: {ended}"));
                }
                drop(running);
                self.kill(index);
            } else if !running.node.is_alive() {
                self.journal.event(format_args!("{name} is gone"));
                drop(running);
                self.kill(index);
            }
        }
    }

    /// Starts what is to run and does not.
    pub(super) async fn start_due(&mut self) {
        for index in 0..self.slots.len() {
            let due = self.slots.get(index).is_some_and(|slot| {
                slot.wanted && slot.running.is_none() && elapsed() >= slot.down_until
            });
            if due {
                self.tamper_before_boot(index);
                self.boot(index).await;
            }
        }
    }

    pub(super) fn running(&self) -> Vec<Running> {
        let all = self.slots.iter().filter_map(|slot| slot.running.clone());
        all.filter(|running| running.node.is_alive()).collect()
    }

    /// Whether among all processes that live there is a quorum of any cluster. Replicas that nobody reaches count: they live.
    pub(super) fn quorum_lives(&self) -> bool {
        let running = self.running();
        let lives: Vec<_> = running
            .iter()
            .filter_map(|running| running.replica.voter_sets())
            .collect();
        lives.iter().any(|(cluster, _, sets)| {
            let alive = |node: &u64| {
                lives
                    .iter()
                    .any(|(other, member, _)| other == cluster && member == node)
            };
            !sets.is_empty()
                && sets.iter().all(|set| {
                    let count = set.iter().filter(|node| alive(node)).count();
                    count > set.len() / 2
                })
        })
    }
}
