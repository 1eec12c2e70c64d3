//! Who may change what, and what a restart and a recovery keep.

use std::fs;

use bytes::Bytes;
use contrast_clock::SeededEntropy;
use contrast_pki::{
    Salt, Seed, SigningKey,
    shares::{Collector, Progress, decrypt_share},
};
use tempfile::tempdir;

use super::fixture::{
    Disk, SEED_SHARE_OWNER, active, approval, document, open, open_in, owner_key, policies,
    recovery, request,
};
use crate::state::{
    ApprovalError, HistoryError, Phase, RecoveryRequest, StateError, Transition, TransitionHash,
};

const NONE: TransitionHash = TransitionHash::NONE;

#[tokio::test]
async fn first_manifest_is_open_to_anyone_and_repeating_it_changes_nothing() {
    let guard = open(Box::new(Disk::default())).expect("opens");
    assert!(matches!(&*guard.snapshot(), Phase::Empty));
    let first = request(&document("web", &[]), NONE, &[]);
    let set = guard.set_manifest(first.clone()).await.expect("sets");
    let repeated = guard.set_manifest(first).await.expect("sets again");
    assert_eq!(repeated.transition(), set.transition());
    assert_eq!(repeated.history().generation(), 1);
    assert_eq!(set.history().policies().len(), 2);
}

#[tokio::test]
async fn update_makes_a_new_mesh_ca_under_the_same_root() {
    let owner = owner_key(1);
    let guard = open(Box::new(Disk::default())).expect("opens");
    let first = guard
        .set_manifest(request(&document("a", &[&owner]), NONE, &[]))
        .await
        .expect("sets");
    let base = first.transition();
    let update = request(&document("b", &[&owner]), base, &[&owner]);
    let second = guard.set_manifest(update.clone()).await.expect("updates");
    assert_ne!(
        second.mesh_ca().public_key_spki(),
        first.mesh_ca().public_key_spki()
    );
    assert_eq!(
        second.keys().root().certificate_der(),
        first.keys().root().certificate_der()
    );
    assert_eq!(second.history().head().transition.previous, base);
    assert_eq!(second.history().manifests().len(), 2);
    let repeated = guard.set_manifest(update).await.expect("repeats");
    assert_eq!(repeated.transition(), second.transition());
}

#[tokio::test]
async fn rejects_update_without_or_with_a_wrong_owner_key() {
    let (owner, stranger) = (owner_key(1), owner_key(2));
    let guard = open(Box::new(Disk::default())).expect("opens");
    let first = guard
        .set_manifest(request(&document("a", &[&owner]), NONE, &[]))
        .await
        .expect("sets");
    let base = first.transition();
    let next = document("b", &[&owner]);

    let unsigned = guard
        .set_manifest(request(&next, base, &[]))
        .await
        .expect_err("unsigned");
    assert_eq!(
        unsigned.to_string(),
        "the update needs 1 valid signature(s) of workload owners, found 0; sign it with a workload owner's key"
    );
    let error = guard
        .set_manifest(request(&next, base, &[&stranger]))
        .await
        .expect_err("stranger");
    assert!(
        error
            .to_string()
            .ends_with("is not among the active manifest's workload owners"),
        "{error}"
    );

    let mut other_update = request(&next, base, &[]);
    other_update.approvals = vec![approval(&owner, b"another manifest", base)];
    let error = guard
        .set_manifest(other_update)
        .await
        .expect_err("other manifest");
    assert!(
        error.to_string().ends_with("is not over this update"),
        "{error}"
    );

    let mut other_base = request(&next, base, &[]);
    other_base.approvals = vec![approval(&owner, &other_base.manifest, NONE)];
    let error = guard
        .set_manifest(other_base)
        .await
        .expect_err("other base");
    assert!(matches!(
        error,
        StateError::Approval(ApprovalError::NotEnough { valid: 0, .. })
    ));
    assert_eq!(active(&guard).transition(), base);
}

#[tokio::test]
async fn rejects_update_from_an_old_base() {
    let owner = owner_key(1);
    let guard = open(Box::new(Disk::default())).expect("opens");
    guard
        .set_manifest(request(&document("a", &[&owner]), NONE, &[]))
        .await
        .expect("sets");
    let stale = request(&document("b", &[&owner]), NONE, &[&owner]);
    let error = guard.set_manifest(stale).await.expect_err("stale");
    assert!(matches!(error, StateError::StaleBase { found: NONE, .. }));

    let empty = open(Box::new(Disk::default())).expect("opens");
    let from_somewhere = request(&document("a", &[]), TransitionHash([9; 32]), &[]);
    let error = empty
        .set_manifest(from_somewhere)
        .await
        .expect_err("a history is missing");
    assert!(matches!(error, StateError::NoManifest), "{error}");
}

#[tokio::test]
async fn two_of_two_owners_must_sign_and_one_does_not_count_twice() {
    let (a, b) = (owner_key(1), owner_key(2));
    let guard = open(Box::new(Disk::default())).expect("opens");
    let mut manifest = document("a", &[&a, &b]);
    manifest.workload_owner_threshold = Some(2);
    let base = guard
        .set_manifest(request(&manifest, NONE, &[]))
        .await
        .expect("sets")
        .transition();
    let next = document("b", &[&a]);
    let error = guard
        .set_manifest(request(&next, base, &[&a, &a]))
        .await
        .expect_err("one owner");
    assert!(matches!(
        error,
        StateError::Approval(ApprovalError::NotEnough {
            needed: 2,
            valid: 1,
            ..
        })
    ));
    guard
        .set_manifest(request(&next, base, &[&a, &b]))
        .await
        .expect("both");
}

#[tokio::test]
async fn manifest_without_owners_can_never_be_updated() {
    let owner = owner_key(1);
    let guard = open(Box::new(Disk::default())).expect("opens");
    let base = guard
        .set_manifest(request(&document("a", &[]), NONE, &[]))
        .await
        .expect("sets")
        .transition();
    let error = guard
        .set_manifest(request(&document("b", &[&owner]), base, &[&owner]))
        .await;
    let error = error.expect_err("disabled");
    assert!(matches!(
        error,
        StateError::Approval(ApprovalError::UpdatesDisabled)
    ));
}

#[tokio::test]
async fn a_manifest_with_other_seed_share_owners_shares_the_seed_anew() {
    let owner = owner_key(1);
    let directory = tempdir().expect("directory");
    let guard = open_in(directory.path()).expect("opens");
    let first = document("a", &[&owner]);
    let base = guard
        .set_manifest(request(&first, NONE, &[]))
        .await
        .expect("sets")
        .transition();
    let mut next = document("b", &[&owner]);
    let other = next.seedshare_owner_pub_keys[0].clone();
    let middle = other.len() / 2;
    let digit = if &other[middle..=middle] == "0" {
        "1"
    } else {
        "0"
    };
    // Nobody has this one's private key.
    let another = format!("{}{digit}{}", &other[..middle], &other[middle + 1..]);
    next.seedshare_owner_pub_keys = vec![other, another];
    next.seedshare_threshold = Some(2);
    let changed = guard
        .set_manifest(request(&next, base, &[&owner]))
        .await
        .expect("shares anew");
    let shares = changed.history().seed_shares().clone();
    assert_eq!((shares.threshold, shares.shares.len()), (2, 2));
    let share = decrypt_share(&shares, &SEED_SHARE_OWNER).expect("own share");
    let progress = Collector::new(shares.clone()).add(share);
    assert!(matches!(progress, Ok(Progress::Missing(1))), "{progress:?}");
    // The same owners again: the same shares.
    next.mesh_cert_lifetime = Some("24h".into());
    let kept = guard
        .set_manifest(request(&next, changed.transition(), &[&owner]))
        .await
        .expect("sets");
    assert_eq!(kept.history().seed_shares(), &shares);
    guard.close().await;
    let again = open_in(directory.path()).expect("opens");
    let snapshot = again.snapshot();
    let history = snapshot.history().expect("a history");
    assert_eq!(history.seed_shares(), &shares);
}

#[tokio::test]
async fn policies_must_match_the_manifest_exactly() {
    let guard = open(Box::new(Disk::default())).expect("opens");
    let mut missing = request(&document("a", &[]), NONE, &[]);
    missing.policies.pop();
    missing.policies.push(Bytes::from_static(b"something else"));
    let error = guard.set_manifest(missing).await.expect_err("mismatch");
    let StateError::Policies(policies) = &error else {
        panic!("{error}")
    };
    assert_eq!((policies.missing.len(), policies.extra.len()), (1, 1));
    assert!(
        error
            .to_string()
            .contains("1 missing, 1 superfluous (missing "),
        "{error}"
    );
    assert!(matches!(&*guard.snapshot(), Phase::Empty));
}

#[tokio::test]
async fn invalid_manifest_is_refused_with_all_problems() {
    let guard = open(Box::new(Disk::default())).expect("opens");
    let mut invalid = document("a", &[]);
    invalid.seedshare_threshold = Some(3);
    invalid.reference_values.snp[0]
        .guest_policy
        .as_mut()
        .expect("set")
        .debug = true;
    let error = guard
        .set_manifest(request(&invalid, NONE, &[]))
        .await
        .expect_err("invalid");
    assert!(
        error
            .to_string()
            .starts_with("the manifest has 2 problems:\n"),
        "{error}"
    );
}

#[tokio::test]
async fn recovery_keeps_the_root_and_makes_a_new_mesh_ca() {
    let directory = tempdir().expect("directory");
    let owner = owner_key(1);
    let first = request(&document("a", &[&owner]), NONE, &[]);
    let before = {
        let guard = open_in(directory.path()).expect("opens");
        let set = guard.set_manifest(first.clone()).await.expect("sets");
        guard.close().await;
        set
    };
    let guard = open_in(directory.path()).expect("opens again");
    let Phase::Sealed(sealed) = &*guard.snapshot() else {
        panic!("sealed after a restart")
    };
    let error = guard.set_manifest(first.clone()).await.expect_err("sealed");
    assert!(matches!(error, StateError::RecoveryNeeded));
    // Also someone whose first `set` was never answered finds the shares here.
    assert_eq!(
        sealed.history().seed_shares(),
        before.history().seed_shares()
    );

    let shares = sealed.history().seed_shares().clone();
    let after = guard
        .recover(recovery(&shares, Some(before.transition())))
        .await
        .expect("recovers");
    assert_eq!(
        after.keys().root().certificate_der(),
        before.keys().root().certificate_der()
    );
    assert_ne!(
        after.mesh_ca().public_key_spki(),
        before.mesh_ca().public_key_spki()
    );
    assert_eq!(
        after.history().head().transition.previous,
        before.transition()
    );
    assert_eq!(after.manifest(), before.manifest());
    let secret = |active: &crate::state::Active| {
        active
            .keys()
            .derivation()
            .workload_secret("x")
            .expect("derives")
            .expose()
            .to_vec()
    };
    assert_eq!(secret(&after), secret(&before));
    let again = guard
        .recover(recovery(&shares, None))
        .await
        .expect_err("active");
    assert!(matches!(again, StateError::AlreadyRecovered));
    let repeated = guard
        .set_manifest(first)
        .await
        .expect("the first set took effect");
    assert_eq!(repeated.transition(), after.transition());
}

#[tokio::test]
async fn rejects_recovery_with_a_wrong_seed_or_salt() {
    let directory = tempdir().expect("directory");
    let shares = {
        let guard = open_in(directory.path()).expect("opens");
        let set = guard
            .set_manifest(request(&document("a", &[]), NONE, &[]))
            .await
            .expect("sets");
        guard.close().await;
        set.history().seed_shares().clone()
    };
    let guard = open_in(directory.path()).expect("opens again");
    let entropy = SeededEntropy::new(5);
    let wrong_seed = RecoveryRequest {
        seed: Seed::generate(&entropy).expect("seed"),
        ..recovery(&shares, None)
    };
    let wrong_salt = RecoveryRequest {
        salt: Salt::generate(&entropy).expect("salt"),
        ..recovery(&shares, None)
    };
    for request in [wrong_seed, wrong_salt] {
        let error = guard.recover(request).await.expect_err("wrong");
        assert!(
            matches!(error, StateError::History(HistoryError::WrongSeed)),
            "{error}"
        );
        assert!(matches!(&*guard.snapshot(), Phase::Sealed(_)));
    }
    guard
        .recover(recovery(&shares, None))
        .await
        .expect("the right share still works");
}

#[tokio::test]
async fn rejects_recovery_without_a_history() {
    let guard = open(Box::new(Disk::default())).expect("opens");
    let entropy = SeededEntropy::new(5);
    let request = RecoveryRequest {
        seed: Seed::generate(&entropy).expect("seed"),
        salt: Salt::generate(&entropy).expect("salt"),
        known: Vec::new(),
        force: false,
        forget_volumes: false,
    };
    let error = guard.recover(request).await.expect_err("nothing there");
    assert!(matches!(error, StateError::NothingToRecover));
}

#[tokio::test]
async fn rejects_an_old_disk_that_the_host_put_back() {
    let directory = tempdir().expect("directory");
    let files = ["history.redb", "raft.redb"].map(|name| directory.path().join(name));
    let owner = owner_key(1);
    let guard = open_in(directory.path()).expect("opens");
    let first = guard
        .set_manifest(request(&document("a", &[&owner]), NONE, &[]))
        .await
        .expect("sets");
    let shares = first.history().seed_shares().clone();
    guard.close().await;
    let old_disk = files.clone().map(|file| fs::read(file).expect("reads"));

    let guard = open_in(directory.path()).expect("opens");
    let second = guard
        .recover(recovery(&shares, None))
        .await
        .expect("recovers")
        .transition();
    guard.close().await;
    for (file, old) in files.iter().zip(old_disk) {
        fs::write(file, old).expect("the host rolls back");
    }

    let guard = open_in(directory.path()).expect("an old disk is consistent in itself");
    let error = guard
        .recover(recovery(&shares, Some(second)))
        .await
        .expect_err("rolled back");
    let StateError::History(HistoryError::RolledBack { known, head }) = error else {
        panic!("{error}")
    };
    assert_eq!((known, head), (second, first.transition()));
    assert!(matches!(&*guard.snapshot(), Phase::Sealed(_)));
}

#[tokio::test]
async fn a_second_process_cannot_take_the_directory() {
    let directory = tempdir().expect("directory");
    let _first = open_in(directory.path()).expect("opens");
    let error = open_in(directory.path()).expect_err("in use").to_string();
    assert!(error.starts_with("another Coordinator uses "), "{error}");
}

#[tokio::test]
async fn signature_of_another_key_is_told_from_a_wrong_seed() {
    let guard = open(Box::new(Disk::default())).expect("opens");
    let set = guard
        .set_manifest(request(&document("a", &[]), NONE, &[]))
        .await
        .expect("sets");
    let stranger = SigningKey::generate(&SeededEntropy::new(3)).expect("key");
    let forged = Transition::sign(
        set.manifest().hash(),
        set.transition(),
        b"key",
        set.history().head().transition.seed_shares,
        &stranger,
    )
    .expect("signs");
    let history = set
        .history()
        .extended(forged, set.manifest().bytes(), &Default::default());
    let spki = set.keys().deployment().transition_key().public_key_spki();
    let error = history.verify(spki).expect_err("forged");
    assert!(matches!(error, HistoryError::Forged { name } if name == history.head().hash));
    let error = history
        .verify(stranger.public_key_spki())
        .expect_err("wrong seed");
    assert!(matches!(error, HistoryError::WrongSeed));
    assert_eq!(policies().len(), set.history().policies().len());
}

#[tokio::test]
async fn recovery_replaces_a_damaged_root_certificate_in_memory_and_on_disk() {
    let disk = Disk::default();
    let guard = open(Box::new(disk.clone())).expect("opens");
    let first = request(&document("a", &[]), TransitionHash::NONE, &[]);
    let before = guard.set_manifest(first).await.expect("sets");
    let root = before.keys().root().certificate_der().to_vec();
    let shares = before.history().seed_shares().clone();
    guard.close().await;
    let mut damaged = root.clone();
    damaged[30] ^= 1;
    assert!(disk.replace(&root, &damaged) > 0);

    let guard = open(Box::new(disk.clone())).expect("opens");
    let after = guard
        .recover(recovery(&shares, None))
        .await
        .expect("recovers");
    let renewed = after.keys().root().certificate_der().to_vec();
    assert_ne!(renewed, damaged);
    assert_eq!(after.history().root_certificate(), renewed);
    guard.close().await;
    let guard = open(Box::new(disk)).expect("opens");
    let Phase::Sealed(sealed) = &*guard.snapshot() else {
        panic!("sealed")
    };
    assert_eq!(sealed.history().root_certificate(), renewed);
}
