use std::time::SystemTime;

use contrast_clock::{SeededEntropy, SystemWallClock, WallClock as _};
use contrast_pki::{MeshCa, RootCa, SigningKey};
use contrast_proto::user::Transition;

use super::*;

const MANIFEST: &str = include_str!("../../../cli/tests/data/manifest.json");
const COORDINATOR: &str = include_str!("../../../cli/tests/data/coordinator.toml");
const WEB: &str = include_str!("../../../cli/tests/data/web.toml");

/// A deployment as the Coordinator would describe it: first manifest, an update, a recovery under the same manifest.
struct Deployment {
    root: RootCa,
    signing_key: SigningKey,
    entropy: SeededEntropy,
    now: SystemTime,
    answer: GetManifestsResponse,
}

impl Deployment {
    fn new() -> Self {
        let entropy = SeededEntropy::new(1);
        let now = SystemWallClock.now();
        let key = SigningKey::generate(&entropy).expect("root key");
        let root = RootCa::new(key, now).expect("root");
        let answer = GetManifestsResponse {
            root_ca: root.certificate_pem(),
            policies: vec![COORDINATOR.as_bytes().into(), WEB.as_bytes().into()],
            ..GetManifestsResponse::default()
        };
        let mut deployment = Self {
            root,
            signing_key: SigningKey::generate(&entropy).expect("signing key"),
            entropy,
            now,
            answer,
        };
        let updated = MANIFEST.replace("\"web\",", "\"web.example\",");
        deployment.append(MANIFEST);
        deployment.append(&updated);
        deployment.append(&updated);
        deployment
    }

    fn append(&mut self, manifest: &str) {
        let mesh = MeshCa::generate(&self.entropy, &self.root, self.now).expect("mesh CA");
        let previous = self
            .answer
            .transitions
            .last()
            .map_or(TransitionHash::NONE, hash);
        self.answer.transitions.push(Transition {
            manifest_hash: sha256(manifest.as_bytes()).to_vec().into(),
            previous: previous.0.to_vec().into(),
            mesh_ca_public_key: mesh.public_key_spki().to_vec().into(),
            signature: Vec::new().into(),
            signing_public_key: Vec::new().into(),
            seed_shares_digest: vec![1; 32].into(),
        });
        self.sign(self.answer.transitions.len() - 1);
        if !self
            .answer
            .manifests
            .iter()
            .any(|known| known == manifest.as_bytes())
        {
            self.answer
                .manifests
                .push(manifest.as_bytes().to_vec().into());
        }
        self.answer.mesh_ca = mesh.self_signed_pem();
    }

    /// Signs a transition with the key that the deployment has now.
    fn sign(&mut self, index: usize) {
        let transition = &mut self.answer.transitions[index];
        transition.signing_public_key = self.signing_key.public_key_spki().to_vec().into();
        let signature = self.signing_key.sign_sha384(&hash(transition).0);
        transition.signature = signature.expect("signs").into();
    }

    fn check(&self) -> History {
        History::check(&self.answer, &Memory::default())
    }

    fn failed(&self) -> Vec<String> {
        names(&self.check().consistent)
    }
}

fn hash(transition: &Transition) -> TransitionHash {
    transition_hash(transition).expect("hash")
}

fn names(rows: &Rows) -> Vec<String> {
    rows.failed().map(|row| row.name.clone()).collect()
}

fn remembered(hash: TransitionHash) -> Memory {
    Memory {
        transitions: vec![KnownTransition {
            hash,
            source: "verify/latest-transition".into(),
        }],
        root_ca: None,
    }
}

#[test]
fn accepts_update_and_recovery() {
    let deployment = Deployment::new();
    let history = deployment.check();
    assert_eq!(names(&history.consistent), [""; 0]);
    assert_eq!(history.chain.len(), 3);
    assert_eq!(
        history.latest(),
        deployment.answer.transitions.last().map(hash)
    );
    assert_eq!(history.initdata.len(), 2);
    let newest = newest_manifest(&deployment.answer).expect("newest");
    assert_eq!(newest, deployment.answer.manifests[1]);
}

#[test]
fn refuses_empty_history() {
    let mut deployment = Deployment::new();
    deployment.answer.transitions.clear();
    assert!(deployment.failed().contains(&"history".to_owned()));
    assert_eq!(deployment.check().latest(), None);
}

#[test]
fn refuses_transition_that_was_cut_out() {
    let mut deployment = Deployment::new();
    deployment.answer.transitions.remove(1);
    assert_eq!(deployment.failed(), ["transition 1 follows"]);
}

#[test]
fn refuses_transition_whose_mesh_ca_key_was_swapped() {
    let mut deployment = Deployment::new();
    let other = deployment.answer.transitions[2].mesh_ca_public_key.clone();
    deployment.answer.transitions[0].mesh_ca_public_key = other;
    deployment.sign(0);
    assert_eq!(deployment.failed(), ["transition 1 follows"]);
}

#[test]
fn refuses_signature_that_is_not_over_its_transition() {
    let mut deployment = Deployment::new();
    let other = deployment.answer.transitions[0].signature.clone();
    deployment.answer.transitions[2].signature = other;
    let expected = ["transition signatures", "transition 2 signature"];
    assert_eq!(deployment.failed(), expected);
}

#[test]
fn refuses_transition_that_another_key_signed() {
    let mut deployment = Deployment::new();
    deployment.signing_key = SigningKey::generate(&SeededEntropy::new(9)).expect("key");
    deployment.sign(2);
    let expected = ["transition signatures", "transition 2 signature"];
    assert_eq!(deployment.failed(), expected);
}

#[test]
fn same_history_under_another_key_is_not_the_one_that_was_seen() {
    let mut deployment = Deployment::new();
    let seen = deployment.check().latest().expect("latest");
    deployment.signing_key = SigningKey::generate(&SeededEntropy::new(9)).expect("key");
    let mut previous = TransitionHash::NONE;
    for index in 0..deployment.answer.transitions.len() {
        deployment.answer.transitions[index].previous = previous.0.to_vec().into();
        deployment.sign(index);
        previous = hash(&deployment.answer.transitions[index]);
    }
    let history = History::check(&deployment.answer, &remembered(seen));
    assert_eq!(names(&history.consistent), [""; 0]);
    assert_eq!(
        names(&history.remembered),
        ["transition of `verify/latest-transition`"]
    );
}

#[test]
fn refuses_first_transition_with_a_predecessor() {
    let mut deployment = Deployment::new();
    deployment.answer.transitions.remove(0);
    deployment.answer.manifests.remove(0);
    assert_eq!(deployment.failed(), ["transition 0 follows"]);
}

#[test]
fn refuses_hash_of_wrong_length_and_trusts_nothing_after_it() {
    let mut deployment = Deployment::new();
    deployment.answer.transitions[1].manifest_hash = vec![1; 31].into();
    let failed = deployment.failed();
    assert!(failed.contains(&"transition 1".to_owned()), "{failed:?}");
    assert_eq!(deployment.check().chain.len(), 1);
}

#[test]
fn refuses_manifest_that_no_transition_names() {
    let mut deployment = Deployment::new();
    let mut changed = deployment.answer.manifests[0].to_vec();
    changed.push(b'\n');
    deployment.answer.manifests[0] = changed.into();
    assert_eq!(deployment.failed(), ["manifest 0 SHA-256"]);
}

#[test]
fn refuses_surplus_manifest() {
    let mut deployment = Deployment::new();
    let surplus = deployment.answer.manifests[0].clone();
    deployment.answer.manifests.push(surplus);
    assert_eq!(deployment.failed(), ["manifest 2 SHA-256"]);
}

#[test]
fn refuses_manifest_that_is_not_valid() {
    let mut deployment = Deployment::new();
    deployment.append("{}");
    assert_eq!(deployment.failed(), ["manifest 2"]);
}

#[test]
fn refuses_missing_and_surplus_initdata() {
    let mut deployment = Deployment::new();
    deployment.answer.policies[1] = WEB.replace("web", "impostor").into_bytes().into();
    let failed = deployment.failed();
    assert_eq!(failed.len(), 3, "{failed:?}");
    assert_eq!(failed[0], "initdata documents");
    assert_eq!(
        failed[1],
        format!("initdata {}", hex::encode(sha256(WEB.as_bytes())))
    );
    assert!(failed[2].starts_with("initdata "), "{failed:?}");
}

#[test]
fn refuses_mesh_ca_of_another_transition() {
    let mut deployment = Deployment::new();
    let old = deployment.answer.mesh_ca.clone();
    deployment.append(MANIFEST);
    deployment.answer.mesh_ca = old;
    assert_eq!(deployment.failed(), ["mesh CA public key"]);
}

#[test]
fn refuses_root_ca_that_is_no_certificate() {
    let mut deployment = Deployment::new();
    deployment.answer.root_ca = "no certificate".into();
    assert_eq!(deployment.failed(), ["root CA public key"]);
}

#[test]
fn remembered_transition_anywhere_in_the_chain_is_fine() {
    let deployment = Deployment::new();
    for transition in &deployment.answer.transitions {
        let history = History::check(&deployment.answer, &remembered(hash(transition)));
        assert!(history.remembered.passed());
    }
}

#[test]
fn refuses_rolled_back_history() {
    let mut deployment = Deployment::new();
    let seen = deployment.check().latest().expect("latest");
    // The disk of before the recovery: consistent in itself.
    let mut old = deployment.answer.clone();
    old.transitions.pop();
    deployment.answer = old;
    deployment.answer.mesh_ca = Deployment::new().answer.mesh_ca;
    let history = History::check(&deployment.answer, &remembered(seen));
    assert_eq!(
        names(&history.remembered),
        ["transition of `verify/latest-transition`"]
    );
}

#[test]
fn refuses_other_root_ca_than_last_time_but_not_a_renewed_certificate() {
    let deployment = Deployment::new();
    let memory = |pem: String| Memory {
        root_ca: Some(pem),
        ..Memory::default()
    };
    let entropy = SeededEntropy::new(1);
    let same_key = SigningKey::generate(&entropy).expect("key");
    let renewed = RootCa::new(same_key, deployment.now)
        .expect("root")
        .certificate_pem();
    let history = History::check(&deployment.answer, &memory(renewed));
    assert!(history.remembered.passed(), "{:?}", history.remembered);

    let other_key = SigningKey::generate(&SeededEntropy::new(2)).expect("key");
    let other = RootCa::new(other_key, deployment.now)
        .expect("root")
        .certificate_pem();
    let history = History::check(&deployment.answer, &memory(other));
    assert_eq!(
        names(&history.remembered),
        ["root CA public key, as last time"]
    );
}
