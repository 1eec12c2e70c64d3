//! Runs of an adversarial host, judged.

use std::collections::{BTreeMap, BTreeSet};

use contrast_policy::Engine;
use serde_json::{Value, json};

use crate::{
    FLAVOURS,
    harmless::{self, Harmless},
    honest::{Host, Request},
    mutation,
    pods::{self, Pod},
};

/// Requests that no pod is ever allowed.
const NEVER: [&str; 24] = [
    "AddSwapPathRequest",
    "AddSwapRequest",
    "AllowRequestsFailingPolicy",
    "GetDiagnosticDataRequest",
    "GetIPTablesRequest",
    "GetMetricsRequest",
    "ListInterfacesRequest",
    "ListRoutesRequest",
    "MemAgentCompactConfig",
    "MemAgentMemcgConfig",
    "MemHotplugByProbeRequest",
    "PauseContainerRequest",
    "ReseedRandomDevRequest",
    "ResizeVolumeRequest",
    "ResumeContainerRequest",
    "SetGuestDateTimeRequest",
    "SetIPTablesRequest",
    "SetPolicyRequest",
    "StartTracingRequest",
    "StopTracingRequest",
    "UpdateContainerRequest",
    "UpdateEphemeralMountsRequest",
    "VolumeStatsRequest",
    "RequestOfAnotherAgent",
];

/// What became of all mutants.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) mutants: usize,
    pub(crate) denied: usize,
    /// How many each class let pass.
    pub(crate) harmless: BTreeMap<&'static str, usize>,
    /// Those that are neither.
    pub(crate) survivors: BTreeSet<String>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.mutants += other.mutants;
        self.denied += other.denied;
        for (class, count) in other.harmless {
            *self.harmless.entry(class).or_default() += count;
        }
        self.survivors.extend(other.survivors);
    }

    fn judge(
        &mut self,
        refused: bool,
        class: Option<&'static Harmless>,
        line: impl FnOnce() -> String,
    ) {
        self.mutants += 1;
        match (refused, class) {
            (true, _) => self.denied += 1,
            (false, Some(class)) => *self.harmless.entry(class.name).or_default() += 1,
            (false, None) => drop(self.survivors.insert(line())),
        }
    }
}

/// One changed request in the life of a pod.
struct Planned {
    position: usize,
    place: String,
    mutation: mutation::Mutation,
}

/// Every distinct single change of every pod's requests; the same change of the same field of a container in the same role
/// is tried once.
pub(crate) fn single_changes() -> Outcome {
    let pods = pods::all();
    let mut seen = BTreeSet::new();
    let lives: Vec<(&Pod, Vec<Request>)> = pods
        .iter()
        .map(|pod| (pod, Host::new(pod, FLAVOURS[1]).life()))
        .collect();
    let planned: Vec<Vec<Planned>> = lives
        .iter()
        .map(|(_, life)| {
            let mut planned = Vec::new();
            for (position, request) in life.iter().enumerate() {
                for mutation in mutation::all(&request.body) {
                    let place = mutation.place(&request.body);
                    if seen.insert((request.kind, request.role, place.clone(), mutation.name)) {
                        planned.push(Planned {
                            position,
                            place,
                            mutation,
                        });
                    }
                }
            }
            planned
        })
        .collect();
    let pieces = lives
        .iter()
        .zip(&planned)
        .flat_map(|(life, planned)| planned.chunks(300).map(move |piece| (life, piece)))
        .collect();
    on_all_cores(pieces, |((pod, life), piece)| change_each(pod, life, piece))
}

fn change_each(pod: &Pod, life: &[Request], planned: &[Planned]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut engine = Engine::load(&pod.rego()).expect("loads");
    let mut planned = planned.iter().peekable();
    for (position, request) in life.iter().enumerate() {
        while let Some(change) = planned.next_if(|change| change.position == position) {
            let mut copy = engine.clone();
            let allowed = is_allowed(&mut copy, request.kind, &change.mutation.body);
            let class = harmless::of(request, &change.place, change.mutation.name);
            let refused =
                !allowed || (class.is_none() && later_refused(&mut copy, life.get(position + 1..)));
            outcome.judge(refused, class, || {
                format!(
                    "{}: {} of {}: {} {}",
                    pod.file, request.kind, request.container, change.place, change.mutation.name
                )
            });
        }
        assert!(
            is_allowed(&mut engine, request.kind, &request.body),
            "the honest request"
        );
    }
    outcome
}

/// Requests left out, replayed, exchanged with the next one, and requests that nobody may send.
pub(crate) fn sequences() -> Outcome {
    let pods = pods::all();
    let lives: Vec<(&Pod, Vec<Request>)> = pods
        .iter()
        .map(|pod| (pod, Host::new(pod, FLAVOURS[0]).life()))
        .collect();
    on_all_cores(lives.iter().collect(), |(pod, life)| {
        disturb_each(pod, life)
    })
}

fn disturb_each(pod: &Pod, life: &[Request]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut engine = Engine::load(&pod.rego()).expect("loads");
    for (position, request) in life.iter().enumerate() {
        let rest = life.get(position + 1..).unwrap_or_default();
        let line = |what: &str| {
            format!(
                "{}: {} of {}: {what}",
                pod.file, request.kind, request.container
            )
        };
        let harmless = |what| harmless::of(request, "", what);

        let class = harmless("left out");
        let refused = class.is_none() && later_refused(&mut engine.clone(), Some(rest));
        outcome.judge(refused, class, || line("left out"));

        if let Some((next, _)) = rest.split_first() {
            let mut copy = engine.clone();
            let both = is_allowed(&mut copy, next.kind, &next.body)
                && is_allowed(&mut copy, request.kind, &request.body);
            outcome.judge(!both, harmless::exchanged(request.kind, next.kind), || {
                line(&format!("exchanged with {}", next.kind))
            });
        }

        assert!(
            is_allowed(&mut engine, request.kind, &request.body),
            "the honest request"
        );
        let again = is_allowed(&mut engine.clone(), request.kind, &request.body);
        outcome.judge(!again, harmless("replayed"), || line("replayed"));
    }
    let mut engine = Engine::load(&pod.rego()).expect("loads");
    for request in life.iter().take(12) {
        assert!(is_allowed(&mut engine, request.kind, &request.body));
    }
    for kind in NEVER {
        for body in [json!({}), json!({"container_id": "x"})] {
            let allowed = is_allowed(&mut engine, kind, &body);
            outcome.judge(!allowed, None, || {
                format!("{}: {kind} was allowed", pod.file)
            });
        }
    }
    outcome
}

/// Two changes of one request at once, drawn with a fixed seed: one must not cover the other up.
pub(crate) fn double_changes(rounds: usize) -> Outcome {
    let pods = pods::all();
    on_all_cores(pods.iter().enumerate().collect(), |(number, pod)| {
        let mut outcome = Outcome::default();
        let life = Host::new(pod, FLAVOURS[1]).life();
        let mut engine = Engine::load(&pod.rego()).expect("loads");
        let mut draw = Draw(0x9e37_79b9_7f4a_7c15 ^ u64::try_from(*number).expect("small"));
        for (position, request) in life.iter().enumerate() {
            if request.kind == "CreateContainerRequest" {
                let first = mutation::all(&request.body);
                for _ in 0..rounds {
                    let (one, two) = (
                        &first[draw.below(first.len())],
                        &first[draw.below(first.len())],
                    );
                    let Some(body) = mutation::both(one, two) else {
                        continue;
                    };
                    let second = harmless::of(request, &two.place(&request.body), two.name);
                    let class = match one.pointer.starts_with(&format!("{}/", two.pointer)) {
                        true => second,
                        false => {
                            harmless::of(request, &one.place(&request.body), one.name).and(second)
                        }
                    };
                    let mut copy = engine.clone();
                    let refused = !is_allowed(&mut copy, request.kind, &body)
                        || (class.is_none() && later_refused(&mut copy, life.get(position + 1..)));
                    outcome.judge(refused, class, || {
                        format!(
                            "{}: {} of {}: {} {} and {} {}",
                            pod.file,
                            request.kind,
                            request.container,
                            one.pointer,
                            one.name,
                            two.pointer,
                            two.name
                        )
                    });
                }
            }
            assert!(
                is_allowed(&mut engine, request.kind, &request.body),
                "the honest request"
            );
        }
        outcome
    })
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same draws everywhere.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).expect("small"))
            .expect("below the bound")
    }
}

fn is_allowed(engine: &mut Engine, kind: &str, body: &Value) -> bool {
    engine
        .allow(kind, body)
        .is_ok_and(|decision| decision.allowed)
}

fn later_refused(engine: &mut Engine, rest: Option<&[Request]>) -> bool {
    let rest = rest.unwrap_or_default();
    rest.iter()
        .any(|request| !is_allowed(engine, request.kind, &request.body))
}

fn on_all_cores<T: Sync>(work: Vec<T>, judge: impl Fn(&T) -> Outcome + Sync) -> Outcome {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut total = Outcome::default();
    std::thread::scope(|scope| {
        let run = || {
            let mut own = Outcome::default();
            while let Some(item) = work.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            {
                own.add(judge(item));
            }
            own
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run)).collect();
        for thread in threads {
            total.add(thread.join().expect("no panic"));
        }
    });
    total
}
