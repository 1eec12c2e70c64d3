use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    future::Future,
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
    time::Duration,
};

use super::{
    NodeJoinHandle, elapsed, sleep_in_world, spawn_in_world,
    task::{self, Cancel},
};

thread_local! {
    static CURRENT: RefCell<Option<Node>> = const { RefCell::new(None) };
}

/// How a node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The world ended it, or its countdown ran out.
    Killed,
    /// One of its tasks panicked, with this message. A process would abort or lose a task: neither may happen.
    Panicked(String),
}

/// A process: a set of tasks that end together. Clones are the same node.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ending: Option<Ending>,
    tasks: BTreeMap<u64, Weak<dyn Cancel>>,
    next_task: u64,
    /// Polls until it ends.
    polls_left: Option<u64>,
    /// Disk operations until it ends.
    operations_left: Option<u64>,
    /// Point of the world's clock up to which it stands still.
    still_until: Duration,
    /// Tasks that were woken meanwhile.
    parked: Vec<Waker>,
    drift: i32,
}

impl Node {
    /// A node without tasks. The name is for people.
    pub fn new(name: &str) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            state: Mutex::default(),
        }))
    }

    /// The node whose task is being polled.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Starts a task of this node. A node that ended drops it.
    pub fn spawn<F>(&self, future: F) -> NodeJoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        task::spawn(self, future)
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        self.ending().is_none()
    }

    /// How it ended.
    pub fn ending(&self) -> Option<Ending> {
        self.state().ending.clone()
    }

    /// Ends it now: none of its tasks is polled again, and all are dropped. From within one of its own tasks, they are dropped
    /// when that task returns to the executor.
    pub fn kill(&self) {
        self.end(Ending::Killed);
    }

    /// Ends it after `polls` more polls of its tasks, whichever these are.
    pub fn kill_after_polls(&self, polls: u64) {
        self.state().polls_left = Some(polls);
    }

    /// Ends it within a disk operation, after `operations` more: that one does not happen.
    pub fn kill_after_disk_operations(&self, operations: u64) {
        self.state().operations_left = Some(operations);
    }

    /// Lets it stand still for `duration`: its tasks are not polled, and its clock goes on.
    pub fn hold(&self, duration: Duration) {
        let until = elapsed() + duration;
        let mut state = self.state();
        if until <= state.still_until {
            return;
        }
        state.still_until = until;
        drop(state);
        let node = self.clone();
        spawn_in_world(async move {
            sleep_in_world(duration).await;
            node.release();
        });
    }

    /// Lets its monotonic clock run fast (positive) or slow, by parts per million. To be set before its first task.
    pub fn set_drift(&self, parts_per_million: i32) {
        self.state().drift = parts_per_million;
    }

    pub(super) fn drift(&self) -> i32 {
        self.state().drift
    }

    /// To be called by a simulated disk before each operation.
    ///
    /// # Errors
    /// When the node has ended, or ends here.
    pub fn disk_operation(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.ending.is_none() {
            match &mut state.operations_left {
                Some(0) => {
                    drop(state);
                    self.kill();
                    return Err(ended());
                }
                Some(left) => *left -= 1,
                None => {}
            }
            return Ok(());
        }
        Err(ended())
    }

    pub(super) fn end(&self, ending: Ending) {
        let mut state = self.state();
        state.ending.get_or_insert(ending);
        drop(state);
        let within = Self::current().is_some_and(|node| Arc::ptr_eq(&node.0, &self.0));
        // Within one of its tasks, that task may hold a lock that the drop of another one takes.
        if !within {
            self.reap();
        }
    }

    /// Drops the tasks of a node that ended.
    pub(super) fn reap(&self) {
        loop {
            let mut state = self.state();
            if state.ending.is_none() {
                return;
            }
            let tasks = mem::take(&mut state.tasks);
            let parked = mem::take(&mut state.parked);
            drop(state);
            if tasks.is_empty() && parked.is_empty() {
                return;
            }
            // What runs while tasks are dropped runs in this node's name, and can no longer start anything.
            let _entered = self.enter();
            for task in tasks.into_values().filter_map(|task| task.upgrade()) {
                task.cancel();
            }
            parked.into_iter().for_each(Waker::wake);
        }
    }

    fn release(&self) {
        let mut state = self.state();
        if elapsed() < state.still_until {
            return;
        }
        let parked = mem::take(&mut state.parked);
        drop(state);
        parked.into_iter().for_each(Waker::wake);
    }

    /// Registers a task; `None` when the node has ended.
    pub(super) fn register(&self, task: Weak<dyn Cancel>) -> Option<u64> {
        let mut state = self.state();
        if state.ending.is_some() {
            return None;
        }
        let id = state.next_task;
        state.next_task += 1;
        state.tasks.insert(id, task);
        Some(id)
    }

    pub(super) fn forget(&self, task: u64) {
        self.state().tasks.remove(&task);
    }

    /// Asks for a poll of one of its tasks.
    pub(super) fn turn(&self, waker: &Waker) -> Turn {
        let mut state = self.state();
        if state.ending.is_some() {
            return Turn::Ended;
        }
        if elapsed() < state.still_until {
            state.parked.push(waker.clone());
            return Turn::Wait;
        }
        match &mut state.polls_left {
            Some(0) => Turn::Ends,
            Some(left) => {
                *left -= 1;
                Turn::Go
            }
            None => Turn::Go,
        }
    }

    /// Makes this the current node until the guard is dropped.
    pub(super) fn enter(&self) -> Entered {
        Entered(CURRENT.replace(Some(self.clone())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.0.name)
    }
}

fn ended() -> io::Error {
    io::Error::other("the node has ended")
}

/// What a task that was woken may do.
pub(super) enum Turn {
    Go,
    Wait,
    /// The node ends here.
    Ends,
    Ended,
}

/// Restores the node that was current before.
pub(super) struct Entered(Option<Node>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.replace(self.0.take());
    }
}
