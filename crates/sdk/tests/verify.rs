//! Answers of the attest API, made with the parts of a Coordinator and evidence of a software TEE.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has to stop there"
)]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use contrast_attest_document::{Answer, DocumentError, report_data};
use contrast_attestation::{
    Demands, Issuer as _, PolicyHash, ReportData, Tee, software::SoftwareTee,
};
use contrast_clock::{SeededEntropy, SystemWallClock, WallClock as _};
use contrast_manifest::{SnpReferenceValue, TdxReferenceValue};
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

/// One for all tests: its RSA keys take seconds to make.
static TEE: LazyLock<SoftwareTee> =
    LazyLock::new(|| SoftwareTee::generate(SystemWallClock.now()).expect("software TEE"));

struct Deployment {
    kind: Tee,
    manifest: Vec<u8>,
    history: GetManifestsResponse,
    now: SystemTime,
}

impl Deployment {
    fn new(kind: Tee) -> Self {
        let tee = &*TEE;
        let now = SystemWallClock.now();
        let mut manifest: Value = serde_json::from_str(MANIFEST).expect("JSON");
        let root = hex::encode(tee.root_sha256(kind));
        let value = match tee.reference_value(kind).demands {
            Demands::Snp(demands) => {
                json!({"RootSHA256": root, "snp": SnpReferenceValue::from(&demands)})
            }
            Demands::Tdx(demands) => {
                json!({"RootSHA256": root, "tdx": TdxReferenceValue::from(&demands)})
            }
        };
        manifest["ReferenceValues"] = json!({"insecure": [value]});
        let manifest = serde_json::to_vec(&manifest).expect("JSON");
        let history = history(&manifest, now);
        Self {
            kind,
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
        let policy = PolicyHash(sha256(initdata.as_bytes()));
        let bound = ReportData(report_data(&NONCE, &statement));
        let evidence = match self.kind {
            Tee::Tdx => TEE.tdx_guest(policy).issue(&bound),
            _ => TEE.snp_guest(policy).issue(&bound),
        };
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
