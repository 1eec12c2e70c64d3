use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use contrast_proto::user::Status;
use tokio::runtime::Runtime;

use super::{Connection, Deployment, Refusal};

const POLL: Duration = Duration::from_millis(50);

/// Asks replicas what they are.
#[derive(Debug)]
pub struct Watch {
    connections: Vec<Connection>,
    places: Vec<String>,
    runtime: Runtime,
}

impl Watch {
    /// A watch over the replicas of `deployment`, whose peer APIs are at `places`.
    ///
    /// # Errors
    /// When there can be no async runtime.
    pub fn new(deployment: &Deployment, places: Vec<String>) -> Result<Self> {
        let connect =
            |apis: &_| Connection::new(*apis, &deployment.coordinators, &deployment.workload);
        Ok(Self {
            connections: deployment.replicas.iter().map(connect).collect(),
            places,
            // With a thread: connections are closed when a replica asks for it, also while nobody looks at it. Otherwise a replica
            // that is to stop waits for them until its deadline.
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?,
        })
    }

    /// What one replica says.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn status(&mut self, replica: usize) -> Result<Status, Refusal> {
        self.runtime.block_on(self.connections[replica].status())
    }

    /// The replica that says of itself that it leads, if one of `among` does.
    pub fn leader(&mut self, among: &[usize]) -> Option<usize> {
        among.iter().copied().find(|replica| {
            self.status(*replica)
                .is_ok_and(|status| status.role == "leader")
        })
    }

    /// Waits until one of `among` leads.
    ///
    /// # Errors
    /// When `deadline` passes.
    pub fn await_leader(&mut self, among: &[usize], deadline: Duration) -> Result<usize> {
        let start = Instant::now();
        loop {
            if let Some(leader) = self.leader(among) {
                return Ok(leader);
            }
            if start.elapsed() > deadline {
                bail!("none of the replicas {among:?} leads within {deadline:?}");
            }
            sleep(POLL);
        }
    }

    /// Whether the voters are exactly `expected`, as each of them says.
    pub fn has_voters(&mut self, expected: &[usize]) -> bool {
        self.await_voters(expected, Duration::ZERO).is_ok()
    }

    /// Waits until the voters are exactly `expected`, as each of them says.
    ///
    /// # Errors
    /// When `deadline` passes; says what each of them said last.
    pub fn await_voters(&mut self, expected: &[usize], deadline: Duration) -> Result<()> {
        let start = Instant::now();
        let mut wanted: Vec<&str> = expected
            .iter()
            .map(|one| self.places[*one].as_str())
            .collect();
        wanted.sort_unstable();
        let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
        loop {
            let said: Vec<Result<Vec<String>, Refusal>> = expected
                .iter()
                .map(|one| self.status(*one).map(|status| voters(&status)))
                .collect();
            if said
                .iter()
                .all(|voters| voters.as_ref().is_ok_and(|voters| *voters == wanted))
            {
                return Ok(());
            }
            if start.elapsed() > deadline {
                bail!("expected the voters {wanted:?} within {deadline:?}, found {said:?}");
            }
            sleep(POLL);
        }
    }
}

fn voters(status: &Status) -> Vec<String> {
    let members = status.cluster.iter().flat_map(|cluster| &cluster.members);
    let mut places: Vec<String> = members
        .filter(|member| member.voter)
        .map(|member| member.place.clone())
        .collect();
    places.sort_unstable();
    places
}
