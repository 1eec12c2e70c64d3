//! Seed share owners, who recover the deployment together.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contrast_coordinator::state::{
    Collected, Collection, HistoryError, RecoveryRequest, StateError,
};
use contrast_pki::shares::SeedShare;

use super::{Clients, chain_of, versions};
use crate::{
    runtime::{elapsed, sleep_in_world, spawn_in_world},
    world::place::Running,
};

/// Longest time that an owner takes for the own share.
const OWNERS_TAKE_MAX: Duration = Duration::from_secs(4);
/// Of a thousand owners, so many crash before they hand in their share.
const OWNER_CRASHES: u64 = 150;
/// Of a thousand owners, so many hand in a damaged share first.
const SHARE_DAMAGED: u64 = 100;
/// Of a thousand recoveries after a refusal for the record of encrypted volumes, so many do without it.
const FORGET: u64 = 500;

impl Clients {
    /// Owners bring the deployment back. To be called only when no quorum lives.
    pub(in crate::world) fn recover(&self) {
        if std::mem::replace(&mut self.knowledge().beginning, true) {
            return;
        }
        let clients = self.clone();
        spawn_in_world(async move {
            let order = clients.candidates();
            for running in order {
                match clients.recover_at(&running).await {
                    Some(true) => break,
                    Some(false) => {}
                    // It ended, or nobody knows what came of it: look again before anything else.
                    None => break,
                }
            }
            clients.knowledge().beginning = false;
        });
    }

    /// Survivors first: they know what no disk has.
    fn candidates(&self) -> Vec<Running> {
        let replicas = self.knowledge().replicas.clone();
        let start = self.dice.index(replicas.len());
        let mut order: Vec<Running> = replicas.into_iter().filter(|r| r.node.is_alive()).collect();
        let by = start.min(order.len());
        order.rotate_left(by);
        order.sort_by_key(|running| running.replica.voter_sets().is_none());
        order
    }

    /// Owners hand in their shares, one after the other, until there are enough. Some crash before they do, and the replica may crash
    /// meanwhile. Whether the deployment was recovered; `None` when nobody knows.
    async fn recover_at(&self, running: &Running) -> Option<bool> {
        let name = running.node.name().to_owned();
        let mut owners: Vec<usize> = self.owners.seed_share_owners().collect();
        let first = self.dice.index(owners.len());
        owners.rotate_left(first);
        let forget = self.agree_to_forget();
        for owner in owners {
            sleep_in_world(self.dice.duration(Duration::ZERO..OWNERS_TAKE_MAX)).await;
            if self.dice.chance(OWNER_CRASHES) {
                self.journal.event(format_args!(
                    "owner {owner} crashes before {name} has the share"
                ));
                self.knowledge().tally.count("owner crash");
                continue;
            }
            match self.hand_in(running, owner, forget).await? {
                Ok(Collected::Missing(missing)) => self.journal.event(format_args!(
                    "owner {owner}: {name} has the share, {missing} missing"
                )),
                Ok(Collected::Complete(request)) => {
                    return self.recover_with(running, &name, request).await;
                }
                Err(why) => {
                    // The document is not authenticated on disk.
                    self.refused(&name, &why);
                    return Some(false);
                }
            }
        }
        self.journal
            .event(format_args!("owners: too few of them at {name}"));
        Some(false)
    }

    /// Whether they do without the generations of encrypted volumes, as the refusal of some replica says they may.
    fn agree_to_forget(&self) -> bool {
        let knowledge = self.knowledge();
        let named = |why: &String| why.contains("--forget-volumes");
        knowledge.refusals.iter().any(named) && self.dice.chance(FORGET)
    }

    /// One owner's share; `None` when the replica is gone, and the shares with it.
    async fn hand_in(
        &self,
        running: &Running,
        owner: usize,
        forget: bool,
    ) -> Option<Result<Collected, String>> {
        let (replica, collection) = (&running.replica, &running.collection);
        let (replica, collection) = (Arc::clone(replica), Arc::clone(collection));
        let (owners, known) = (Arc::clone(&self.owners), self.checker.latest());
        let damaged = self.dice.chance(SHARE_DAMAGED);
        let epoch = self.epoch;
        let journal = self.journal.clone();
        let task = running.node.spawn(async move {
            let snapshot = replica.guard().snapshot();
            let history = snapshot.history().ok_or("there is no history")?;
            let shares = history.seed_shares();
            let request = || owners.seed_share(owner, shares, known, forget);
            let mut request_now = request().map_err(|error| error.to_string())?;
            let add = |request| lock(&collection).add(history, request, epoch + elapsed());
            if damaged {
                let mut share = request_now.share.expose().to_vec();
                share.iter_mut().for_each(|byte| *byte ^= 1);
                request_now.share = SeedShare::from_bytes(share);
                if add(request_now).is_ok() {
                    journal.broken("a damaged seed share was taken");
                }
                request_now = request().map_err(|error| error.to_string())?;
            }
            add(request_now).map_err(|error| error.to_string())
        });
        task.await.ok()
    }

    async fn recover_with(
        &self,
        running: &Running,
        name: &str,
        request: RecoveryRequest,
    ) -> Option<bool> {
        self.checker.begin_recovery(request.forget_volumes);
        let how = match request.forget_volumes {
            true => ", if need be without the generations of volumes",
            false => "",
        };
        self.journal
            .event(format_args!("owners: recover at {name}{how}"));
        let operation = self.checker.begin();
        let replica = Arc::clone(&running.replica);
        let collection = Arc::clone(&running.collection);
        let task = running.node.spawn(async move {
            let transition = replica.recover(request).await?;
            lock(&collection).clear();
            let snapshot = replica.guard().snapshot();
            let versions = snapshot.active().map_or_else(|_| vec![1], |a| versions(a));
            Ok::<_, StateError>((transition, chain_of(&replica), versions))
        });
        match task.await {
            Ok(Ok((transition, chain, versions))) => {
                self.journal.event(format_args!(
                    "owners: recovered at {name}: {transition}, {} transitions",
                    chain.len()
                ));
                if !chain.contains(&transition) {
                    self.journal.broken(format_args!(
                        "{name} recovered with {transition}, and its history lacks it"
                    ));
                }
                let told = self.told(
                    &operation,
                    &format!("recovery at {name}"),
                    &chain,
                    &versions,
                );
                let mut knowledge = self.knowledge();
                knowledge.refusals.clear();
                if told {
                    knowledge.tally.recoveries += 1;
                }
                Some(true)
            }
            Ok(Err(error)) => {
                let lacks = matches!(error, StateError::History(HistoryError::RolledBack { .. }));
                self.refused(name, &error.to_string());
                // It stands in the way of those who have the transition, and is told to be ended.
                if lacks && running.replica.voter_sets().is_some() {
                    self.journal.event(format_args!("operator: ends {name}"));
                    running.node.kill();
                }
                Some(false)
            }
            Err(_) => None,
        }
    }

    fn refused(&self, name: &str, why: &str) {
        self.journal
            .event(format_args!("owners: {name} refuses to recover: {why}"));
        self.knowledge().refusals.push(format!("{name}: {why}"));
    }
}

fn lock(collection: &Mutex<Collection>) -> MutexGuard<'_, Collection> {
    collection.lock().unwrap_or_else(PoisonError::into_inner)
}
