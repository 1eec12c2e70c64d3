//! What fails when.

use std::{
    fmt,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    ledger::{Disruption, Ledger, now_ms},
    random::Random,
    scene::{REPLICAS, Scene},
};

const STEP: Duration = Duration::from_millis(50);
/// How often it is looked whether all is well again.
const WHOLE_PERIOD: Duration = Duration::from_millis(300);
/// After a failure of a Coordinator all of them must vote again within this time.
const WHOLE_DEADLINE: Duration = Duration::from_secs(90);

/// When healing is slow, failures go on for so much longer, until each happened.
const OVERTIME: Duration = Duration::from_secs(120);
/// Before two are killed at once the third must know what an owner was told.
const AGREEMENT_DEADLINE: Duration = Duration::from_secs(20);

/// Failures of Coordinators. Each happens once before the others are drawn.
#[derive(Debug, Clone, Copy)]
enum Failure {
    /// Killed, and started again by the kubelet.
    Crash,
    /// Killed, and its node comes back later.
    Away,
    /// The others do not reach it, nor it them. Pods and owners do.
    Cut,
    /// Two killed at once: a majority is lost, and an owner recovers the third.
    Two,
}

const FAILURES: [Failure; 4] = [Failure::Crash, Failure::Cut, Failure::Two, Failure::Away];

/// How the cluster of Coordinators is.
#[derive(Debug)]
enum Condition {
    Whole,
    /// Until then something is wrong, which then ends.
    Failing(Failure, usize, Instant),
    /// Nothing is wrong with it any more, since then.
    Healing(Instant),
}

pub(crate) struct Schedule {
    random: Random,
    length: Duration,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    failures: [u64; 4],
    longest_heal: Duration,
    heals: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [crash, away, cut, two] = self.failures;
        writeln!(
            f,
            "chaos: Coordinators: {crash} killed, {away} killed and kept away, {cut} cut off, {two} times two killed at once and recovered by \
             the owner; all three voted again {} times, at the latest after {:.1} s",
            self.heals,
            self.longest_heal.as_secs_f32()
        )
    }
}

impl Schedule {
    pub(crate) fn new(seed: u64, length: Duration) -> Self {
        Self {
            random: Random::new(seed, "failures"),
            length,
        }
    }

    /// Lets things fail, and then waits until all Coordinators are well.
    pub(crate) fn run(mut self, scene: &mut Scene, ledger: &Ledger) -> Figures {
        let mut figures = Figures::default();
        let mut condition = Condition::Healing(Instant::now());
        let (begun, mut next, mut asked) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            sleep(STEP);
            for workload in &mut scene.workloads {
                workload.look(ledger);
            }
            let complete = figures.failures.iter().all(|count| *count > 0);
            let length = match complete {
                true => self.length,
                false => self.length + OVERTIME,
            };
            let over = begun.elapsed() > length;
            condition = match condition {
                Condition::Failing(failure, replica, until) if Instant::now() >= until => {
                    heal(scene, failure, replica, ledger);
                    Condition::Healing(Instant::now())
                }
                Condition::Healing(since) if asked.elapsed() > WHOLE_PERIOD => {
                    asked = Instant::now();
                    match scene.is_whole() {
                        true => {
                            figures.heals += 1;
                            figures.longest_heal = figures.longest_heal.max(since.elapsed());
                            end_disruptions(ledger, since.elapsed());
                            Condition::Whole
                        }
                        false if since.elapsed() > WHOLE_DEADLINE => {
                            ledger.wrong(format!(
                                "not all Coordinators vote {WHOLE_DEADLINE:?} after the last failure"
                            ));
                            return figures;
                        }
                        false => Condition::Healing(since),
                    }
                }
                Condition::Whole if over => {
                    ledger.require(complete, || {
                        format!(
                            "each failure of a Coordinator must happen within {length:?}, not all did: {figures}"
                        )
                    });
                    return figures;
                }
                other => other,
            };
            if over || Instant::now() < next {
                continue;
            }
            next = Instant::now() + Duration::from_millis(300 + self.random.below(900));
            match (self.random.below(100), &condition) {
                (0..45, Condition::Whole) => {
                    condition = self.fail(scene, ledger, &mut figures);
                }
                (45..70, _) => scene.strangers.attempt(ledger),
                _ => self.kill_workload(scene, ledger),
            }
        }
    }

    fn kill_workload(&mut self, scene: &mut Scene, ledger: &Ledger) {
        let number = self.random.index(scene.workloads.len());
        let workload = &mut scene.workloads[number];
        ledger.happened(format!("kills {}", workload.name));
        ledger.note(|facts| facts.workloads_killed += 1);
        workload.kill(ledger);
        // The mesh and the application stay; what is an Initializer alone is replaced as a whole half of the times.
        let another = workload.is_alone() && self.random.below(2) == 0;
        workload.come_back(&scene.cluster, another);
    }

    fn fail(&mut self, scene: &mut Scene, ledger: &Ledger, figures: &mut Figures) -> Condition {
        let done: u64 = figures.failures.iter().sum();
        let failure = match usize::try_from(done) {
            Ok(number) if number < FAILURES.len() => FAILURES[number],
            // Two at once are rare.
            _ => match self.random.below(12) {
                0..5 => Failure::Crash,
                5..8 => Failure::Away,
                8..11 => Failure::Cut,
                _ => Failure::Two,
            },
        };
        let mut replica = self.random.index(REPLICAS);
        let while_failing = Duration::from_millis(1000 + self.random.below(4000));
        let first =
            figures.failures.iter().sum::<u64>() < u64::try_from(FAILURES.len()).unwrap_or(0);
        if first && matches!(failure, Failure::Cut) {
            // The dashboard names it first, and it does not hear of the manifest that comes.
            replica = 0;
        }
        ledger.happened(format!("{failure:?}, replica {replica}"));
        match failure {
            Failure::Crash => {
                figures.failures[0] += 1;
                killed(ledger, replica);
                scene.replicas.crash(replica).expect("kills");
                Condition::Healing(Instant::now())
            }
            Failure::Away => {
                figures.failures[1] += 1;
                killed(ledger, replica);
                scene.replicas.kill(replica).expect("kills");
                Condition::Failing(failure, replica, Instant::now() + while_failing)
            }
            Failure::Cut => {
                figures.failures[2] += 1;
                disrupted(ledger, replica);
                ledger.note(|facts| facts.cuts += 1);
                scene.replicas.network().isolate(replica).expect("cuts");
                if first {
                    scene.owner.set();
                }
                let least = Duration::from_secs(if first { 5 } else { 0 });
                let time = while_failing.max(least);
                Condition::Failing(failure, replica, Instant::now() + time)
            }
            Failure::Two => {
                figures.failures[3] += 1;
                // An owner who hears that a manifest is set by two that die at once would have to recover one of these.
                let owner = scene.owner.clone();
                let held = owner.hold();
                // What was acknowledged just now may be with the other two only.
                ledger.require(agree(scene), || {
                    format!(
                        "not all Coordinators have the latest manifest within {AGREEMENT_DEADLINE:?}"
                    )
                });
                let starts: Vec<u32> = (0..REPLICAS)
                    .map(|one| scene.replicas.starts(one))
                    .collect();
                for other in (0..REPLICAS).filter(|other| *other != replica) {
                    killed(ledger, other);
                    scene.replicas.crash(other).expect("kills");
                }
                disrupted(ledger, replica);
                for other in (0..REPLICAS).filter(|other| *other != replica) {
                    while scene.replicas.starts(other) == starts[other] {
                        sleep(STEP);
                    }
                }
                owner.recover(&scene.replicas.user_api(replica).to_string());
                drop(held);
                Condition::Healing(Instant::now())
            }
        }
    }
}

/// Waits until all replicas have the same latest transition; the caller holds the owner.
fn agree(scene: &mut Scene) -> bool {
    let start = Instant::now();
    loop {
        let latest: Vec<_> = (0..REPLICAS)
            .filter_map(|replica| scene.watch.status(replica).ok()?.active)
            .map(|active| active.transition)
            .collect();
        if latest.len() == REPLICAS && latest.windows(2).all(|pair| pair[0] == pair[1]) {
            return true;
        }
        if start.elapsed() > AGREEMENT_DEADLINE {
            return false;
        }
        sleep(STEP);
    }
}

fn heal(scene: &mut Scene, failure: Failure, replica: usize, ledger: &Ledger) {
    ledger.happened(format!("{failure:?} of replica {replica} ends"));
    match failure {
        Failure::Away => scene.replicas.start(replica).expect("starts"),
        _ => scene.replicas.network().heal().expect("heals"),
    }
}

fn killed(ledger: &Ledger, replica: usize) {
    disrupted(ledger, replica);
    ledger.note(|facts| facts.kills.push((replica, now_ms())));
}

fn disrupted(ledger: &Ledger, replica: usize) {
    let disruption = Disruption {
        replica,
        from_ms: now_ms(),
        until_ms: None,
    };
    ledger.note(|facts| facts.disruptions.push(disruption));
}

fn end_disruptions(ledger: &Ledger, after: Duration) {
    ledger.happened(format!("all Coordinators vote, after {after:?}"));
    ledger.note(|facts| {
        for disruption in &mut facts.disruptions {
            disruption.until_ms.get_or_insert_with(now_ms);
        }
    });
}
