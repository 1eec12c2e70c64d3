//! Replicas in one process, connected by function calls. Whoever is unplugged neither hears nor is heard.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use contrast_clock::{SystemEntropy, SystemWallClock};
use contrast_manifest::ManifestHash;
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    cluster::TypeConfig,
    replica::{
        Ended, Parts, Replica, Timing,
        message::{Place, RaftMessage, Reply, Request, Standing},
        peers::{
            BoxFuture, CallError, Caller, EvidenceSummary, PeerFailure, Peers, Trust, Trusted,
        },
    },
    state::{Observer, TransitionHash, tests::fixture::Disk},
};

pub(super) type Node = Replica<TypeConfig>;

#[derive(Default)]
struct Wires {
    replicas: BTreeMap<Place, Weak<Node>>,
    unplugged: BTreeSet<Place>,
    /// Places whose replicas are no Coordinators of anything.
    strangers: BTreeSet<Place>,
    /// Places whose replicas are heard, and whose own questions get lost.
    mute: BTreeSet<Place>,
    /// Places whose replicas neither hear nor are heard, which whoever asks learns only by waiting.
    gone: BTreeSet<Place>,
    /// Places whose replicas do not understand entries of the log, and how often they were asked.
    illiterate: BTreeMap<Place, u32>,
    /// Places that Raft does not reach before this time.
    dialled: BTreeMap<Place, Instant>,
    /// Places whose replicas are no Coordinators of one manifest.
    excluded: BTreeMap<Place, ManifestHash>,
    /// What somebody between two places says that the manifest is, by who asks and who answers.
    lies: BTreeMap<(Place, Place), Bytes>,
}

/// All replicas.
#[derive(Clone, Default)]
pub(super) struct Hub(Arc<Mutex<Wires>>);

/// What the caller at a place proves.
struct Proof {
    genuine: bool,
    excluded: Option<ManifestHash>,
}

impl Caller for Proof {
    fn prove_coordinator(&self, trusted: &Trusted) -> Result<(), String> {
        match self.genuine && self.excluded != Some(trusted.manifest) {
            true => Ok(()),
            false => Err("role: expected coordinator".to_owned()),
        }
    }
}

impl Hub {
    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unplug(&self, place: &Place) {
        self.wires().unplugged.insert(place.clone());
    }

    pub(super) fn plug_in(&self, place: &Place) {
        self.wires().unplugged.remove(place);
    }

    pub(super) fn mute(&self, place: &Place) {
        self.wires().mute.insert(place.clone());
    }

    pub(super) fn lose(&self, place: &Place) {
        self.wires().gone.insert(place.clone());
    }

    /// The leader writes what `place` does not know, as one of a later version could.
    pub(super) fn confuse(&self, place: &Place) {
        self.wires().illiterate.insert(place.clone(), 0);
    }

    /// How often it was asked what it did not understand. It does now.
    pub(super) fn explain(&self, place: &Place) -> u32 {
        self.wires().illiterate.remove(place).unwrap_or_default()
    }

    /// Raft reaches `place` only after `time`.
    pub(super) fn dial_for(&self, place: &Place, time: Duration) {
        let open = Instant::now() + time;
        self.wires().dialled.insert(place.clone(), open);
    }

    pub(super) fn exclude(&self, place: &Place, manifest: ManifestHash) {
        self.wires().excluded.insert(place.clone(), manifest);
    }

    pub(super) fn lie(&self, asks: &Place, answers: &Place, manifest: Bytes) {
        let between = (asks.clone(), answers.clone());
        self.wires().lies.insert(between, manifest);
    }

    pub(super) fn tell_the_truth(&self) {
        self.wires().lies.clear();
    }

    pub(super) fn make_stranger(&self, place: &Place) {
        self.wires().strangers.insert(place.clone());
    }
}

/// One replica's connections.
#[derive(Clone)]
struct Socket {
    hub: Hub,
    place: Place,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.place.fmt(f)
    }
}

impl Peers for Socket {
    fn own_place(&self) -> Place {
        self.place.clone()
    }

    fn places(&self) -> BoxFuture<Vec<Place>> {
        let places = self.hub.wires().replicas.keys().cloned().collect();
        Box::pin(std::future::ready(places))
    }

    fn call(
        &self,
        place: Place,
        request: Request,
        trust: Trust,
        within: Duration,
    ) -> BoxFuture<Result<Reply, CallError>> {
        let (hub, from) = (self.hub.clone(), self.place.clone());
        Box::pin(async move {
            let reached = |wires: &Wires| {
                !wires.unplugged.contains(&from) && !wires.unplugged.contains(&place)
            };
            let unreachable = |reason: &str| CallError::Unreachable {
                place: place.clone(),
                reason: reason.to_owned(),
            };
            let lost = |wires: &Wires| {
                let gone = |place| wires.gone.contains(place);
                wires.mute.contains(&from) || gone(&from) || gone(&place)
            };
            let is_lost = lost(&hub.wires());
            if is_lost {
                tokio::time::sleep(within).await;
                return Err(unreachable("no answer in time"));
            }
            let (target, proof, lie) = {
                let mut wires = hub.wires();
                if !reached(&wires) {
                    return Err(unreachable("unplugged"));
                }
                let open = wires.dialled.get(&place);
                if matches!(request, Request::Raft(_))
                    && open.is_some_and(|open| Instant::now() < *open)
                {
                    return Err(unreachable("not connected yet"));
                }
                if let Some(asked) = wires.illiterate.get_mut(&place)
                    && let Request::Raft(call) = &request
                    && let RaftMessage::Append { entries, .. } = &call.message
                    && !entries.is_empty()
                {
                    *asked += 1;
                    let failure = PeerFailure::Unreadable("an entry of another kind".to_owned());
                    return Err(CallError::Failed { place, failure });
                }
                if let Trust::CoordinatorOf(trusted) = &trust
                    && (wires.strangers.contains(&place)
                        || wires.excluded.get(&place) == Some(&trusted.manifest))
                {
                    return Err(CallError::NotBelieved {
                        place: place.clone(),
                        reason: "a stranger".to_owned(),
                    });
                }
                let target = wires.replicas.get(&place).and_then(Weak::upgrade);
                let proof = Proof {
                    genuine: !wires.strangers.contains(&from),
                    excluded: wires.excluded.get(&from).copied(),
                };
                let lie = wires.lies.get(&(from.clone(), place.clone())).cloned();
                (
                    target,
                    proof,
                    lie.filter(|_| matches!(trust, Trust::Anyone)),
                )
            };
            let target = target.ok_or_else(|| unreachable("not there"))?;
            let answer = tokio::time::timeout(within, target.handle(&proof, request)).await;
            let answer = answer.map_err(|_| unreachable("no answer in time"))?;
            if !reached(&hub.wires()) {
                return Err(unreachable("unplugged"));
            }
            if let (Some(lie), Ok(Reply::Welcome(welcome))) = (lie, &answer) {
                let mut welcome = welcome.clone();
                if let Standing::Member(report) = &mut welcome.standing {
                    report.manifest = lie;
                }
                return Ok(Reply::Welcome(welcome));
            }
            answer.map_err(|failure| match failure {
                PeerFailure::NotCoordinator(reason) => CallError::NotBelievedBy {
                    place: place.clone(),
                    reason,
                },
                failure => CallError::Failed {
                    place: place.clone(),
                    failure,
                },
            })
        })
    }

    fn evidence(&self, _: &Place) -> Option<EvidenceSummary> {
        None
    }
}

/// A running replica.
pub(super) struct Running {
    pub(super) replica: Arc<Node>,
    pub(super) place: Place,
    pub(super) history: Disk,
    pub(super) log: Disk,
    run: JoinHandle<Ended>,
}

pub(super) fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(20),
        election_min: Duration::from_millis(200),
        election_max: Duration::from_millis(400),
        confirmation_bound: Duration::from_millis(1500),
        dead_member_grace: Duration::from_secs(30),
        silence: Duration::from_millis(600),
        tick: Duration::from_millis(20),
        discovery: Duration::from_millis(50),
        call: Duration::from_millis(500),
        read: Duration::from_millis(300),
        change: Duration::from_secs(6),
        key_patience: Duration::from_millis(500),
    }
}

impl Running {
    pub(super) fn start(hub: &Hub, place: &str) -> Self {
        Self::start_on(hub, place, Disk::default(), Disk::default(), timing())
    }

    pub(super) fn start_on(
        hub: &Hub,
        place: &str,
        history: Disk,
        log: Disk,
        timing: Timing,
    ) -> Self {
        let place = Place::new(place);
        let socket = Socket {
            hub: hub.clone(),
            place: place.clone(),
        };
        let replica = Replica::open(Parts {
            may_join: true,
            peers: Arc::new(socket),
            history: Box::new(history.clone()),
            log: Box::new(log.clone()),
            clock: Arc::new(SystemWallClock),
            entropy: Arc::new(SystemEntropy),
            observer: Observer::default(),
            timing,
        })
        .expect("opens");
        hub.wires()
            .replicas
            .insert(place.clone(), Arc::downgrade(&replica));
        let run = tokio::runtime::Handle::current().spawn(Arc::clone(&replica).run());
        Self {
            replica,
            place,
            history,
            log,
            run,
        }
    }

    /// Ends it as a crash does; what is on its disks stays.
    pub(super) async fn kill(self, hub: &Hub) -> (Disk, Disk) {
        self.run.abort();
        hub.wires().replicas.remove(&self.place);
        self.replica.give_up().await;
        (
            Disk::holding(self.history.bytes()),
            Disk::holding(self.log.bytes()),
        )
    }

    /// Why it ended by itself.
    pub(super) async fn ended(self) -> Ended {
        let ended = tokio::time::timeout(Duration::from_secs(10), self.run).await;
        ended.expect("ends in time").expect("does not panic")
    }

    pub(super) async fn serves(&self) {
        self.until("serves", |replica| replica.serving().is_ok())
            .await;
    }

    pub(super) async fn until(&self, what: &str, condition: impl Fn(&Node) -> bool) {
        let start = Instant::now();
        while !condition(&self.replica) {
            assert!(
                !self.run.is_finished(),
                "{}: ended while waiting for `{what}`",
                self.place
            );
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{}: waits for `{what}`: {:?}",
                self.place,
                self.replica.status()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn voters(&self) -> usize {
        let status = self.replica.status();
        let members = status.cluster.map(|cluster| cluster.members);
        let members = members.unwrap_or_default();
        members.iter().filter(|member| member.voter).count()
    }

    pub(super) async fn head(&self) -> TransitionHash {
        // A confirmation may come too late on a busy machine.
        let start = Instant::now();
        loop {
            match self.replica.confirmed().await {
                Ok(active) => return active.transition(),
                Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
            }
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.replica.status().role == crate::replica::status::Role::Leader
    }
}
