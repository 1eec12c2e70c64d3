//! Who may ask whom.

use contrast_coordinator::{
    peer::{Discovery, PeerClient, Timing},
    replica::{
        message::{Reply, Standing},
        peers::{CallError, PeerFailure, Peers, Trust},
    },
};

use crate::{
    replicas::{
        Counting, PATIENCE, Replica, ask, assert_confirms, client_over, confirm, coordinator,
        hello, local, next_coordinator, of, tee, trusting, workload,
    },
    support::Deployment,
};

fn not_believed(outcome: &Result<Reply, CallError>) -> String {
    match outcome {
        Err(CallError::NotBelieved { reason, .. }) => reason.clone(),
        other => panic!("expected NotBelieved, found {other:?}"),
    }
}

fn not_believed_by(outcome: &Result<Reply, CallError>) -> String {
    match outcome {
        Err(CallError::NotBelievedBy { reason, .. }) => reason.clone(),
        other => panic!("expected NotBelievedBy, found {other:?}"),
    }
}

fn not_coordinator(outcome: &Result<Reply, CallError>) -> String {
    match outcome {
        Err(CallError::Failed {
            failure: PeerFailure::NotCoordinator(reason),
            ..
        }) => reason.clone(),
        other => panic!("expected NotCoordinator, found {other:?}"),
    }
}

#[tokio::test]
async fn two_coordinators_of_a_manifest_ask_each_other() {
    let trusted = trusting(&[coordinator(), next_coordinator()]);
    let a = Replica::start(coordinator(), Some(&trusted)).await;
    let b = Replica::start(next_coordinator(), Some(&trusted)).await;
    assert_confirms(&a.client(), &b, &trusted).await;
    let client = b.client();
    assert_confirms(&client, &a, &trusted).await;
    assert_eq!(a.fake.asked(), ["Confirm"]);
    let evidence = client.evidence(&a.place).expect("it was called");
    assert_eq!(evidence.policy, coordinator());
    assert_eq!(evidence.tee, "SEV-SNP");
    assert!(evidence.insecure);
    assert!(client.evidence(&b.place).is_none());
    assert_eq!(client.own_place(), b.place);
}

#[tokio::test]
async fn pod_without_the_role_is_refused_on_both_sides() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let pod = Replica::start(workload(), Some(&trusted)).await;

    // As a client: it believes the server, which does not believe it.
    for request in [hello(), confirm(1)] {
        let outcome = ask(&pod.client(), &server, request, of(&trusted)).await;
        let reason = not_believed_by(&outcome);
        assert!(reason.contains("role: expected coordinator"), "{reason}");
    }
    let outcome = ask(&pod.client(), &server, hello(), Trust::Anyone).await;
    not_believed_by(&outcome);
    // As a server.
    let outcome = ask(&server.client(), &pod, confirm(1), of(&trusted)).await;
    let reason = not_believed(&outcome);
    assert!(reason.contains("role: expected coordinator"), "{reason}");
    assert!(server.fake.asked().is_empty());
    assert!(pod.fake.asked().is_empty());
}

#[tokio::test]
async fn guest_of_another_tee_is_refused_on_both_sides() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let stranger = Replica::start_as(local(&tee(), coordinator()), Some(&trusted)).await;
    let outcome = ask(&stranger.client(), &server, confirm(1), of(&trusted)).await;
    not_believed_by(&outcome);
    let outcome = ask(&server.client(), &stranger, confirm(1), of(&trusted)).await;
    not_believed(&outcome);
    assert!(server.fake.asked().is_empty());
    assert!(stranger.fake.asked().is_empty());
}

#[tokio::test]
async fn new_manifest_without_the_callers_policy_cuts_it_off_at_the_next_call() {
    let before = trusting(&[coordinator(), next_coordinator()]);
    let after = trusting(&[next_coordinator()]);
    let old = Replica::start(coordinator(), Some(&before)).await;
    let new = Replica::start(next_coordinator(), Some(&before)).await;
    let (from_old, from_new) = (old.client(), new.client());
    assert_confirms(&from_old, &new, &before).await;
    assert_confirms(&from_new, &old, &before).await;

    new.fake.trusts(Some(&after));
    // On the connection that is open, then on a new one.
    let outcome = ask(&from_old, &new, confirm(1), of(&before)).await;
    let reason = not_coordinator(&outcome);
    assert!(reason.contains(&coordinator().to_string()), "{reason}");
    let outcome = ask(&from_old, &new, confirm(1), of(&before)).await;
    not_believed_by(&outcome);
    // And in the other direction nothing is sent any more.
    let outcome = ask(&from_new, &old, confirm(1), of(&after)).await;
    not_believed(&outcome);
    assert_eq!(new.fake.asked(), ["Confirm"]);
    assert_eq!(old.fake.asked(), ["Confirm"]);
}

#[tokio::test]
async fn new_manifest_with_both_policies_keeps_the_connections() {
    let before = trusting(&[coordinator()]);
    let after = trusting(&[coordinator(), next_coordinator()]);
    let a = Replica::start(coordinator(), Some(&before)).await;
    let b = Replica::start(coordinator(), Some(&before)).await;
    let dialer = Counting::default();
    let client = client_over(&a.local, dialer.clone(), Timing::default());
    assert_confirms(&client, &b, &before).await;
    b.fake.trusts(Some(&after));
    assert_confirms(&client, &b, &after).await;
    assert_eq!(dialer.dials(), 1);
}

#[tokio::test]
async fn without_a_manifest_anybody_may_say_hello_and_ask_nothing_else() {
    let trusted = trusting(&[coordinator()]);
    let empty = Replica::start(coordinator(), None).await;
    let stranger = PeerClient::new(
        local(&tee(), workload()),
        empty.place.clone(),
        Discovery::new(Vec::new()),
    );
    let reply = ask(&stranger, &empty, hello(), Trust::Anyone).await;
    let Ok(Reply::Welcome(welcome)) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(welcome.boot.0, 42);
    assert!(matches!(welcome.standing, Standing::Waiting));
    not_coordinator(&ask(&stranger, &empty, confirm(1), Trust::Anyone).await);
    // One that would be believed, if there were a manifest, gets no further.
    let member = Replica::start(coordinator(), Some(&trusted)).await;
    let outcome = ask(&member.client(), &empty, confirm(1), of(&trusted)).await;
    not_coordinator(&outcome);
    assert_eq!(empty.fake.asked(), ["Hello"]);
    // It, in turn, finds out with its evidence who the member is.
    let reply = ask(&empty.client(), &member, hello(), Trust::Anyone).await;
    assert!(matches!(reply, Ok(Reply::Welcome(_))), "{reply:?}");
}

#[tokio::test]
async fn connection_from_before_the_manifest_gives_way_to_an_attested_one() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), None).await;
    let client = Replica::start(coordinator(), Some(&trusted)).await.client();
    not_coordinator(&ask(&client, &server, confirm(7), of(&trusted)).await);
    server.fake.trusts(Some(&trusted));
    assert_confirms(&client, &server, &trusted).await;
    assert_eq!(server.fake.asked(), ["Confirm"]);
}

#[tokio::test]
async fn unattested_connection_stays_unattested_when_a_manifest_comes() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), None).await;
    let client = Replica::start(coordinator(), None).await.client();
    let reply = ask(&client, &server, hello(), Trust::Anyone).await;
    assert!(matches!(reply, Ok(Reply::Welcome(_))), "{reply:?}");
    server.fake.trusts(Some(&trusted));
    let outcome = ask(&client, &server, confirm(1), Trust::Anyone).await;
    let reason = not_coordinator(&outcome);
    assert!(reason.contains("without evidence"), "{reason}");
    assert_eq!(server.fake.asked(), ["Hello"]);
}

#[tokio::test]
async fn stranger_with_its_own_hello_learns_nothing_from_a_replica_with_a_manifest() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let foreign = local(&tee(), coordinator());
    let client = Replica::start_as(foreign, None).await.client();
    not_believed_by(&ask(&client, &server, hello(), Trust::Anyone).await);
    assert!(server.fake.asked().is_empty());
    // Evidence of this deployment's TEE is what makes the difference.
    let own = local(Deployment::new().tee(), coordinator());
    let client = Replica::start_as(own, None).await.client();
    let place = server.place.clone();
    let reply = client.call(place, hello(), Trust::Anyone, PATIENCE).await;
    assert!(matches!(reply, Ok(Reply::Welcome(_))), "{reply:?}");
}
