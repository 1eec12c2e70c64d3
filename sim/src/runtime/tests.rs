//! Nodes end, stand still and keep their own time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::{AsyncRuntime, async_runtime::Instant, rt::testing::Suite};

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

fn run<T>(future: impl Future<Output = T>) -> T {
    NodeRuntime::with_seed(1).block_on(future)
}

/// Counts drops.
struct Dropped(Arc<AtomicU64>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A task that counts its polls, one each millisecond, and its subtask, which does the same.
fn counting(node: &Node) -> (Arc<AtomicU64>, Arc<AtomicU64>) {
    let (polls, drops) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    async fn count(polls: Arc<AtomicU64>, guard: Dropped) {
        loop {
            polls.fetch_add(1, Ordering::Relaxed);
            NodeRuntime::sleep(MILLISECOND).await;
            let _ = &guard;
        }
    }
    let of = |drops: &Arc<AtomicU64>| Dropped(Arc::clone(drops));
    let (outer, inner) = (of(&drops), of(&drops));
    let (a, b) = (Arc::clone(&polls), Arc::clone(&polls));
    drop(node.spawn(async move {
        drop(NodeRuntime::spawn(count(a, inner)));
        count(b, outer).await;
    }));
    (polls, drops)
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn runtime_passes_openrafts_suite() {
    let mut runtime = NodeRuntime::with_seed(3);
    Suite::<NodeRuntime>::test_all_on(&mut runtime);
}

#[test]
fn killed_node_drops_its_tasks_and_their_subtasks_and_polls_none_again() {
    run(async {
        let (node, other) = (Node::new("a"), Node::new("b"));
        let ((polls, drops), (others, _)) = (counting(&node), counting(&other));
        sleep_in_world(10 * MILLISECOND).await;
        assert!(value(&polls) >= 18);
        node.kill();
        assert_eq!(value(&drops), 2);
        let before = (value(&polls), value(&others));
        sleep_in_world(10 * MILLISECOND).await;
        assert_eq!(value(&polls), before.0);
        assert!(value(&others) > before.1, "another node goes on");
        let late = node.spawn(async { 1 });
        assert_eq!(late.await, Err(NodeJoinError::Ended));
    });
}

#[test]
fn countdown_ends_a_node_after_exactly_as_many_polls() {
    for polls_left in 0..20 {
        run(async {
            let node = Node::new("a");
            node.kill_after_polls(polls_left);
            let polls = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&polls);
            let task = node.spawn(async move {
                for _ in 0..30 {
                    counted.fetch_add(1, Ordering::Relaxed);
                    NodeRuntime::sleep(MILLISECOND).await;
                }
            });
            assert_eq!(task.await, Err(NodeJoinError::Ended));
            assert_eq!(value(&polls), polls_left);
            assert_eq!(node.ending(), Some(Ending::Killed));
        });
    }
}

#[test]
fn disk_operation_at_the_countdown_fails_and_what_its_task_returns_is_not_heard() {
    run(async {
        let node = Node::new("a");
        node.kill_after_disk_operations(2);
        let disk = node.clone();
        let outcomes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&outcomes);
        let task = node.spawn(async move {
            for _ in 0..4 {
                let done = disk.disk_operation().is_ok();
                counted.fetch_add(u64::from(done), Ordering::Relaxed);
            }
        });
        let (_, drops) = counting(&node);
        assert_eq!(task.await, Err(NodeJoinError::Ended));
        assert_eq!(value(&outcomes), 2);
        assert_eq!(value(&drops), 2, "the other task ended unpolled");
    });
}

#[test]
fn panic_in_a_task_ends_the_node_with_its_message() {
    std::panic::set_hook(Box::new(|_| {}));
    run(async {
        let node = Node::new("a");
        let (_, drops) = counting(&node);
        let task = node.spawn(async {
            NodeRuntime::sleep(MILLISECOND).await;
            panic!("boom");
        });
        assert_eq!(task.await, Err::<(), _>(NodeJoinError::Ended));
        assert_eq!(node.ending(), Some(Ending::Panicked("boom".to_owned())));
        assert_eq!(value(&drops), 2);
    });
}

#[test]
fn node_that_stands_still_misses_time_and_goes_on_after_it() {
    run(async {
        let node = Node::new("a");
        let (polls, _) = counting(&node);
        sleep_in_world(5 * MILLISECOND).await;
        node.hold(20 * MILLISECOND);
        node.hold(10 * MILLISECOND);
        let before = value(&polls);
        sleep_in_world(15 * MILLISECOND).await;
        assert_eq!(value(&polls), before);
        sleep_in_world(10 * MILLISECOND).await;
        assert!(value(&polls) > before);
        node.hold(MILLISECOND);
        node.kill();
        assert!(!node.is_alive(), "a node can end while it stands still");
    });
}

#[test]
fn clock_with_a_drift_runs_fast_or_slow_and_its_deadlines_are_reached_on_it() {
    for (drift, expected) in [(0, 10_000), (10_000, 10_100), (-10_000, 9_900)] {
        run(async {
            let node = Node::new("a");
            node.set_drift(drift);
            let task = node.spawn(async {
                let start = NodeInstant::now();
                sleep_in_world(Duration::from_secs(10)).await;
                let shown = start.elapsed();
                let deadline = NodeInstant::now() + Duration::from_nanos(1_234_567_891);
                NodeRuntime::sleep_until(deadline).await;
                (shown, NodeInstant::now() >= deadline)
            });
            let (shown, reached) = task.await.expect("ends");
            assert_eq!(shown, Duration::from_millis(expected));
            assert!(reached);
        });
    }
}
