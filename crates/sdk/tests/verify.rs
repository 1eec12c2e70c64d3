//! Answers of the attest API, made with the parts of a Coordinator and evidence of a software TEE.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has to stop there"
)]

mod support;

use std::time::Duration;

use contrast_attest_document::{Answer, DocumentError};
use contrast_attestation::Tee;
use contrast_sdk::{
    AnswerError, Nonce, Statement,
    history::{KnownTransition, Memory},
    report::Report,
    rows::{Rows, Verdict},
    transition::TransitionHash,
    verify_answer,
};
use support::{COORDINATOR, Deployment, NONCE, WEB, latest};

impl Deployment {
    fn verify(&self, answer: &Answer, memory: &Memory) -> Result<Statement, AnswerError> {
        let answer = answer.to_json().expect("answer");
        let outcome = verify_answer(&answer, &NONCE, &self.manifest, memory, self.now);
        outcome.map(|(verified, statement)| {
            assert!(verified.insecure && verified.checks.passed());
            assert_eq!(verified.root_ca, self.history.root_ca);
            assert_eq!(verified.mesh_ca, self.history.mesh_ca);
            assert_eq!(verified.transitions, [latest(&self.history)]);
            statement
        })
    }

    /// Names of the checks that fail.
    fn refused(&self, answer: &Answer, memory: &Memory) -> Vec<String> {
        match self.verify(answer, memory) {
            Err(AnswerError::Refused(refused)) => failed(&refused.checks),
            other => panic!("expected a refusal, found {other:?}"),
        }
    }
}

fn failed(checks: &Rows) -> Vec<String> {
    checks.failed().map(|row| row.name.clone()).collect()
}

fn remembering(hash: TransitionHash) -> Memory {
    let source = "notes".to_owned();
    Memory {
        transitions: vec![KnownTransition { hash, source }],
        root_ca: None,
    }
}

#[test]
fn accepts_the_answer_of_the_coordinator_of_this_manifest() {
    for (kind, omit_policies) in [(Tee::Snp, false), (Tee::Snp, true), (Tee::Tdx, true)] {
        let deployment = Deployment::new(kind);
        let memory = remembering(latest(&deployment.history));
        let answer = deployment.answer(COORDINATOR, omit_policies);
        let statement = deployment.verify(&answer, &memory).expect("verified");
        assert_eq!(statement.policies.is_empty(), omit_policies);
    }
}

#[test]
fn refuses_a_statement_that_the_evidence_does_not_cover() {
    let deployment = Deployment::new(Tee::Snp);
    let mut answer = deployment.answer(COORDINATOR, false);
    answer.statement.0.push(b' ');
    let failed = deployment.refused(&answer, &Memory::default());
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].ends_with(": REPORT_DATA"), "{failed:?}");
}

#[test]
fn refuses_evidence_of_a_workload() {
    let deployment = Deployment::new(Tee::Snp);
    let answer = deployment.answer(WEB, false);
    let failed = deployment.refused(&answer, &Memory::default());
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].ends_with(": HOSTDATA"), "{failed:?}");
}

#[test]
fn refuses_another_manifest_and_a_history_that_lacks_what_was_seen() {
    let mut deployment = Deployment::new(Tee::Snp);
    let answer = deployment.answer(COORDINATOR, false);
    let unknown = remembering(TransitionHash([9; 32]));
    let failed = deployment.refused(&answer, &unknown);
    assert_eq!(failed, ["transition of `notes`"]);
    deployment.manifest.push(b'\n');
    let failed = deployment.refused(&answer, &Memory::default());
    assert_eq!(failed, ["newest manifest SHA-256"]);
    deployment.manifest = b"{}".to_vec();
    let failed = deployment.refused(&answer, &Memory::default());
    assert_eq!(failed, ["given manifest"]);
}

#[test]
fn refuses_policies_that_are_missing_although_nobody_left_them_out() {
    let mut deployment = Deployment::new(Tee::Snp);
    deployment.history.policies.pop();
    let answer = deployment.answer(COORDINATOR, false);
    let failed = deployment.refused(&answer, &Memory::default());
    assert_eq!(failed[0], "initdata documents");
}

#[test]
fn refuses_an_answer_to_another_question_and_certificates_that_ended() {
    let mut deployment = Deployment::new(Tee::Snp);
    let answer = deployment.answer(COORDINATOR, true);
    let bytes = answer.to_json().expect("answer");
    let other = Nonce([8; 32]);
    let (manifest, memory) = (&deployment.manifest, Memory::default());
    let outcome = verify_answer(&bytes, &other, manifest, &memory, deployment.now);
    assert!(matches!(
        outcome,
        Err(AnswerError::Document(DocumentError::OtherNonce))
    ));
    deployment.now += Duration::from_secs(60 * 365 * 24 * 3600);
    assert!(!deployment.refused(&answer, &memory).is_empty());
}

#[test]
fn report_has_what_is_proven_only_when_every_check_passed() {
    let mut deployment = Deployment::new(Tee::Tdx);
    let answer = deployment.answer(COORDINATOR, true);
    let answer = answer.to_json().expect("answer");
    let report = |deployment: &Deployment| {
        let (manifest, memory) = (&deployment.manifest, Memory::default());
        let report = Report::of_answer(&answer, &NONCE, manifest, &memory, deployment.now);
        report.expect("a report")
    };
    let verified = report(&deployment);
    assert_eq!(verified.verdict, Verdict::Verified);
    let proven = verified.proven.expect("proven");
    assert_eq!(proven.transitions, [latest(&deployment.history)]);
    assert!(proven.policies_omitted && proven.evidence.insecure);
    assert_eq!(verified.allowed.expect("valid").workloads.len(), 2);

    deployment.manifest.push(b' ');
    let refused = report(&deployment);
    assert_eq!((refused.verdict, refused.proven), (Verdict::Refused, None));
    assert!(refused.allowed.is_some());
    deployment.manifest.truncate(1);
    let refused = report(&deployment);
    assert_eq!((refused.verdict, refused.allowed), (Verdict::Refused, None));
}
