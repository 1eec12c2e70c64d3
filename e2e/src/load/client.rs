use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use contrast_manifest::ManifestHash;
use contrast_proto::user::{GetManifestsResponse, Transition};
use tokio::{runtime::Runtime, time::sleep};
use tonic::Code;

use super::{Connection, Refusal, Shared};
use crate::linearizability::{Answer, Hash, Link, Operation, Question};

/// A set is repeated for as long as this; then its outcome stays unknown.
const SET_PATIENCE: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(20);
/// Reasons that a replica may give to these clients, whatever happens to the others. All else is a bug of somebody.
const REASONS: [&str; 6] = [
    "NO_QUORUM",
    "NOT_CONFIRMED",
    "LEADER_CHANGED",
    "NO_MANIFEST",
    "RECOVERY_NEEDED",
    "BASE_NOT_LATEST",
];

/// One client.
pub(super) struct Client {
    number: u32,
    /// State of a splitmix64 generator: the same seed asks the same questions.
    random: u64,
    shared: Arc<Shared>,
    connections: Vec<Connection>,
    runtime: Runtime,
    /// Latest transition that this client knows of.
    head: Hash,
    sets: u32,
}

impl Client {
    pub(super) fn new(number: u32, seed: u64, shared: Arc<Shared>) -> Result<Self> {
        let deployment = &shared.deployment;
        let connect =
            |apis: &_| Connection::new(*apis, &deployment.coordinators, &deployment.workload);
        Ok(Self {
            number,
            random: seed,
            connections: deployment.replicas.iter().map(connect).collect(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            head: Hash::NONE,
            sets: 0,
            shared,
        })
    }

    /// Asks until it is told to stop.
    pub(super) fn run(&mut self) -> Result<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let replica = self.any_replica();
            match self.below(20) {
                0..12 => self.issue(replica),
                12..17 => drop(self.read(replica)),
                17 => self.set()?,
                _ => self.status(replica),
            }
            self.pause();
        }
        Ok(())
    }

    /// Reads until a replica answers.
    pub(super) fn read_until(&mut self, deadline: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let replica = self.any_replica();
            match self.read(replica) {
                Ok(()) => return Ok(()),
                Err(refusal) if start.elapsed() > deadline => {
                    bail!("no replica returns the history within {deadline:?}: {refusal}")
                }
                Err(_) => {}
            }
        }
    }

    fn issue(&mut self, replica: usize) {
        if self.below(10) == 0 {
            self.connections[replica].reset();
        }
        let start = self.shared.now();
        let answer = self
            .runtime
            .block_on(self.connections[replica].certificate());
        let answer = match answer {
            Ok(response) => match Hash::from_wire(&response.transition) {
                Some(transition) => Answer::Issued { transition },
                None => self.malformed(replica, "a transition hash"),
            },
            Err(refusal) => self.failed("NewMeshCert", replica, &refusal),
        };
        self.record(replica, start, Question::Issue, answer);
    }

    fn read(&mut self, replica: usize) -> Result<(), Refusal> {
        let start = self.shared.now();
        let answer = self.runtime.block_on(self.connections[replica].manifests());
        let (answer, outcome) = match answer {
            Ok(response) => match links(&response) {
                Some(links) => {
                    self.head = links.last().map_or(Hash::NONE, |link| link.transition);
                    (Answer::Chain { links }, Ok(()))
                }
                None => (self.malformed(replica, "a history"), Ok(())),
            },
            // The empty chain, if the replica can know.
            Err(refusal) if refusal.has_reason("NO_MANIFEST") => (Answer::Failed, Err(refusal)),
            Err(refusal) => (self.failed("GetManifests", replica, &refusal), Err(refusal)),
        };
        self.record(replica, start, Question::Read, answer);
        outcome
    }

    /// Sets a new manifest; repeats the request at other replicas until one says what became of it.
    fn set(&mut self) -> Result<()> {
        if self.head == Hash::NONE {
            return Ok(());
        }
        self.sets += 1;
        let variant = format!("c{}-{}", self.number, self.sets);
        let (request, manifest) = self.shared.deployment.update(&variant, self.head)?;
        let question = Question::Set {
            base: self.head,
            manifest,
        };
        let start = self.shared.now();
        let mut replica = self.any_replica();
        // Whether an earlier try may have arrived: then a refusal of a later one says nothing about the first.
        let mut arrived = false;
        let answer = loop {
            let call = self.connections[replica].set(request.clone());
            match self.runtime.block_on(call) {
                Ok(response) => match Hash::from_wire(&response.transition) {
                    Some(transition) => break Answer::Done { transition },
                    None => break self.malformed(replica, "a transition hash"),
                },
                Err(refusal) if refusal.has_reason("BASE_NOT_LATEST") => {
                    break if arrived {
                        Answer::Unknown
                    } else {
                        Answer::StaleBase
                    };
                }
                Err(refusal) => {
                    arrived |= !matches!(refusal, Refusal::NoConnection(_) | Refusal::Evidence(_));
                    self.failed("SetManifest", replica, &refusal);
                }
            }
            let late = self.shared.now().saturating_sub(start) > SET_PATIENCE;
            if late || self.shared.stop.load(Ordering::Relaxed) {
                break if arrived {
                    Answer::Unknown
                } else {
                    Answer::Failed
                };
            }
            replica = self.any_replica();
        };
        if let Answer::Done { transition } = answer {
            self.head = transition;
        } else {
            // The next read tells.
            self.head = Hash::NONE;
        }
        self.record(replica, start, question, answer);
        Ok(())
    }

    fn status(&mut self, replica: usize) {
        if let Err(refusal) = self.runtime.block_on(self.connections[replica].status()) {
            self.failed("GetStatus", replica, &refusal);
        }
    }

    fn record(&self, replica: usize, start: Duration, question: Question, answer: Answer) {
        self.shared.record(Operation {
            client: self.number,
            replica: u32::try_from(replica).unwrap_or(u32::MAX),
            start,
            end: self.shared.now(),
            question,
            answer,
        });
    }

    /// Notes what must not be, and waits a little: nobody gains from asking a replica that is down a thousand times a second.
    fn failed(&self, call: &str, replica: usize, refusal: &Refusal) -> Answer {
        let expected = match refusal {
            Refusal::NoConnection(_) | Refusal::NoAnswer(_) => true,
            Refusal::Evidence(_) => false,
            Refusal::Status { code, reason, .. } => {
                *code == Code::Unavailable || REASONS.contains(&reason.as_str())
            }
        };
        if !expected {
            let surprise = format!("{call} at replica {replica}: {refusal}");
            self.shared.surprise(surprise);
        }
        self.pause();
        Answer::Failed
    }

    /// Every history is read whole again and again, so it must not grow by hundreds of transitions a second.
    fn pause(&self) {
        self.runtime.block_on(async { sleep(PAUSE).await });
    }

    fn malformed(&self, replica: usize, expected: &str) -> Answer {
        self.shared.surprise(format!(
            "replica {replica} returned something that is not {expected}"
        ));
        Answer::Failed
    }

    fn any_replica(&mut self) -> usize {
        let count = u64::try_from(self.connections.len()).unwrap_or(1);
        usize::try_from(self.below(count)).unwrap_or_default()
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

/// The chain in an answer; `None` when it does not hang together.
fn links(response: &GetManifestsResponse) -> Option<Vec<Link>> {
    let mut previous = Hash::NONE;
    let mut links = Vec::with_capacity(response.transitions.len());
    for transition in &response.transitions {
        if Hash::from_wire(&transition.previous)? != previous {
            return None;
        }
        previous = transition_hash(transition)?;
        links.push(Link {
            transition: previous,
            manifest: Hash::from_wire(&transition.manifest_hash)?,
        });
    }
    Some(links)
}

/// SHA-256("contrast transition v2" || manifest hash || previous || SHA-256(mesh CA public key) || seed shares digest || SHA-256(signing public
/// key)), as `user.proto` says.
fn transition_hash(transition: &Transition) -> Option<Hash> {
    let mut text = b"contrast transition v2".to_vec();
    text.extend(Hash::from_wire(&transition.manifest_hash)?.0);
    text.extend(Hash::from_wire(&transition.previous)?.0);
    text.extend(sha256(&transition.mesh_ca_public_key));
    text.extend(Hash::from_wire(&transition.seed_shares_digest)?.0);
    text.extend(sha256(&transition.signing_public_key));
    Some(Hash(sha256(&text)))
}

/// A manifest's hash is plain SHA-256.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    ManifestHash::of(bytes).0
}
