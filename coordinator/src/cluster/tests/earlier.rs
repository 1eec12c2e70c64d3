//! What the store of an earlier life still gives, and what it does not.

use std::{fs, slice};

use openraft::{EntryPayload, RaftSnapshotBuilder, storage::RaftStateMachine};
use redb::TableDefinition;
use tempfile::tempdir;

use super::fixture::{
    NODE, blank, change, change_signed_by, derivation, entry, history, id, key, key_of, members,
    transition_key, write_later_entry,
};
use crate::{
    cluster::{
        Change, ClusterId, Command, Earlier, LogFile, LogMedium, LogStore, LogStoreError,
        LoggedMembers, RecordFault, SnapshotInfo, StateMachine, TypeConfig, codec,
        journal::Journal, read_earlier,
    },
    state::{
        Advance, Directory, Generation, History, TransitionHash, VolumeId, Volumes,
        tests::fixture::Disk,
    },
};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("raft_meta");

fn read(medium: &dyn LogMedium) -> Result<Option<Earlier>, LogStoreError> {
    read_earlier(medium, &derivation(1).store_record_key().expect("derives"))
}

fn replay(earlier: &Earlier) -> Option<TransitionHash> {
    let history = earlier.replay(transition_key(1).public_key_spki());
    history.map(|history| history.head().hash)
}

fn continued(history: &History, earlier: &Earlier) -> History {
    history.continued_by(earlier, transition_key(1).public_key_spki())
}

/// Changes `names`, each after the one before; the first follows `previous`.
fn chain(previous: TransitionHash, names: &[&str]) -> Vec<Change> {
    let mut head = previous;
    let follow = |name: &&str| {
        let change = change(head, name);
        head = change.transition.hash();
        change
    };
    names.iter().map(follow).collect()
}

/// A disk with a snapshot of `history` as of entry 5, entries 4 to 6 without a change, and `changes` after them.
fn disk(history: Option<&History>, changes: &[Change]) -> Disk {
    let disk = Disk::default();
    let mut journal = Journal::create(&disk, key(), None).expect("creates");
    let info = SnapshotInfo {
        last_log_id: Some(id(1, 5)),
        last_membership: LoggedMembers::new(Some(id(1, 4)), members()),
    };
    let covered = change(TransitionHash([9; 32]), "before the snapshot");
    let mut entries = vec![
        entry(1, 4, EntryPayload::Membership(members())),
        entry(1, 5, EntryPayload::Normal(covered.into())),
        blank(2, 6),
    ];
    let changes = (7..).zip(changes);
    entries.extend(
        changes.map(|(at, change)| entry(2, at, EntryPayload::Normal(change.clone().into()))),
    );
    journal.append(entries).expect("appends");
    let chain = codec::encode_chain(history).expect("encodes");
    journal.save_snapshot(&info, &chain).expect("saves");
    disk
}

fn earlier(history: Option<&History>, changes: &[Change]) -> Earlier {
    read(&disk(history, changes))
        .expect("reads")
        .expect("is there")
}

#[test]
fn earlier_life_is_named_and_has_snapshot_and_changes_after_it_committed_or_not() {
    let snapshot = history(&["a", "b"]);
    let changes = chain(snapshot.head().hash, &["c", "d"]);
    let disk = disk(Some(&snapshot), &changes);
    let before = disk.bytes();
    for _ in 0..2 {
        let earlier = read(&disk).expect("reads").expect("is there");
        assert_eq!((earlier.cluster, earlier.node), (ClusterId([1; 32]), NODE));
        let found = earlier.history.as_ref().expect("a snapshot");
        assert!(found.links().eq(snapshot.links()));
        let commands: Vec<_> = changes.iter().cloned().map(Command::from).collect();
        assert_eq!(earlier.commands, commands);
        assert_eq!(replay(&earlier), Some(changes[1].transition.hash()));
    }
    assert!(disk.bytes() == before, "reading modified the store");
    Journal::open(&disk, key()).expect("is as it was");
}

#[test]
fn no_store_is_no_error() {
    assert!(read(&Disk::default()).expect("reads").is_none());
}

#[test]
fn store_that_names_another_cluster_or_node_is_refused() {
    let store = disk(Some(&history(&["a"])), &[]);
    for (row, value) in [
        ("cluster", Some(&[2; 32][..])),
        ("node", Some(&43_u64.to_be_bytes()[..])),
        ("node", Some(&[1; 7])),
        ("cluster", None),
    ] {
        let disk = Disk::holding(store.bytes());
        let database = redb::Database::builder()
            .create_with_backend(disk.file())
            .expect("opens");
        let transaction = database.begin_write().expect("begins");
        {
            let mut table = transaction.open_table(META).expect("opens");
            match value {
                Some(value) => table.insert(row, value).expect("inserts"),
                None => table.remove(row).expect("removes"),
            };
        }
        transaction.commit().expect("commits");
        drop(database);
        for error in [
            read(&disk).expect_err("refused"),
            Journal::open(&disk, key()).expect_err("refused"),
        ] {
            assert!(error.is_evidence_of_damage(), "{row}: {error}");
        }
    }
}

#[test]
fn authentic_entry_of_an_unknown_kind_is_neither_skipped_nor_called_damage() {
    let disk = disk(
        Some(&history(&["a"])),
        &chain(TransitionHash([9; 32]), &["b"]),
    );
    read(&disk).expect("reads");
    let secret = derivation(1).store_record_key().expect("derives");
    write_later_entry(&disk, &secret);
    let error = read(&disk).expect_err("a later version wrote it");
    assert!(error.is_of_a_later_version(), "{error}");
    assert!(!error.is_evidence_of_damage());
    let text = error.to_string();
    assert!(
        text.starts_with("the log entry 7 of the Raft store is not usable: it is authentic, and this version does not understand it (an entry of another kind)")
            && text.contains("It was not modified. Start that version again"),
        "{text}"
    );
    Journal::open(&disk, key()).expect_err("no life goes on without it");
}

#[test]
fn snapshot_of_a_later_chain_is_not_called_damage() {
    let disk = Disk::default();
    let mut journal = Journal::create(&disk, key(), None).expect("creates");
    let info = SnapshotInfo {
        last_log_id: Some(id(1, 5)),
        last_membership: LoggedMembers::new(Some(id(1, 4)), members()),
    };
    journal.save_snapshot(&info, &[3, 0, 0]).expect("saves");
    drop(journal);
    let error = read(&disk).expect_err("a later version wrote it");
    assert!(error.is_of_a_later_version(), "{error}");
}

#[test]
fn store_of_another_seed_is_refused() {
    let other = Disk::default();
    Journal::create(&other, key_of(2, 1, NODE), None).expect("creates");
    let error = read(&other).expect_err("refused");
    let LogStoreError::Record(error) = error else {
        panic!("expected a record to be blamed, found: {error}")
    };
    assert_eq!(error.fault, RecordFault::Mac);
}

#[test]
fn history_goes_on_with_the_log() {
    let full = history(&["a", "b", "c", "d"]);
    let (snapshot, changes) = (
        history(&["a", "b"]),
        chain(history(&["a", "b"]).head().hash, &["c", "d"]),
    );
    let log = earlier(Some(&snapshot), &changes);
    let end = changes[1].transition.hash();
    // Behind the snapshot, at it, and within the log.
    for names in [
        &["a"][..],
        &["a", "b"],
        &["a", "b", "c"],
        &["a", "b", "c", "d"],
    ] {
        let continued = continued(&history(names), &log);
        assert_eq!(continued.head().hash, end, "{names:?}");
        assert_eq!(continued.generation(), 4);
        assert_eq!(continued.policies(), full.policies());
        assert_eq!(continued.manifests(), full.manifests());
    }
    // The history on disk is ahead of the log.
    let ahead = history(&["a", "b", "c", "d", "e"]);
    assert_eq!(continued(&ahead, &log).head(), ahead.head());
}

#[test]
fn generations_of_log_and_history_are_merged_whichever_goes_on() {
    let snapshot = history(&["a", "b"]);
    let report = |volume, number| Advance {
        secret_id: "id".into(),
        volume: VolumeId([volume; 16]),
        generation: Generation {
            number,
            reporter: [1; 32],
        },
    };
    let key = transition_key(1);
    let with = |reports: &[Advance]| {
        let mut volumes = Volumes::default();
        for report in reports {
            volumes.advance(report);
        }
        history(&["a", "b"]).with_volumes(volumes)
    };
    let log = Earlier {
        history: Some(
            snapshot
                .clone()
                .with_volumes(with(&[report(1, 2)]).volumes().clone())
                .into(),
        ),
        commands: [report(1, 3), report(2, 4)].map(Command::from).to_vec(),
        ..earlier(Some(&snapshot), &[])
    };
    let numbers = |history: &History| {
        let number = |volume| {
            let found = history.volumes().get("id", VolumeId([volume; 16]));
            found.map(|at| at.number)
        };
        [number(1), number(2), number(3)]
    };
    let continued_from = |history: &History| numbers(&continued(history, &log));
    assert_eq!(continued_from(&snapshot), [Some(3), Some(4), None]);
    let file = with(&[report(2, 9), report(3, 1)]);
    assert_eq!(continued_from(&file), [Some(3), Some(9), Some(1)]);
    assert!(log.covers(&file, key.public_key_spki()));
    // The history on disk goes on after the log.
    let ahead = history(&["a", "b", "c"]).with_volumes(file.volumes().clone());
    assert_eq!(continued_from(&ahead), [Some(3), Some(9), Some(1)]);
    assert!(!log.covers(&ahead, key.public_key_spki()));
    // Nothing counts of a log that is not of this deployment.
    let foreign = continued_by_other(&file, &log);
    assert_eq!(numbers(&foreign), [None, Some(9), Some(1)]);
}

fn continued_by_other(history: &History, log: &Earlier) -> History {
    history.continued_by(log, transition_key(2).public_key_spki())
}

#[test]
fn log_from_the_founding_on_needs_no_snapshot() {
    let changes = chain(TransitionHash::NONE, &["a", "b"]);
    let log = earlier(None, &changes);
    assert!(log.history.is_none());
    assert_eq!(replay(&log), Some(changes[1].transition.hash()));
    let continued = continued(&history(&["a"]), &log);
    assert_eq!(continued.head().hash, changes[1].transition.hash());
    assert_eq!(replay(&earlier(None, &[])), None);
}

#[test]
fn log_of_another_branch_is_ignored() {
    let branch = history(&["a", "b"]);
    let log = earlier(Some(&branch), &chain(branch.head().hash, &["c"]));
    for names in [&["a", "x"][..], &["other"]] {
        let ours = history(names);
        assert_eq!(continued(&ours, &log).head(), ours.head());
    }
}

#[test]
fn refused_change_does_not_end_the_log_and_stays_refused() {
    let snapshot = history(&["a"]);
    let ours = chain(snapshot.head().hash, &["b", "c"]);
    let rival = change(snapshot.head().hash, "rival");
    // Proposed before its predecessor was in the log; refused then, although it would fit the history that came of it.
    let early = change(ours[1].transition.hash(), "early");
    let log = [early, ours[0].clone(), rival, ours[1].clone()];
    let log = earlier(Some(&snapshot), &log);
    let end = ours[1].transition.hash();
    assert_eq!(replay(&log), Some(end));
    for names in [&["a"][..], &["a", "b", "c"]] {
        assert_eq!(
            continued(&history(names), &log).head().hash,
            end,
            "{names:?}"
        );
    }
}

#[test]
fn forged_or_swapped_changes_are_not_taken() {
    let snapshot = history(&["a"]);
    let head = snapshot.head().hash;
    let mut swapped = change(head, "b");
    swapped.manifest = "x".into();
    for bad in [change_signed_by(2, head, "b"), swapped] {
        let log = earlier(Some(&snapshot), slice::from_ref(&bad));
        assert_eq!(replay(&log), Some(head));
        assert_eq!(continued(&snapshot, &log).head().hash, head);
    }
}

#[test]
fn snapshot_with_another_signature_is_not_taken() {
    let log = earlier(Some(&history(&["a", "b"])), &[]);
    let other = transition_key(2);
    assert!(log.replay(other.public_key_spki()).is_none());
    let ours = history(&["a"]);
    let continued = ours.continued_by(&log, other.public_key_spki());
    assert_eq!(continued.head(), ours.head());
}

#[tokio::test]
async fn file_is_read_without_being_touched_also_when_it_was_set_aside() {
    let directory = tempdir().expect("directory");
    let claimed = Directory::claim(directory.path()).expect("claims");
    let file = LogFile::new(&claimed);
    assert!(read(&file).expect("reads").is_none());
    file.set_aside().expect("nothing to do");

    let begun = history(&["a", "b"]);
    let log = LogStore::create_with_snapshot(&file, key(), members(), &begun).expect("creates");
    drop(log);
    let path = directory.path().join("raft.redb");
    let bytes = fs::read(&path).expect("reads");
    let found = read(&file).expect("reads").expect("is there");
    assert_eq!(replay(&found), Some(begun.head().hash));
    assert!(
        fs::read(&path).expect("reads") == bytes,
        "reading modified the file"
    );

    file.set_aside().expect("renames");
    assert!(!path.exists());
    let aside = directory.path().join("raft.earlier.redb");
    assert!(fs::read(&aside).expect("reads") == bytes);
    let found = read(&file).expect("reads").expect("is still there");
    assert_eq!(replay(&found), Some(begun.head().hash));

    // A new life takes the place, and is what the life after it finds.
    let log = LogStore::create(&file, key_of(1, 1, 43)).expect("creates");
    let mut machine = StateMachine::new(&log, transition_key(1).public_key_spki());
    let mut builder = RaftStateMachine::<TypeConfig>::get_snapshot_builder(&mut machine).await;
    RaftSnapshotBuilder::<TypeConfig>::build_snapshot(&mut builder)
        .await
        .expect("builds");
    drop((log, machine, builder));
    let found = read(&file).expect("reads").expect("is there");
    assert_eq!((found.node, replay(&found)), (43, None));
    file.set_aside().expect("replaces");
    assert!(fs::read(&aside).expect("reads") != bytes);
}

#[test]
fn damaged_file_of_an_earlier_life_is_refused_and_untouched() {
    let directory = tempdir().expect("directory");
    let file = LogFile::new(&Directory::claim(directory.path()).expect("claims"));
    drop(
        LogStore::create_with_snapshot(&file, key(), members(), &history(&["a"])).expect("creates"),
    );
    let path = directory.path().join("raft.redb");
    let mut bytes = fs::read(&path).expect("reads");
    let half = bytes.len() / 2;
    bytes.truncate(half);
    fs::write(&path, &bytes).expect("writes");
    let error = read(&file).expect_err("refused");
    assert!(error.is_evidence_of_damage(), "{error}");
    assert!(fs::read(&path).expect("reads") == bytes);
}
