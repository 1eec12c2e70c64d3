use proptest::prelude::*;

use super::*;
use crate::{Chain, Event, Outcome, Subject};

fn events(kinds: &[Kind]) -> Vec<Event> {
    let event = |(index, kind): (usize, &Kind)| Event {
        kind: *kind,
        outcome: Outcome::Done,
        reason: format!("REASON_{index}").into(),
        subject: Subject {
            names: vec![format!("name \"{index}\"")],
            ..Subject::default()
        },
    };
    kinds.iter().enumerate().map(event).collect()
}

/// Lines of one process.
fn chain(kinds: &[Kind]) -> Vec<String> {
    let mut chain = Chain::default();
    let lines = events(kinds).into_iter();
    lines.map(|event| chain.append(7, event).line).collect()
}

fn checked(lines: &[String], head: Option<Hash>) -> Result<Checked, CheckError> {
    let mut text = lines.join("\n");
    text.push('\n');
    check(text.as_bytes(), head, |_, _, _| {})
}

fn head_of(lines: &[String]) -> Hash {
    let last = lines.last().expect("a record");
    Record::parse(last).expect("a record").1
}

const LIFE: [Kind; 4] = [Kind::Start, Kind::Certificate, Kind::Volume, Kind::Stop];

#[test]
fn file_with_two_processes_and_lines_of_the_log_holds() {
    let first = chain(&LIFE);
    let second = chain(&LIFE[..2]);
    let mut lines = first.clone();
    lines.insert(1, "2026-11-27 INFO issued a certificate".to_owned());
    lines.extend(second.iter().cloned());
    let found = checked(&lines, Some(head_of(&second))).expect("holds");
    let segment = |line, last, lines: &[String], stopped| Segment {
        line,
        first: 0,
        last,
        head: head_of(lines),
        stopped,
        lost: 0,
    };
    assert_eq!(
        found,
        Checked {
            segments: vec![segment(1, 3, &first, true), segment(6, 1, &second, false)],
            records: 6,
            other_lines: 1,
            cut_lines: 0,
            head_line: Some(7),
        }
    );
}

#[test]
fn place_of_a_break_is_named() {
    let lines = chain(&LIFE);
    let mut removed = lines.clone();
    removed.remove(1);
    let error = checked(&removed, None).expect_err("removed");
    let expected = "the chain breaks at line 2: expected record 1, found record 2; records were removed or moved";
    assert_eq!(error.to_string(), expected);

    let mut changed = lines.clone();
    changed[2] = changed[2].replace("REASON_2", "REASON_9");
    let error = checked(&changed, None).expect_err("changed").to_string();
    assert!(
        error.starts_with("line 3 was changed: expected the hash "),
        "{error}"
    );

    // A forger who computes the hash of what is changed breaks the link to the record that follows.
    let (mut record, _) = Record::parse(&lines[1]).expect("a record");
    record.outcome = Outcome::Refused;
    let mut forged = lines.clone();
    forged[1] = record.line();
    let error = checked(&forged, None).expect_err("forged").to_string();
    assert!(
        error.starts_with("the chain breaks at line 3: expected a record that follows "),
        "{error}"
    );

    let mut again = lines.clone();
    again.insert(2, lines[1].clone());
    let error = checked(&again, None).expect_err("repeated").to_string();
    assert!(
        error.contains("expected record 2, found record 1"),
        "{error}"
    );
}

#[test]
fn end_that_was_dropped_is_found_by_the_head_only() {
    let lines = chain(&LIFE);
    let head = Some(head_of(&lines));
    checked(&lines, head).expect("whole");
    assert!(!checked(&lines[..3], None).expect("holds").segments[0].stopped);
    let error = checked(&lines[..3], head).expect_err("dropped");
    assert!(matches!(error, CheckError::Head { .. }), "{error}");
    // Older than what the file has is fine: it was fetched later.
    checked(&lines, Some(head_of(&lines[..2]))).expect("whole");
}

#[test]
fn half_a_line_of_a_process_that_was_killed_is_no_break() {
    let lines = chain(&LIFE);
    let half = lines[3][..40].to_owned();
    let running = [&lines[..3], std::slice::from_ref(&half)].concat();
    let found = checked(&running, None).expect("it still writes");
    assert_eq!((found.cut_lines, found.records), (1, 3));
    let restarted = [&running[..], &lines[..]].concat();
    let found = checked(&restarted, None).expect("it was killed, and another one began");
    assert_eq!((found.cut_lines, found.segments.len()), (1, 2));
    // Something of the same process behind it was not written by a Coordinator.
    let error = checked(&[&running[..], &lines[3..]].concat(), None).expect_err("goes on");
    assert!(
        matches!(error, CheckError::Record { line: 4, .. }),
        "{error}"
    );
    let error = checked(&[&running[..], &[half]].concat(), None).expect_err("twice");
    assert!(
        matches!(error, CheckError::Record { line: 4, .. }),
        "{error}"
    );
}

#[test]
fn end_that_was_written_anew_is_found_by_the_head_only() {
    let lines = chain(&LIFE);
    let (first, _) = Record::parse(&lines[1]).expect("a record");
    let forged = Record {
        time_ms: first.time_ms + 1,
        ..first
    };
    let (second, _) = Record::parse(&lines[2]).expect("a record");
    let then = Record {
        previous: forged.hash(),
        ..second
    };
    let other = [lines[0].clone(), forged.line(), then.line()];
    checked(&other, None).expect("a chain has no key");
    let error = checked(&other, Some(head_of(&lines))).expect_err("not what the Coordinator named");
    assert!(matches!(error, CheckError::Head { .. }), "{error}");
}

#[test]
fn chain_begins_with_a_start_that_follows_nothing() {
    let error = checked(&chain(&[Kind::Volume]), None).expect_err("no start");
    assert!(
        matches!(error, CheckError::Start { line: 1, .. }),
        "{error}"
    );
    let lines = chain(&LIFE);
    let found = checked(&lines[2..], None).expect("the end of a chain");
    assert_eq!((found.segments[0].first, found.segments[0].last), (2, 3));
}

#[test]
fn spelling_and_length_are_bound() {
    let lines = chain(&LIFE);
    for (from, to) in [
        ("\"sequence\":1", "\"sequence\": 1"),
        ("\"kind\":\"certificate\"", "\"kind\":\"\\u0063ertificate\""),
        ("\"reason\":", "\"reason\":\"\",\"reason\":"),
        ("\"subject\":{", "\"subject\":{\"address\":\"1.2.3.4\","),
        (
            "\"sequence\":1,\"time_ms\":7",
            "\"time_ms\":7,\"sequence\":1",
        ),
    ] {
        let mut other = lines.clone();
        other[1] = other[1].replace(from, to);
        assert_ne!(other, lines, "{from}");
        let error = checked(&other, None).expect_err(to);
        assert!(
            matches!(error, CheckError::Record { line: 2, .. }),
            "{to}: {error}"
        );
    }
    let mut newer = lines.clone();
    newer[1] = newer[1].replace("{\"audit\":1,", "{\"audit\":2,\"new\":3,");
    let error = checked(&newer, None).expect_err("another version");
    assert!(
        matches!(
            error,
            CheckError::Record {
                source: ParseError::Format { found: 2 },
                ..
            }
        ),
        "{error}"
    );
    let mut long = lines;
    long[1].push_str(&" ".repeat(LINE_BYTES_MAX));
    let error = checked(&long, None).expect_err("too long");
    assert!(matches!(error, CheckError::TooLong { line: 2 }), "{error}");
}

#[derive(Debug, Clone)]
enum Tampering {
    Byte(usize, u8),
    Remove(usize),
    Swap(usize, usize),
    Repeat(usize),
    /// Of one line, with a hash that fits what it says then.
    Forge(usize),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    prop_oneof![
        (any::<usize>(), 1..=255_u8).prop_map(|(at, bits)| Tampering::Byte(at, bits)),
        any::<usize>().prop_map(Tampering::Remove),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Tampering::Swap(a, b)),
        any::<usize>().prop_map(Tampering::Repeat),
        any::<usize>().prop_map(Tampering::Forge),
    ]
}

proptest! {
    /// Whoever knows the head, and that the file is the whole chain, notices everything.
    #[test]
    fn every_change_is_found(length in 1..12_usize, tampering in tampering()) {
        let mut kinds = vec![Kind::Start];
        kinds.resize(length, Kind::Certificate);
        let lines = chain(&kinds);
        let head = head_of(&lines);
        let mut other = lines.clone();
        match tampering {
            Tampering::Byte(at, bits) => {
                let mut bytes = lines.join("\n").into_bytes();
                let at = at % bytes.len();
                bytes[at] ^= bits;
                let found = check(bytes.as_slice(), Some(head), |_, _, _| {});
                let unseen = found.is_ok_and(|found| whole(&found, length));
                prop_assert!(!unseen, "byte {at} was changed");
                return Ok(());
            }
            Tampering::Remove(at) => {
                other.remove(at % length);
            }
            Tampering::Swap(a, b) => other.swap(a % length, b % length),
            Tampering::Repeat(at) => other.insert(at % length, lines[at % length].clone()),
            Tampering::Forge(at) => {
                let (mut record, _) = Record::parse(&lines[at % length]).expect("a record");
                record.time_ms += 1;
                other[at % length] = record.line();
            }
        }
        prop_assume!(other != lines);
        let found = checked(&other, Some(head));
        let unseen = found.is_ok_and(|found| whole(&found, length));
        prop_assert!(!unseen, "{other:#?}");
    }

    /// Even without the head, nothing changes between the first and the last record that are left.
    #[test]
    fn middle_is_found_without_the_head(length in 3..12_usize, at in any::<usize>(), with in any::<usize>()) {
        let mut kinds = vec![Kind::Start];
        kinds.resize(length, Kind::Volume);
        let lines = chain(&kinds);
        let at = 1 + at % (length - 2);
        let mut removed = lines.clone();
        removed.remove(at);
        prop_assert!(checked(&removed, None).is_err());
        let mut swapped = lines.clone();
        swapped.swap(at, with % length);
        prop_assume!(swapped != lines);
        prop_assert!(checked(&swapped, None).is_err());
    }
}

fn whole(found: &Checked, length: usize) -> bool {
    let count = u64::try_from(length).expect("small");
    found.records == count
        && matches!(found.segments.as_slice(), [only] if only.first == 0 && only.last + 1 == count)
}
