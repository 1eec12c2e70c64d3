//! Power loss and disk full at every operation of every kind of write.

use bytes::Bytes;
use contrast_clock::{Entropy, SeededEntropy};

use super::fixture::{NODE, blank, id, journal, key, three_entries};
use crate::{
    cluster::{
        EntryId, LogEntry, LogStoreError, LoggedMembers, NodeVote, SnapshotInfo, journal::Journal,
    },
    state::tests::fixture::{Disk, Operation, apply},
};

/// All that a store promises to keep.
#[derive(Debug, Clone, PartialEq)]
struct Content {
    vote: Option<NodeVote>,
    committed: Option<EntryId>,
    purged: Option<EntryId>,
    last: Option<EntryId>,
    entries: Vec<LogEntry>,
    snapshot: Option<(SnapshotInfo, Bytes)>,
}

fn content(journal: &mut Journal) -> Content {
    Content {
        vote: journal.vote(),
        committed: journal.committed(),
        purged: journal.purged(),
        last: journal.last(),
        entries: journal.entries(0, u64::MAX).expect("reads"),
        snapshot: journal.snapshot().expect("reads"),
    }
}

type Write = fn(&mut Journal) -> Result<(), LogStoreError>;

fn snapshot(journal: &mut Journal, index: u64, chain: &[u8]) -> Result<(), LogStoreError> {
    let info = SnapshotInfo {
        last_log_id: Some(id(1, index)),
        last_membership: LoggedMembers::default(),
    };
    journal.save_snapshot(&info, chain).map(drop)
}

/// Every kind of write, and whether it is durable when it returns.
const WRITES: [(&str, bool, Write); 12] = [
    ("first vote", true, |j| j.save_vote(&NodeVote::new(1, NODE))),
    ("vote", true, |j| {
        j.save_vote(&NodeVote::new_committed(1, NODE))
    }),
    ("first entries", true, |j| j.append(three_entries())),
    ("committed marker", false, |j| {
        j.save_committed(Some(id(1, 1)))
    }),
    ("entry after a marker", true, |j| {
        j.append(vec![blank(1, 3)])
    }),
    ("truncation", true, |j| j.truncate_after(Some(id(1, 2)))),
    ("entry after truncation", true, |j| {
        j.append(vec![blank(2, 3), blank(2, 4)])
    }),
    ("committed marker again", false, |j| {
        j.save_committed(Some(id(1, 2)))
    }),
    ("first snapshot", true, |j| snapshot(j, 1, &[1; 9000])),
    ("purge", true, |j| j.purge(id(1, 1))),
    ("next snapshot", true, |j| snapshot(j, 2, &[2; 5000])),
    ("purge beyond the log", true, |j| j.purge(id(3, 9))),
];

#[test]
fn power_loss_leaves_the_store_before_or_after_a_write_and_after_it_once_it_returned() {
    let (disk, mut journal) = journal();
    disk.take_log();
    let mut synced = disk.bytes();
    let mut pending: Vec<Operation> = Vec::new();
    let mut states = vec![content(&mut journal)];
    let mut durable = 0;
    let entropy = SeededEntropy::new(5);
    for (name, is_durable, write) in WRITES {
        write(&mut journal).expect(name);
        states.push(content(&mut journal));
        for operation in disk.take_log() {
            pending.push(operation.clone());
            check_images(name, &synced, &pending, &states[durable..], &entropy);
            if matches!(operation, Operation::Sync) {
                pending
                    .iter()
                    .for_each(|operation| apply(&mut synced, operation));
                pending.clear();
            }
        }
        if is_durable {
            durable = states.len() - 1;
        }
        // Once the write returned, only what is durable counts.
        check_images(name, &synced, &pending, &states[durable..], &entropy);
    }
    assert!(
        states.windows(2).all(|pair| pair[0] != pair[1]),
        "a write wrote nothing"
    );
}

/// Opens every state that the disk may be in: with all, none, or some of the writes since the last sync.
fn check_images(
    name: &str,
    synced: &[u8],
    pending: &[Operation],
    allowed: &[Content],
    entropy: &SeededEntropy,
) {
    for image in 0..4 {
        let mut bytes = synced.to_vec();
        for operation in pending {
            let mut coin = [0];
            entropy.fill(&mut coin).expect("entropy");
            let keep = match image {
                0 => true,
                1 => false,
                _ => coin[0] & 1 == 1,
            };
            // Changes of length are kept: what is written beyond the end of a file extends it.
            if keep || matches!(operation, Operation::SetLength(_)) {
                apply(&mut bytes, operation);
            }
        }
        let mut journal = Journal::open(&Disk::holding(bytes), key())
            .unwrap_or_else(|error| panic!("{name}: an interrupted store does not open: {error}"));
        let found = content(&mut journal);
        assert!(
            allowed.contains(&found),
            "{name}: neither before nor after: {found:?}"
        );
        // What was found can be gone on with.
        journal.save_vote(&NodeVote::new(8, 8)).expect(name);
    }
}

#[test]
fn full_disk_gives_the_store_up_and_a_restart_finds_it_before_or_after_the_write() {
    for step in 0..WRITES.len() {
        let (name, _, write) = WRITES[step];
        let mut failures = 0;
        for room in 0.. {
            let (disk, mut journal) = journal();
            for (name, _, write) in &WRITES[..step] {
                write(&mut journal).expect(name);
            }
            let before = content(&mut journal);
            disk.full_after(Some(room));
            let outcome = write(&mut journal);
            if outcome.is_ok() {
                break;
            }
            failures += 1;
            let error = outcome.expect_err("full");
            assert!(matches!(error, LogStoreError::Full(_)), "{name}: {error:?}");
            assert!(!error.is_evidence_of_damage());
            let error = write(&mut journal).expect_err("given up");
            assert!(matches!(error, LogStoreError::GivenUp), "{name}: {error:?}");
            drop(journal);

            disk.full_after(None);
            let mut journal = Journal::open(&disk, key()).expect("there is room again");
            let found = content(&mut journal);
            if found != before {
                // The markers of writes that were not durable yet may be lost, too.
                let mut reference = super::fixture::journal().1;
                let states: Vec<Content> = WRITES[..=step]
                    .iter()
                    .map(|(name, _, write)| {
                        write(&mut reference).expect(name);
                        content(&mut reference)
                    })
                    .collect();
                assert!(states.contains(&found), "{name}: {found:?}");
            }
        }
        // A marker that is not durable need not touch the disk.
        assert!(
            failures > 0 || !WRITES[step].1,
            "{name} never met the full disk"
        );
    }
}
