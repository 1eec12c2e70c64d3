//! `contrast status` against a Coordinator that says what the test wants.

use contrast_proto::user::{
    ActiveStatus, AuditHead, ClusterStatus, EvidenceSummary, MemberStatus, Status as Answer,
};

use crate::fake::{Fake, Script, coordinator, workspace};

/// A leader's view of three replicas, one of them just admitted.
fn leader() -> Answer {
    let evidence = |policy: u8, insecure| EvidenceSummary {
        tee: "SEV-SNP".into(),
        reference: "insecure[0]".into(),
        policy: vec![policy; 32].into(),
        insecure,
    };
    let member = |number: u64, voter, heard, matched, evidence| MemberStatus {
        node: 0x1111_0000_0000_0000 + number,
        place: format!("coordinator-{number}.coordinator:7778"),
        voter,
        heard_ago_ms: heard,
        matched,
        evidence,
    };
    Answer {
        place: "coordinator-0.coordinator:7778".into(),
        role: "leader".into(),
        not_serving_because: String::new(),
        cluster: Some(ClusterStatus {
            id: vec![0xc1; 32].into(),
            node: 0x1111_0000_0000_0000,
            term: 7,
            leader: Some(0x1111_0000_0000_0000),
            committed: 42,
            applied: 42,
            members: vec![
                member(0, true, None, Some(42), None),
                member(1, true, Some(120), Some(42), Some(evidence(0xa1, true))),
                member(
                    2,
                    false,
                    Some(61_000),
                    Some(40),
                    Some(evidence(0xa2, false)),
                ),
            ],
        }),
        active: Some(ActiveStatus {
            manifest: vec![0xd1; 32].into(),
            transition: vec![0xe1; 32].into(),
            generation: 5,
            since_ms: 7_500_000,
        }),
        confirmed_ago_ms: Some(80),
        confirmation_bound_ms: 10_000,
        audit: Some(AuditHead {
            sequence: 41,
            hash: vec![0xf1; 32].into(),
            lost: 0,
        }),
    }
}

/// Runs `contrast status` against `answer`.
fn shown(answer: Answer, more: &[&str]) -> String {
    let (context, tee, manifest) = workspace();
    let script = Script {
        status: answer,
        ..Script::default()
    };
    let fake = Fake::start(&tee, coordinator(&manifest), script);
    let address = fake.address();
    let mut arguments = vec!["status", "-c", &address];
    arguments.extend(more);
    fake.hide_address(&context.run(&arguments))
}

#[test]
fn replica_that_serves_is_shown_with_its_cluster() {
    insta::assert_snapshot!("serving_text", shown(leader(), &[]));
    insta::assert_snapshot!("serving_json", shown(leader(), &["--format", "json"]));
}

#[test]
fn replica_apart_from_the_majority_says_no_quorum_and_has_an_exit_code_of_its_own() {
    let mut answer = leader();
    answer.role = "follower".into();
    answer.not_serving_because = "no quorum: 1 of 3 members answers".into();
    answer.confirmed_ago_ms = Some(31_400);
    let cluster = answer.cluster.as_mut().expect("cluster");
    cluster.leader = None;
    for member in &mut cluster.members {
        member.heard_ago_ms = None;
        member.matched = None;
        member.evidence = None;
    }
    insta::assert_snapshot!(shown(answer, &[]));
}

#[test]
fn replica_without_a_cluster_says_what_it_waits_for() {
    let mut answer = leader();
    answer.role = "waiting".into();
    answer.not_serving_because = "no quorum: 0 of 3 members answer".into();
    answer.cluster = None;
    answer.confirmed_ago_ms = None;
    insta::assert_snapshot!("waiting", shown(answer.clone(), &[]));
    answer.role = "empty".into();
    answer.not_serving_because = "no manifest set yet".into();
    answer.active = None;
    insta::assert_snapshot!("empty", shown(answer, &[]));
}

#[test]
fn text_of_other_replicas_cannot_imitate_lines_or_move_the_cursor() {
    let mut answer = leader();
    let cluster = answer.cluster.as_mut().expect("cluster");
    cluster.members[1].place = "a\u{1b}[1A\nserving: everything is fine\u{202e}".into();
    let shown = shown(answer, &[]);
    assert!(
        !shown.contains('\u{1b}') && !shown.contains('\u{202e}'),
        "{shown:?}"
    );
    assert!(
        !shown.lines().any(|line| line.starts_with("serving: every")),
        "{shown}"
    );
}

#[test]
fn impostor_gets_no_status_shown() {
    let (context, tee, _) = workspace();
    let script = Script {
        status: leader(),
        ..Script::default()
    };
    let fake = Fake::start(&tee, contrast_attestation::PolicyHash([9; 32]), script);
    let output = context.output(&["status", "-c", &fake.address()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(fake.asked().calls.is_empty());
}
