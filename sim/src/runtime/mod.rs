//! Processes on the simulated runtime.
//!
//! openraft's simulated runtime knows tasks, but not whose they are. Here each task belongs to a [`Node`]: the one whose task
//! spawned it. A node ends as a process does, with all its tasks at once and without another word, after any number of polls or
//! disk operations; and a node can stand still for a while, as a virtual machine does that its host does not schedule.
//!
//! Each node's monotonic clock may run a little fast or slow ([`Node::set_drift`]).

mod instant;
mod join;
mod node;
mod task;

use std::{fmt, future::Future, io, time::Duration};

use openraft::{AsyncRuntime, OptionalSend, async_runtime::Instant};
use openraft_rt_sim::{SimInstant, SimRuntime};

pub use instant::NodeInstant;
pub use join::{NodeJoinError, NodeJoinHandle};
pub use node::{Ending, Node};

/// Time since the start of the run on a clock that is right; zero outside of a run.
pub fn elapsed() -> Duration {
    SimInstant::try_now().map_or(Duration::ZERO, SimInstant::elapsed_since_start)
}

/// Spawns a task of the world itself: it belongs to no node and outlives all of them.
pub fn spawn_in_world<F>(future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    // Dropping the handle detaches the task.
    drop(SimRuntime::spawn(future));
}

/// Waits on the world's clock.
pub async fn sleep_in_world(duration: Duration) {
    SimRuntime::sleep(duration).await;
}

/// [`SimRuntime`], with tasks that belong to nodes.
pub struct NodeRuntime(SimRuntime);

impl NodeRuntime {
    /// A runtime whose randomness follows from `seed`.
    pub fn with_seed(seed: u64) -> Self {
        Self(SimRuntime::with_seed(seed))
    }
}

impl fmt::Debug for NodeRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeRuntime")
    }
}

impl AsyncRuntime for NodeRuntime {
    type JoinError = NodeJoinError;
    type JoinHandle<T: OptionalSend + 'static> = NodeJoinHandle<T>;
    type Sleep = <SimRuntime as AsyncRuntime>::Sleep;
    type Instant = NodeInstant;
    type TimeoutError = <SimRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <SimRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;

    /// The task belongs to the node whose task this is called from, and to the world when there is none.
    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match Node::current() {
            Some(node) => node.spawn(future),
            None => join::in_world(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Self::sleep_until(NodeInstant::now() + duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        SimRuntime::sleep_until(deadline.in_world())
    }

    fn timeout<R, F>(duration: Duration, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        Self::timeout_at(NodeInstant::now() + duration, future)
    }

    fn timeout_at<R, F>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        SimRuntime::timeout_at(deadline.in_world(), future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        matches!(error, NodeJoinError::Panicked(_))
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn new(threads: usize) -> Self {
        Self(SimRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    /// Runs `f` at once: there is one thread, and time stands still meanwhile.
    async fn spawn_blocking<F, T>(f: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(f())
    }
}

#[cfg(test)]
mod tests;
