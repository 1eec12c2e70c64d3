use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use contrast_pki::RootKey;
use proptest::prelude::*;

use super::*;

/// Mesh CA of generation `ca`, as one of the replicas certifies it.
fn mesh_ca(ca: u32) -> MeshCaCertificate {
    MeshCaCertificate {
        pem: format!("ca-{ca}"),
        key: ca.to_be_bytes().to_vec(),
    }
}

/// Certificate `number` of the mesh CA of generation `ca`, after which `previous` is trusted for some milliseconds.
pub(crate) fn answer(ca: u32, number: u32, previous: Option<(u32, u64)>) -> Enrolled {
    Enrolled {
        mesh_ca: mesh_ca(ca),
        root_ca: "root".into(),
        root_key: RootKey::from_spki(vec![1]),
        certificate_chain: format!("ca-{ca}/{number}"),
        workload_secret: None,
        sealed: Default::default(),
        not_after: SystemTime::UNIX_EPOCH,
        transition: vec![0; 32],
        previous_mesh_ca: previous.map(|(ca, _)| mesh_ca(ca)),
        previous_mesh_ca_trusted: Duration::from_millis(previous.map_or(0, |(_, ms)| ms)),
    }
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn shown(rollover: &Rollover) -> (String, Vec<String>) {
    let credentials = rollover.credentials();
    (credentials.certificate_chain, credentials.trusted)
}

fn expect(rollover: &Rollover, chain: &str, trusted: &[&str]) {
    let trusted = trusted.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(shown(rollover), (chain.to_owned(), trusted));
}

#[test]
fn manifest_change_is_trusted_then_presented_then_complete() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(1, 1, None));
    expect(&rollover, "ca-1/1", &["ca-1"]);
    assert_eq!(rollover.next_change(), None);

    rollover.receive(start, &answer(2, 1, Some((1, 60_000))));
    expect(&rollover, "ca-1/1", &["ca-2", "ca-1"]);
    assert_eq!(rollover.next_change(), Some(start + seconds(10)));
    rollover.advance(start + seconds(9));
    expect(&rollover, "ca-1/1", &["ca-2", "ca-1"]);
    rollover.advance(start + seconds(10));
    expect(&rollover, "ca-2/1", &["ca-2", "ca-1"]);
    assert_eq!(rollover.next_change(), Some(start + seconds(60)));
    rollover.advance(start + seconds(60));
    expect(&rollover, "ca-2/1", &["ca-2"]);
    assert_eq!(rollover.next_change(), None);
}

#[test]
fn short_overlap_is_halved() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(1, 1, None));
    rollover.receive(start, &answer(2, 1, Some((1, 4_000))));
    assert_eq!(rollover.next_change(), Some(start + seconds(2)));
}

#[test]
fn without_overlap_everything_changes_at_once() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(1, 1, None));
    rollover.receive(start, &answer(2, 1, None));
    expect(&rollover, "ca-2/1", &["ca-2"]);
    assert_eq!(rollover.next_change(), None);
}

#[test]
fn renewal_is_presented_at_once_and_extends_nothing() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(2, 1, Some((1, 60_000))));
    expect(&rollover, "ca-2/1", &["ca-2", "ca-1"]);
    rollover.receive(start + seconds(30), &answer(2, 2, Some((1, 90_000))));
    expect(&rollover, "ca-2/2", &["ca-2", "ca-1"]);
    assert_eq!(rollover.next_change(), Some(start + seconds(60)));
}

#[test]
fn renewal_within_the_grace_period_does_not_prolong_it() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(1, 1, None));
    rollover.receive(start, &answer(2, 1, Some((1, 60_000))));
    rollover.receive(start + seconds(8), &answer(2, 2, Some((1, 52_000))));
    expect(&rollover, "ca-1/1", &["ca-2", "ca-1"]);
    rollover.advance(start + seconds(10));
    expect(&rollover, "ca-2/2", &["ca-2", "ca-1"]);
}

#[test]
fn second_change_within_the_overlap_keeps_all_three_until_their_ends() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(1, 1, None));
    rollover.receive(start, &answer(2, 1, Some((1, 60_000))));
    let second = start + seconds(5);
    rollover.receive(second, &answer(3, 1, Some((2, 60_000))));
    expect(&rollover, "ca-1/1", &["ca-3", "ca-2", "ca-1"]);
    rollover.advance(second + seconds(10));
    expect(&rollover, "ca-3/1", &["ca-3", "ca-2", "ca-1"]);
    rollover.advance(start + seconds(60));
    expect(&rollover, "ca-3/1", &["ca-3", "ca-2"]);
    rollover.advance(second + seconds(60));
    expect(&rollover, "ca-3/1", &["ca-3"]);
}

#[test]
fn second_change_without_overlap_ends_the_first_one() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(1, 1, None));
    rollover.receive(start, &answer(2, 1, Some((1, 60_000))));
    rollover.receive(start + seconds(1), &answer(3, 1, None));
    expect(&rollover, "ca-3/1", &["ca-3"]);
}

#[test]
fn certificate_whose_issuer_ends_is_not_presented_any_longer() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(1, 1, None));
    rollover.receive(start, &answer(2, 1, Some((1, 2_000))));
    rollover.receive(start, &answer(3, 1, Some((2, 60_000))));
    assert_eq!(rollover.next_change(), Some(start + seconds(2)));
    rollover.advance(start + seconds(2));
    expect(&rollover, "ca-3/1", &["ca-3", "ca-2"]);
}

#[test]
fn transition_that_was_skipped_ends_what_came_before_it() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(0, 1, None));
    rollover.receive(start, &answer(1, 1, Some((0, 60_000))));
    // Generation 2 may have revoked 0, and so did 3 with 1.
    rollover.receive(start + seconds(1), &answer(3, 1, Some((2, 60_000))));
    expect(&rollover, "ca-3/1", &["ca-3", "ca-2"]);
}

#[test]
fn mesh_ca_is_the_same_in_the_certificate_of_another_replica() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(1, 1, None));
    let mut change = answer(2, 1, Some((1, 60_000)));
    if let Some(previous) = &mut change.previous_mesh_ca {
        previous.pem = "ca-1 of another replica".to_owned();
    }
    rollover.receive(start, &change);
    let trusted = ["ca-2", "ca-1 of another replica"];
    expect(&rollover, "ca-1/1", &trusted);
    rollover.advance(start + seconds(10));
    expect(&rollover, "ca-2/1", &trusted);
}

#[test]
fn mesh_ca_whose_time_is_over_is_not_trusted_again() {
    let start = Instant::now();
    let mut rollover = Rollover::begin(start, &answer(1, 1, None));
    rollover.receive(start, &answer(2, 1, Some((1, 60_000))));
    rollover.advance(start + seconds(60));
    rollover.receive(start + seconds(61), &answer(2, 2, Some((1, 30_000))));
    expect(&rollover, "ca-2/2", &["ca-2"]);
    rollover.receive(start + seconds(62), &answer(3, 1, Some((2, 30_000))));
    rollover.receive(start + seconds(63), &answer(3, 2, None));
    rollover.receive(start + seconds(64), &answer(3, 3, Some((2, 30_000))));
    expect(&rollover, "ca-3/3", &["ca-3"]);
}

#[derive(Debug, Clone)]
enum Step {
    /// Two further manifests, of which the pod hears of the second only, with this overlap in milliseconds.
    Skip(u64),
    /// Another manifest, with this overlap in milliseconds.
    Change(u64),
    /// A renewal by a Coordinator whose clock is this many milliseconds ahead.
    Renew(u64),
    /// Time passes, and what is due is done as it becomes due.
    Wait(u64),
    /// Time passes, and nothing happens, because the Initializer does not run.
    Pause(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..60_000_u64).prop_map(Step::Skip),
        prop_oneof![Just(0), 0..60_000_u64].prop_map(Step::Change),
        (0..20_000_u64).prop_map(Step::Renew),
        (0..30_000_u64).prop_map(Step::Wait),
        (0..30_000_u64).prop_map(Step::Pause),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn issuer_is_trusted_and_no_previous_ca_beyond_its_time(steps in steps()) {
        let mut now = Instant::now();
        let mut rollover = Rollover::begin(now, &answer(0, 0, None));
        let mut ends: HashMap<String, Instant> = HashMap::new();
        let mut ca = 0;
        for (number, step) in (1_u32..).zip(steps) {
            match step {
                Step::Change(overlap) => {
                    let end = now + Duration::from_millis(overlap);
                    ends.entry(format!("ca-{ca}")).or_insert(end);
                    ca += 1;
                    rollover.receive(now, &answer(ca, number, Some((ca - 1, overlap))));
                }
                Step::Skip(overlap) => {
                    let end = now + Duration::from_millis(overlap);
                    // The first of the two has no overlap.
                    ends.values_mut().for_each(|until| *until = now.min(*until));
                    ends.insert(format!("ca-{ca}"), now);
                    ends.insert(format!("ca-{}", ca + 1), end);
                    ca += 2;
                    rollover.receive(now, &answer(ca, number, Some((ca - 1, overlap))));
                }
                Step::Renew(ahead) => {
                    let end = ca.checked_sub(1).map(|previous| (previous, ends[&format!("ca-{previous}")]));
                    let previous = end.and_then(|(previous, end)| {
                        let seen = now + Duration::from_millis(ahead);
                        let left = end.checked_duration_since(seen)?.as_millis();
                        Some((previous, u64::try_from(left).expect("fits")))
                    });
                    rollover.receive(now, &answer(ca, number, previous));
                }
                Step::Wait(time) => {
                    let end = now + Duration::from_millis(time);
                    while let Some(next) = rollover.next_change().filter(|next| *next <= end) {
                        prop_assert!(next > now, "a change is due and was not made");
                        now = next;
                        rollover.advance(now);
                    }
                    now = end;
                }
                Step::Pause(time) => {
                    now += Duration::from_millis(time);
                    rollover.advance(now);
                }
            }
            let (chain, trusted) = shown(&rollover);
            let issuer = chain.split('/').next().unwrap_or_default().to_owned();
            prop_assert!(trusted.contains(&issuer), "{chain} {trusted:?}");
            prop_assert_eq!(&trusted[0], &format!("ca-{ca}"));
            for trusted in &trusted[1..] {
                prop_assert!(now < ends[trusted], "{} is trusted too long", trusted);
            }
        }
    }
}
