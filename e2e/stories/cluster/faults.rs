//! One test for each fault.

use std::{thread::sleep, time::Duration};

use crate::story::{BOUND, DEADLINE, Story, await_that};
use contrast_e2e::linearizability::Hash;
use nix::sys::signal::Signal;

const ALL: [usize; 3] = [0, 1, 2];
const A_WHILE: Duration = Duration::from_secs(3);

fn others(than: usize) -> Vec<usize> {
    ALL.into_iter().filter(|one| *one != than).collect()
}

#[test]
fn one_coordinator_is_a_cluster_of_one() {
    let Some(mut story) = Story::begin("one replica", 1, 1) else {
        return;
    };
    story.works_for(A_WHILE);
    story.set();
    story.works_for(A_WHILE);
    story.end();
}

#[test]
fn one_coordinator_that_crashed_waits_for_owners_who_know_its_latest_transition() {
    let Some(mut story) = Story::begin("one replica crashes", 1, 1) else {
        return;
    };
    story.works_for(A_WHILE);
    let starts = story.replicas.starts(0);
    story.replicas.crash(0).expect("kills");
    await_that("it was started again", DEADLINE, || {
        story.replicas.starts(0) > starts
    });
    story.replicas.start(0).expect("listens");
    assert!(!story.replicas.is_ready(0), "ready without its seed");
    let refused = story.recover(0, Hash([7; 32]));
    assert_eq!(refused.code, 1, "{}{}", refused.stdout, refused.stderr);
    let recovered = story.recover(0, story.load.log().latest());
    assert_eq!(recovered.code, 0, "{}", recovered.stderr);
    story.works_for(A_WHILE);
    story.set();
    story.end();
}

#[test]
fn leader_that_is_killed_is_replaced_within_seconds_and_rejoins() {
    let Some(mut story) = Story::begin("kill the leader", 3, 3) else {
        return;
    };
    for _ in 0..2 {
        let leader = story.watch.await_leader(&ALL, DEADLINE).expect("leader");
        let since = story.load.now();
        story.replicas.crash(leader).expect("kills");
        let after = story
            .load
            .await_success("set", since, DEADLINE)
            .expect("a set succeeds");
        eprintln!("leader killed: next set after {after:?}");
        story.serves(leader, "rejoins");
        story.vote(&ALL, "votes again");
        story.works_for(A_WHILE);
    }
    story.end();
}

#[test]
fn follower_that_is_killed_is_not_missed_and_rejoins_with_another_identity() {
    let Some(mut story) = Story::begin("kill a follower", 3, 3) else {
        return;
    };
    let leader = story.watch.await_leader(&ALL, DEADLINE).expect("leader");
    let follower = others(leader)[0];
    let identity = |story: &Story| story.status(follower).1["cluster"]["node"].clone();
    let before = identity(&story);
    assert!(before.is_string(), "{before}");
    story.replicas.crash(follower).expect("kills");
    let since = story.load.now();
    let set = story.load.await_success("set", since, DEADLINE);
    assert!(
        set.expect("a set succeeds") < A_WHILE,
        "a follower was missed"
    );
    story.serves(follower, "rejoins");
    story.vote(&ALL, "votes again");
    assert_ne!(
        identity(&story),
        before,
        "an identity came back from a disk"
    );
    assert_eq!(
        story.watch.leader(&ALL),
        Some(leader),
        "a follower's end moved the leader"
    );
    story.end();
}

#[test]
fn leader_that_stood_still_serves_nothing_stale_when_it_goes_on() {
    let Some(mut story) = Story::begin("stop the leader for 15 s", 3, 3) else {
        return;
    };
    let leader = story.watch.await_leader(&ALL, DEADLINE).expect("leader");
    story
        .replicas
        .signal(leader, Signal::SIGSTOP)
        .expect("stops");
    let next = story
        .watch
        .await_leader(&others(leader), DEADLINE)
        .expect("another leader");
    assert_ne!(next, leader);
    let since = story.load.now();
    sleep(Duration::from_secs(15));
    story
        .load
        .await_success("set", since, DEADLINE)
        .expect("sets go on");
    story
        .replicas
        .signal(leader, Signal::SIGCONT)
        .expect("goes on");
    story.works_for(A_WHILE);
    story.serves(leader, "serves again");
    story.end();
}

#[test]
fn leader_apart_from_the_majority_stops_issuing_after_the_bound_and_says_so() {
    let Some(mut story) = Story::begin("cut the leader off", 3, 3) else {
        return;
    };
    let leader = story.watch.await_leader(&ALL, DEADLINE).expect("leader");
    story.replicas.network().isolate(leader).expect("cuts");
    story
        .watch
        .await_leader(&others(leader), DEADLINE)
        .expect("another leader");
    sleep(BOUND + Duration::from_secs(1));
    let (code, status) = story.status(leader);
    assert_eq!(code, 5, "{status}");
    assert_eq!(status["quorum"]["confirmed"], false, "{status}");
    assert!(
        !story.replicas.is_ready(leader),
        "readiness does not say so"
    );
    let since = story.load.now();
    story.works_for(A_WHILE);
    let log = story.load.log();
    let issued = log.0.iter().find(|operation| {
        operation.start >= since
            && usize::try_from(operation.replica) == Ok(leader)
            && operation.answer.is_success()
    });
    assert!(issued.is_none(), "the isolated leader answered: {issued:?}");
    story.replicas.network().heal().expect("heals");
    story.serves(leader, "serves again");
    story.end();
}

#[test]
fn link_that_loses_one_direction_stops_nobody_for_long() {
    let Some(mut story) = Story::begin("lose one direction", 3, 3) else {
        return;
    };
    let leader = story.watch.await_leader(&ALL, DEADLINE).expect("leader");
    for (from, to) in [(leader, others(leader)[0]), (others(leader)[0], leader)] {
        story.replicas.network().cut(from, to).expect("cuts");
        story.works_for(A_WHILE);
        story.replicas.network().heal().expect("heals");
        story.works_for(A_WHILE);
    }
    story.end();
}

#[test]
fn replica_whose_disk_the_host_put_back_rejoins_and_brings_nothing_back() {
    let Some(mut story) = Story::begin("roll a disk back", 3, 3) else {
        return;
    };
    let leader = story.watch.await_leader(&ALL, DEADLINE).expect("leader");
    let victim = others(leader)[0];
    story.replicas.kill(victim).expect("kills");
    let old = story.replicas.save_disk(victim).expect("copies");
    story.replicas.start(victim).expect("starts");
    story.serves(victim, "rejoins");
    story.works_for(A_WHILE);
    story.replicas.kill(victim).expect("kills");
    story.works_for(A_WHILE);
    story.replicas.put_disk(victim, &old).expect("puts back");
    story.replicas.start(victim).expect("starts");
    story.serves(victim, "rejoins");
    story.vote(&ALL, "votes again");
    // The others may now go, one after the other: what they had is on the replica that was rolled back.
    story.replicas.crash(leader).expect("kills");
    story.serves(leader, "rejoins");
    story.works_for(A_WHILE);
    story.end();
}

#[test]
fn rolling_restart_is_noticed_by_nobody() {
    let Some(mut story) = Story::begin("rolling restart", 3, 3) else {
        return;
    };
    for replica in [2, 1, 0] {
        let starts = story.replicas.starts(replica);
        story.replicas.restart(replica).expect("signals");
        await_that("it was started again", DEADLINE, || {
            story.replicas.starts(replica) > starts
        });
        // A StatefulSet waits for readiness before it goes on.
        story.serves(replica, "ready");
        story.vote(&ALL, "votes again");
    }
    let gap = story.load.log().longest_gap("issue");
    assert!(gap < A_WHILE, "no certificates for {gap:?}");
    story.end();
}

#[test]
fn after_a_power_loss_owners_recover_only_a_history_that_has_what_they_know() {
    let Some(mut story) = Story::begin("power loss", 3, 3) else {
        return;
    };
    story.replicas.kill(0).expect("kills");
    let old = story.replicas.save_disk(0).expect("copies");
    story.replicas.start(0).expect("starts");
    story.serves(0, "rejoins");
    story.works_for(A_WHILE);

    for replica in ALL {
        story.replicas.kill(replica).expect("kills");
    }
    // Until every client has given up what it had asked.
    sleep(Duration::from_secs(1));
    story.replicas.put_disk(0, &old).expect("puts back");
    for replica in ALL {
        story.replicas.start(replica).expect("starts");
    }
    let latest = story.load.log().latest();
    assert_ne!(latest, Hash::NONE);
    for replica in ALL {
        let (code, status) = story.status(replica);
        assert_eq!(code, 5, "a replica serves without anybody's seed: {status}");
        assert_eq!(status["role"], "waiting", "{status}");
    }
    let refused = story.recover(0, latest);
    assert_eq!(refused.code, 1, "{}{}", refused.stdout, refused.stderr);
    assert!(
        refused.stderr.contains("older than what you know"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        story.status(0).1["role"],
        "waiting",
        "a refusal changed something"
    );

    // What was acknowledged is on two of three disks, so at least on one of these.
    let recovered = [1, 2].into_iter().find(|replica| {
        let outcome = story.recover(*replica, latest);
        assert!([0, 1].contains(&outcome.code), "{}", outcome.stderr);
        outcome.code == 0
    });
    recovered.expect("one of two disks has what was acknowledged");
    story.vote(&ALL, "all vote");
    story.works_for(A_WHILE);
    story.end();
}

#[test]
fn one_becomes_three_and_five_and_three_and_one_without_downtime() {
    let Some(mut story) = Story::begin("scale 1 3 5 3 1", 5, 1) else {
        return;
    };
    let mut running = 1;
    for wanted in [3, 5, 3, 1] {
        for replica in running..wanted {
            story.replicas.start(replica).expect("starts");
        }
        for replica in (wanted..running).rev() {
            // A StatefulSet takes the last one first, and waits for its end.
            story.replicas.stop(replica, DEADLINE).expect("ends");
        }
        running = wanted;
        let voters: Vec<usize> = (0..running).collect();
        story.vote(&voters, "voters");
        story.set();
        story.works_for(A_WHILE);
    }
    let gap = story.load.log().longest_gap("issue");
    assert!(gap < BOUND + A_WHILE, "no certificates for {gap:?}");
    story.end();
}
