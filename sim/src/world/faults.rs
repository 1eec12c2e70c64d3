//! What the host, the network and the operator do.

use std::time::Duration;

use openraft::AsyncRuntime;

use super::World;
use crate::{
    deployment::workload_policy,
    disk::{Disk, FileName},
    network::{Identity, Link},
    runtime::{NodeRuntime, elapsed, sleep_in_world, spawn_in_world},
};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Set,
    Verify,
    Issue,
    Volume,
    Nothing,
    Recover,
    Crash,
    CrashPoint,
    Stop,
    Cut,
    Heal,
    BadLinks,
    Pause,
    Replay,
    Forge,
    FullDisk,
    SlowDisk,
    Clock,
    Grow,
    Shrink,
    Upgrade,
    Roll,
    Hide,
}

impl World {
    pub(super) fn draw(&self) -> Act {
        let weather = &self.weather;
        let table = [
            (Act::Set, 14, true),
            (Act::Verify, 14, true),
            (Act::Issue, 14, true),
            (Act::Volume, 14, true),
            (Act::Nothing, 6, true),
            (Act::Recover, 6, true),
            (Act::Crash, 5, weather.crashes),
            (Act::CrashPoint, 6, weather.crash_points),
            (Act::Stop, 4, weather.stops),
            (Act::Cut, 6, weather.partitions),
            (
                Act::Heal,
                5,
                weather.partitions || weather.bad_links || weather.hiding,
            ),
            (Act::BadLinks, 3, weather.bad_links),
            (Act::Pause, 4, weather.pauses),
            (Act::Replay, 8, weather.strangers),
            (Act::Forge, 8, weather.strangers),
            (Act::FullDisk, 3, weather.full_disks),
            (Act::SlowDisk, 3, weather.slow_disks),
            (Act::Clock, 4, weather.clocks),
            (Act::Grow, 3, weather.scaling),
            (Act::Shrink, 3, weather.scaling),
            (Act::Upgrade, 4, weather.upgrades),
            (Act::Roll, 6, weather.upgrades),
            (Act::Hide, 2, weather.hiding),
        ];
        let possible = || table.iter().filter(|(_, _, possible)| *possible);
        let total = possible().map(|(_, weight, _)| weight).sum();
        let mut drawn = self.dice.within(0..total);
        for (act, weight, _) in possible() {
            if drawn < *weight {
                return *act;
            }
            drawn -= weight;
        }
        Act::Nothing
    }

    pub(super) fn act(&mut self, act: Act) {
        let index = self.dice.index(self.slots.len());
        match act {
            Act::Nothing => {}
            Act::Set => self.deployment.set(),
            Act::Verify => self.deployment.verify(),
            Act::Issue => self.deployment.issue(),
            Act::Volume => self.deployment.open_volume(),
            Act::Recover => self.recover_if_lost(Duration::from_secs(3)),
            Act::Crash => {
                self.fault("crash", &self.name(index));
                self.kill(index);
            }
            Act::CrashPoint => self.crash_somewhere(index),
            Act::Stop => self.stop(index),
            Act::Cut => self.cut(),
            Act::Heal => {
                self.fault("heal", &"all links");
                self.heal();
            }
            Act::BadLinks => self.worsen(),
            Act::Pause => {
                let duration = self.dice.duration(Duration::ZERO..Duration::from_secs(16));
                self.fault(
                    "pause",
                    &format_args!("{} for {duration:?}", self.name(index)),
                );
                if let Some(running) = self.slots.get(index).and_then(|s| s.running.as_ref()) {
                    running.node.hold(duration);
                }
            }
            Act::Replay => {
                self.count("replay");
                for _ in 0..4 {
                    self.network.replay();
                }
            }
            Act::Forge => {
                self.count("forge");
                self.forge();
            }
            Act::FullDisk => self.fill_disk(index),
            Act::SlowDisk => {
                let flush = self
                    .dice
                    .duration(Duration::ZERO..Duration::from_millis(300));
                self.fault("slow disk", &format_args!("{} {flush:?}", self.name(index)));
                if let Some(slot) = self.slots.get(index) {
                    slot.machine.disk.set_flush(flush);
                }
            }
            Act::Clock => {
                let error = self.dice.within(0..240_001).cast_signed() - 120_000;
                self.fault(
                    "clock",
                    &format_args!("{} wrong by {error} ms", self.name(index)),
                );
                if let Some(slot) = self.slots.get(index) {
                    slot.machine.clock.set_error(error);
                }
            }
            Act::Grow => self.grow(),
            Act::Shrink => self.shrink(index),
            Act::Upgrade => {
                if let Some(what) = self.deployment.upgrade() {
                    self.fault("upgrade", &what);
                    self.deployment.set();
                }
            }
            Act::Roll => self.roll(),
            Act::Hide => {
                if let Some(slot) = self.slots.get(index) {
                    let place = slot.machine.place.clone();
                    self.network.hide(&place, true);
                    self.fault("hide", &place);
                }
            }
        }
    }

    pub(super) fn recover_if_lost(&mut self, patience: Duration) {
        let told = self.deployment.was_told() || self.nobody_is_empty();
        if self.quorum_lives() || !told {
            self.lost_since = None;
            return;
        }
        let since = *self.lost_since.get_or_insert_with(elapsed);
        if elapsed() >= since + patience && !self.deployment.is_beginning() {
            self.deployment.recover();
        }
    }

    /// Whether every replica that runs has a history, so that no first manifest can be set.
    fn nobody_is_empty(&self) -> bool {
        let running = self.running();
        let empty = |r: &super::place::Running| r.replica.guard().snapshot().history().is_none();
        !running.is_empty() && !running.iter().any(empty)
    }

    fn crash_somewhere(&mut self, index: usize) {
        let Some(running) = self.slots.get(index).and_then(|slot| slot.running.clone()) else {
            return;
        };
        match self.dice.chance(500) {
            true => {
                let polls = self.dice.within(0..600);
                self.fault(
                    "crash",
                    &format_args!("{} in {polls} polls", self.name(index)),
                );
                running.node.kill_after_polls(polls);
            }
            false => {
                let operations = self.dice.within(0..60);
                let name = self.name(index);
                self.fault(
                    "crash",
                    &format_args!("{name} in {operations} disk operations"),
                );
                running.node.kill_after_disk_operations(operations);
            }
        }
    }

    /// As an orchestrator stops a pod: it may leave first, and is killed when it takes too long.
    pub(super) fn stop(&mut self, index: usize) {
        let Some(running) = self.slots.get(index).and_then(|slot| slot.running.clone()) else {
            return;
        };
        self.fault("stop", &self.name(index));
        let replica = std::sync::Arc::clone(&running.replica);
        let leaves = running.node.spawn(async move {
            replica.leave(Duration::from_secs(5)).await;
            replica.stop().await;
        });
        spawn_in_world(async move {
            drop(NodeRuntime::timeout(Duration::from_secs(7), leaves).await);
            running.node.kill();
        });
    }

    fn cut(&mut self) {
        let places: Vec<_> = self.slots.iter().map(|s| s.machine.place.clone()).collect();
        let (Some(a), Some(b)) = (self.dice.pick(&places), self.dice.pick(&places)) else {
            return;
        };
        let kind = self.dice.within(0..4);
        for from in &places {
            for to in &places {
                let inner = |place| self.side(place);
                let cut = match kind {
                    // One link, one direction.
                    0 => from == a && to == b,
                    // All from one place.
                    1 => from == a,
                    // One place, both directions.
                    2 => from == a || to == a,
                    // Two parts.
                    _ => inner(from) != inner(to),
                };
                if cut && from != to {
                    self.network.change(from, to, |link| link.cut = true);
                }
            }
        }
        let what = match kind {
            0 => format!("from {a} to {b}"),
            1 => format!("from {a}"),
            2 => format!("{a} from all"),
            _ => "two parts".to_owned(),
        };
        self.steps_cut += 1;
        self.fault("cut", &what);
    }

    fn side(&self, place: &contrast_coordinator::replica::message::Place) -> bool {
        let salt = self.steps_cut;
        let byte = place.as_str().bytes().next().unwrap_or(0);
        crate::dice::Dice::new(self.seed ^ salt ^ u64::from(byte) << 8, "side").chance(500)
    }

    pub(super) fn heal(&mut self) {
        self.network.set_all(Link::default());
        for slot in &self.slots {
            if slot.wanted {
                self.network.hide(&slot.machine.place, false);
            }
        }
    }

    fn worsen(&mut self) {
        let millis = Duration::from_millis;
        let link = Link {
            cut: false,
            loss: self.dice.within(0..250),
            doubles: self.dice.within(0..200),
            delay: (millis(0), millis(1 + self.dice.within(0..400))),
        };
        self.fault("bad links", &format_args!("{link:?}"));
        self.network.set_all(link);
    }

    fn forge(&mut self) {
        let Some(slot) = self.slots.get(self.dice.index(self.slots.len())) else {
            return;
        };
        // A workload of the deployment is genuine, and no Coordinator.
        let genuine = self.dice.chance(300);
        let policy = match genuine {
            true => workload_policy(),
            false => crate::deployment::coordinator_policy(self.deployment.version()),
        };
        let stranger = std::sync::Arc::new(Identity {
            name: if genuine { "a workload" } else { "a stranger" }.to_owned(),
            place: slot.machine.place.clone(),
            policy,
            genuine,
        });
        for _ in 0..4 {
            self.network.forge(&stranger);
        }
    }

    fn fill_disk(&mut self, index: usize) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        let disk = slot.machine.disk.clone();
        let duration = self.dice.duration(Duration::ZERO..Duration::from_secs(6));
        self.fault(
            "full disk",
            &format_args!("{} for {duration:?}", self.name(index)),
        );
        disk.set_full(true);
        spawn_in_world(async move {
            sleep_in_world(duration).await;
            disk.set_full(false);
        });
    }

    /// What the host does with a disk while its replica is down.
    pub(super) fn tamper_before_boot(&mut self, index: usize) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        let disk = slot.machine.disk.clone();
        if slot.unusable {
            // The operator's way out, as the message says.
            self.fault("new disk", &self.name(index));
            FileName::READ.into_iter().for_each(|file| disk.wipe(file));
            return;
        }
        if !self.weather.storage || self.calm || !self.dice.chance(400) {
            return;
        }
        let file = self.dice.pick(&FileName::READ).copied();
        let file = file.unwrap_or(FileName::History);
        // The record counts only when nobody else has it.
        let kinds = if self.quorum_lives() { 9 } else { 16 };
        let what = match self.dice.within(0..kinds) {
            0 => {
                disk.wipe(file);
                format!("{file:?} is gone")
            }
            1 => {
                disk.damage(file);
                format!("a bit of {file:?} flips")
            }
            2 => {
                let down: Vec<_> = self
                    .slots
                    .iter()
                    .filter(|other| other.running.is_none())
                    .map(|other| other.machine.disk.clone())
                    .collect();
                if let Some(other) = self.dice.pick(&down) {
                    disk.swap(other);
                }
                "exchanged".to_owned()
            }
            3..5 => {
                let undone: usize = FileName::READ
                    .iter()
                    .map(|file| disk.roll_back(*file))
                    .sum();
                format!("all files {undone} states back")
            }
            8.. => self.tamper_with_volumes(&disk),
            _ => format!("{file:?} {} states back", disk.roll_back(file)),
        };
        self.fault("disk", &format_args!("{}: {what}", self.name(index)));
    }

    /// Takes the record of encrypted volumes out of the history, or puts an earlier one in, and as often without the logs as with them.
    fn tamper_with_volumes(&self, disk: &Disk) -> String {
        let copies = disk.copies(FileName::History);
        let earlier = match self.dice.chance(500) {
            true => self.dice.pick(&copies).and_then(Disk::volume_record_in),
            false => None,
        };
        let changed = disk.put_volume_record(earlier.as_deref());
        let logs = self.dice.chance(500);
        if !logs {
            [FileName::Log, FileName::LogAside]
                .into_iter()
                .for_each(|file| disk.wipe(file));
        }
        format!(
            "the record of volumes is {}{}",
            match (changed, earlier) {
                (false, _) => "as it was",
                (true, Some(_)) => "an earlier one",
                (true, None) => "gone",
            },
            if logs { "" } else { ", and so are the logs" }
        )
    }

    fn grow(&mut self) {
        let unwanted = self.slots.iter().position(|slot| !slot.wanted);
        let index = match unwanted {
            Some(index) => index,
            None if self.slots.len() < 5 => self.add_place(),
            None => return,
        };
        if let Some(slot) = self.slots.get_mut(index) {
            slot.wanted = true;
            let place = slot.machine.place.clone();
            self.network.hide(&place, false);
        }
        self.fault("grow", &self.name(index));
    }

    fn shrink(&mut self, index: usize) {
        // As an operator does: not before the others can do without it.
        let others = self.slots.iter().enumerate().filter(|(other, slot)| {
            let serves =
                |r: &super::place::Running| r.node.is_alive() && r.replica.serving().is_ok();
            *other != index && slot.wanted && slot.running.as_ref().is_some_and(serves)
        });
        let wanted = 1 + others.count();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if wanted < 2 || !slot.wanted {
            return;
        }
        slot.wanted = false;
        let place = slot.machine.place.clone();
        self.network.hide(&place, true);
        self.fault("shrink", &self.name(index));
        self.stop(index);
    }

    /// Restarts one replica that has an old version.
    fn roll(&mut self) {
        let latest = self.deployment.version();
        let old = self.slots.iter().position(|slot| {
            let version = slot.running.as_ref().map(|running| running.version);
            version.is_some_and(|version| version < latest)
        });
        if let Some(index) = old {
            self.stop(index);
        }
    }

    fn name(&self, index: usize) -> String {
        let slot = self.slots.get(index);
        slot.map_or_else(String::new, |slot| slot.machine.place.to_string())
    }

    pub(super) fn fault(&mut self, kind: &'static str, what: &dyn std::fmt::Display) {
        self.count(kind);
        self.journal.event(format_args!("{kind}: {what}"));
    }

    fn count(&mut self, kind: &'static str) {
        self.tally.count(kind);
    }
}
