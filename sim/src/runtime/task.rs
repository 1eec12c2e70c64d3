//! A task of a node: a future that the node can take away.

use std::{
    any::Any,
    future::Future,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;

use super::{Ending, Node, NodeJoinHandle, node::Turn};

/// Something that a node drops when it ends.
pub(super) trait Cancel: Send + Sync {
    /// Drops the future and lets the executor forget the task.
    fn cancel(&self);
}

/// Where the future is while it is not polled.
struct Slot<F>(Mutex<Content<F>>);

struct Content<F> {
    /// `None` while it is polled, and after the end.
    future: Option<Pin<Box<F>>>,
    waker: Option<Waker>,
}

impl<F> Slot<F> {
    fn content(&self) -> MutexGuard<'_, Content<F>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Send> Cancel for Slot<F> {
    fn cancel(&self) {
        let mut content = self.content();
        let future = content.future.take();
        let waker = content.waker.take();
        drop(content);
        drop(future);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What the executor polls. Its output is `None` when the node ended.
struct Task<F> {
    node: Node,
    id: u64,
    slot: Arc<Slot<F>>,
}

pub(super) fn spawn<F>(node: &Node, future: F) -> NodeJoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let slot = Arc::new(Slot(Mutex::new(Content {
        future: Some(Box::pin(future)),
        waker: None,
    })));
    let weak: Weak<Slot<F>> = Arc::downgrade(&slot);
    let handle = match node.register(weak) {
        Some(id) => SimRuntime::spawn(Task {
            node: node.clone(),
            id,
            slot,
        }),
        None => SimRuntime::spawn(async { None }),
    };
    NodeJoinHandle::new(handle)
}

impl<F: Future> Future for Task<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.node.turn(context.waker()) {
            Turn::Go => {}
            Turn::Wait => return Poll::Pending,
            Turn::Ends => {
                self.node.kill();
                return Poll::Ready(None);
            }
            Turn::Ended => return Poll::Ready(None),
        }
        let mut content = self.slot.content();
        let Some(mut future) = content.future.take() else {
            return Poll::Ready(None);
        };
        content.waker = Some(context.waker().clone());
        drop(content);
        let entered = self.node.enter();
        let polled = panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        let outcome = match polled {
            // The node ended within this poll: what it returned is never heard.
            _ if !self.node.is_alive() => Poll::Ready(None),
            Ok(Poll::Pending) => {
                self.slot.content().future = Some(future);
                return Poll::Pending;
            }
            Ok(Poll::Ready(output)) => {
                self.node.forget(self.id);
                Poll::Ready(Some(output))
            }
            Err(panic) => {
                self.node.end(Ending::Panicked(message(&*panic)));
                Poll::Ready(None)
            }
        };
        drop(future);
        drop(entered);
        self.node.reap();
        outcome
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

impl<F> Drop for Task<F> {
    fn drop(&mut self) {
        self.node.forget(self.id);
    }
}
