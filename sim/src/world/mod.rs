//! A whole run: replicas, their host, owners and workloads.
//!
//! First the world does what chance tells it: it asks, sets, stops, cuts, tampers ([`faults`](self)). Then it becomes calm: links work,
//! disks are faithful, all replicas run. Within a bound of virtual time all of them must serve again, if need be after owners
//! recovered, and a manifest must be set and seen everywhere.

mod clients;
mod faults;
mod place;
mod tally;
mod weather;

use std::{
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use openraft::AsyncRuntime;

pub use tally::Tally;

use self::{clients::Clients, place::Slot, weather::Weather};
use crate::{
    checker::Checker,
    deployment::Owners,
    dice::Dice,
    journal::Journal,
    network::Network,
    runtime::{NodeRuntime, elapsed, sleep_in_world},
};

/// Within this time after the last fault everything works again.
const CALM: Duration = Duration::from_secs(150);
/// Within this time a manifest is set when everything works.
const SET: Duration = Duration::from_secs(30);
/// Within this time every volume that the host leaves alone is opened and closed: pods from before have it first.
const OPENED: Duration = Duration::from_secs(60);
/// The fastest and the slowest clock differ by this much over the bound, at most.
const CLOCKS: Duration = Duration::from_millis(5);

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The first promise that was broken.
    pub verdict: Option<String>,
    /// What happened, to its end.
    pub trace: Vec<String>,
    /// Equal for equal runs of one build.
    pub fingerprint: u64,
    /// How often what happened.
    pub tally: Tally,
}

/// Runs the world of `seed` for `steps` steps, and to its end. A panic anywhere is a broken promise, too.
pub fn run(seed: u64, steps: u64) -> Outcome {
    let journal = Journal::default();
    let end = journal.clone();
    let ran = panic::catch_unwind(AssertUnwindSafe(|| {
        NodeRuntime::with_seed(seed).block_on(live(seed, steps, journal))
    }));
    let tally = ran.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        end.broken(format_args!(
            "the simulation panicked: {}",
            text.unwrap_or("no message")
        ));
        Tally::default()
    });
    Outcome {
        verdict: end.verdict(),
        trace: end.tail(usize::MAX),
        fingerprint: end.fingerprint(),
        tally,
    }
}

async fn live(seed: u64, steps: u64, journal: Journal) -> Tally {
    let owners = match Owners::new() {
        Ok(owners) => owners,
        Err(error) => {
            journal.broken(format_args!("owners: {error}"));
            return Tally::default();
        }
    };
    let mut world = World::new(seed, journal, owners);
    world.storm(steps).await;
    if world.journal.verdict().is_none() {
        world.become_calm().await;
    }
    world.tally.steps = steps;
    world.tally.virtual_seconds = elapsed().as_secs();
    let mut tally = world.deployment.tally();
    world.tally.elections = world.checker.leaders() as u64;
    tally += &world.tally;
    for slot in &mut world.slots {
        if let Some(running) = slot.running.take() {
            running.node.kill();
        }
    }
    world.network.end();
    tally
}

struct World {
    seed: u64,
    dice: Dice,
    journal: Journal,
    checker: Checker,
    network: Network,
    weather: Weather,
    deployment: Clients,
    slots: Vec<Slot>,
    calm: bool,
    lost_since: Option<Duration>,
    steps_cut: u64,
    tally: Tally,
}

impl World {
    fn new(seed: u64, journal: Journal, owners: Owners) -> Self {
        let dice = Dice::new(seed, "world");
        let weather = Weather::new(&dice);
        let bound = contrast_coordinator::replica::Timing::default().confirmation_bound;
        let checker = Checker::new(&journal, bound + CLOCKS);
        let network = Network::new(Dice::new(seed, "network"), &journal, &checker);
        let clients = Dice::new(seed, "clients");
        let deployment = Clients::new(owners, &checker, &journal, &network, clients);
        journal.event(format_args!("{weather:?}"));
        let mut world = Self {
            seed,
            dice,
            journal,
            checker,
            network,
            weather,
            deployment,
            slots: Vec::new(),
            calm: false,
            lost_since: None,
            steps_cut: 0,
            tally: Tally::default(),
        };
        for _ in 0..world.weather.places {
            world.add_place();
        }
        world
    }

    async fn storm(&mut self, steps: u64) {
        self.start_due().await;
        self.begin().await;
        for _ in 0..steps {
            self.look().await;
            if self.journal.verdict().is_some() {
                return;
            }
            let act = self.draw();
            self.act(act);
            let pause = self.dice.duration(Duration::ZERO..self.weather.pace);
            sleep_in_world(pause).await;
        }
    }

    /// The first manifest is set while nothing but crashes can happen: two owners whose replicas do not reach each other would
    /// make two deployments.
    async fn begin(&mut self) {
        for _ in 0..20 {
            if self.weather.crash_points && self.dice.chance(300) {
                self.act(faults::Act::CrashPoint);
            }
            self.look().await;
            if self.deployment.set_now().await || self.journal.verdict().is_some() {
                return;
            }
            self.recover_if_lost(Duration::from_secs(3));
            sleep_in_world(Duration::from_secs(1)).await;
        }
    }

    /// Sees to processes, and shows their histories to the checker.
    async fn look(&mut self) {
        self.reap();
        self.start_due().await;
        self.reap();
        let running = self.running();
        for running in &running {
            if self.weather.quiet && running.renewals() > 0 {
                self.journal.broken(format_args!(
                    "{}: nobody ended, and a mesh CA key is lost",
                    running.node.name()
                ));
            }
            let chain = running.chain();
            if let (Some((cluster, _, _)), false) = (running.replica.voter_sets(), chain.is_empty())
            {
                self.checker.look(cluster, running.node.name(), &chain);
            }
        }
        self.deployment.publish(running);
    }

    async fn become_calm(&mut self) {
        self.journal.event("calm");
        self.calm = true;
        self.heal();
        for slot in &self.slots {
            slot.machine.disk.set_full(false);
            slot.machine.disk.set_flush(Duration::ZERO);
            slot.machine.clock.set_error(0);
            if let Some(running) = &slot.running {
                running.node.kill_after_polls(u64::MAX);
                running.node.kill_after_disk_operations(u64::MAX);
            }
        }
        // Pauses and stops that are under way.
        let weather = &self.weather;
        let stops = weather.stops || weather.scaling || weather.upgrades;
        let under_way = stops || weather.pauses;
        let deadline = elapsed() + Duration::from_secs(17);
        while elapsed() < deadline && under_way {
            self.look().await;
            sleep_in_world(Duration::from_millis(500)).await;
        }
        let deadline = elapsed() + CALM;
        while !self.serves() {
            self.look().await;
            if self.journal.verdict().is_some() {
                return;
            }
            if elapsed() > deadline {
                return self.give_up();
            }
            self.help().await;
            sleep_in_world(Duration::from_millis(500)).await;
        }
        self.prove_it_works().await;
    }

    /// Whether every replica that is wanted serves, and all in one cluster.
    fn serves(&self) -> bool {
        let mut cluster = None;
        self.slots.iter().filter(|slot| slot.wanted).all(|slot| {
            let Some(running) = slot.running.as_ref().filter(|r| r.node.is_alive()) else {
                return false;
            };
            let own = running.replica.voter_sets().map(|(cluster, _, _)| cluster);
            let same = own.is_some() && *cluster.get_or_insert(own) == own;
            same && running.replica.serving().is_ok()
        })
    }

    /// What operator and owners do when something does not come back by itself.
    async fn help(&mut self) {
        self.recover_if_lost(Duration::from_secs(3));
        if !self.deployment.was_told() && !self.deployment.is_beginning() {
            self.deployment.set();
        }
        let refused = !self.deployment.refusals().is_empty() && !self.quorum_lives();
        if (self.nobody_remembers() || refused) && self.slots.iter().any(|slot| !slot.wanted) {
            self.journal
                .event("operator: brings back every place that there was");
            self.slots.iter_mut().for_each(|slot| slot.wanted = true);
            self.heal();
        }
        // The host stopped upgrades in the middle.
        self.restart_those_left_behind();
    }

    /// Whether owners were told of a deployment of which nobody who runs knows.
    fn nobody_remembers(&self) -> bool {
        let running = self.running();
        let empty = |r: &place::Running| r.replica.guard().snapshot().history().is_none();
        self.deployment.was_told() && !running.is_empty() && running.iter().all(empty)
    }

    fn restart_those_left_behind(&mut self) {
        let (quorum, version) = (self.quorum_lives(), self.deployment.version());
        let mut restart = None;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(running) = &slot.running else {
                slot.since_not_serving = None;
                continue;
            };
            if running.replica.serving().is_ok() {
                slot.since_not_serving = None;
                continue;
            }
            let since = *slot.since_not_serving.get_or_insert_with(elapsed);
            let waited = elapsed() - since;
            let old = running.version != version && waited > Duration::from_secs(5);
            if quorum && (old || waited > Duration::from_secs(45)) {
                restart = Some((index, running.node.name().to_owned()));
            }
        }
        if let Some((index, name)) = restart {
            self.journal
                .event(format_args!("operator: restarts {name}"));
            self.kill(index);
        }
    }

    fn give_up(&mut self) {
        let refusals = self.deployment.refusals();
        let nothing_left = !refusals.is_empty() || self.nobody_remembers();
        if self.weather.storage && nothing_left && !self.quorum_lives() {
            self.journal
                .event("what owners were told is on no disk any more");
            self.tally.destroyed += 1;
            return;
        }
        let standing: Vec<String> = self
            .slots
            .iter()
            .filter(|slot| slot.wanted)
            .map(|slot| match &slot.running {
                Some(running) => format!(
                    "{} {:?}: {:?}",
                    running.node.name(),
                    running.replica.status().role,
                    running.replica.serving()
                ),
                None => format!("{} is down", slot.machine.place),
            })
            .collect();
        self.journal.broken(format_args!(
            "not everything serves {CALM:?} after the last fault: {}; refused: {}",
            standing.join("; "),
            refusals.join("; ")
        ));
    }

    async fn prove_it_works(&mut self) {
        let deadline = elapsed() + SET;
        self.look().await;
        while !self.deployment.set_now().await {
            self.look().await;
            // A set that is under way from before can come first.
            for running in self.running() {
                self.deployment.verify_at(&running).await;
            }
            if self.journal.verdict().is_some() {
                return;
            }
            if elapsed() > deadline {
                self.journal.broken(format_args!(
                    "no manifest can be set {SET:?} after all serve"
                ));
                return;
            }
        }
        self.look().await;
        for running in self.running() {
            if !self.deployment.verify_at(&running).await {
                let name = running.node.name();
                self.journal
                    .broken(format_args!("{name} serves and confirms nothing"));
            }
        }
        self.prove_that_volumes_open().await;
    }

    async fn prove_that_volumes_open(&mut self) {
        let deadline = elapsed() + OPENED;
        for volume in self.deployment.faithful_volumes() {
            while !self.deployment.volume_works(volume).await {
                self.look().await;
                if self.journal.verdict().is_some() {
                    return;
                }
                if elapsed() > deadline {
                    self.journal.broken(format_args!(
                        "volume {volume} cannot be opened and closed {OPENED:?} after all serve"
                    ));
                    return;
                }
                sleep_in_world(Duration::from_secs(1)).await;
            }
        }
    }
}
