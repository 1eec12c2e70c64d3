//! Honest peers, and a peer made by hand from the protocol document that behaves.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in helper functions, too"
)]

mod support;

use std::{
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use contrast_atls::{
    AtlsError, ClientConfig, Incompatibility, Limits, Phase, ServerConfig, accept, connect,
};
use contrast_attestation::{
    Evidence, EvidenceVerifier, IssueError, Issuer, PolicyHash, ReportData, VerifiedEvidence,
    VerifyError,
};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

async fn handshake(client: &ClientConfig, server: &ServerConfig) -> (Outcome, Outcome) {
    // A pipe smaller than an evidence frame: neither side may count on the other's buffer.
    let (near, far) = duplex(1000);
    tokio::join!(connect(near, client), accept(far, None, server))
}

#[tokio::test]
async fn mutual_handshake_attests_both_and_carries_application_bytes() {
    let world = World::shared();
    let (client_config, mut server_config) = (world.client(), world.server());
    server_config.issuer = Some(Arc::new(world.tee.tdx_guest(POLICY)));
    let (client, server) = handshake(&client_config, &server_config).await;
    let (mut client, mut server) = (client.expect("client"), server.expect("server"));

    assert_eq!(&*client.peer().spki, server_config.identity.spki());
    assert_eq!(&*server.peer().spki, client_config.identity.spki());
    let of_server = client
        .peer()
        .attested
        .clone()
        .expect("the server is attested");
    let of_client = server
        .peer()
        .attested
        .clone()
        .expect("the client is attested");
    assert_eq!(of_server.verified.tee().to_string(), "TDX");
    assert_eq!(of_client.verified.tee().to_string(), "SEV-SNP");
    assert_eq!(of_client.verified.policy_hash(), POLICY);

    let talk = async {
        client.write_all(b"ping").await?;
        client.flush().await?;
        let mut bytes = [0; 4];
        server.read_exact(&mut bytes).await?;
        std::io::Result::Ok(bytes)
    };
    assert_eq!(&talk.await.expect("talk"), b"ping");
}

#[tokio::test]
async fn client_without_a_tee_attests_the_server_only() {
    let world = World::shared();
    let client = ClientConfig {
        issuer: None,
        ..world.client()
    };
    let server = ServerConfig {
        verifier: None,
        ..world.server()
    };
    let (client, server) = handshake(&client, &server).await;
    assert!(client.expect("client").peer().attested.is_some());
    assert!(server.expect("server").peer().attested.is_none());
}

#[tokio::test]
async fn client_that_requires_nothing_is_attested_alone() {
    let world = World::shared();
    let client = ClientConfig {
        verifier: None,
        ..world.client()
    };
    let server = ServerConfig {
        issuer: None,
        ..world.server()
    };
    let (client, server) = handshake(&client, &server).await;
    assert!(client.expect("client").peer().attested.is_none());
    assert!(server.expect("server").peer().attested.is_some());
}

#[tokio::test]
async fn connection_on_which_nobody_is_attested_fails_on_both_sides() {
    let world = World::shared();
    let client = ClientConfig {
        verifier: None,
        ..world.client()
    };
    let server = ServerConfig {
        verifier: None,
        ..world.server()
    };
    let (client, server) = handshake(&client, &server).await;
    for error in [client.expect_err("client"), server.expect_err("server")] {
        assert!(matches!(
            error,
            AtlsError::PeerIncompatible(Incompatibility::NobodyRequiresEvidence)
        ));
    }
}

#[tokio::test]
async fn client_without_a_tee_learns_that_the_server_needs_its_evidence() {
    let world = World::shared();
    let client = ClientConfig {
        issuer: None,
        ..world.client()
    };
    let (client, server) = handshake(&client, &world.server()).await;
    assert!(matches!(client.expect_err("client"), AtlsError::NoIssuer));
    // The server was about to prove itself when the client went away.
    let error = server.expect_err("server");
    assert!(
        matches!(error, AtlsError::PeerClosed { .. } | AtlsError::Io { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn refused_client_reads_the_failed_checks() {
    let world = World::shared();
    let mut client = world.client();
    client.issuer = Some(Arc::new(world.tee.snp_guest(PolicyHash([8; 32]))));
    let (client, server) = handshake(&client, &world.server()).await;
    let refused = refusal(server);
    assert!(refused.contains("HOSTDATA"), "{refused}");
    match client.expect_err("client") {
        AtlsError::RefusedByPeer { reason } => assert_eq!(reason, refused),
        other => panic!("expected the reason, found {other:?}"),
    }
}

#[tokio::test]
async fn hand_made_client_that_follows_the_document_is_accepted() {
    let world = World::shared();
    let server = world.server();
    let (near, far) = duplex(64 * 1024);
    let client = async {
        let mut raw = RawTls::default().connect(near).await.expect("TLS");
        raw.send(HELLO, HELLO_STRICT).await;
        assert_eq!(raw.expect(HELLO).await, HELLO_STRICT);
        let shown = raw.expect(EVIDENCE).await;
        let expected = report_data("server", server.identity.spki(), &raw.exporter());
        assert!(
            shown.windows(64).any(|window| window == expected),
            "bound as documented"
        );
        raw.send(VERDICT, ACCEPTED).await;
        let evidence = world.evidence(raw.own_report_data("client"));
        raw.send(EVIDENCE, &evidence_body(&evidence)).await;
        assert_eq!(raw.expect(VERDICT).await, ACCEPTED);
        raw
    };
    let (server, raw) = tokio::join!(accept(far, None, &server), client);
    assert_eq!(&*server.expect("accepted").peer().spki, raw.spki);
}

#[tokio::test]
async fn hand_made_server_that_follows_the_document_is_accepted() {
    let world = World::shared();
    let client = world.client();
    let (near, far) = duplex(64 * 1024);
    let server = async {
        let mut raw = RawTls::default().accept(far).await.expect("TLS");
        raw.send(HELLO, HELLO_OPEN).await;
        assert_eq!(raw.expect(HELLO).await, HELLO_STRICT);
        let evidence = world.evidence(raw.own_report_data("server"));
        raw.send(EVIDENCE, &evidence_body(&evidence)).await;
        assert_eq!(raw.expect(VERDICT).await, ACCEPTED);
        raw
    };
    let (client, raw) = tokio::join!(connect(near, &client), server);
    assert_eq!(&*client.expect("accepted").peer().spki, raw.spki);
}

/// A TEE that hangs, as a driver may.
#[derive(Debug)]
struct HangingIssuer;

impl Issuer for HangingIssuer {
    fn issue(&self, _: &ReportData) -> Result<Evidence, IssueError> {
        thread::sleep(Duration::from_secs(2));
        Err(IssueError {
            tee: "SEV-SNP",
            reason: "too late".into(),
        })
    }
}

#[tokio::test]
async fn tee_that_hangs_meets_the_deadline() {
    let world = World::shared();
    let server = ServerConfig {
        issuer: Some(Arc::new(HangingIssuer)),
        limits: Limits {
            handshake: Duration::from_millis(200),
            ..Limits::server()
        },
        ..world.server()
    };
    let (client, server) = handshake(&world.client(), &server).await;
    let error = server.expect_err("deadline");
    assert!(
        matches!(
            error,
            AtlsError::Deadline {
                phase: Phase::Issue,
                ..
            }
        ),
        "{error:?}"
    );
    let error = client.expect_err("the server went away");
    assert!(
        matches!(
            error,
            AtlsError::PeerClosed {
                phase: Phase::Evidence
            }
        ),
        "{error:?}"
    );
}

/// A verifier with a bug.
#[derive(Debug)]
struct PanickingVerifier;

impl EvidenceVerifier for PanickingVerifier {
    fn verify(
        &self,
        _: &Evidence,
        _: &ReportData,
        _: SystemTime,
    ) -> Result<VerifiedEvidence, VerifyError> {
        panic!("a bug in a verifier")
    }
}

#[tokio::test]
async fn panic_in_the_verifier_refuses_the_peer_and_nothing_else() {
    let world = World::shared();
    let server = ServerConfig {
        verifier: Some(Arc::new(PanickingVerifier)),
        ..world.server()
    };
    let (client, server) = handshake(&world.client(), &server).await;
    let error = server.expect_err("refused");
    assert!(
        matches!(
            error,
            AtlsError::Panicked {
                phase: Phase::Appraise
            }
        ),
        "{error:?}"
    );
    assert!(client.is_err());
}
