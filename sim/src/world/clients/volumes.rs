//! Pods that open and close encrypted volumes, as `crates/volume` does: they ask what is recorded, write the next generation to the disk,
//! report it, and do the same once more when they end.

use std::{sync::Arc, time::Duration};

use contrast_coordinator::{
    replica::Replica,
    state::{Active, Advance, Advanced, Generation, StateError, VolumeId},
};
use openraft::AsyncRuntime;

use super::Clients;
use crate::{
    SimTypes,
    checker::Said,
    deployment::workload_policy,
    runtime::{NodeRuntime, sleep_in_world, spawn_in_world},
};

/// Volumes that the host leaves alone, and of which one pod has the disk at a time. No pod is ever refused such a volume.
const FAITHFUL: usize = 2;
/// Volumes of which the host gives copies to whom it likes.
const COPIED: usize = 2;
/// Copies that the host keeps of a volume.
const COPIES_MAX: usize = 8;

/// How often a pod repeats a question before it is ended.
const ATTEMPTS: u32 = 6;
/// A pod waits for an answer at least for this time, and at most.
const PATIENCE: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_secs(12);
/// The longest time for which a pod has a volume open.
const OPEN_MAX: Duration = Duration::from_secs(8);

/// Of a thousand pods, so many are killed before they report, and as many while the volume is open.
const KILLED: u64 = 150;
/// Of a thousand answers, so many are lost.
const LOST: u64 = 150;
/// Of a thousand times, so often the host gives a pod an old copy of a volume, and so often the same disk to two pods.
const OLD: u64 = 300;
const TWICE: u64 = 400;

/// A volume, and what the host has of it.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    id: VolumeId,
    faithful: bool,
    /// Generation in the header of the disk.
    disk: u64,
    /// Generations in the headers of copies.
    copies: Vec<u64>,
    /// A pod has the disk.
    in_use: bool,
}

impl Volume {
    pub(super) fn all() -> Vec<Self> {
        let volume = |index: usize| Self {
            id: VolumeId([index as u8; 16]),
            faithful: index < FAITHFUL,
            disk: 0,
            copies: Vec::new(),
            in_use: false,
        };
        (0..FAITHFUL + COPIED).map(volume).collect()
    }
}

/// A pod that has one of the volumes.
struct Pod {
    /// Where the volume is in the list.
    volume: usize,
    id: VolumeId,
    faithful: bool,
    name: String,
    /// SHA-256 of its key, which no other pod has.
    key: [u8; 32],
    /// Generation in the header of its disk.
    disk: u64,
    killed: bool,
}

/// What came of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Refused,
    /// It got no answer, or was killed.
    Ended,
}

impl Clients {
    /// A pod starts with one of the volumes, or two pods do.
    pub(in crate::world) fn open_volume(&self) {
        let volume = self.dice.index(FAITHFUL + COPIED);
        let pods = match self.dice.chance(TWICE) {
            true => 2,
            false => 1,
        };
        let started: Vec<Pod> = (0..pods)
            .filter_map(|_| self.start_pod(volume, true))
            .collect();
        for pod in started {
            let clients = self.clone();
            spawn_in_world(async move {
                clients.live(pod).await;
            });
        }
    }

    /// Opens and closes a volume that the host leaves alone, at replicas that all work; false when it was in use, or nobody answered.
    pub(in crate::world) async fn volume_works(&self, volume: usize) -> bool {
        match self.start_pod(volume, false) {
            Some(pod) => self.live(pod).await == End::Closed,
            None => false,
        }
    }

    /// Numbers of the volumes that the host leaves alone.
    pub(in crate::world) fn faithful_volumes(&self) -> std::ops::Range<usize> {
        0..FAITHFUL
    }

    fn start_pod(&self, volume: usize, may_die: bool) -> Option<Pod> {
        let mut knowledge = self.knowledge();
        knowledge.pods += 1;
        let number = knowledge.pods;
        let found = knowledge.volumes.get_mut(volume)?;
        let mut disk = found.disk;
        if found.faithful {
            if std::mem::replace(&mut found.in_use, true) {
                return None;
            }
        } else if self.dice.chance(OLD)
            && let Some(copy) = self.dice.pick(&found.copies)
        {
            disk = *copy;
        }
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        Some(Pod {
            volume,
            id: found.id,
            faithful: found.faithful,
            name: format!("pod {number}"),
            key,
            disk,
            killed: may_die && self.dice.chance(KILLED),
        })
    }

    async fn live(&self, mut pod: Pod) -> End {
        let end = self.use_volume(&mut pod).await;
        self.journal.event(format_args!(
            "{}: volume {}: {end:?} at generation {}",
            pod.name, pod.volume, pod.disk
        ));
        if end == End::Refused && pod.faithful {
            self.journal.broken(format_args!(
                "{} is refused volume {}, whose disk nobody else had",
                pod.name, pod.volume
            ));
        }
        let mut knowledge = self.knowledge();
        if end == End::Refused {
            knowledge.tally.volumes_refused += 1;
        }
        if let Some(volume) = knowledge.volumes.get_mut(pod.volume) {
            volume.in_use = false;
        }
        end
    }

    async fn use_volume(&self, pod: &mut Pod) -> End {
        let Some(Said::Recorded(recorded)) = self.insist_on(pod, false).await else {
            return End::Ended;
        };
        if recorded.is_some_and(|recorded| recorded > pod.disk) {
            return End::Refused;
        }
        let opened = self.seal_and_report(pod).await;
        if opened != End::Closed {
            return opened;
        }
        self.knowledge().tally.volumes_opened += 1;
        sleep_in_world(self.dice.duration(Duration::ZERO..OPEN_MAX)).await;
        if pod.killed {
            return End::Ended;
        }
        self.seal_and_report(pod).await
    }

    /// Writes the next generation to the disk, and reports it.
    async fn seal_and_report(&self, pod: &mut Pod) -> End {
        pod.disk += 1;
        self.write(pod);
        if pod.killed && self.dice.chance(500) {
            return End::Ended;
        }
        match self.insist_on(pod, true).await {
            Some(Said::Advanced(Advanced::Accepted)) => End::Closed,
            Some(_) => End::Refused,
            None => End::Ended,
        }
    }

    /// The host has every state of every disk.
    fn write(&self, pod: &Pod) {
        let mut knowledge = self.knowledge();
        let Some(volume) = knowledge.volumes.get_mut(pod.volume) else {
            return;
        };
        volume.copies.push(volume.disk);
        if volume.copies.len() > COPIES_MAX {
            volume.copies.remove(0);
        }
        volume.disk = pod.disk;
    }

    /// Asks, or reports the generation of the pod's disk, until there is an answer. Earlier attempts may still be under way.
    async fn insist_on(&self, pod: &Pod, report: bool) -> Option<Said> {
        let generation = Generation {
            number: pod.disk,
            reporter: pod.key,
        };
        let report = report.then_some(generation);
        for _ in 0..ATTEMPTS {
            if let Some(said) = self.ask_once(pod, report).await {
                return Some(said);
            }
            sleep_in_world(self.dice.duration(Duration::ZERO..Duration::from_secs(2))).await;
        }
        None
    }

    async fn ask_once(&self, pod: &Pod, report: Option<Generation>) -> Option<Said> {
        let running = self.pick()?;
        let node = running.node.name().to_owned();
        let question = self.checker.ask(pod.id, report);
        let (replica, volume) = (Arc::clone(&running.replica), pod.id);
        let task = running
            .node
            .spawn(async move { answered(&replica, volume, report).await });
        let answer = NodeRuntime::timeout(self.dice.duration(PATIENCE), task).await;
        let Ok(Ok(Ok(said))) = answer else {
            return None;
        };
        if self.dice.chance(LOST) {
            self.journal
                .event(format_args!("{}: the answer of {node} is lost", pod.name));
            return None;
        }
        self.journal.detail(format!("{node} {} {said:?}", pod.name));
        let what = format!("{node} to {} about volume {}", pod.name, pod.volume);
        self.checker.answer(&question, &what, said);
        Some(said)
    }
}

/// As the mesh API answers: the confirmed state says whose volume it is.
async fn answered(
    replica: &Replica<SimTypes>,
    volume: VolumeId,
    report: Option<Generation>,
) -> Result<Said, StateError> {
    let (active, volumes) = replica.confirmed_volumes().await?;
    let secret_id = secret_id(&active);
    Ok(match report {
        None => Said::Recorded(volumes.get(&secret_id, volume).map(|at| at.number)),
        Some(generation) => {
            let advance = Advance {
                secret_id: secret_id.into(),
                volume,
                generation,
            };
            Said::Advanced(replica.advance_volume(advance).await?)
        }
    })
}

fn secret_id(active: &Active) -> String {
    let entry = active.manifest().policies().get(&workload_policy());
    entry.map_or_else(String::new, |entry| entry.workload_secret_id.clone())
}
