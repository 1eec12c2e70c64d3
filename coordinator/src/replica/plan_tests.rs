use super::*;

const SILENCE: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(300);

/// A cluster whose members are named by letters: upper case votes, lower case learns; the place is the letter. After it, any
/// of `!` silent, `+` silent for longer than the grace period, `~` behind, `-` leaving, `'` a second identity of the place.
fn cluster(text: &str) -> Observed {
    let mut observed = Observed {
        leader: 0,
        configs: vec![BTreeSet::new()],
        members: BTreeMap::new(),
        silence: SILENCE,
        grace: GRACE,
    };
    for (index, word) in text.split_whitespace().enumerate() {
        let node = index as NodeId;
        let letter = word.chars().next().expect("a letter");
        if letter.is_uppercase() {
            observed.configs[0].insert(node);
        }
        let silent_for = match () {
            () if word.contains('+') => GRACE,
            () if word.contains('!') => SILENCE,
            () => Duration::ZERO,
        };
        observed.members.insert(
            node,
            Seen {
                place: Place::new(&letter.to_lowercase().to_string()),
                silent_for,
                caught_up: !word.contains('~'),
                leaving: word.contains('-'),
            },
        );
    }
    observed
}

fn voters(nodes: &[NodeId]) -> Option<Step> {
    Some(Step::Voters(nodes.iter().copied().collect()))
}

fn remove(nodes: &[NodeId]) -> Option<Step> {
    Some(Step::Remove(nodes.iter().copied().collect()))
}

#[test]
fn grows_by_two_at_a_time() {
    assert_eq!(cluster("A").next(), None);
    assert_eq!(cluster("A b").next(), None);
    assert_eq!(cluster("A b c~").next(), None);
    assert_eq!(cluster("A b c").next(), voters(&[0, 1, 2]));
    assert_eq!(cluster("A B C d").next(), None);
    assert_eq!(cluster("A B C d e").next(), voters(&[0, 1, 2, 3, 4]));
}

#[test]
fn replaces_a_dead_identity_of_a_place_in_one_change_and_then_removes_it() {
    assert_eq!(cluster("A B C! c~").next(), None);
    assert_eq!(cluster("A B C! c").next(), voters(&[0, 1, 3]));
    assert_eq!(cluster("A B c! C").next(), remove(&[2]));
}

#[test]
fn does_not_replace_a_living_identity() {
    assert_eq!(cluster("A B C c").next(), None);
}

#[test]
fn a_spare_takes_the_place_of_a_voter_that_fails() {
    assert_eq!(cluster("A B C! d").next(), voters(&[0, 1, 3]));
    assert_eq!(cluster("A B c! D").next(), None);
}

#[test]
fn waits_for_a_silent_voter_until_the_grace_period_ends() {
    assert_eq!(cluster("A B C!").next(), None);
    assert_eq!(cluster("A B C+").next(), voters(&[0]));
    assert_eq!(cluster("A b C+").next(), None, "no majority lives");
    assert_eq!(cluster("A b c+").next(), remove(&[2]));
}

#[test]
fn shrinks_when_members_leave() {
    assert_eq!(cluster("A B C D E-").next(), voters(&[0, 1, 2]));
    assert_eq!(cluster("A B C d e-").next(), remove(&[4]));
    assert_eq!(cluster("A B C d-").next(), remove(&[3]));
    assert_eq!(cluster("A B C-").next(), voters(&[0]));
    assert_eq!(cluster("A b c-").next(), remove(&[2]));
    assert_eq!(cluster("A b-").next(), remove(&[1]));
}

#[test]
fn a_leader_that_leaves_gives_way_and_the_last_one_stays() {
    assert_eq!(cluster("A- b").next(), voters(&[1]));
    assert_eq!(cluster("A- b c").next(), voters(&[1]));
    assert_eq!(cluster("A-").next(), None);
    assert_eq!(cluster("A- b~").next(), None);
}

#[test]
fn begins_no_change_that_cannot_be_committed() {
    assert_eq!(cluster("A B! C! c").next(), None);
}

#[test]
fn ends_a_change_that_was_left_half_done() {
    let mut observed = cluster("A B C! c");
    observed.configs.push([0, 1, 3].into());
    assert_eq!(observed.next(), voters(&[0, 1, 3]));
    assert!(observed.is_settled(1));
    assert!(!observed.is_settled(3), "does not vote in both yet");
    let mut first = cluster("A b c");
    first.configs.push([0, 1, 2].into());
    assert_eq!(first.next(), voters(&[0, 1, 2]));
    first.members.get_mut(&0).expect("a member").silent_for = SILENCE;
    assert_eq!(first.next(), None, "the old majority is gone");
}

#[test]
fn tells_who_is_settled() {
    let settled = |text: &str, node| cluster(text).is_settled(node);
    assert!(settled("A B C", 1));
    assert!(settled("A b", 1), "a spare");
    assert!(settled("A B C d", 3), "a spare");
    assert!(
        !settled("A B C c", 3),
        "is about to follow an identity that is not silent for long enough yet"
    );
    assert!(!settled("A b~", 1), "behind");
    assert!(!settled("A b c", 1), "is about to vote");
    assert!(settled("A B C d", 3), "a spare");
    assert!(
        !settled("A B C c", 3),
        "its place still has a voter, which may have died a moment ago"
    );
    assert!(!settled("A B C-", 2), "leaves");
    assert!(!settled("A", 7), "no member");
}
