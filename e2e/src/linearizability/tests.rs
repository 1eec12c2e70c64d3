use super::*;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(10);

fn hash(number: u8) -> Hash {
    Hash([number; 32])
}

fn link(number: u8) -> Link {
    Link {
        transition: hash(number),
        manifest: hash(100 + number),
    }
}

fn operation(start: u64, end: u64, question: Question, answer: Answer) -> Operation {
    Operation {
        client: 0,
        replica: 0,
        start: Duration::from_secs(start),
        end: Duration::from_secs(end),
        question,
        answer,
    }
}

/// Asks for transition `number` after the one before it.
fn set(start: u64, end: u64, number: u8, answer: Answer) -> Operation {
    let base = if number == 1 {
        Hash::NONE
    } else {
        hash(number - 1)
    };
    let manifest = hash(100 + number);
    operation(start, end, Question::Set { base, manifest }, answer)
}

fn done(number: u8) -> Answer {
    Answer::Done {
        transition: hash(number),
    }
}

fn read(start: u64, end: u64, length: u8) -> Operation {
    let links = (1..=length).map(link).collect();
    operation(start, end, Question::Read, Answer::Chain { links })
}

fn issue(start: u64, end: u64, number: u8) -> Operation {
    let answer = Answer::Issued {
        transition: hash(number),
    };
    operation(start, end, Question::Issue, answer)
}

/// Three transitions; concurrent reads, a refused set, one without an answer that took effect, one that did not.
fn good() -> Vec<Operation> {
    vec![
        set(100, 101, 1, done(1)),
        read(102, 110, 1),
        set(103, 105, 2, done(2)),
        set(104, 106, 2, Answer::StaleBase),
        read(107, 108, 2),
        set(109, 120, 3, Answer::Unknown),
        set(109, 120, 9, Answer::Unknown),
        issue(111, 112, 2),
        read(125, 126, 3),
        issue(127, 128, 2),
        set(127, 128, 2, Answer::Failed),
        read(140, 141, 3),
    ]
}

fn outcome(operations: Vec<Operation>) -> Result<Summary, Violation> {
    check(&Log(operations), BOUND)
}

fn stale(operations: Vec<Operation>) {
    let found = outcome(operations);
    assert!(matches!(found, Err(Violation::Stale { .. })), "{found:?}");
}

#[test]
fn what_one_growing_history_explains_passes() {
    let summary = outcome(good()).expect("linearizable");
    assert_eq!(
        summary,
        Summary {
            transitions: 3,
            acknowledged: 2,
            silent: 1,
            reads: 4,
            issued: 2,
        }
    );
    assert_eq!(outcome(Vec::new()).expect("empty"), Summary::default());
}

#[test]
fn order_of_the_log_does_not_matter() {
    let mut backwards = good();
    backwards.reverse();
    outcome(backwards).expect("linearizable");
}

#[test]
fn read_that_misses_an_acknowledged_set_is_stale() {
    let mut log = good();
    log.push(read(107, 108, 1));
    stale(log);
}

#[test]
fn read_may_miss_a_set_that_overlaps_it() {
    let mut log = good();
    log.push(read(104, 107, 1));
    outcome(log).expect("linearizable");
}

#[test]
fn reads_never_go_back_even_without_an_acknowledgement() {
    // The set of transition 3 never had an answer; a read saw it, and a later one does not.
    let mut log = good();
    log.push(read(130, 131, 2));
    stale(log);
}

#[test]
fn nothing_is_seen_before_it_was_asked_for() {
    let mut log = good();
    log.push(read(107, 108, 3));
    stale(log);
    let mut log = good();
    log[2] = set(111, 112, 2, done(2));
    stale(log);
}

#[test]
fn acknowledged_set_that_is_in_no_chain_is_lost() {
    let mut log = good();
    log.push(set(127, 129, 4, done(4)));
    let found = outcome(log);
    assert!(
        matches!(&found, Err(Violation::Lost { transition, .. }) if *transition == hash(4)),
        "{found:?}"
    );
}

#[test]
fn two_sets_on_the_same_base_are_a_fork() {
    let mut log = good();
    let base = hash(1);
    let manifest = hash(150);
    let answer = Answer::Done {
        transition: hash(50),
    };
    log.push(operation(
        103,
        105,
        Question::Set { base, manifest },
        answer,
    ));
    assert!(matches!(outcome(log), Err(Violation::Lost { .. })));
}

#[test]
fn reads_of_different_chains_are_a_fork_also_when_nobody_set_them() {
    let mut log = good();
    let links = vec![link(1), link(50)];
    log.push(operation(107, 108, Question::Read, Answer::Chain { links }));
    let found = outcome(log);
    assert!(
        matches!(found, Err(Violation::Forked { position: 2, .. })),
        "{found:?}"
    );
}

#[test]
fn set_that_took_effect_on_another_base_or_with_another_manifest_is_found() {
    for (base, manifest) in [(hash(2), hash(102)), (hash(1), hash(77))] {
        let mut log = good();
        log[2] = operation(103, 105, Question::Set { base, manifest }, done(2));
        let found = outcome(log);
        assert!(
            matches!(found, Err(Violation::OtherEffect { .. })),
            "{found:?}"
        );
    }
}

#[test]
fn transition_that_nobody_asked_for_is_found() {
    let mut log = good();
    log.retain(|operation| operation.start != Duration::from_secs(109));
    let found = outcome(log);
    assert!(
        matches!(found, Err(Violation::FromNowhere { position: 3, .. })),
        "{found:?}"
    );
}

#[test]
fn certificate_may_be_older_than_the_head_by_the_bound_and_no_more() {
    // Transition 3 was read at 126.
    for (start, fine) in [(136, true), (137, false)] {
        let mut log = good();
        log.push(issue(start, start + 1, 2));
        assert_eq!(outcome(log).is_ok(), fine, "{start}");
    }
    let mut log = good();
    log.push(issue(127, 128, 3));
    log.push(issue(200, 201, 3));
    outcome(log).expect("the head is never too old");
}

#[test]
fn certificate_of_a_transition_that_does_not_exist_is_found() {
    let mut log = good();
    log.push(issue(127, 128, 9));
    let found = outcome(log);
    assert!(
        matches!(found, Err(Violation::IssuedUnderNothing { .. })),
        "{found:?}"
    );
}

#[test]
fn certificate_shows_the_head_to_everybody_after_it() {
    let mut log = good();
    log.push(issue(121, 122, 3));
    log.push(read(123, 124, 2));
    stale(log);
}

#[test]
fn refusal_for_a_stale_base_needs_a_newer_head() {
    let mut log = good();
    // Before anybody asked for transition 3 nothing followed transition 2.
    log.push(set(106, 107, 3, Answer::StaleBase));
    stale(log);
}

#[test]
fn refused_set_shows_a_newer_head_to_everybody_after_it() {
    let mut log = good();
    log.push(set(121, 122, 3, Answer::StaleBase));
    log.push(read(123, 124, 2));
    stale(log);
}

#[test]
fn recovery_appends_a_transition_with_the_manifest_of_the_head() {
    let recovered = Link {
        transition: hash(4),
        manifest: link(3).manifest,
    };
    let with = |last: Link| {
        let mut log = good();
        let links = vec![link(1), link(2), link(3), last];
        log.push(operation(150, 160, Question::Recover, done(4)));
        log.push(operation(161, 162, Question::Read, Answer::Chain { links }));
        outcome(log)
    };
    assert_eq!(with(recovered).expect("linearizable").acknowledged, 3);
    assert!(matches!(with(link(4)), Err(Violation::OtherEffect { .. })));
}

/// The answer to a set was lost with the power. Repeated after the recovery, it names the transition that the recovery made.
#[test]
fn set_may_be_answered_with_the_recovery_that_followed_it() {
    let recovered = Link {
        transition: hash(5),
        manifest: link(4).manifest,
    };
    let with = |asked: u8, last: Link| {
        let mut log = good();
        let links = vec![link(1), link(2), link(3), link(4), last];
        log.push(set(150, 165, asked, done(5)));
        log.push(operation(155, 160, Question::Recover, done(5)));
        log.push(operation(170, 172, Question::Read, Answer::Chain { links }));
        outcome(log)
    };
    assert_eq!(with(4, recovered).expect("linearizable").acknowledged, 4);
    assert!(with(4, link(5)).is_err(), "another manifest");
    assert!(with(3, recovered).is_err(), "another base");
}

#[test]
fn log_survives_its_file() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("log.jsonl");
    let log = Log(good());
    log.write(&path).expect("writes");
    assert_eq!(Log::read(&path).expect("reads"), log);
    std::fs::write(&path, "{}\n").expect("writes");
    assert!(matches!(
        Log::read(&path),
        Err(LogError::Line { line: 1, .. })
    ));
}

#[test]
fn latest_transition_follows_from_acknowledgements_in_any_order_and_from_reads() {
    assert_eq!(Log::default().latest(), Hash::NONE);
    let acknowledged = |numbers: &[u8]| {
        let sets = numbers
            .iter()
            .map(|number| set(1, 2, *number, done(*number)));
        Log(sets.collect())
    };
    assert_eq!(acknowledged(&[3, 1, 2]).latest(), hash(3));
    let mut log = acknowledged(&[5, 4]);
    assert_eq!(log.latest(), Hash::NONE, "their bases are not known");
    log.0.push(read(1, 2, 3));
    assert_eq!(log.latest(), hash(5));
    log.0.push(read(1, 2, 7));
    assert_eq!(log.latest(), hash(7));
}

#[test]
fn longest_gap_counts_from_the_first_operation_to_the_last() {
    let log = Log(vec![
        read(0, 1, 1),
        issue(2, 4, 1),
        issue(9, 10, 1),
        operation(10, 30, Question::Issue, Answer::Failed),
    ]);
    assert_eq!(log.longest_gap("issue"), Duration::from_secs(20));
    assert_eq!(log.longest_gap("read"), Duration::from_secs(29));
}
