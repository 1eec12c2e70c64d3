use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use contrast_atls::{ClientConfig, Identity, Limits, ServerConfig, accept, connect};
use contrast_attestation::{PolicyHash, Tee, Verifier, software::SoftwareTee};
use contrast_clock::SystemWallClock;
use contrast_collateral::CompletingIssuer;
use tokio::{
    io::{AsyncReadExt, duplex},
    time::advance,
};

use super::*;
use crate::peer::link::Link;

const COORDINATOR: PolicyHash = PolicyHash([1; 32]);
const WORKLOAD: PolicyHash = PolicyHash([2; 32]);

/// Each verification reads the clock once.
#[derive(Debug, Default)]
struct CountingClock(AtomicUsize);

impl WallClock for CountingClock {
    fn now(&self) -> SystemTime {
        self.0.fetch_add(1, Ordering::SeqCst);
        SystemWallClock.now()
    }
}

fn trusting(tee: &SoftwareTee, name: &[u8], coordinators: &[PolicyHash]) -> Arc<Trusted> {
    let references = vec![tee.reference_value(Tee::Snp)];
    Arc::new(Trusted {
        manifest: ManifestHash::of(name),
        verifier: Verifier::new(references, [COORDINATOR, WORKLOAD]),
        coordinators: coordinators.iter().copied().collect::<BTreeSet<_>>(),
    })
}

struct Connected {
    tee: SoftwareTee,
    clock: Arc<CountingClock>,
    local: Local,
    client: contrast_atls::AtlsStream<tokio::io::DuplexStream>,
    server: contrast_atls::AtlsStream<tokio::io::DuplexStream>,
}

/// A connection whose client has proven itself.
async fn connected(policy: PolicyHash) -> Connected {
    let now = SystemWallClock.now();
    let tee = SoftwareTee::generate(now).expect("software TEE");
    let clock = Arc::new(CountingClock::default());
    let local = Local::new(CompletingIssuer {
        issuer: Arc::new(tee.snp_guest(policy)),
        collateral: Arc::new(Collateral::offline()),
        clock: Arc::clone(&clock) as Arc<dyn WallClock>,
    })
    .expect("a TLS key");
    let client = ClientConfig {
        identity: Arc::new(Identity::generate(now).expect("a TLS key")),
        issuer: Some(Arc::clone(&local.issuer)),
        verifier: None,
        clock: Arc::new(SystemWallClock),
        limits: Limits::client(),
    };
    let any_pod = trusting(&tee, b"", &[]).verifier.clone();
    let server = ServerConfig {
        identity: Arc::clone(&local.identity),
        issuer: None,
        verifier: Some(Arc::new(any_pod)),
        clock: Arc::new(SystemWallClock),
        limits: Limits::server(),
    };
    let (near, far) = duplex(64 << 10);
    let (client, server) = tokio::join!(connect(near, &client), accept(far, None, &server));
    Connected {
        tee,
        clock,
        local,
        client: client.expect("connects"),
        server: server.expect("accepts"),
    }
}

#[tokio::test(flavor = "current_thread")]
async fn verdict_is_kept_for_one_manifest_and_a_minute_and_refusals_are_not() {
    let connected = connected(COORDINATOR).await;
    let attested = connected.server.peer().attested.clone();
    let proof = Arc::new(Proof::new(&connected.local, attested));
    let start = connected.clock.0.load(Ordering::SeqCst);
    let verified = || connected.clock.0.load(Ordering::SeqCst) - start;
    let one = trusting(&connected.tee, b"one", &[COORDINATOR]);
    let two = trusting(&connected.tee, b"two", &[COORDINATOR]);
    let without = trusting(&connected.tee, b"without", &[WORKLOAD]);
    tokio::time::pause();

    proof.prove(&one).await.expect("a Coordinator");
    advance(VERDICT_LIFE - Duration::from_secs(1)).await;
    proof.prove(&one).await.expect("a Coordinator");
    proof.prove_coordinator(&one).expect("a Coordinator");
    assert_eq!(verified(), 1);
    advance(Duration::from_secs(1)).await;
    proof.prove(&one).await.expect("a Coordinator");
    assert_eq!(verified(), 2);
    proof.prove(&two).await.expect("a Coordinator");
    assert_eq!(verified(), 3);
    for times in 4..6 {
        let reason = proof.prove(&without).await.expect_err("another role");
        assert!(reason.contains("role: expected coordinator"), "{reason}");
        assert_eq!(verified(), times);
    }
    // A refusal under one manifest says nothing about another.
    proof.prove(&two).await.expect("a Coordinator");
    assert_eq!(verified(), 5);
}

#[tokio::test]
async fn connection_without_evidence_proves_nothing() {
    let connected = connected(COORDINATOR).await;
    let proof = Proof::new(&connected.local, None);
    let trusted = trusting(&connected.tee, b"one", &[COORDINATOR]);
    let reason = proof.prove_coordinator(&trusted).expect_err("no evidence");
    assert!(reason.contains("without evidence"), "{reason}");
    assert!(!proof.is_attested());
    assert_eq!(proof.summary(), None);
}

#[tokio::test]
async fn connection_with_an_end_fails_when_it_is_reached() {
    let mut connected = connected(COORDINATOR).await;
    let proof = Proof::new(&connected.local, None);
    let life = Duration::from_millis(50);
    let mut link = Link::new(connected.server, proof).ending_after(life);
    let alive = link.life();
    let mut byte = [0];
    let error = link.read(&mut byte).await.expect_err("it ended");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(alive.strong_count(), 1);
    drop(link);
    assert_eq!(alive.strong_count(), 0);
    connected
        .client
        .read(&mut byte)
        .await
        .expect_err("it is closed");
}
