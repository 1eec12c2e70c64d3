use std::io;

use bytes::Bytes;
use futures::stream;
use openraft::{
    EntryPayload, RaftSnapshotBuilder, StorageHelper,
    storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine},
};

use super::fixture::{
    NODE, change, change_signed_by, entry, founding, id, key, members, three_entries,
    transition_key,
};
use crate::{
    cluster::{
        Answer, ChainError, Change, Command, LogStore, Refusal, SignedChain, SnapshotInfo,
        StateMachine, TypeConfig,
    },
    state::{TransitionHash, tests::fixture::Disk},
};

const NONE: TransitionHash = TransitionHash::NONE;

type C = TypeConfig;

fn machine() -> (Disk, LogStore, StateMachine) {
    let disk = Disk::default();
    let log = LogStore::create(&disk, key()).expect("creates");
    let machine = StateMachine::new(&log, transition_key(1).public_key_spki());
    (disk, log, machine)
}

/// Applies changes from index 1 on and returns the answers.
async fn answers(machine: &mut StateMachine, changes: &[Change]) -> Vec<Answer> {
    let first = machine.view().last_applied.map_or(1, |id| id.index + 1);
    let mut answers = Vec::new();
    for (index, change) in (first..).zip(changes) {
        let mut view = (*machine.view()).clone();
        // What a client hears; `apply` only tells clients.
        answers.push(machine.apply_entry(
            &mut view,
            entry(1, index, EntryPayload::Normal(change.clone().into())),
        ));
        let entry = entry(1, index, EntryPayload::Normal(change.clone().into()));
        apply(machine, [entry]).await.expect("applies");
        assert_eq!(
            head(machine),
            view.history.map_or(NONE, |history| history.head().hash)
        );
    }
    answers
}

async fn apply(
    machine: &mut StateMachine,
    entries: impl IntoIterator<Item = crate::cluster::LogEntry, IntoIter: Send>,
) -> io::Result<()> {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    RaftStateMachine::<C>::apply(machine, stream::iter(entries)).await
}

fn head(machine: &StateMachine) -> TransitionHash {
    machine
        .view()
        .history
        .as_ref()
        .map_or(NONE, |history| history.head().hash)
}

fn hash(change: &Change) -> TransitionHash {
    change.transition.hash()
}

/// The first two changes of a deployment.
fn two() -> (Change, Change) {
    let first = change(NONE, "a");
    let second = change(hash(&first), "b");
    (first, second)
}

#[tokio::test]
async fn transitions_extend_the_history_with_all_that_they_name() {
    let (_, _, mut machine) = machine();
    let (first, second) = two();
    let found = answers(&mut machine, &[first.clone(), second.clone()]).await;
    assert_eq!(
        found,
        [
            Answer::Applied(hash(&first)),
            Answer::Applied(hash(&second))
        ]
    );
    let view = machine.view();
    let history = view.history.as_ref().expect("a history");
    assert_eq!(history.generation(), 2);
    assert_eq!(history.head().transition, second.transition);
    assert_eq!(history.manifests(), [Bytes::from("a"), Bytes::from("b")]);
    let mut policies = [first.policies, second.policies].concat();
    policies.sort();
    let mut found = history.policies();
    found.sort();
    assert_eq!(found, policies);
    assert_eq!(history.root_certificate(), b"root certificate");
    assert_eq!(view.last_applied, Some(id(1, 2)));
}

#[tokio::test]
async fn same_transition_twice_is_applied_once() {
    let (_, _, mut machine) = machine();
    let (first, second) = two();
    let changes = [
        first.clone(),
        first.clone(),
        second.clone(),
        first.clone(),
        second.clone(),
    ];
    let found = answers(&mut machine, &changes).await;
    let expected = changes.iter().map(|change| Answer::Applied(hash(change)));
    assert_eq!(found, expected.collect::<Vec<_>>());
    assert_eq!(
        machine
            .view()
            .history
            .as_ref()
            .expect("a history")
            .generation(),
        2
    );
}

#[tokio::test]
async fn transition_beside_the_head_is_refused_on_every_replica_alike() {
    let (first, second) = two();
    let rival = change(hash(&first), "rival");
    let early = change(TransitionHash([9; 32]), "from nowhere");
    let mut other_first = change(NONE, "another first");
    other_first.founding = Some(founding());
    let changes = [
        first.clone(),
        second.clone(),
        rival.clone(),
        early,
        other_first,
    ];
    let mut all = Vec::new();
    for _ in 0..2 {
        let (_, _, mut machine) = machine();
        all.push(answers(&mut machine, &changes).await);
        assert_eq!(head(&machine), hash(&second));
    }
    assert_eq!(all[0], all[1]);
    let refused = |found| {
        Answer::Refused(Refusal::NotNext {
            head: hash(&second),
            found,
        })
    };
    assert_eq!(
        all[0][2..],
        [
            refused(hash(&first)),
            refused(TransitionHash([9; 32])),
            refused(NONE)
        ]
    );
}

#[tokio::test]
async fn transition_of_another_seed_is_refused() {
    let (_, _, mut machine) = machine();
    let forged = change_signed_by(2, NONE, "a");
    let transition = hash(&forged);
    let found = answers(&mut machine, &[forged]).await;
    assert_eq!(found, [Answer::Refused(Refusal::Signature { transition })]);
    assert!(machine.view().history.is_none());
}

#[tokio::test]
async fn manifest_that_the_transition_does_not_name_is_refused() {
    let (_, _, mut machine) = machine();
    let mut swapped = change(NONE, "a");
    swapped.manifest = Bytes::from("b");
    let found = answers(&mut machine, &[swapped]).await;
    assert!(
        matches!(found[..], [Answer::Refused(Refusal::Manifest { .. })]),
        "{found:?}"
    );
}

#[tokio::test]
async fn first_transition_needs_seed_shares_and_root() {
    let (_, _, mut machine) = machine();
    let mut without = change(NONE, "a");
    without.founding = None;
    let mut unreadable = change(NONE, "a");
    unreadable.founding.as_mut().expect("has one").seed_shares = Bytes::from("no JSON");
    for change in [without, unreadable] {
        let transition = hash(&change);
        let found = answers(&mut machine, &[change]).await;
        assert_eq!(found, [Answer::Refused(Refusal::Founding { transition })]);
    }
}

#[tokio::test]
async fn recovery_can_replace_the_root_certificate() {
    let (_, _, mut machine) = machine();
    let (first, mut second) = two();
    let mut documents = founding();
    documents.root_certificate = Bytes::from("renewed");
    second.founding = Some(documents);
    answers(&mut machine, &[first, second]).await;
    let view = machine.view();
    assert_eq!(
        view.history.as_ref().expect("a history").root_certificate(),
        b"renewed"
    );
}

#[tokio::test]
async fn readers_keep_the_view_that_they_took() {
    let (_, _, mut machine) = machine();
    let (first, second) = two();
    answers(&mut machine, std::slice::from_ref(&first)).await;
    let taken = machine.view();
    answers(&mut machine, &[second]).await;
    assert_eq!(
        taken.history.as_ref().expect("a history").head().hash,
        hash(&first)
    );
}

async fn snapshot_of(machine: &mut StateMachine) -> (SnapshotInfo, SignedChain) {
    let mut builder = RaftStateMachine::<C>::get_snapshot_builder(machine).await;
    let snapshot = RaftSnapshotBuilder::<C>::build_snapshot(&mut builder)
        .await
        .expect("builds");
    (snapshot.meta, snapshot.snapshot)
}

async fn install(
    machine: &mut StateMachine,
    info: &SnapshotInfo,
    chain: SignedChain,
) -> Result<(), ChainError> {
    let before = (head(machine), machine.view().last_applied);
    let outcome = RaftStateMachine::<C>::install_snapshot(machine, info, chain).await;
    outcome.map_err(|error| {
        assert_eq!((head(machine), machine.view().last_applied), before);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        *error
            .into_inner()
            .expect("a cause")
            .downcast()
            .expect("a chain error")
    })
}

#[tokio::test]
async fn snapshot_brings_another_replica_to_the_same_history() {
    let (_, _, mut leader) = machine();
    apply(&mut leader, three_entries()).await.expect("applies");
    let (info, chain) = snapshot_of(&mut leader).await;
    let (_, _, mut follower) = machine();
    install(&mut follower, &info, chain.clone())
        .await
        .expect("installs");
    assert_eq!(head(&follower), head(&leader));
    let (theirs, ours) = (leader.view(), follower.view());
    assert_eq!(
        (theirs.last_applied, &theirs.members),
        (ours.last_applied, &ours.members)
    );
    assert_eq!(ours.members.membership(), &members());
    let stored = RaftStateMachine::<C>::get_current_snapshot(&mut follower)
        .await
        .expect("reads");
    let stored = stored.expect("is stored");
    assert_eq!((stored.meta, stored.snapshot), (info, chain));
}

#[tokio::test]
async fn snapshot_of_another_seed_is_refused() {
    let log = LogStore::create(&Disk::default(), key()).expect("creates");
    let mut liar = StateMachine::new(&log, transition_key(2).public_key_spki());
    answers(&mut liar, &[change_signed_by(2, NONE, "a")]).await;
    let (info, chain) = snapshot_of(&mut liar).await;
    let (_, _, mut honest) = machine();
    let error = install(&mut honest, &info, chain)
        .await
        .expect_err("refused");
    assert!(matches!(error, ChainError::History(_)), "{error}");
    let stored = RaftStateMachine::<C>::get_current_snapshot(&mut honest)
        .await
        .expect("reads");
    assert!(stored.is_none(), "a refused snapshot was stored");
}

#[tokio::test]
async fn snapshot_that_lacks_the_head_is_refused_as_a_fork() {
    let (first, second) = two();
    let rival = change(hash(&first), "rival");
    let (_, _, mut here) = machine();
    answers(&mut here, &[first.clone(), second.clone()]).await;
    let (_, _, empty) = machine();
    for (changes, end) in [
        (vec![first.clone(), rival.clone()], hash(&rival)),
        (vec![first.clone()], hash(&first)),
        (vec![], NONE),
    ] {
        let (_, _, mut there) = machine();
        answers(&mut there, &changes).await;
        let (info, chain) = snapshot_of(&mut there).await;
        let error = install(&mut here, &info, chain).await.expect_err("refused");
        assert!(
            matches!(error, ChainError::Fork { expected, found } if expected == hash(&second) && found == end),
            "{error}"
        );
    }
    assert!(empty.view().history.is_none());
}

#[tokio::test]
async fn damaged_snapshot_is_refused() {
    let (_, _, mut machine) = machine();
    let (first, second) = two();
    answers(&mut machine, &[first, second]).await;
    let (info, chain) = snapshot_of(&mut machine).await;
    for length in [0, 1, 5, chain.0.len() - 1] {
        let error = install(&mut machine, &info, SignedChain(chain.0.slice(..length))).await;
        let error = error.expect_err("refused");
        assert!(
            matches!(error, ChainError::Malformed(_)),
            "{length}: {error}"
        );
    }
}

#[tokio::test]
async fn late_snapshot_does_not_replace_a_newer_one() {
    let (_, _, mut machine) = machine();
    let (first, second) = two();
    answers(&mut machine, &[first]).await;
    let mut late = RaftStateMachine::<C>::get_snapshot_builder(&mut machine).await;
    answers(&mut machine, &[second]).await;
    let (newer, _) = snapshot_of(&mut machine).await;
    RaftSnapshotBuilder::<C>::build_snapshot(&mut late)
        .await
        .expect("builds");
    let stored = RaftStateMachine::<C>::get_current_snapshot(&mut machine)
        .await
        .expect("reads");
    assert_eq!(stored.expect("is stored").meta, newer);
}

#[tokio::test]
async fn restart_finds_the_history_in_snapshot_and_log() {
    let (disk, mut log, mut before) = machine();
    let mut entries = three_entries();
    let EntryPayload::Normal(Command::Change(first)) = &entries[2].payload else {
        panic!("a change")
    };
    let second = change(hash(first), "b");
    entries.push(entry(1, 3, EntryPayload::Normal(second.clone().into())));
    RaftLogStorageExt::<C>::blocking_append(&mut log, entries.clone())
        .await
        .expect("appends");
    RaftLogStorage::<C>::save_committed(&mut log, Some(id(1, 3)))
        .await
        .expect("saves");
    apply(&mut before, entries.drain(..3))
        .await
        .expect("applies");
    snapshot_of(&mut before).await;
    apply(&mut before, entries).await.expect("applies");
    RaftLogStorage::<C>::purge(&mut log, id(1, 1))
        .await
        .expect("purges");
    let expected = before.view();
    drop((log, before));

    let mut log = LogStore::open(&disk, key()).expect("opens");
    let mut after = StateMachine::new(&log, transition_key(1).public_key_spki());
    let mut helper = StorageHelper::<C, _, _>::new(&mut log, &mut after).with_id(NODE);
    helper
        .get_initial_state()
        .await
        .expect("a consistent store");
    assert_eq!(head(&after), hash(&second));
    assert_eq!(after.view().last_applied, expected.last_applied);
    assert_eq!(after.view().members, expected.members);
}
