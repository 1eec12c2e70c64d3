//! How long the mesh CA before stays trusted, by a clock that the test moves.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use contrast_clock::{FixedWallClock, WallClock};

use super::fixture::{Disk, Lone, document, open_at, owner_key, recovery, request};
use crate::state::{Active, TransitionHash};

const MINUTE: Duration = Duration::from_mins(1);

struct World {
    clock: Arc<FixedWallClock>,
    history: Disk,
    log: Disk,
}

impl World {
    fn new() -> Self {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Self {
            clock: Arc::new(FixedWallClock::new(now)),
            history: Disk::default(),
            log: Disk::default(),
        }
    }

    fn open(&self) -> Lone {
        let clock: Arc<dyn WallClock> = self.clock.clone();
        let medium = Box::new(self.history.clone());
        open_at(medium, Box::new(self.log.clone()), clock).expect("opens")
    }

    /// The mesh CA before that a pod would be told of now.
    fn previous(&self, active: &Active) -> Option<(String, Duration)> {
        let found = active.previous_mesh_ca(self.clock.now());
        found.map(|(pem, left)| (pem.to_owned(), left))
    }
}

/// Sets a manifest that denies certificates to these keys and has an overlap.
async fn deny(lone: &Lone, name: &str, keys: &[&str], base: TransitionHash) -> Arc<Active> {
    let owner = owner_key(1);
    let mut document = document(name, &[&owner]);
    document.mesh_ca_overlap = Some("10m".to_owned());
    document.denied_certificate_keys = keys.iter().map(|key| key.repeat(32)).collect();
    let update = request(&document, base, &[&owner]);
    lone.set_manifest(update).await.expect("sets")
}

async fn set(lone: &Lone, name: &str, overlap: Option<&str>, base: TransitionHash) -> Arc<Active> {
    let owner = owner_key(1);
    let mut document = document(name, &[&owner]);
    document.mesh_ca_overlap = overlap.map(str::to_owned);
    let update = request(&document, base, &[&owner]);
    lone.set_manifest(update).await.expect("sets")
}

#[tokio::test]
async fn mesh_ca_before_is_told_of_until_the_overlap_is_over() {
    let world = World::new();
    let lone = world.open();
    let first = set(&lone, "a", Some("10m"), TransitionHash::NONE).await;
    assert_eq!(world.previous(&first), None);
    world.clock.advance(60 * MINUTE);

    let second = set(&lone, "b", Some("10m"), first.transition()).await;
    let before = first.mesh_ca().self_signed_pem();
    assert_eq!(world.previous(&second), Some((before.clone(), 10 * MINUTE)));
    world.clock.advance(4 * MINUTE);
    assert_eq!(world.previous(&second), Some((before, 6 * MINUTE)));

    // Another change: its overlap is its own, and only one mesh CA is before it.
    let third = set(&lone, "c", Some("5m"), second.transition()).await;
    let before = second.mesh_ca().self_signed_pem();
    assert_eq!(world.previous(&third), Some((before.clone(), 5 * MINUTE)));
    world.clock.advance(5 * MINUTE - Duration::from_millis(1));
    let left = Some((before, Duration::from_millis(1)));
    assert_eq!(world.previous(&third), left);
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.previous(&third), None);

    // The overlap is that of the manifest that comes, not of the one that goes.
    let fourth = set(&lone, "d", None, third.transition()).await;
    assert_eq!(world.previous(&fourth), None);
}

#[tokio::test]
async fn key_that_is_denied_anew_ends_trust_in_the_mesh_ca_before() {
    let world = World::new();
    let lone = world.open();
    // Nobody had a certificate before the first.
    let mut active = deny(&lone, "a", &["ab"], TransitionHash::NONE).await;
    let mut changes = 0;
    for (keys, overlaps) in [
        (&["ab"][..], true),
        (&["ab", "cd"], false),
        (&["cd"], true),
        (&["ab"], false),
        (&[], true),
        (&["ab"], false),
    ] {
        changes += 1;
        let before = active.transition();
        active = deny(&lone, &format!("b{changes}"), keys, before).await;
        assert_eq!(world.previous(&active).is_some(), overlaps, "{keys:?}");
    }
}

#[tokio::test]
async fn repeating_a_request_does_not_begin_the_overlap_anew() {
    let world = World::new();
    let lone = world.open();
    let first = set(&lone, "a", None, TransitionHash::NONE).await;
    let second = set(&lone, "b", Some("10m"), first.transition()).await;
    world.clock.advance(MINUTE);
    let again = set(&lone, "b", Some("10m"), first.transition()).await;
    assert_eq!(again.transition(), second.transition());
    let left = world.previous(&again).map(|(_, left)| left);
    assert_eq!(left, Some(9 * MINUTE));
}

#[tokio::test]
async fn who_was_recovered_knows_of_no_mesh_ca_before() {
    let world = World::new();
    let lone = world.open();
    let first = set(&lone, "a", Some("10m"), TransitionHash::NONE).await;
    let second = set(&lone, "b", Some("10m"), first.transition()).await;
    assert!(world.previous(&second).is_some());
    let shares = second.history().seed_shares().clone();
    lone.close().await;

    let lone = world.open();
    let recovered = lone
        .recover(recovery(&shares, None))
        .await
        .expect("recovers");
    assert_eq!(world.previous(&recovered), None);
    let next = set(&lone, "c", Some("10m"), recovered.transition()).await;
    let before = recovered.mesh_ca().self_signed_pem();
    assert_eq!(world.previous(&next), Some((before, 10 * MINUTE)));
}

#[tokio::test]
async fn trust_domain_is_that_of_the_manifest_or_of_the_root() {
    let world = World::new();
    let lone = world.open();
    let owner = owner_key(1);
    let first = set(&lone, "a", None, TransitionHash::NONE).await;
    let of_root = first.trust_domain().to_owned();
    assert_eq!(of_root.len(), 64);
    let second = set(&lone, "b", None, first.transition()).await;
    assert_eq!(second.trust_domain(), of_root);

    let mut named = document("b", &[&owner]);
    named.trust_domain = Some("example.org".to_owned());
    let update = request(&named, second.transition(), &[&owner]);
    let third = lone.set_manifest(update).await.expect("sets");
    assert_eq!(third.trust_domain(), "example.org");
}
