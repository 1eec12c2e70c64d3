//! Who hears of what was applied, and when.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use futures::stream;
use openraft::{EntryPayload, RaftSnapshotBuilder, StorageHelper, storage::RaftStateMachine};

use super::fixture::{NODE, blank, change, entry, history, key, members, transition_key};
use crate::{
    cluster::{LogEntry, LogStore, Sink, StateMachine, TypeConfig, View},
    state::{TransitionHash, tests::fixture::Disk},
};

type C = TypeConfig;

/// Remembers what it heard and what readers saw at that moment.
#[derive(Debug, Default)]
struct Ear {
    heard: Mutex<Vec<(u64, u64)>>,
    machine: Mutex<Option<StateMachine>>,
    fails: bool,
}

fn index(view: &View) -> u64 {
    view.last_applied.map_or(0, |id| id.index)
}

impl Sink for Ear {
    fn applied(&self, view: &Arc<View>) -> Result<(), io::Error> {
        let machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = machine.as_ref().map_or(0, |machine| index(&machine.view()));
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push((index(view), seen));
        match self.fails {
            true => Err(io::Error::other("no room")),
            false => Ok(()),
        }
    }
}

fn machine(log: &LogStore, ear: &Arc<Ear>) -> StateMachine {
    let key = transition_key(1);
    let machine = StateMachine::with_sink(log, key.public_key_spki(), Arc::clone(ear) as _);
    *ear.machine.lock().expect("no panic") = Some(machine.clone());
    machine
}

async fn apply(machine: &mut StateMachine, entries: Vec<LogEntry>) {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    RaftStateMachine::<C>::apply(machine, stream::iter(entries))
        .await
        .expect("applies");
}

#[tokio::test]
async fn sink_hears_once_of_each_batch_that_changed_history_or_members_before_readers_do() {
    let ear = Arc::new(Ear::default());
    let log = LogStore::create(&Disk::default(), key()).expect("creates");
    let mut machine = machine(&log, &ear);
    let first = change(TransitionHash::NONE, "a");
    let second = change(first.transition.hash(), "b");
    let rival = change(first.transition.hash(), "rival");
    let normal = |index, change: &crate::cluster::Change| {
        entry(1, index, EntryPayload::Normal(change.clone().into()))
    };
    for batch in [
        vec![blank(1, 1)],
        vec![normal(2, &first), normal(3, &second)],
        vec![normal(4, &second), normal(5, &rival), blank(1, 6)],
        vec![entry(1, 7, EntryPayload::Membership(members()))],
    ] {
        apply(&mut machine, batch).await;
    }
    assert_eq!(*ear.heard.lock().expect("no panic"), [(3, 1), (7, 6)]);
}

#[tokio::test]
async fn failing_sink_stops_nothing() {
    let ear = Arc::new(Ear {
        fails: true,
        ..Ear::default()
    });
    let log = LogStore::create(&Disk::default(), key()).expect("creates");
    let mut machine = machine(&log, &ear);
    let first = change(TransitionHash::NONE, "a");
    apply(
        &mut machine,
        vec![entry(1, 1, EntryPayload::Normal(first.into()))],
    )
    .await;
    assert_eq!(index(&machine.view()), 1);
    assert_eq!(*ear.heard.lock().expect("no panic"), [(1, 0)]);
}

#[tokio::test]
async fn sink_hears_of_a_received_snapshot_and_not_of_the_own_one_at_a_restart() {
    let disk = Disk::default();
    let begun = history(&["a", "b"]);
    let log = LogStore::create_with_snapshot(&disk, key(), members(), &begun).expect("creates");
    let ear = Arc::new(Ear::default());
    let (mut own_log, mut own) = (log.clone(), machine(&log, &ear));
    let mut helper = StorageHelper::<C, _, _>::new(&mut own_log, &mut own).with_id(NODE);
    helper
        .get_initial_state()
        .await
        .expect("a consistent store");
    let view = own.view();
    let restored = view.history.as_ref().expect("is restored");
    assert!(restored.links().eq(begun.links()));
    assert_eq!(*ear.heard.lock().expect("no panic"), []);

    let next = change(begun.head().hash, "c");
    apply(
        &mut own,
        vec![entry(1, 1, EntryPayload::Normal(next.into()))],
    )
    .await;
    let mut builder = RaftStateMachine::<C>::get_snapshot_builder(&mut own).await;
    let snapshot = RaftSnapshotBuilder::<C>::build_snapshot(&mut builder)
        .await
        .expect("builds");
    let ear = Arc::new(Ear::default());
    let log = LogStore::create(&Disk::default(), key()).expect("creates");
    let mut other = machine(&log, &ear);
    RaftStateMachine::<C>::install_snapshot(&mut other, &snapshot.meta, snapshot.snapshot)
        .await
        .expect("installs");
    assert_eq!(*ear.heard.lock().expect("no panic"), [(1, 0)]);
}
