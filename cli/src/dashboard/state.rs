//! What the page shows, asked of every Coordinator at once.

use std::{sync::Arc, time::SystemTime};

use contrast_audit::Record;
use contrast_clock::WallClock;
use contrast_collateral::Collateral;
use contrast_manifest::Manifest;
use contrast_proto::user::{GetManifestsResponse, RecentDecisions};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    address::CoordinatorAddress,
    attempts::AttemptError,
    diagnostic::Failure,
    dial::Session,
    output::Paint,
    status::Status,
    verify::{
        history::{History, Memory},
        steps::{Step, steps},
    },
};

/// Whom to ask, and what they have to prove.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) addresses: Vec<CoordinatorAddress>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) collateral: Arc<Collateral>,
    pub(crate) clock: Arc<dyn WallClock>,
}

/// Everything at one moment.
#[derive(Debug, Serialize)]
pub(super) struct State {
    /// This machine's clock, milliseconds since 1970.
    taken_ms: u64,
    /// SHA-256 of the manifest that Coordinators are attested against.
    manifest: String,
    /// Whether it accepts a software TEE, so that nothing here is proven by hardware.
    insecure: bool,
    /// In the order of the command line.
    replicas: Vec<Replica>,
    /// Of the first replica that has one.
    history: Option<Chain>,
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
    /// The latest decisions, oldest first: records of the audit stream.
    decisions: Decisions,
}

#[derive(Debug, Default, Serialize)]
struct Decisions {
    issued: Vec<Value>,
    refused: Vec<Value>,
    other: Vec<Value>,
}

/// The history of manifests, checked against itself.
#[derive(Debug, Serialize)]
struct Chain {
    /// What is wrong with it; empty when nothing.
    problems: Vec<String>,
    /// Oldest first.
    steps: Vec<Step>,
}

/// What one Coordinator answered.
struct Answer {
    replica: Replica,
    history: Option<GetManifestsResponse>,
}

impl Source {
    /// Asks all of them at once. A Coordinator that fails is a row that says so.
    pub(super) async fn ask(&self) -> State {
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
        let history = answers
            .iter()
            .find_map(|(_, answer)| answer.history.as_ref());
        State {
            taken_ms: milliseconds(self.clock.now()),
            manifest: self.manifest.hash().to_string(),
            insecure: self.manifest.accepts_insecure_evidence(),
            history: history.map(Chain::of),
            replicas: answers
                .into_iter()
                .map(|(_, answer)| answer.replica)
                .collect(),
        }
    }

    async fn one(&self, address: CoordinatorAddress) -> Answer {
        let asked = address.to_string();
        match self.session(&address).await {
            Ok((status, decisions, history)) => Answer {
                replica: Replica {
                    address: asked,
                    status: Some(status),
                    error: None,
                    decisions,
                },
                history,
            },
            Err(failure) => Answer {
                replica: Replica {
                    address: asked,
                    status: None,
                    error: Some(failure.render(Paint::Plain).trim_end().to_owned()),
                    decisions: Decisions::default(),
                },
                history: None,
            },
        }
    }

    async fn session(
        &self,
        address: &CoordinatorAddress,
    ) -> Result<(Status, Decisions, Option<GetManifestsResponse>), Failure> {
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
        let decisions = session
            .recent_decisions()
            .await
            .map_err(|error| refused(error.into()))?;
        // One that does not serve has no history to show; its row says why.
        let history = session.manifests().await.ok();
        Ok((status, Decisions::of(&decisions), history))
    }
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
