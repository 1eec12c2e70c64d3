//! An adversary who can write authentic but old, moved or foreign records, row by row.

use openraft::RaftLogReader;
use redb::{Database, ReadableDatabase, TableDefinition};

use super::fixture::{NODE, blank, id, journal, key, key_of, three_entries};
use crate::{
    cluster::{
        LogStore, LogStoreError, LoggedMembers, NodeVote, RecordError, RecordFault, RecordName,
        SnapshotInfo, TypeConfig, journal::Journal, record::Kind,
    },
    state::tests::fixture::Disk,
};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("raft_meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("raft_log");
const CHAIN: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("raft_chain");

fn database(disk: &Disk) -> Database {
    Database::builder()
        .create_with_backend(disk.clone())
        .expect("opens")
}

fn row(disk: &Disk, name: &str) -> Vec<u8> {
    let database = database(disk);
    let transaction = database.begin_read().expect("begins");
    let table = transaction.open_table(META).expect("opens");
    table
        .get(name)
        .expect("reads")
        .expect("is there")
        .value()
        .to_vec()
}

fn entry_row(disk: &Disk, index: u64) -> Vec<u8> {
    let database = database(disk);
    let transaction = database.begin_read().expect("begins");
    let table = transaction.open_table(LOG).expect("opens");
    table
        .get(index)
        .expect("reads")
        .expect("is there")
        .value()
        .to_vec()
}

fn set_row(disk: &Disk, name: &str, record: Option<&[u8]>) {
    let database = database(disk);
    let transaction = database.begin_write().expect("begins");
    {
        let mut table = transaction.open_table(META).expect("opens");
        match record {
            Some(record) => table.insert(name, record).expect("inserts"),
            None => table.remove(name).expect("removes"),
        };
    }
    transaction.commit().expect("commits");
}

fn set_entry_row(disk: &Disk, index: u64, record: Option<&[u8]>) {
    let database = database(disk);
    let transaction = database.begin_write().expect("begins");
    {
        let mut table = transaction.open_table(LOG).expect("opens");
        match record {
            Some(record) => table.insert(index, record).expect("inserts"),
            None => table.remove(index).expect("removes"),
        };
    }
    transaction.commit().expect("commits");
}

/// What the store says about the disk, which must stay as it is.
fn refusal(disk: &Disk) -> RecordError {
    let before = disk.bytes();
    let error = Journal::open(disk, key()).expect_err("refused");
    assert!(disk.bytes() == before, "a refused disk was modified");
    match error {
        LogStoreError::Record(error) => error,
        other => panic!("expected a record to be blamed, found: {other}"),
    }
}

fn blames(disk: &Disk, record: RecordName, fault: &RecordFault) {
    assert_eq!(refusal(disk), RecordError::new(record, fault.clone()));
}

fn info() -> SnapshotInfo {
    SnapshotInfo {
        last_log_id: Some(id(1, 1)),
        last_membership: LoggedMembers::default(),
    }
}

/// A closed store with a vote, a committed marker, a purged one, a snapshot, and the entries 1 and 2.
fn full_store() -> Disk {
    let (disk, mut journal) = journal();
    journal.save_vote(&NodeVote::new(1, NODE)).expect("saves");
    journal.append(three_entries()).expect("appends");
    journal.save_committed(Some(id(1, 1))).expect("saves");
    journal.save_snapshot(&info(), b"chain").expect("saves");
    journal.purge(id(0, 0)).expect("purges");
    drop(journal);
    Journal::open(&disk, key()).expect("is intact");
    disk
}

const SINGLE: [(Kind, &str); 4] = [
    (Kind::Vote, "vote"),
    (Kind::Committed, "committed"),
    (Kind::Purged, "purged"),
    (Kind::Snapshot, "snapshot"),
];

#[test]
fn removed_record_is_missed() {
    for (kind, name) in SINGLE.into_iter().chain([(Kind::Root, "root")]) {
        let disk = full_store();
        set_row(&disk, name, None);
        blames(&disk, RecordName::single(kind), &RecordFault::Missing);
    }
}

#[test]
fn record_of_another_row_is_refused_by_name() {
    for (kind, name) in SINGLE {
        let (other, from) = if kind == Kind::Vote {
            (Kind::Purged, "purged")
        } else {
            (Kind::Vote, "vote")
        };
        let disk = full_store();
        set_row(&disk, name, Some(&row(&disk, from)));
        let found = RecordName::single(other);
        blames(
            &disk,
            RecordName::single(kind),
            &RecordFault::Misplaced { found },
        );
    }
}

#[test]
fn old_vote_beside_newer_records_is_refused() {
    let (disk, mut journal) = journal();
    journal.save_vote(&NodeVote::new(1, NODE)).expect("saves");
    drop(journal);
    let old = row(&disk, "vote");
    let mut journal = Journal::open(&disk, key()).expect("opens");
    journal.save_vote(&NodeVote::new(2, 7)).expect("saves");
    drop(journal);
    set_row(&disk, "vote", Some(&old));
    blames(&disk, RecordName::single(Kind::Vote), &RecordFault::Stale);
}

#[test]
fn vote_from_before_the_first_is_refused() {
    let (disk, mut journal) = journal();
    journal.append(three_entries()).expect("appends");
    drop(journal);
    let root = row(&disk, "root");
    let mut journal = Journal::open(&disk, key()).expect("opens");
    journal.save_vote(&NodeVote::new(1, NODE)).expect("saves");
    drop(journal);
    set_row(&disk, "root", Some(&root));
    blames(
        &disk,
        RecordName::single(Kind::Vote),
        &RecordFault::Superfluous,
    );
}

#[test]
fn log_without_its_end_is_refused() {
    let disk = full_store();
    set_entry_row(&disk, 2, None);
    blames(&disk, RecordName::entry(2), &RecordFault::Missing);
    set_entry_row(&disk, 1, None);
    blames(&disk, RecordName::entry(1), &RecordFault::Missing);
}

#[test]
fn log_with_a_hole_is_refused() {
    let (disk, mut journal) = journal();
    journal.append(three_entries()).expect("appends");
    drop(journal);
    set_entry_row(&disk, 1, None);
    blames(&disk, RecordName::entry(1), &RecordFault::Missing);
}

#[test]
fn purged_entry_that_comes_back_is_refused() {
    let (disk, mut journal) = journal();
    journal.append(three_entries()).expect("appends");
    drop(journal);
    let purged = entry_row(&disk, 0);
    let mut journal = Journal::open(&disk, key()).expect("opens");
    journal.purge(id(0, 0)).expect("purges");
    drop(journal);
    set_entry_row(&disk, 0, Some(&purged));
    blames(&disk, RecordName::entry(0), &RecordFault::Superfluous);
}

#[test]
fn truncated_entry_that_comes_back_is_refused() {
    for replaced in [false, true] {
        let (disk, mut journal) = journal();
        journal.append(three_entries()).expect("appends");
        drop(journal);
        let old = entry_row(&disk, 2);
        let mut journal = Journal::open(&disk, key()).expect("opens");
        journal.truncate_after(Some(id(1, 1))).expect("truncates");
        if replaced {
            journal.append(vec![blank(2, 2)]).expect("appends");
        }
        drop(journal);
        set_entry_row(&disk, 2, Some(&old));
        match replaced {
            false => blames(&disk, RecordName::entry(2), &RecordFault::Superfluous),
            true => blames(&disk, RecordName::entry(3), &RecordFault::Missing),
        }
    }
}

#[test]
fn old_entry_within_the_log_is_refused() {
    let (disk, mut journal) = journal();
    journal.append(three_entries()).expect("appends");
    drop(journal);
    let old = entry_row(&disk, 1);
    let mut journal = Journal::open(&disk, key()).expect("opens");
    journal.truncate_after(Some(id(0, 0))).expect("truncates");
    journal
        .append(vec![blank(2, 1), blank(2, 2)])
        .expect("appends");
    drop(journal);
    set_entry_row(&disk, 1, Some(&old));
    blames(&disk, RecordName::entry(2), &RecordFault::Stale);
}

#[test]
fn swapped_entries_are_refused_by_name() {
    let disk = full_store();
    let (first, second) = (entry_row(&disk, 1), entry_row(&disk, 2));
    set_entry_row(&disk, 1, Some(&second));
    set_entry_row(&disk, 2, Some(&first));
    let found = RecordName::entry(2);
    blames(
        &disk,
        RecordName::entry(1),
        &RecordFault::Misplaced { found },
    );
}

#[test]
fn entry_of_another_node_is_refused() {
    let other = Disk::default();
    let mut theirs = Journal::create(&other, key_of(1, 1, 7), None).expect("creates");
    theirs.append(three_entries()).expect("appends");
    drop(theirs);
    let disk = full_store();
    set_entry_row(&disk, 2, Some(&entry_row(&other, 2)));
    blames(&disk, RecordName::entry(2), &RecordFault::Mac);
}

#[test]
fn chain_that_is_not_the_described_one_is_refused() {
    for chain in [
        None,
        Some(&b"chaim"[..]),
        Some(b"chain and more"),
        Some(b""),
    ] {
        let disk = full_store();
        let database = database(&disk);
        let transaction = database.begin_write().expect("begins");
        {
            let mut table = transaction.open_table(CHAIN).expect("opens");
            match chain {
                Some(chain) => table.insert(0, chain).expect("inserts"),
                None => table.remove(0).expect("removes"),
            };
        }
        transaction.commit().expect("commits");
        assert_eq!(refusal(&disk).record, RecordName::single(Kind::Snapshot));
    }
}

/// The limit that the module's documentation states.
#[test]
fn old_copy_of_the_whole_disk_is_accepted() {
    let (disk, mut journal) = journal();
    journal.save_vote(&NodeVote::new(1, NODE)).expect("saves");
    drop(journal);
    let old = disk.bytes();
    let mut journal = Journal::open(&disk, key()).expect("opens");
    journal.save_vote(&NodeVote::new(2, 7)).expect("saves");
    let journal =
        Journal::open(&Disk::holding(old), key()).expect("cannot be told from the original");
    assert_eq!(journal.vote(), Some(NodeVote::new(1, NODE)));
}

#[test]
fn entry_that_changes_under_an_open_store_is_refused_and_gives_it_up() {
    let (disk, mut journal) = journal();
    journal.append(three_entries()).expect("appends");
    let record = entry_row(&Disk::holding(disk.bytes()), 2);
    let mut changed = record.clone();
    changed[20] ^= 1;
    assert!(disk.replace(&record, &changed) > 0);
    refuses_entry_2_and_gives_up(&mut journal, &RecordFault::Mac);
}

#[test]
fn old_entry_that_is_put_under_an_open_store_is_refused_and_gives_it_up() {
    let (disk, mut journal) = journal();
    journal
        .append(vec![blank(1, 1), blank(1, 2)])
        .expect("appends");
    let old = entry_row(&Disk::holding(disk.bytes()), 2);
    journal.truncate_after(Some(id(1, 1))).expect("truncates");
    journal.append(vec![blank(2, 2)]).expect("appends");
    let new = entry_row(&Disk::holding(disk.bytes()), 2);
    assert!(disk.replace(&new, &old) > 0);
    refuses_entry_2_and_gives_up(&mut journal, &RecordFault::Stale);
}

fn refuses_entry_2_and_gives_up(journal: &mut Journal, fault: &RecordFault) {
    let error = journal.entries(0, 9).expect_err("refused");
    let expected = RecordError::new(RecordName::entry(2), fault.clone());
    assert!(
        matches!(&error, LogStoreError::Record(error) if *error == expected),
        "{error}"
    );
    let error = journal
        .save_vote(&NodeVote::new(9, 9))
        .expect_err("given up");
    assert!(matches!(error, LogStoreError::GivenUp), "{error}");
}

#[tokio::test]
async fn openraft_gets_the_typed_error_inside_an_io_error() {
    let (disk, mut journal) = journal();
    journal.append(three_entries()).expect("appends");
    drop(journal);
    let mut log = LogStore::open(&disk, key()).expect("opens");
    let record = entry_row(&Disk::holding(disk.bytes()), 2);
    let mut changed = record.clone();
    changed[20] ^= 1;
    assert!(disk.replace(&record, &changed) > 0);
    let error = RaftLogReader::<TypeConfig>::try_get_log_entries(&mut log, ..)
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    let cause = error.into_inner().expect("a cause");
    let cause: Box<LogStoreError> = cause.downcast().expect("a store error");
    assert!(cause.is_evidence_of_damage(), "{cause}");
}

#[test]
fn entries_that_do_not_follow_the_log_are_refused_and_the_store_goes_on() {
    let (_, mut journal) = journal();
    journal.append(three_entries()).expect("appends");
    for index in [1, 2, 4] {
        let error = journal.append(vec![blank(3, index)]).expect_err("a gap");
        assert!(
            matches!(error, LogStoreError::Gap { expected: 3, found } if found == index),
            "{error}"
        );
    }
    let error = journal
        .append(vec![blank(3, 3), blank(3, 5)])
        .expect_err("a gap");
    assert!(
        matches!(
            error,
            LogStoreError::Gap {
                expected: 4,
                found: 5
            }
        ),
        "{error}"
    );
    journal.append(vec![blank(3, 3)]).expect("follows");
    assert_eq!(journal.last(), Some(id(3, 3)));
}
