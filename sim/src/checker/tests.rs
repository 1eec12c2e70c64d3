//! Each promise is noticed when it is broken, and what is allowed is not.

use contrast_coordinator::cluster::{EntryId, LogEntry, NodeVote};
use openraft::{EntryPayload, vote::RaftLeaderId};

use super::*;

const OLD: ClusterId = ClusterId([1; 32]);
const NEW: ClusterId = ClusterId([2; 32]);
const BOUND: Duration = Duration::from_secs(10);

fn checker() -> (Checker, Journal) {
    let journal = Journal::default();
    (Checker::new(&journal, BOUND), journal)
}

fn chain(names: &[u8]) -> Vec<TransitionHash> {
    names
        .iter()
        .map(|name| TransitionHash([*name; 32]))
        .collect()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// An operation that starts and ends without another between.
fn told(checker: &Checker, names: &[u8], at: u64) {
    let operation = checker.begin();
    assert!(checker.end(&operation, "set", &chain(names), seconds(at)));
}

fn assert_broken(journal: &Journal, what: &str) {
    let verdict = journal.verdict().expect("a broken promise is noticed");
    assert!(verdict.contains(what), "{verdict}");
}

#[test]
fn histories_that_begin_alike_are_one() {
    let (checker, journal) = checker();
    checker.look(OLD, "a", &chain(&[1, 2]));
    checker.look(OLD, "b", &chain(&[1]));
    checker.look(OLD, "b", &chain(&[1, 2, 3]));
    checker.look(OLD, "c", &[]);
    assert_eq!(journal.verdict(), None);
}

#[test]
fn fork_within_a_cluster_is_noticed_even_when_the_other_replica_is_gone() {
    let (checker, journal) = checker();
    checker.look(OLD, "a", &chain(&[1, 2]));
    checker.look(OLD, "b", &chain(&[1, 3]));
    assert_broken(&journal, "the history forks: b has");
}

#[test]
fn answer_without_what_was_known_before_is_noticed() {
    let (checker, journal) = checker();
    told(&checker, &[1], 1);
    let before = checker.begin();
    told(&checker, &[1, 2], 2);
    checker.end(&before, "verify", &chain(&[1]), seconds(3));
    assert_eq!(journal.verdict(), None, "it started before 2 was known");
    let after = checker.begin();
    checker.end(&after, "verify", &chain(&[1]), seconds(4));
    assert_broken(&journal, "verify saw 1 transition(s)");
}

#[test]
fn empty_history_after_an_acknowledgement_is_noticed() {
    let (checker, journal) = checker();
    told(&checker, &[1], 1);
    checker.end(&checker.begin(), "verify", &[], seconds(2));
    assert_broken(&journal, "saw no history");
}

#[test]
fn issuing_under_a_superseded_transition_is_allowed_up_to_the_bound() {
    let (checker, journal) = checker();
    told(&checker, &[1], 1);
    told(&checker, &[1, 2], 5);
    checker.issue("a", &chain(&[1]), seconds(15));
    checker.issue("a", &chain(&[1, 2]), seconds(50));
    checker.issue("a", &chain(&[1, 2, 3]), seconds(50));
    assert_eq!(journal.verdict(), None);
    checker.issue("a", &chain(&[1]), seconds(16));
    assert_broken(&journal, "a issues under");
}

#[test]
fn recovery_may_lose_what_nobody_was_told_and_nothing_else() {
    let (checker, journal) = checker();
    told(&checker, &[1, 2], 1);
    checker.look(OLD, "a", &chain(&[1, 2, 3]));
    let asked_before = checker.begin();
    checker.begin_recovery(false);
    assert_eq!(checker.latest(), chain(&[2]).pop());
    checker.look(NEW, "b", &chain(&[1, 2, 4]));
    assert!(!checker.end(&asked_before, "set", &chain(&[1, 2, 3]), seconds(2)));
    told(&checker, &[1, 2, 4], 3);
    assert_eq!(journal.verdict(), None);
    checker.look(NEW, "c", &chain(&[1]));
    assert_broken(&journal, "recovered without");
}

#[test]
fn fork_after_a_recovery_is_noticed_in_the_new_cluster() {
    let (checker, journal) = checker();
    told(&checker, &[1], 1);
    checker.begin_recovery(false);
    checker.look(NEW, "a", &chain(&[1, 4]));
    checker.look(NEW, "b", &chain(&[1, 5]));
    assert_broken(&journal, "the history forks");
}

fn id(term: u64, node: NodeId, index: u64) -> EntryId {
    EntryId::new(Leader::new(term, node), index)
}

fn append(leader: (u64, NodeId), entries: &[EntryId], committed: Option<EntryId>) -> RaftCall {
    let entries = entries.iter().map(|id| LogEntry {
        log_id: *id,
        payload: EntryPayload::Blank,
    });
    RaftCall {
        cluster: OLD,
        from: leader.1,
        to: 9,
        message: RaftMessage::Append {
            vote: NodeVote::new_committed(leader.0, leader.1),
            previous: None,
            entries: entries.collect(),
            committed,
        },
    }
}

#[test]
fn two_entries_committed_at_one_index_are_noticed() {
    let (checker, journal) = checker();
    let (one, two) = (id(1, 1, 5), id(2, 2, 5));
    checker.watch("a", &append((1, 1), &[one], None));
    checker.watch("b", &append((2, 2), &[two], Some(two)));
    assert_eq!(journal.verdict(), None, "the first was never committed");
    checker.watch("b", &append((2, 2), &[id(2, 2, 6)], Some(two)));
    checker.watch("a", &append((1, 1), &[], Some(one)));
    assert_broken(&journal, "which was committed as one of");
}

#[test]
fn two_processes_under_one_leader_id_are_noticed_and_two_leaders_of_a_term_are_counted() {
    let (checker, journal) = checker();
    checker.watch("a", &append((3, 1), &[], None));
    checker.watch("b", &append((3, 2), &[], None));
    assert_eq!((checker.shared_terms(), journal.verdict()), (1, None));
    checker.watch("c", &append((3, 2), &[], None));
    assert_broken(&journal, "c leads as");
}

#[test]
fn two_processes_under_one_identity_are_noticed() {
    let (checker, journal) = checker();
    let cluster = ClusterId([1; 32]);
    checker.identify("a", cluster, 1);
    checker.identify("a", cluster, 1);
    checker.identify("b", ClusterId([2; 32]), 1);
    assert!(
        journal.verdict().is_none(),
        "another cluster has other identities"
    );
    checker.identify("b", cluster, 1);
    assert_broken(&journal, "speaks as identity 1");
}
