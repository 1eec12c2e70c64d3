//! The user API over real connections.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use bytes::Bytes;
use contrast_pki::verify_p384_sha384;
use contrast_proto::user::{GetManifestsRequest, GetSeedSharesRequest, SetManifestRequest};
use support::{Deployment, get, user_client, wait_for};
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .expect("a machine-readable reason")
        .reason
}

#[tokio::test]
async fn whole_life_set_get_update_restart_recover() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let ops = coordinator.addresses.ops;
    assert_eq!(wait_for(ops, "/probe/startup", 200), "ok\n");
    assert_eq!(get(ops, "/probe/liveness").0, 200);
    assert_eq!(
        get(ops, "/probe/readiness"),
        (503, "no manifest set yet\n".to_owned())
    );

    let mut client = user_client(coordinator.addresses.user_api, &manifest).await;
    for status in [
        client
            .get_manifests(GetManifestsRequest {})
            .await
            .expect_err("empty"),
        client
            .get_seed_shares(GetSeedSharesRequest {})
            .await
            .expect_err("empty"),
    ] {
        assert_eq!(
            (status.code(), reason(&status)),
            (Code::FailedPrecondition, "NO_MANIFEST".into())
        );
    }

    let set = client
        .set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets")
        .into_inner();
    assert_eq!(get(ops, "/probe/readiness").0, 200);
    let shares = set
        .seed_shares
        .clone()
        .expect("shares with the first answer");
    let again = client
        .set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("repeats");
    assert_eq!(again.into_inner(), set);
    let metrics = get(ops, "/metrics").1;
    assert!(
        metrics.contains("contrast_coordinator_manifest_generation 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("contrast_coordinator_insecure_reference_values 1\n"),
        "{metrics}"
    );

    let second = deployment.manifest("web2");
    let update = client
        .set_manifest(deployment.request(&second, &set.transition))
        .await;
    let update = update.expect("updates").into_inner();
    assert_eq!(update.root_ca, set.root_ca);
    assert_ne!(update.mesh_ca, set.mesh_ca);
    assert!(update.seed_shares.is_none());

    let history = client
        .get_manifests(GetManifestsRequest {})
        .await
        .expect("history")
        .into_inner();
    assert_eq!(
        history.manifests,
        [manifest.bytes(), second.bytes()].map(Bytes::copy_from_slice)
    );
    assert_eq!(history.policies.len(), 2);
    assert_eq!(history.transitions[0].previous, [0; 32][..]);
    assert_eq!(history.transitions[1].previous, set.transition);
    assert_eq!(history.transitions[1].manifest_hash, second.hash().0[..]);
    assert_eq!(
        (history.root_ca, history.mesh_ca),
        (update.root_ca.clone(), update.mesh_ca)
    );
    drop(client);
    coordinator.stop().await.expect("stops");

    let coordinator = deployment.start();
    assert_eq!(
        get(coordinator.addresses.ops, "/probe/readiness"),
        (503, "recovery needed\n".to_owned())
    );
    let mut client = user_client(coordinator.addresses.user_api, &second).await;
    let status = client
        .get_manifests(GetManifestsRequest {})
        .await
        .expect_err("sealed");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::FailedPrecondition, "RECOVERY_NEEDED".into())
    );
    let served = client
        .get_seed_shares(GetSeedSharesRequest {})
        .await
        .expect("before recovery");
    assert_eq!(served.into_inner(), shares);

    let recovery = deployment.recover_request(&shares, &update.transition);
    let mut wrong = recovery.clone();
    wrong.seed_share = Bytes::from(vec![7; 64]);
    let status = client.recover(wrong).await.expect_err("wrong seed");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::PermissionDenied, "WRONG_SEED".into())
    );
    let mut ahead = recovery.clone();
    ahead.known_transition = Bytes::from(vec![9; 32]);
    let status = client.recover(ahead).await.expect_err("history too old");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::FailedPrecondition, "HISTORY_ROLLED_BACK".into())
    );
    let mut short = recovery.clone();
    short.seed_share.truncate(63);
    let status = client.recover(short).await.expect_err("malformed");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "the seed has 63 bytes, expected 64");

    let recovered = client
        .recover(recovery.clone())
        .await
        .expect("recovers")
        .into_inner();
    assert_eq!(recovered.missing_shares, 0);
    let status = client.recover(recovery).await.expect_err("active");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::FailedPrecondition, "ALREADY_RECOVERED".into())
    );
    let after = client
        .get_manifests(GetManifestsRequest {})
        .await
        .expect("history")
        .into_inner();
    assert_eq!(after.root_ca, set.root_ca);
    assert_eq!(after.transitions.len(), 3);
    assert_eq!(after.transitions[2].manifest_hash, second.hash().0[..]);
    assert_ne!(
        after.transitions[2].mesh_ca_public_key,
        after.transitions[1].mesh_ca_public_key
    );
    assert_eq!(get(coordinator.addresses.ops, "/probe/readiness").0, 200);
}

#[tokio::test]
async fn refusals_say_what_to_do_and_have_a_reason() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let mut client = user_client(coordinator.addresses.user_api, &manifest).await;

    let not_json = SetManifestRequest {
        manifest: Bytes::from_static(b"{"),
        ..Default::default()
    };
    let status = client.set_manifest(not_json).await.expect_err("not JSON");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::InvalidArgument, "MANIFEST_INVALID".into())
    );

    let mut without_policies = deployment.request(&manifest, &[]);
    without_policies.policies.clear();
    let status = client
        .set_manifest(without_policies)
        .await
        .expect_err("policies missing");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::InvalidArgument, "POLICIES_MISMATCH".into())
    );

    let odd_base = SetManifestRequest {
        base_transition: Bytes::from_static(b"short"),
        ..deployment.request(&manifest, &[])
    };
    let status = client.set_manifest(odd_base).await.expect_err("malformed");
    assert_eq!(
        status.message(),
        "base_transition: expected 32 bytes, found 5 bytes"
    );

    let set = client
        .set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets")
        .into_inner();
    let next = deployment.manifest("web2");
    let mut unsigned = deployment.request(&next, &set.transition);
    unsigned.signatures.clear();
    let status = client.set_manifest(unsigned).await.expect_err("unsigned");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::PermissionDenied, "OWNER_SIGNATURES".into())
    );

    let stranger = Deployment::new();
    let mut foreign = deployment.request(&next, &set.transition);
    foreign.signatures = stranger.request(&next, &set.transition).signatures;
    let status = client.set_manifest(foreign).await.expect_err("stranger");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::PermissionDenied, "OWNER_SIGNATURES".into())
    );
    assert!(
        status
            .message()
            .contains("is not among the active manifest's workload owners")
    );

    let stale = deployment.request(&next, &[8; 32]);
    let status = client.set_manifest(stale).await.expect_err("stale");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::FailedPrecondition, "BASE_NOT_LATEST".into())
    );
}

#[tokio::test]
async fn oversized_requests_are_refused() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let mut client = user_client(coordinator.addresses.user_api, &manifest).await;
    let mut large = deployment.request(&manifest, &[]);
    large.manifest = Bytes::from(vec![b' '; (4 << 20) + 1]);
    let status = client
        .set_manifest(large)
        .await
        .expect_err("manifest too large");
    assert_eq!(
        status.message(),
        "manifest: expected at most 4194304 bytes, found 4194305 bytes"
    );
    let mut larger = deployment.request(&manifest, &[]);
    larger.policies = vec![Bytes::from(vec![0; 4 << 20]); 9];
    let status = client
        .set_manifest(larger)
        .await
        .expect_err("message too large");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    client
        .set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("still serves");
}

#[tokio::test]
async fn client_refuses_a_coordinator_with_another_policy() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let mut other = deployment.document("web");
    let entry = other
        .policies
        .remove(&support::policy_hash(support::COORDINATOR_INITDATA).to_string())
        .expect("there");
    other.policies.insert("11".repeat(32), entry);
    let other = contrast_manifest::Manifest::parse(other.to_json().as_bytes()).expect("valid");
    let verifier = std::sync::Arc::new(other.coordinator_verifier());
    let error = support::channel(coordinator.addresses.user_api, None, verifier).await;
    let error = error.expect_err("wrong policy");
    assert!(
        error.contains("HOSTDATA") && error.contains(&"11".repeat(32)),
        "{error}"
    );
}

#[tokio::test]
async fn transitions_are_signed_as_the_protocol_says() {
    // Recomputed here from the text of user.proto, independently of the code under test.
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let mut client = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = client
        .set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets")
        .into_inner();
    let shares = set.seed_shares.expect("first");
    let recovery = deployment.recover_request(&shares, &[]);
    let seed = contrast_pki::Seed::from_slice(&recovery.seed_share).expect("seed");
    let salt = contrast_pki::Salt::from_slice(&recovery.salt).expect("salt");
    let key = contrast_pki::Derivation::new(&seed, &salt)
        .transition_signing_key()
        .expect("key");
    let history = client
        .get_manifests(GetManifestsRequest {})
        .await
        .expect("history")
        .into_inner();
    let transition = &history.transitions[0];
    let sha256 = |bytes: &[u8]| contrast_manifest::ManifestHash::of(bytes).0;
    let hashed = [
        &b"contrast transition v2"[..],
        &transition.manifest_hash,
        &transition.previous,
        &sha256(&transition.mesh_ca_public_key),
        &transition.seed_shares_digest,
        &sha256(&transition.signing_public_key),
    ]
    .concat();
    assert_eq!(set.transition, sha256(&hashed)[..]);
    assert_eq!(transition.signing_public_key, key.public_key_spki());
    verify_p384_sha384(
        key.public_key_spki(),
        &set.transition,
        &transition.signature,
    )
    .expect("signed");
}
