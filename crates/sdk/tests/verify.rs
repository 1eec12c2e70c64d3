//! Answers of the attest API, made with the parts of a Coordinator and evidence of a software TEE.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has to stop there"
)]

use std::time::{Duration, SystemTime};

use contrast_attest_document::{Answer, DocumentError, report_data};
use contrast_attestation::{Issuer as _, PolicyHash, ReportData, Tee, software::SoftwareTee};
use contrast_clock::{SeededEntropy, SystemWallClock, WallClock as _};
use contrast_pki::{MeshCa, RootCa, SigningKey};
use contrast_proto::user::{GetManifestsResponse, Transition};
use contrast_sdk::{
    AnswerError, Nonce, Statement,
    digest::sha256,
    history::{KnownTransition, Memory},
    rows::Rows,
    transition::{TransitionHash, transition_hash},
    verify_answer,
};
use serde_json::{Value, json};

const MANIFEST: &str = include_str!("../../../cli/tests/data/manifest.json");
const COORDINATOR: &str = include_str!("../../../cli/tests/data/coordinator.toml");
const WEB: &str = include_str!("../../../cli/tests/data/web.toml");
const NONCE: Nonce = Nonce([7; 32]);

struct Deployment {
    tee: SoftwareTee,
    manifest: Vec<u8>,
    history: GetManifestsResponse,
    now: SystemTime,
}

impl Deployment {
    fn new(kind: Tee) -> Self {
        let now = SystemWallClock.now();
        let tee = SoftwareTee::generate(now).expect("software TEE");
        let mut manifest: Value = serde_json::from_str(MANIFEST).expect("JSON");
        let demands = match kind {
            Tee::Snp => {
                let mut demands = manifest["ReferenceValues"]["snp"][0].take();
                demands["TrustedMeasurement"] = json!(measurement(&tee, kind));
                json!({"RootSHA256": hex::encode(tee.root_sha256(kind)), "snp": demands})
            }
            other => panic!("no manifest for {other}"),
        };
        manifest["ReferenceValues"] = json!({"insecure": [demands]});
        let manifest = serde_json::to_vec(&manifest).expect("JSON");
        let history = history(&manifest, now);
        Self {
            tee,
            manifest,
            history,
            now,
        }
    }

    /// What a Coordinator answers whose policy is the hash of `initdata`.
    fn answer(&self, initdata: &str, omit_policies: bool) -> Answer {
        let issued_at = "2026-01-01T00:00:00Z".to_owned();
        let statement = Statement::new(&NONCE, issued_at, self.history.clone(), omit_policies);
        let statement = statement.to_json().expect("statement");
        let guest = self.tee.snp_guest(PolicyHash(sha256(initdata.as_bytes())));
        let evidence = guest.issue(&ReportData(report_data(&NONCE, &statement)));
        Answer::new(evidence.expect("evidence").encode(), statement)
    }

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

fn measurement(tee: &SoftwareTee, kind: Tee) -> String {
    let guest = tee.snp_guest(PolicyHash([0; 32]));
    let evidence = guest.issue(&ReportData([0; 64])).expect("evidence");
    let reference = tee.reference_value(kind);
    let verifier = contrast_attestation::Verifier::new(vec![reference], [PolicyHash([0; 32])]);
    let verified = verifier.verify_unbound(&evidence, SystemWallClock.now());
    hex::encode(verified.expect("own evidence").measurement())
}

fn history(manifest: &[u8], now: SystemTime) -> GetManifestsResponse {
    let entropy = SeededEntropy::new(1);
    let root = RootCa::new(SigningKey::generate(&entropy).expect("key"), now).expect("root CA");
    let mesh = MeshCa::generate(&entropy, &root, now).expect("mesh CA");
    let key = SigningKey::generate(&entropy).expect("key");
    let mut transition = Transition {
        manifest_hash: sha256(manifest).to_vec().into(),
        previous: vec![0; 32].into(),
        mesh_ca_public_key: mesh.public_key_spki().to_vec().into(),
        signature: Vec::new().into(),
        signing_public_key: key.public_key_spki().to_vec().into(),
        seed_shares_digest: vec![1; 32].into(),
    };
    let hash = transition_hash(&transition).expect("hash");
    transition.signature = key.sign_sha384(&hash.0).expect("signs").into();
    GetManifestsResponse {
        transitions: vec![transition],
        manifests: vec![manifest.to_vec().into()],
        policies: vec![COORDINATOR.as_bytes().into(), WEB.as_bytes().into()],
        root_ca: root.certificate_pem(),
        mesh_ca: mesh.self_signed_pem(),
    }
}

fn latest(history: &GetManifestsResponse) -> TransitionHash {
    transition_hash(history.transitions.last().expect("a transition")).expect("hash")
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
    let deployment = Deployment::new(Tee::Snp);
    let memory = remembering(latest(&deployment.history));
    for omit_policies in [false, true] {
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
    assert_eq!(failed, ["insecure[0] Metal-QEMU-SNP: REPORT_DATA"]);
}

#[test]
fn refuses_evidence_of_a_workload() {
    let deployment = Deployment::new(Tee::Snp);
    let answer = deployment.answer(WEB, false);
    let failed = deployment.refused(&answer, &Memory::default());
    assert_eq!(failed, ["insecure[0] Metal-QEMU-SNP: HOSTDATA"]);
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
