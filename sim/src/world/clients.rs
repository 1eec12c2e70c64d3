//! Owners and workloads: what they ask, what they are told, and what they do about it.

mod recovery;
mod volumes;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use contrast_coordinator::{
    replica::message::SetReceipt,
    state::{Active, StateError, TransitionHash, UpdateRequest},
};
use openraft::AsyncRuntime;

use self::volumes::Volume;
use super::{
    place::{Running, chain_of},
    tally::Tally,
};
use crate::{
    checker::{Checker, Operation},
    deployment::{Owners, coordinator_policy},
    dice::Dice,
    journal::Journal,
    network::Network,
    runtime::{NodeRuntime, elapsed, sleep_in_world, spawn_in_world},
};

/// A client gives up waiting after this time.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often an owner repeats a request.
const ATTEMPTS: u32 = 6;

/// All clients. Clones share what they know.
#[derive(Clone)]
pub(super) struct Clients {
    knowledge: Arc<Mutex<Knowledge>>,
    owners: Arc<Owners>,
    checker: Checker,
    journal: Journal,
    network: Network,
    dice: Arc<Dice>,
    /// A moment for processes to tell their monotonic time from.
    epoch: Instant,
}

#[derive(Default)]
struct Knowledge {
    /// The longest history that owners were told of.
    chain: Vec<TransitionHash>,
    /// Versions of the Coordinator that its latest manifest names.
    versions: Vec<u64>,
    /// What the next manifest is to name.
    wanted_versions: Vec<u64>,
    manifests: u64,
    /// A first manifest or a recovery is under way: one at a time, by agreement of the owners.
    beginning: bool,
    /// Why recoveries were refused, since the last one that was not.
    refusals: Vec<String>,
    replicas: Vec<Running>,
    volumes: Vec<Volume>,
    /// Pods that were started.
    pods: u64,
    tally: Tally,
}

impl Clients {
    pub(super) fn new(
        owners: Owners,
        checker: &Checker,
        journal: &Journal,
        network: &Network,
        dice: Dice,
    ) -> Self {
        network.allow_secrets_to(coordinator_policy(1));
        let knowledge = Knowledge {
            versions: vec![1],
            wanted_versions: vec![1],
            volumes: Volume::all(),
            ..Knowledge::default()
        };
        Self {
            knowledge: Arc::new(Mutex::new(knowledge)),
            owners: Arc::new(owners),
            checker: checker.clone(),
            journal: journal.clone(),
            network: network.clone(),
            dice: Arc::new(dice),
            epoch: Instant::now(),
        }
    }

    /// Tells clients where replicas run.
    pub(super) fn publish(&self, replicas: Vec<Running>) {
        self.knowledge().replicas = replicas;
    }

    pub(super) fn tally(&self) -> Tally {
        self.knowledge().tally.clone()
    }

    /// The version of the Coordinator that a process is started with now: the latest that the manifest names for certain.
    pub(super) fn version(&self) -> u64 {
        let latest = self.knowledge().versions.iter().copied().max();
        latest.unwrap_or(1)
    }

    pub(super) fn was_told(&self) -> bool {
        !self.knowledge().chain.is_empty()
    }

    pub(super) fn is_beginning(&self) -> bool {
        self.knowledge().beginning
    }

    pub(super) fn refusals(&self) -> Vec<String> {
        self.knowledge().refusals.clone()
    }

    /// The next manifest names one version more, or, once all replicas have it, no other.
    pub(super) fn upgrade(&self) -> Option<&'static str> {
        let mut knowledge = self.knowledge();
        if knowledge.versions != knowledge.wanted_versions {
            return None;
        }
        let latest = knowledge.versions.iter().copied().max().unwrap_or(1);
        let all = knowledge.replicas.iter().all(|r| r.version == latest);
        let (wanted, what) = match knowledge.versions.len() {
            1 => (vec![latest, latest + 1], "a new version is announced"),
            _ if all => (vec![latest], "the old version is withdrawn"),
            _ => return None,
        };
        for version in &wanted {
            self.network.allow_secrets_to(coordinator_policy(*version));
        }
        knowledge.wanted_versions = wanted;
        Some(what)
    }

    /// An owner sets a manifest.
    pub(super) fn set(&self) {
        let clients = self.clone();
        spawn_in_world(async move {
            clients.set_now().await;
        });
    }

    /// True when the owner was told that it is set.
    pub(super) async fn set_now(&self) -> bool {
        let Some((name, base, versions)) = self.draft() else {
            return false;
        };
        let first = base.is_empty();
        let latest = base.last().copied().unwrap_or(TransitionHash::NONE);
        let done = match self.owners.request(&name, &versions, latest) {
            Ok(request) => {
                let attempts = if first { 1 } else { ATTEMPTS };
                self.insist(&name, request, &base, &versions, attempts)
                    .await
            }
            Err(error) => {
                self.journal.broken(format_args!("owners: {error}"));
                false
            }
        };
        if first {
            self.knowledge().beginning = false;
        }
        done
    }

    /// Name, predecessors and versions of the next manifest; `None` while another owner sets the first one.
    fn draft(&self) -> Option<(String, Vec<TransitionHash>, Vec<u64>)> {
        let mut knowledge = self.knowledge();
        if knowledge.chain.is_empty() && std::mem::replace(&mut knowledge.beginning, true) {
            return None;
        }
        knowledge.manifests += 1;
        let name = format!("m{}", knowledge.manifests);
        Some((
            name,
            knowledge.chain.clone(),
            knowledge.wanted_versions.clone(),
        ))
    }

    async fn insist(
        &self,
        name: &str,
        request: UpdateRequest,
        base: &[TransitionHash],
        versions: &[u64],
        attempts: u32,
    ) -> bool {
        let floor = self.checker.floor();
        for _ in 0..attempts {
            let Some(running) = self.pick() else {
                sleep_in_world(Duration::from_secs(1)).await;
                continue;
            };
            let node = running.node.name().to_owned();
            let operation = self.checker.begin();
            let (replica, request) = (Arc::clone(&running.replica), request.clone());
            let task = running
                .node
                .spawn(async move { replica.set_manifest(request).await });
            // The first manifest makes a deployment: its owner waits until it is certain whether there is one.
            let answer = match base.is_empty() {
                true => task.await,
                false => match NodeRuntime::timeout(PATIENCE, task).await {
                    Ok(answer) => answer,
                    Err(_) => continue,
                },
            };
            let lost = !base.is_empty() && self.dice.chance(100);
            match answer {
                _ if lost => self.journal.event(format_args!(
                    "owner: the answer of {node} to {name} is lost"
                )),
                Ok(Ok(receipt)) => {
                    let told = self.told_set(&operation, (name, &node), &receipt, base, versions);
                    if told {
                        self.checker.cover(&floor);
                    }
                    return told;
                }
                Ok(Err(error)) => {
                    self.journal
                        .event(format_args!("owner: {node} refuses {name}: {error}"));
                    let stale = error.to_string().contains("follows transition");
                    if stale || matches!(error, StateError::StaleBase { .. }) {
                        return false;
                    }
                }
                Err(_) => {}
            }
            sleep_in_world(Duration::from_secs(1)).await;
        }
        false
    }

    fn told_set(
        &self,
        operation: &Operation,
        (name, node): (&str, &str),
        receipt: &SetReceipt,
        base: &[TransitionHash],
        versions: &[u64],
    ) -> bool {
        let set = receipt.transition;
        let replicas = self.knowledge().replicas.clone();
        // A recovery may have come between the first attempt and this one.
        let known = replicas.iter().map(Running::chain).find_map(|chain| {
            let at = chain.iter().position(|hash| *hash == set)?;
            Some(chain.into_iter().take(at + 1).collect())
        });
        let chain: Vec<_> = known.unwrap_or_else(|| base.iter().copied().chain([set]).collect());
        self.journal
            .event(format_args!("owner: {node} has set {name}: {set}"));
        let believed = self.told(operation, &format!("set at {node}"), &chain, versions);
        if believed {
            self.knowledge().tally.acknowledged += 1;
        }
        believed
    }

    /// Notes an answer that shows a history, unless it is of a time before a recovery.
    fn told(
        &self,
        operation: &Operation,
        what: &str,
        chain: &[TransitionHash],
        versions: &[u64],
    ) -> bool {
        if !self.checker.end(operation, what, chain, elapsed()) {
            return false;
        }
        let mut knowledge = self.knowledge();
        if chain.len() > knowledge.chain.len() {
            knowledge.chain = chain.to_vec();
            knowledge.versions = versions.to_vec();
            let oldest = versions.iter().copied().min().unwrap_or(1);
            for version in 1..oldest {
                self.network.deny_secrets_to(coordinator_policy(version));
            }
            if knowledge.wanted_versions.iter().max() < versions.iter().max()
                || knowledge.wanted_versions.iter().min() < versions.iter().min()
            {
                knowledge.wanted_versions = versions.to_vec();
            }
        }
        true
    }

    /// Somebody verifies the deployment.
    pub(super) fn verify(&self) {
        let Some(running) = self.pick() else { return };
        let clients = self.clone();
        spawn_in_world(async move {
            clients.verify_at(&running).await;
        });
    }

    /// True when the answer was right.
    pub(super) async fn verify_at(&self, running: &Running) -> bool {
        let operation = self.checker.begin();
        let replica = Arc::clone(&running.replica);
        let task = running.node.spawn(async move {
            let active = replica.confirmed().await?;
            Ok::<_, StateError>((hashes(&active), versions(&active)))
        });
        let Ok(Ok(Ok((chain, versions)))) = NodeRuntime::timeout(PATIENCE, task).await else {
            return false;
        };
        let node = running.node.name();
        self.journal.event(format_args!(
            "verifier: {node} shows {} transitions",
            chain.len()
        ));
        self.knowledge().tally.reads += 1;
        self.told(&operation, &format!("read at {node}"), &chain, &versions)
    }

    /// A workload gets a certificate.
    pub(super) fn issue(&self) {
        let Some(running) = self.pick() else { return };
        let clients = self.clone();
        spawn_in_world(async move {
            let (replica, checker) = (Arc::clone(&running.replica), clients.checker.clone());
            let name = running.node.name().to_owned();
            let task = running.node.spawn(async move {
                let active = replica.confirmed_for_issuing().await?;
                checker.issue(&name, &hashes(&active), elapsed());
                Ok::<_, StateError>(())
            });
            if let Ok(Ok(())) = task.await {
                clients.knowledge().tally.certificates += 1;
                clients.journal.detail(("issued", running.node.name()));
            }
        });
    }

    fn pick(&self) -> Option<Running> {
        let replicas = self.knowledge().replicas.clone();
        let alive: Vec<Running> = replicas.into_iter().filter(|r| r.node.is_alive()).collect();
        self.dice.pick(&alive).cloned()
    }

    fn knowledge(&self) -> MutexGuard<'_, Knowledge> {
        self.knowledge
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn hashes(active: &Active) -> Vec<TransitionHash> {
    active.history().links().map(|link| link.hash).collect()
}

fn versions(active: &Active) -> Vec<u64> {
    let policies = active.manifest().policies();
    let named = |version: &u64| policies.contains_key(&coordinator_policy(*version));
    (1..64).filter(named).collect()
}
