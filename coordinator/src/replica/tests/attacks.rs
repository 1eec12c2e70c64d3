//! What a host, or bad luck, can do to replicas that are all genuine.

use std::time::Duration;

use contrast_manifest::ManifestHash;

use super::{
    hub::{Hub, Running, timing},
    stories::{NONE, cluster, set, shares_of},
};
use crate::{
    replica::{Ended, Timing, message::Place},
    state::{
        StateError,
        tests::fixture::{Disk, document, owner_key, recovery, request},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_that_was_told_another_manifest_does_not_take_the_seed() {
    let hub = Hub::default();
    let (replicas, _) = cluster(&hub, 1).await;
    // Its Coordinators may be whoever the host likes, and those of the real manifest, too.
    let made_up = request(&document("made-up", &[&owner_key(2)]), NONE, &[]).manifest;
    let newcomer = Place::new("b");
    hub.lie(&newcomer, &replicas[0].place, made_up);
    let newcomer = Running::start(&hub, "b");
    newcomer
        .until("refuses", |replica| {
            let why = replica.serving().expect_err("outside");
            why.contains("the keeper of the seed says")
        })
        .await;
    assert!(newcomer.replica.guard().deployment().is_none());
    assert!(newcomer.replica.trust().is_none());
    hub.tell_the_truth();
    newcomer.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_liar_among_the_members_does_not_keep_a_newcomer_out() {
    let hub = Hub::default();
    let (_replicas, first) = cluster(&hub, 3).await;
    let made_up = request(&document("made-up", &[&owner_key(2)]), NONE, &[]).manifest;
    hub.lie(&Place::new("d"), &Place::new("a"), made_up);
    let newcomer = Running::start(&hub, "d");
    newcomer.serves().await;
    assert_eq!(newcomer.head().await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_the_new_manifest_excludes_does_not_get_its_mesh_ca_key() {
    let hub = Hub::default();
    let (replicas, first) = cluster(&hub, 3).await;
    let owner = owner_key(1);
    let update = request(&document("second", &[&owner]), first, &[&owner]);
    let leader = replicas.iter().position(Running::leads).expect("a leader");
    let excluded = &replicas[(leader + 1) % 3];
    hub.exclude(&excluded.place, ManifestHash::of(&update.manifest));
    let set = replicas[leader].replica.set_manifest(update).await;
    set.expect("the others are a majority");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let active = replicas[leader].replica.confirmed().await.expect("active");
    let key = &active.history().head().transition.mesh_ca_public_key;
    assert!(replicas[leader].replica.guard().key(key).is_some());
    assert!(excluded.replica.guard().key(key).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_keeps_what_the_survivor_acknowledges_while_it_asks_others() {
    let hub = Hub::default();
    let (mut replicas, first) = cluster(&hub, 3).await;
    let leader = replicas.iter().position(Running::leads).expect("a leader");
    let leader = replicas.remove(leader);
    replicas.remove(1).kill(&hub).await;
    let survivor = replicas.remove(0);
    let shares = shares_of(&survivor);
    // It hears the leader, and believes that nobody is there.
    hub.mute(&survivor.place);
    let recover = survivor.replica.recover(recovery(&shares, Some(first)));
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        set(&leader, "second", first).await
    };
    let (recovered, second) = tokio::join!(recover, meanwhile);
    let second = second.expect("the survivor is the other half of the majority");
    recovered.expect("recovers");
    let active = survivor.replica.confirmed().await.expect("confirms");
    assert!(active.history().links().any(|link| link.hash == second));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_survivors_that_are_recovered_at_once_one_goes_on() {
    let hub = Hub::default();
    let (mut replicas, first) = cluster(&hub, 5).await;
    let lost = replicas.split_off(2);
    for running in &lost {
        hub.lose(&running.place);
    }
    tokio::time::sleep(timing().silence * 2).await;
    let shares = shares_of(&replicas[0]);
    let recover = |running: &Running| {
        let replica = std::sync::Arc::clone(&running.replica);
        let request = recovery(&shares, Some(first));
        async move { replica.recover(request).await }
    };
    let (one, other) = tokio::join!(recover(&replicas[0]), recover(&replicas[1]));
    let (recovered, refused) = match (one, other) {
        (Ok(recovered), Err(refused)) | (Err(refused), Ok(recovered)) => (recovered, refused),
        both => panic!("expected one recovery, found {both:?}"),
    };
    assert_ne!(recovered, first);
    assert!(
        matches!(
            refused,
            StateError::BeginsElsewhere { .. } | StateError::SurvivorAnswers { .. }
        ),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_long_standing_waits_for_a_newcomer_that_it_cannot_reach_at_once() {
    let hub = Hub::default();
    let timing = Timing {
        dead_member_grace: Duration::from_secs(3),
        ..timing()
    };
    let start = |name| Running::start_on(&hub, name, Disk::default(), Disk::default(), timing);
    let leader = start("a");
    let first = request(&document("first", &[&owner_key(1)]), NONE, &[]);
    leader.replica.set_manifest(first).await.expect("founds");
    leader.serves().await;
    // Longer than the grace period.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    hub.dial_for(&Place::new("b"), Duration::from_millis(800));
    let newcomer = start("b");
    let members = || {
        let cluster = leader.replica.status().cluster;
        cluster.map_or(0, |cluster| cluster.members.len())
    };
    leader.until("two members", |_| members() == 2).await;
    while newcomer.replica.serving().is_err() {
        assert_eq!(members(), 2, "removed before anything was heard of it");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_was_hidden_during_a_recovery_ends_when_it_meets_the_recovered_cluster() {
    let hub = Hub::default();
    let (mut replicas, first) = cluster(&hub, 3).await;
    let recovered = replicas.remove(0);
    let shares = shares_of(&recovered);
    hub.unplug(&recovered.place);
    // Hidden from the owner; together they are a quorum.
    tokio::time::sleep(timing().silence).await;
    let request = recovery(&shares, Some(first));
    recovered.replica.recover(request).await.expect("recovers");
    for hidden in &replicas {
        assert_eq!(hidden.head().await, first);
    }
    hub.plug_in(&recovered.place);
    for hidden in replicas {
        let ended = hidden.ended().await;
        assert!(matches!(ended, Ended::Superseded { .. }), "{ended}");
    }
}
