//! Disk full and power loss at every operation of a change.

use contrast_clock::{Entropy, SeededEntropy};
use contrast_manifest::ManifestDocument;
use contrast_pki::WorkloadOwnerKey;

use super::fixture::{Disk, Operation, apply, document, open, owner_key, recovery, request};
use crate::state::{Phase, StateError, StoreError, TransitionHash};

const NONE: TransitionHash = TransitionHash::NONE;

/// A disk with one manifest.
async fn disk_with(document: &ManifestDocument) -> Disk {
    let disk = Disk::default();
    let guard = open(Box::new(disk.clone())).expect("opens");
    guard
        .set_manifest(request(document, NONE, &[]))
        .await
        .expect("sets");
    guard.close().await;
    disk
}

#[tokio::test]
async fn full_disk_of_the_history_loses_nothing_that_was_agreed_on() {
    let owner = owner_key(1);
    let mut failures = 0;
    for room in 0.. {
        let disk = Disk::default();
        let guard = open(Box::new(disk.clone())).expect("opens");
        let first = request(&document("a", &[&owner]), NONE, &[]);
        let before = guard.set_manifest(first).await.expect("sets");
        let update = request(&document("b", &[&owner]), before.transition(), &[&owner]);

        disk.full_after(Some(room));
        // The log has it; the history file is a second copy.
        let after = guard.set_manifest(update).await.expect("sets");
        let behind = guard.catch_up();
        disk.full_after(None);
        if let Err(error) = behind {
            failures += 1;
            assert!(
                matches!(error, StateError::Store(StoreError::Full(_))),
                "{room}: {error:?}"
            );
            guard.catch_up().expect("there is room again");
        }
        guard.close().await;
        let guard = open(Box::new(disk)).expect("opens again");
        let Phase::Sealed(sealed) = &*guard.snapshot() else {
            panic!("sealed")
        };
        assert_eq!(sealed.history().head().hash, after.transition());
        let shares = sealed.history().seed_shares().clone();
        guard
            .recover(recovery(&shares, Some(after.transition())))
            .await
            .expect("recovers");
        guard.close().await;
        if room > failures {
            break;
        }
    }
    assert!(failures > 3, "only {failures} operations could fail");
}

#[tokio::test]
async fn full_disk_at_the_first_manifest_founds_nothing() {
    for room in 0..4 {
        let disk = Disk::default();
        let guard = open(Box::new(disk.clone())).expect("opens");
        let first = request(&document("a", &[]), NONE, &[]);
        disk.full_after(Some(room));
        let error = guard.set_manifest(first.clone()).await.expect_err("full");
        assert!(
            matches!(error, StateError::Store(StoreError::Full(_))),
            "{error:?}"
        );
        assert!(matches!(&*guard.snapshot(), Phase::Empty));
        disk.full_after(None);
        guard
            .set_manifest(first)
            .await
            .expect("there is room again");
        guard.close().await;
    }
}

#[tokio::test]
async fn power_loss_leaves_the_old_or_the_new_manifest() {
    let owner = owner_key(1);
    let (first, second) = (document("a", &[&owner]), document("b", &[&owner]));
    loses_power_everywhere(Disk::default(), &first, None, &owner).await;
    loses_power_everywhere(disk_with(&first).await, &second, Some(&first), &owner).await;
}

/// Sets `next` on `disk` and then looks at every state that the disk can have been in: after each operation, with all,
/// none, or some of the writes since the last sync.
async fn loses_power_everywhere(
    disk: Disk,
    next: &ManifestDocument,
    before: Option<&ManifestDocument>,
    owner: &WorkloadOwnerKey,
) {
    let guard = open(Box::new(disk.clone())).expect("opens");
    if let Phase::Sealed(sealed) = &*guard.snapshot() {
        let shares = sealed.history().seed_shares().clone();
        guard
            .recover(recovery(&shares, None))
            .await
            .expect("recovers");
    }
    let base = match &*guard.snapshot() {
        Phase::Active(active) => active.transition(),
        _ => NONE,
    };
    disk.take_log();
    let start = disk.bytes();
    let after = guard
        .set_manifest(request(next, base, &[owner]))
        .await
        .expect("sets")
        .transition();
    guard.catch_up().expect("writes");
    let log = disk.take_log();
    assert!(
        log.iter()
            .any(|operation| matches!(operation, Operation::Sync)),
        "nothing was synced"
    );

    let entropy = SeededEntropy::new(11);
    let mut synced = start;
    let mut pending: Vec<Operation> = Vec::new();
    let mut seen_old = false;
    for operation in log {
        pending.push(operation.clone());
        for images in 0..4 {
            let mut image = synced.clone();
            for operation in &pending {
                let mut coin = [0];
                entropy.fill(&mut coin).expect("entropy");
                let keep = match images {
                    0 => true,
                    1 => false,
                    _ => coin[0] & 1 == 1,
                };
                // Changes of length are kept: what is written beyond the end of a file extends it.
                if keep || matches!(operation, Operation::SetLength(_)) {
                    apply(&mut image, operation);
                }
            }
            let guard = open(Box::new(Disk::holding(image))).expect("an interrupted store opens");
            match &*guard.snapshot() {
                Phase::Empty => assert!(before.is_none(), "the old manifest is gone"),
                Phase::Sealed(sealed) => {
                    let head = sealed.history().head().hash;
                    assert!(head == after || head == base, "neither old nor new: {head}");
                    seen_old |= head == base;
                }
                Phase::Held(_) | Phase::Active(_) => panic!("nothing is active after a restart"),
            }
        }
        if matches!(operation, Operation::Sync) {
            pending
                .iter()
                .for_each(|operation| apply(&mut synced, operation));
            pending.clear();
        }
    }
    assert_eq!(seen_old, before.is_some());
    let guard = open(Box::new(Disk::holding(synced))).expect("opens");
    let Phase::Sealed(sealed) = &*guard.snapshot() else {
        panic!("the answered set is durable")
    };
    assert_eq!(sealed.history().head().hash, after);
}
