//! One replica of the Coordinator: how it enters a cluster, takes part in it, and answers for it.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`message`] | what replicas ask of each other, free of any wire format |
//! | [`peers`] | how a replica reaches others, and what it believes of whom |
//! | `enter` | founds a cluster, joins one |
//! | `recover` | brings one back |
//! | `serve` | answers other replicas |
//! | `write` | sets a manifest, here or at the leader |
//! | `volumes` | generations of encrypted volumes |
//! | `reads` | confirms the state with a quorum |
//! | `news` | tells pods when the state changed, without a quorum |
//! | `duty` | what runs all the time: looking for others, a leader's membership changes, missing keys, the end of an identity |
//! | `plan` | which membership a leader should bring about; pure |
//! | `life`, `network` | one identity with its Raft and store; Raft's messages as questions to peers |
//! | [`status`] | what it says about itself to people |
//!
//! Rules (`docs/decisions/0009-rejoin-rules.md`):
//! - Every process draws a fresh identity. Nothing on a disk gives an identity, a vote or an acknowledgement back.
//! - A seed or a key is sent only to a peer whose evidence on this very connection is that of a Coordinator of the manifest that a quorum
//!   confirmed a moment ago.
//! - A transition is proposed only when a majority of the voters has its mesh CA key.
//! - A cluster without a quorum changes nothing; owners recover it, and the recovered one is another cluster.

mod alone;
mod duty;
mod enter;
mod hosted;
mod life;
pub mod message;
mod network;
mod news;
pub mod peers;
mod plan;
mod reads;
mod recover;
mod report;
mod serve;
pub mod status;
mod timing;
mod volumes;
mod write;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use arc_swap::ArcSwapOption;
use contrast_clock::{Entropy, WallClock};

pub use alone::Alone;
pub use duty::Ended;
pub use hosted::Hosted;
use life::Life;
use message::BootId;
use peers::{Peers, Trusted};
pub use timing::Timing;

use crate::{
    cluster::{ClusterId, ClusterTypes, LogMedium, NodeId},
    state::{Guard, KeysError, Medium, Observer, StateError},
};

/// What a replica is made of.
#[derive(Debug)]
pub struct Parts {
    /// Whether there may be others who admit this replica. If so, it starts on a damaged history, too.
    pub may_join: bool,
    /// The other replicas.
    pub peers: Arc<dyn Peers>,
    /// Where the history is.
    pub history: Box<dyn Medium>,
    /// Where the Raft log is.
    pub log: Box<dyn LogMedium>,
    /// Wall clock, for certificates and evidence.
    pub clock: Arc<dyn WallClock>,
    /// Randomness for keys and identities.
    pub entropy: Arc<dyn Entropy>,
    /// Hears of the steps of each change of the history on disk.
    pub observer: Observer,
    /// How long things take.
    pub timing: Timing,
}

/// One replica of the Coordinator.
pub struct Replica<C: ClusterTypes> {
    boot: BootId,
    guard: Arc<Guard>,
    peers: Arc<dyn Peers>,
    log: Mutex<Box<dyn LogMedium>>,
    timing: Timing,
    /// `None` outside of a cluster.
    life: ArcSwapOption<Life<C>>,
    /// Held by whoever founds, joins or recovers: one at a time.
    entering: tokio::sync::Mutex<()>,
    /// Others see that a cluster is about to be founded here.
    founding: AtomicBool,
    /// This process is about to end.
    stopping: AtomicBool,
    /// Why this replica is not in a cluster, as far as it knows.
    outside: Mutex<Outside>,
}

/// What a replica outside of a cluster found on its last look around.
#[derive(Debug, Clone, Default)]
struct Outside {
    /// For people.
    reason: String,
    /// Whether any other replica said that it is a member of a cluster.
    members_seen: bool,
}

impl<C: ClusterTypes> Replica<C> {
    /// Reads the disk. Nothing runs yet.
    ///
    /// # Errors
    /// When the history is damaged or in use, a later version wrote it or the log, or randomness fails.
    pub fn open(parts: Parts) -> Result<Arc<Self>, StateError> {
        let Parts {
            may_join,
            peers,
            history,
            log,
            clock,
            entropy,
            observer,
            timing,
        } = parts;
        let boot = BootId(draw(&*entropy)?);
        log.check_version()?;
        let guard = Guard::open(may_join, history, clock, entropy, observer)?;
        Ok(Arc::new(Self {
            boot,
            guard,
            peers,
            log: Mutex::new(log),
            timing,
            life: ArcSwapOption::empty(),
            entering: tokio::sync::Mutex::default(),
            founding: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            outside: Mutex::default(),
        }))
    }

    /// What this replica knows.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// The manifest by which peers are judged; `None` while there is none.
    pub fn trust(&self) -> Option<Arc<Trusted>> {
        self.guard.trusted()
    }

    /// Random number of this process.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Whether this replica neither takes part in a cluster nor knows of another replica that does.
    pub fn is_alone(&self) -> bool {
        self.life().is_none() && !self.outside().members_seen
    }

    /// Cluster and identity of this replica, and the sets of voters as it knows them: two while a membership change is under way,
    /// of each of which a majority decides. `None` outside of a cluster.
    pub fn voter_sets(&self) -> Option<(ClusterId, NodeId, Vec<BTreeSet<NodeId>>)> {
        let life = self.life()?;
        let metrics = life.metrics();
        let sets = metrics.membership_config.membership().get_joint_config();
        Some((life.cluster, life.node, sets.clone()))
    }

    fn life(&self) -> Option<Arc<Life<C>>> {
        self.life.load_full()
    }

    fn outside(&self) -> Outside {
        self.outside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes why this replica is outside; logs it when it is news.
    fn note_outside(&self, reason: String, members_seen: bool) {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        if outside.reason != reason {
            tracing::info!(
                event = "waiting",
                reason,
                "this replica is not in a cluster"
            );
        }
        *outside = Outside {
            reason,
            members_seen,
        };
    }
}

impl<C: ClusterTypes> fmt::Debug for Replica<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("boot", &self.boot)
            .field("life", &self.life.load())
            .finish_non_exhaustive()
    }
}

/// A random number that nobody had before.
fn draw(entropy: &dyn Entropy) -> Result<u64, StateError> {
    let mut bytes = [0; 8];
    let drawn = entropy.fill(&mut bytes);
    drawn.map_err(|error| StateError::Keys(KeysError::Entropy(error)))?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests;
