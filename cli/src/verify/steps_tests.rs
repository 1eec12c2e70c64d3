use contrast_clock::SeededEntropy;
use contrast_manifest::ManifestDocument;
use contrast_pki::SigningKey;

use super::*;
use crate::verify::fixture::Deployment;

const MANIFEST: &[u8] = include_bytes!("../../tests/data/manifest.json");

fn of(deployment: &Deployment) -> Vec<Step> {
    steps(&deployment.answer, &deployment.check())
}

/// The change from the manifest of the tests' data to what `edit` makes of it.
fn edited(edit: impl FnOnce(&mut ManifestDocument)) -> Changes {
    let mut document = ManifestDocument::from_json(MANIFEST).expect("manifest");
    let before = Manifest::parse(document.to_json().as_bytes()).expect("valid");
    edit(&mut document);
    let after = Manifest::parse(document.to_json().as_bytes()).expect("valid");
    Changes::between(&Side::of(&before), &Side::of(&after))
}

#[test]
fn first_update_and_recovery_are_named() {
    let deployment = Deployment::new();
    let steps = of(&deployment);
    let events: Vec<_> = steps.iter().map(|step| step.event).collect();
    assert_eq!(events, [Event::First, Event::Update, Event::Recovery]);
    let numbers: Vec<_> = steps.iter().map(|step| step.manifest).collect();
    assert_eq!(numbers, [Some(0), Some(1), Some(1)]);
    let hashes: Vec<_> = steps.iter().filter_map(|step| step.transition).collect();
    assert_eq!(hashes, deployment.check().chain);

    let [change] = &steps[1].changes.values[..] else {
        panic!("{:?}", steps[1].changes)
    };
    assert!(change.path.ends_with(".SANs[0]"), "{}", change.path);
    assert_eq!(change.before.as_deref(), Some("\"web\""));
    assert_eq!(change.after.as_deref(), Some("\"web.example\""));
    assert_eq!(steps[0].changes, Changes::default());
    assert_eq!(steps[2].changes, Changes::default());
}

#[test]
fn back_to_an_older_manifest_is_an_update() {
    let mut deployment = Deployment::new();
    deployment.append(std::str::from_utf8(MANIFEST).expect("UTF-8"));
    let last = of(&deployment).pop().expect("steps");
    assert_eq!((last.event, last.manifest), (Event::Update, Some(0)));
    assert_eq!(last.changes.values.len(), 1);
}

#[test]
fn seed_that_was_shared_anew_is_named() {
    let mut deployment = Deployment::new();
    deployment.answer.transitions[1].seed_shares_digest = vec![2; 32].into();
    let anew: Vec<_> = of(&deployment)
        .iter()
        .map(|step| step.seed_shared_anew)
        .collect();
    assert_eq!(anew, [false, true, true]);
}

#[test]
fn manifest_that_is_missing_is_not_passed_over() {
    let mut deployment = Deployment::new();
    deployment.answer.manifests.remove(0);
    let steps = of(&deployment);
    assert_eq!(steps[0].manifest, None);
    assert!(steps[1].changes.note.contains("did not send both"));
}

#[test]
fn owners_and_thresholds_are_named() {
    let key = SigningKey::generate(&SeededEntropy::new(7)).expect("key");
    let key = hex::encode(key.public_key_spki());
    let changes = edited(|document| {
        document.workload_owner_pub_keys.push(key.clone());
        document.workload_owner_threshold = Some(2);
        // Another modulus of the same size is another key.
        let other = flip(&document.seedshare_owner_pub_keys[0]);
        document.seedshare_owner_pub_keys.push(other);
        document.seedshare_threshold = Some(2);
    });
    let digest = OwnerKeyDigest::of(&hex::decode(&key).expect("hex"));
    let [added, threshold, seedshare, recover] = &changes.owners[..] else {
        panic!("{:?}", changes.owners)
    };
    assert_eq!(
        *added,
        format!("workload owner added: key with SHA-256 {digest}")
    );
    assert_eq!(
        threshold,
        "number of workload owners that must approve an update: 1 before, 2 now"
    );
    assert!(
        seedshare.starts_with("seed share owner added: "),
        "{seedshare}"
    );
    assert_eq!(
        recover,
        "number of seed share owners that it takes to recover: 1 before, 2 now"
    );
}

#[test]
fn end_of_all_updates_is_named() {
    let changes = edited(|document| document.workload_owner_pub_keys.clear());
    let last = changes.owners.last().expect("a change");
    assert_eq!(last, "nobody can update the deployment any more");
}

#[test]
fn white_space_is_no_change_of_values() {
    let spaced = [MANIFEST, b"\n"].concat();
    let side = |bytes| Side {
        bytes,
        manifest: None,
    };
    let changes = Changes::between(&side(MANIFEST), &side(&spaced));
    assert_eq!(changes.values, []);
    assert!(
        changes.note.contains("the values are the same"),
        "{}",
        changes.note
    );
}

/// Changes a digit in the middle of a hex string, which is in the modulus of a key.
fn flip(hex: &str) -> String {
    let (head, tail) = hex.split_at(hex.len() / 2);
    let digit = if tail.starts_with('0') { "1" } else { "0" };
    format!("{head}{digit}{}", &tail[1..])
}
