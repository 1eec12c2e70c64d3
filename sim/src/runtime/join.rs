use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use openraft::AsyncRuntime;
use openraft_rt_sim::{SimJoinError, SimJoinHandle, SimRuntime};

/// Why a task has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeJoinError {
    /// It panicked.
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// Its node ended.
    #[error("the task ended with its node")]
    Ended,
}

/// Resolves to a task's result. Dropping it detaches the task.
pub struct NodeJoinHandle<T>(SimJoinHandle<Option<T>>);

impl<T> NodeJoinHandle<T> {
    pub(super) fn new(handle: SimJoinHandle<Option<T>>) -> Self {
        Self(handle)
    }
}

impl<T> fmt::Debug for NodeJoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeJoinHandle")
    }
}

impl<T> Future for NodeJoinHandle<T> {
    type Output = Result<T, NodeJoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|outcome| match outcome {
                Ok(Some(value)) => Ok(value),
                Ok(None) | Err(SimJoinError::Cancelled) => Err(NodeJoinError::Ended),
                Err(SimJoinError::Panic(message)) => Err(NodeJoinError::Panicked(message)),
            })
    }
}

/// A task of no node.
pub(super) fn in_world<F>(future: F) -> NodeJoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    NodeJoinHandle(SimRuntime::spawn(async move { Some(future.await) }))
}
