use contrast_clock::SeededEntropy;
use contrast_pki::{RootCa, SigningKey};

use super::*;

#[path = "history_fixture.rs"]
mod fixture;

use fixture::{Deployment, MANIFEST, WEB, hash};

fn failed(deployment: &Deployment) -> Vec<String> {
    names(&deployment.check().consistent)
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
fn software_tee_of_an_earlier_manifest_is_not_forgotten() {
    let mut deployment = Deployment::new();
    assert!(!deployment.check().was_insecure());
    let mut manifest: serde_json::Value = serde_json::from_str(MANIFEST).expect("JSON");
    let snp = manifest["ReferenceValues"]["snp"][0].clone();
    manifest["ReferenceValues"]["insecure"] =
        serde_json::json!([{"RootSHA256": "ab".repeat(32), "snp": snp}]);
    deployment.append(&manifest.to_string());
    deployment.append(MANIFEST);
    let history = deployment.check();
    assert_eq!(names(&history.consistent), [""; 0]);
    assert!(history.was_insecure());
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
    assert!(failed(&deployment).contains(&"history".to_owned()));
    assert_eq!(deployment.check().latest(), None);
}

#[test]
fn refuses_transition_that_was_cut_out() {
    let mut deployment = Deployment::new();
    deployment.answer.transitions.remove(1);
    assert_eq!(failed(&deployment), ["transition 1 follows"]);
}

#[test]
fn refuses_transition_whose_mesh_ca_key_was_swapped() {
    let mut deployment = Deployment::new();
    let other = deployment.answer.transitions[2].mesh_ca_public_key.clone();
    deployment.answer.transitions[0].mesh_ca_public_key = other;
    deployment.sign(0);
    assert_eq!(failed(&deployment), ["transition 1 follows"]);
}

#[test]
fn refuses_signature_that_is_not_over_its_transition() {
    let mut deployment = Deployment::new();
    let other = deployment.answer.transitions[0].signature.clone();
    deployment.answer.transitions[2].signature = other;
    let expected = ["transition signatures", "transition 2 signature"];
    assert_eq!(failed(&deployment), expected);
}

#[test]
fn refuses_transition_that_another_key_signed() {
    let mut deployment = Deployment::new();
    deployment.signing_key = SigningKey::generate(&SeededEntropy::new(9)).expect("key");
    deployment.sign(2);
    let expected = ["transition signatures", "transition 2 signature"];
    assert_eq!(failed(&deployment), expected);
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
    assert_eq!(failed(&deployment), ["transition 0 follows"]);
}

#[test]
fn refuses_hash_of_wrong_length_and_trusts_nothing_after_it() {
    let mut deployment = Deployment::new();
    deployment.answer.transitions[1].manifest_hash = vec![1; 31].into();
    let failed = failed(&deployment);
    assert!(failed.contains(&"transition 1".to_owned()), "{failed:?}");
    assert_eq!(deployment.check().chain.len(), 1);
}

#[test]
fn refuses_manifest_that_no_transition_names() {
    let mut deployment = Deployment::new();
    let mut changed = deployment.answer.manifests[0].to_vec();
    changed.push(b'\n');
    deployment.answer.manifests[0] = changed.into();
    assert_eq!(failed(&deployment), ["manifest 0 SHA-256"]);
}

#[test]
fn refuses_surplus_manifest() {
    let mut deployment = Deployment::new();
    let surplus = deployment.answer.manifests[0].clone();
    deployment.answer.manifests.push(surplus);
    assert_eq!(failed(&deployment), ["manifest 2 SHA-256"]);
}

#[test]
fn refuses_manifest_that_is_not_valid() {
    let mut deployment = Deployment::new();
    deployment.append("{}");
    assert_eq!(failed(&deployment), ["manifest 2"]);
}

#[test]
fn refuses_missing_and_surplus_initdata() {
    let mut deployment = Deployment::new();
    deployment.answer.policies[1] = WEB.replace("web", "impostor").into_bytes().into();
    let failed = failed(&deployment);
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
    assert_eq!(failed(&deployment), ["mesh CA public key"]);
}

#[test]
fn refuses_root_ca_that_is_no_certificate() {
    let mut deployment = Deployment::new();
    deployment.answer.root_ca = "no certificate".into();
    assert_eq!(failed(&deployment), ["root CA public key"]);
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
