use std::net::SocketAddr;

use contrast_atls::{ServerConfig, accept};
use contrast_attestation::{Issuer, PolicyHash, Tee, software::SoftwareTee};
use contrast_clock::SystemWallClock;
use contrast_manifest::{InsecureReferenceValue, ManifestDocument};
use tokio::net::TcpListener;

use super::*;

const MANIFEST: &str = include_str!("../tests/data/manifest.json");

fn clock() -> Arc<dyn WallClock> {
    Arc::new(SystemWallClock)
}

/// The test manifest, with the software TEE's reference values instead of AMD's.
fn manifest_of(tee: &SoftwareTee) -> Manifest {
    let mut document = ManifestDocument::from_json(MANIFEST.as_bytes()).expect("document");
    document.reference_values = Default::default();
    document
        .reference_values
        .push(&tee.reference_value(Tee::Snp), "");
    assert!(matches!(
        document.reference_values.insecure.as_slice(),
        [InsecureReferenceValue { snp: Some(_), .. }]
    ));
    Manifest::parse(document.to_json().as_bytes()).expect("valid")
}

fn coordinator_of(manifest: &Manifest) -> PolicyHash {
    *manifest.coordinators().first().expect("one")
}

fn address_of(socket: SocketAddr) -> CoordinatorAddress {
    CoordinatorAddress {
        host: socket.ip().to_string(),
        port: socket.port(),
    }
}

/// Dials a server that shows evidence of `issuer`.
async fn dial(issuer: Arc<dyn Issuer>, manifest: &Manifest) -> Result<Session, DialError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = address_of(listener.local_addr().expect("address"));
    let config = ServerConfig {
        identity: Arc::new(Identity::generate(clock().now()).expect("identity")),
        issuer: Some(issuer),
        verifier: None,
        clock: clock(),
        limits: Limits::server(),
    };
    let server = async {
        let (tcp, peer) = listener.accept().await.expect("accept");
        accept(tcp, Some(peer), &config).await
    };
    let clock = clock();
    let collateral = Arc::default();
    // The server's stream lives until the client is done.
    let (dialed, _stream) = tokio::join!(
        Session::attest(&address, manifest, &collateral, &clock),
        server
    );
    dialed
}

#[tokio::test]
async fn accepts_the_coordinator_of_the_manifest() {
    let tee = SoftwareTee::generate(clock().now()).expect("software TEE");
    let manifest = manifest_of(&tee);
    let guest = Arc::new(tee.snp_guest(coordinator_of(&manifest)));
    let session = dial(guest, &manifest).await.expect("attested");
    assert!(session.evidence().is_insecure());
    assert_eq!(session.evidence().policy_hash(), coordinator_of(&manifest));
}

#[tokio::test]
async fn accepts_old_and_new_coordinator_during_a_rolling_upgrade() {
    let tee = SoftwareTee::generate(clock().now()).expect("software TEE");
    let manifest = manifest_of(&tee);
    let mut document = ManifestDocument::from_json(manifest.bytes()).expect("document");
    let old = coordinator_of(&manifest);
    let mut entry = document.policies[&old.to_string()].clone();
    entry.sans.push("new".into());
    document.policies.insert("c1".repeat(32), entry);
    let manifest = Manifest::parse(document.to_json().as_bytes()).expect("valid");
    for policy in [old, PolicyHash([0xc1; 32])] {
        let session = dial(Arc::new(tee.snp_guest(policy)), &manifest).await;
        assert_eq!(session.expect("attested").evidence().policy_hash(), policy);
    }
}

#[tokio::test]
async fn another_policy_is_a_negative_verdict_that_names_hostdata() {
    let tee = SoftwareTee::generate(clock().now()).expect("software TEE");
    let manifest = manifest_of(&tee);
    let error = dial(Arc::new(tee.snp_guest(PolicyHash([9; 32]))), &manifest)
        .await
        .expect_err("refused");
    assert_eq!(error.exit(), Exit::Negative);
    assert!(!error.is_transient());
    let report = error.appraisal().expect("report");
    let failed: Vec<&str> = report.sets[0]
        .checks
        .checks()
        .iter()
        .filter(|check| !check.passed)
        .map(|check| check.field.as_str())
        .collect();
    assert_eq!(failed, ["HOSTDATA"]);
    assert!(
        error.hints()[0].contains("YAML changed after `contrast generate`"),
        "{:?}",
        error.hints()
    );
}

#[tokio::test]
async fn workload_of_the_same_manifest_is_not_its_coordinator() {
    let tee = SoftwareTee::generate(clock().now()).expect("software TEE");
    let manifest = manifest_of(&tee);
    let workload = manifest
        .policies()
        .keys()
        .find(|hash| **hash != coordinator_of(&manifest));
    let guest = tee.snp_guest(*workload.expect("workload"));
    let error = dial(Arc::new(guest), &manifest).await.expect_err("refused");
    assert!(matches!(error, DialError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn evidence_of_another_kind_of_tee_says_what_the_manifest_has() {
    let tee = SoftwareTee::generate(clock().now()).expect("software TEE");
    let manifest = manifest_of(&tee);
    let guest = Arc::new(tee.tdx_guest(coordinator_of(&manifest)));
    let error = dial(guest, &manifest).await.expect_err("refused");
    assert_eq!(error.exit(), Exit::Negative);
    assert!(error.appraisal().is_none());
    assert_eq!(error.hints().len(), 1);
}

#[tokio::test]
async fn closed_port_is_transient_and_unknown_host_is_not() {
    let manifest = Manifest::parse(MANIFEST.as_bytes()).expect("valid");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = address_of(listener.local_addr().expect("address"));
    drop(listener);
    let error = Session::attest(&address, &manifest, &Arc::default(), &clock())
        .await
        .expect_err("closed");
    assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    assert!(error.is_transient());
    assert_eq!(error.exit(), Exit::Unavailable);

    // RFC 6761 reserves `.invalid`, so no resolver knows it.
    let nowhere = CoordinatorAddress {
        host: "coordinator.invalid".into(),
        port: 1313,
    };
    let error = Session::attest(&nowhere, &manifest, &Arc::default(), &clock())
        .await
        .expect_err("unknown");
    assert!(matches!(error, DialError::Unresolved { .. }), "{error:?}");
    assert!(!error.is_transient());
    assert_eq!(error.exit(), Exit::Unavailable);
}
