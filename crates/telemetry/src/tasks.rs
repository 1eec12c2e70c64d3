//! Long-lived tasks with names. The first one that fails ends the service with its name and cause.

use std::{fmt, future::Future, time::Duration};

use tokio::task::{JoinError, JoinSet};
use tracing::{Instrument, info_span};

/// A task ended in a way that ends the service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task returned an error.
    #[error("task `{task}` failed")]
    Failed {
        /// Its name.
        task: &'static str,
        /// Its error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A task panicked or was cancelled from outside.
    #[error("a task ended abnormally")]
    Abnormal(#[source] JoinError),
    /// Tasks still had work when the drain deadline passed.
    #[error("{unfinished} task(s) still had work {} s after draining started; they were stopped", deadline.as_secs_f32())]
    Deadline {
        /// How many.
        unfinished: usize,
        /// The deadline.
        deadline: Duration,
    },
}

/// Owns the tasks of one service; dropping it stops them all.
#[derive(Default)]
pub struct Tasks(JoinSet<Result<(), TaskError>>);

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({})", self.0.len())
    }
}

impl Tasks {
    /// Starts a task; its log lines carry `task = name`.
    pub fn spawn<F, E>(&mut self, name: &'static str, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let named = async move {
            future.await.map_err(|error| TaskError::Failed {
                task: name,
                source: error.into(),
            })
        };
        self.0
            .spawn(named.instrument(info_span!("task", task = name)));
    }

    /// Waits until all tasks ended well, or one did not; the others are then stopped.
    ///
    /// # Errors
    /// The first failure.
    pub async fn join(&mut self) -> Result<(), TaskError> {
        while let Some(ended) = self.0.join_next().await {
            let outcome = ended.map_err(TaskError::Abnormal).and_then(|result| result);
            if outcome.is_err() {
                self.0.abort_all();
                return outcome;
            }
        }
        Ok(())
    }

    /// Like [`Tasks::join`], but stops everything `deadline` from now.
    ///
    /// # Errors
    /// The first failure, or [`TaskError::Deadline`].
    pub async fn join_within(&mut self, deadline: Duration) -> Result<(), TaskError> {
        match tokio::time::timeout(deadline, self.join()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let unfinished = self.0.len();
                self.0.abort_all();
                Err(TaskError::Deadline {
                    unfinished,
                    deadline,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending, io};

    use super::*;

    #[tokio::test]
    async fn first_failure_ends_the_others_and_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("patient", pending::<Result<(), Infallible>>());
        tasks.spawn("broken", async { Err(io::Error::other("disk gone")) });
        let error = tasks.join().await.expect_err("one task fails");
        assert_eq!(error.to_string(), "task `broken` failed");
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_stops_tasks_that_never_finish() {
        let mut tasks = Tasks::default();
        tasks.spawn("patient", pending::<Result<(), Infallible>>());
        let error = tasks
            .join_within(Duration::from_secs(3))
            .await
            .expect_err("deadline");
        assert!(matches!(error, TaskError::Deadline { unfinished: 1, .. }));
    }
}
