//! What the page shows, asked of every Coordinator at once.

use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, SystemTime},
};

use contrast_audit::Record;
use contrast_clock::WallClock;
use contrast_collateral::Collateral;
use contrast_manifest::Manifest;
use contrast_proto::user::{DecisionCount, GetManifestsResponse, RecentDecisions};
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::Mutex, task::JoinSet, time::timeout};

use crate::{
    address::CoordinatorAddress,
    attempts::AttemptError,
    diagnostic::Failure,
    dial::Session,
    output::Paint,
    status::{Status, printable},
    transition::TransitionHash,
    verify::{
        history::{History, Memory},
        steps::{Step, steps},
    },
};

/// A Coordinator that takes longer is a row that says so, and holds up nobody else's.
const DEADLINE: Duration = Duration::from_secs(5);

/// Whom to ask, and what they have to prove.
#[derive(Clone)]
pub(crate) struct Source {
    addresses: Vec<CoordinatorAddress>,
    manifest: Arc<Manifest>,
    collateral: Arc<Collateral>,
    clock: Arc<dyn WallClock>,
    /// The latest history, with the transition that it ends with: it is large, and read again only when that changes.
    history: Arc<Mutex<Option<Known>>>,
}

/// A history that was read.
struct Known {
    transition: TransitionHash,
    chain: Arc<Chain>,
}

/// Everything at one moment.
#[derive(Debug, Serialize)]
pub(super) struct State {
    /// This machine's clock when the Coordinators were asked, milliseconds since 1970.
    taken_ms: u64,
    /// SHA-256 of the manifest that Coordinators are attested against.
    manifest: String,
    /// Whether it accepts a software TEE, so that nothing here is proven by hardware.
    insecure: bool,
    /// In the order of the command line.
    replicas: Vec<Replica>,
    /// Of the replica that serves the newest.
    history: Option<Arc<Chain>>,
}

/// One Coordinator.
#[derive(Debug, Serialize)]
struct Replica {
    /// Who was asked, `HOST:PORT`.
    address: String,
    /// What it says about itself; null when it did not answer or prove itself.
    status: Option<Status>,
    /// Why there is no status, as the command line would say it.
    error: Option<String>,
    /// The latest decisions, oldest first: records of the audit stream. Empty when it gave none.
    decisions: Decisions,
    /// How many decisions there were since the process started, also those that are not among the latest. Empty when it does not say.
    counts: Vec<Count>,
    /// When it began to count, by its clock; null when it does not say.
    since_ms: Option<u64>,
    /// Why there are no decisions although there is a status.
    decisions_error: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Decisions {
    issued: Vec<Value>,
    refused: Vec<Value>,
    other: Vec<Value>,
}

/// Kind and outcome are words of the audit stream.
#[derive(Debug, Serialize)]
struct Count {
    kind: String,
    outcome: String,
    count: u64,
}

/// The history of manifests, checked against itself.
#[derive(Debug, Serialize)]
struct Chain {
    /// What is wrong with it; empty when nothing.
    problems: Vec<String>,
    /// Oldest first.
    steps: Vec<Step>,
}

/// What one Coordinator answered, and the connection to ask it for more.
struct Answer {
    replica: Replica,
    session: Option<Session>,
}

impl Source {
    pub(crate) fn new(
        addresses: Vec<CoordinatorAddress>,
        manifest: Manifest,
        collateral: Arc<Collateral>,
        clock: Arc<dyn WallClock>,
    ) -> Self {
        Self {
            addresses,
            manifest: Arc::new(manifest),
            collateral,
            clock,
            history: Arc::default(),
        }
    }

    /// Asks all of them at once. A Coordinator that fails is a row that says so.
    pub(super) async fn ask(&self) -> State {
        let taken_ms = milliseconds(self.clock.now());
        let mut asked = JoinSet::new();
        for (position, address) in self.addresses.iter().enumerate() {
            let (source, address) = (self.clone(), address.clone());
            asked.spawn(async move { (position, source.one(address).await) });
        }
        let mut answers = Vec::new();
        while let Some(ended) = asked.join_next().await {
            match ended {
                Ok(answer) => answers.push(answer),
                Err(error) => tracing::error!(%error, "asking a Coordinator ended abnormally"),
            }
        }
        answers.sort_by_key(|(position, _)| *position);
        State {
            taken_ms,
            manifest: self.manifest.hash().to_string(),
            insecure: self.manifest.accepts_insecure_evidence(),
            history: self.chain(&mut answers).await,
            replicas: answers
                .into_iter()
                .map(|(_, answer)| answer.replica)
                .collect(),
        }
    }

    /// The newest history. A Coordinator that does not serve, because it is cut off for example, may be behind, and is asked last.
    async fn chain(&self, answers: &mut [(usize, Answer)]) -> Option<Arc<Chain>> {
        let mut known = self.history.lock().await;
        let mut answers: Vec<_> = answers.iter_mut().map(|(_, answer)| answer).collect();
        answers.sort_by_key(|answer| Reverse(authority(answer.replica.status.as_ref())));
        for answer in answers {
            let status = answer.replica.status.as_ref();
            let active = status.and_then(|status| status.active.as_ref());
            let (Some(active), Some(session)) = (active, &mut answer.session) else {
                continue;
            };
            if let Some(known) = known
                .as_ref()
                .filter(|known| known.transition == active.transition)
            {
                return Some(Arc::clone(&known.chain));
            }
            // One that does not serve has no history to show; its row says why.
            if let Ok(Ok(response)) = timeout(DEADLINE, session.manifests()).await {
                let chain = Arc::new(Chain::of(&response));
                *known = Some(Known {
                    transition: active.transition,
                    chain: Arc::clone(&chain),
                });
                return Some(chain);
            }
        }
        None
    }

    async fn one(&self, address: CoordinatorAddress) -> Answer {
        let asked = address.to_string();
        let failed = |error: String| Answer {
            replica: Replica {
                address: asked.clone(),
                status: None,
                error: Some(error),
                decisions: Decisions::default(),
                counts: Vec::new(),
                since_ms: None,
                decisions_error: None,
            },
            session: None,
        };
        match timeout(DEADLINE, self.session(&address)).await {
            Ok(Ok((session, status, decisions))) => {
                let (recent, decisions_error) = match decisions {
                    Ok(recent) => (recent, None),
                    Err(error) => (RecentDecisions::default(), Some(error)),
                };
                Answer {
                    replica: Replica {
                        address: asked,
                        status: Some(status),
                        error: None,
                        decisions: Decisions::of(&recent),
                        counts: recent.counts.iter().map(Count::of).collect(),
                        since_ms: Some(recent.since_ms).filter(|since| *since > 0),
                        decisions_error,
                    },
                    session: Some(session),
                }
            }
            Ok(Err(failure)) => failed(shown(&failure)),
            Err(_) => failed(format!("error: no answer within {} s", DEADLINE.as_secs())),
        }
    }

    async fn session(
        &self,
        address: &CoordinatorAddress,
    ) -> Result<(Session, Status, Result<RecentDecisions, String>), Failure> {
        let refused = |error: AttemptError| Failure::from(error);
        let mut session = Session::attest(address, &self.manifest, &self.collateral, &self.clock)
            .await
            .map_err(|error| refused(error.into()))?;
        let answer = session
            .status()
            .await
            .map_err(|error| refused(error.into()))?;
        let insecure = self.manifest.accepts_insecure_evidence();
        let status = Status::read(address.to_string(), insecure, &answer)?;
        // A Coordinator of the version before has none; what else it said is worth a look all the same.
        let decisions = session.recent_decisions().await;
        let decisions = decisions.map_err(|error| shown(&refused(error.into())));
        Ok((session, status, decisions))
    }
}

/// Whose history counts: the more, the greater.
fn authority(status: Option<&Status>) -> (bool, Option<u64>) {
    let generation = status.and_then(|status| Some(status.active.as_ref()?.generation));
    (status.is_some_and(|status| status.serving), generation)
}

fn shown(failure: &Failure) -> String {
    failure.render(Paint::Plain).trim_end().to_owned()
}

impl Decisions {
    /// Lines that are no records are left out: the page shows what it understands.
    fn of(recent: &RecentDecisions) -> Self {
        let read = |lines: &[String]| {
            let records = lines.iter().filter(|line| Record::parse(line).is_ok());
            records
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect()
        };
        Self {
            issued: read(&recent.issued),
            refused: read(&recent.refused),
            other: read(&recent.other),
        }
    }
}

impl Count {
    fn of(count: &DecisionCount) -> Self {
        Self {
            kind: printable(&count.kind),
            outcome: printable(&count.outcome),
            count: count.count,
        }
    }
}

impl Chain {
    fn of(response: &GetManifestsResponse) -> Self {
        let history = History::check(response, &Memory::default());
        let rows = &history.consistent;
        Self {
            problems: rows
                .all()
                .iter()
                .filter(|row| !row.passed)
                .map(|row| {
                    format!(
                        "{}: expected {}, found {}",
                        row.name, row.expected, row.found
                    )
                })
                .collect(),
            steps: steps(response, &history),
        }
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use contrast_proto::user as wire;

    use super::*;

    fn status(why_not: &str, generation: u64) -> Status {
        let answer = wire::Status {
            not_serving_because: why_not.to_owned(),
            active: Some(wire::ActiveStatus {
                manifest: vec![1; 32].into(),
                transition: vec![2; 32].into(),
                generation,
                since_ms: 0,
            }),
            ..Default::default()
        };
        Status::read("c:1".to_owned(), false, &answer).expect("status")
    }

    #[test]
    fn newest_history_of_those_that_serve_counts_and_silence_least() {
        let cut_off = status("no quorum", 9);
        let (behind, newest) = (status("", 6), status("", 7));
        let silent = None;
        let mut all = [silent, Some(&cut_off), Some(&behind), Some(&newest)];
        all.sort_by_key(|status| Reverse(authority(*status)));
        let order =
            all.map(|status| status.map(|status| status.active.as_ref()?.generation.into()));
        assert_eq!(order, [Some(Some(7)), Some(Some(6)), Some(Some(9)), None]);
    }
}
