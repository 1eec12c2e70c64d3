//! One test for each way to cheat. The cheating peer is made by hand and speaks real TLS.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in helper functions, too"
)]

mod support;

use contrast_atls::{AtlsError, ClientConfig, Misbehaviour, Phase, accept, connect};
use contrast_proto::evidence::Verdict;
use prost::Message;
use support::*;
use tokio::io::duplex;

/// Sends a Hello and an evidence frame with `body`; returns the reason of the refusal.
async fn show(mut raw: Raw, body: &[u8]) -> String {
    raw.send(HELLO, HELLO_OPEN).await;
    raw.expect(HELLO).await;
    raw.send(EVIDENCE, body).await;
    let verdict = Verdict::decode(&raw.expect(VERDICT).await[..]).expect("verdict");
    assert!(!verdict.accepted);
    assert!(
        raw.receive().await.is_err(),
        "the connection is closed after a refusal"
    );
    verdict.reason
}

fn assert_unbound(outcome: Outcome, told: &str) {
    let reason = refusal(outcome);
    assert!(reason.contains("REPORT_DATA"), "{reason}");
    assert_eq!(
        reason.matches("expected").count(),
        1,
        "nothing else is wrong: {reason}"
    );
    assert_eq!(told, reason, "the peer is told the same");
}

#[tokio::test]
async fn evidence_of_an_earlier_connection_is_refused() {
    let (accepted, recorded) = against_server(|mut raw| async move {
        let evidence = World::shared().evidence(raw.own_report_data("client"));
        raw.send(HELLO, HELLO_OPEN).await;
        raw.expect(HELLO).await;
        raw.send(EVIDENCE, &evidence_body(&evidence)).await;
        assert_eq!(raw.expect(VERDICT).await, ACCEPTED);
        evidence_body(&evidence)
    })
    .await;
    accepted.expect("fresh evidence is accepted");

    let (outcome, told) = against_server(|raw| async move { show(raw, &recorded).await }).await;
    assert_unbound(outcome, &told);
}

/// Passes frames between two TLS sessions until either side ends.
async fn relay(mut left: Raw, mut right: Raw) {
    loop {
        let (to_right, frame) = tokio::select! {
            frame = left.receive() => (true, frame),
            frame = right.receive() => (false, frame),
        };
        let Ok((kind, body)) = frame else { break };
        match to_right {
            true => right.send(kind, &body).await,
            false => left.send(kind, &body).await,
        }
    }
    left.close().await;
    right.close().await;
}

async fn with_a_man_in_the_middle(client: ClientConfig) -> (Outcome, Outcome) {
    let server = World::shared().server();
    let (client_end, left) = duplex(64 * 1024);
    let (right, server_end) = duplex(64 * 1024);
    let man_in_the_middle = async {
        let (left, right) = tokio::join!(
            RawTls::default().accept(left),
            RawTls::default().connect(right)
        );
        relay(left.expect("TLS"), right.expect("TLS")).await;
    };
    let (client, server, ()) = tokio::join!(
        connect(client_end, &client),
        accept(server_end, None, &server),
        man_in_the_middle
    );
    (client, server)
}

#[tokio::test]
async fn man_in_the_middle_who_relays_frames_is_refused() {
    // The client requires evidence: it sees that the server's is for another connection.
    let (client, server) = with_a_man_in_the_middle(World::shared().client()).await;
    let reason = refusal(client);
    assert!(reason.contains("REPORT_DATA"), "{reason}");
    assert!(
        matches!(server, Err(AtlsError::RefusedByPeer { .. })),
        "{server:?}"
    );

    // The client requires none: the server sees that the client's is for another connection.
    let careless = ClientConfig {
        verifier: None,
        ..World::shared().client()
    };
    let (client, server) = with_a_man_in_the_middle(careless).await;
    let reason = refusal(server);
    assert!(reason.contains("REPORT_DATA"), "{reason}");
    assert!(
        matches!(client, Err(AtlsError::RefusedByPeer { .. })),
        "{client:?}"
    );
}

#[tokio::test]
async fn servers_own_evidence_sent_back_is_refused() {
    let (outcome, told) = against_server(|mut raw| async move {
        raw.send(HELLO, HELLO_STRICT).await;
        raw.expect(HELLO).await;
        let reflected = raw.expect(EVIDENCE).await;
        raw.send(VERDICT, ACCEPTED).await;
        raw.send(EVIDENCE, &reflected).await;
        Verdict::decode(&raw.expect(VERDICT).await[..])
            .expect("verdict")
            .reason
    })
    .await;
    assert_unbound(outcome, &told);
}

#[tokio::test]
async fn evidence_for_the_wrong_role_is_refused() {
    let (outcome, told) = against_server(|raw| async move {
        let evidence = World::shared().evidence(raw.own_report_data("server"));
        show(raw, &evidence_body(&evidence)).await
    })
    .await;
    assert_unbound(outcome, &told);
}

#[tokio::test]
async fn evidence_for_another_key_is_refused() {
    let (outcome, told) = against_server(|raw| async move {
        let data = report_data("client", identity().spki(), &raw.exporter());
        show(raw, &evidence_body(&World::shared().evidence(data))).await
    })
    .await;
    assert_unbound(outcome, &told);
}

#[tokio::test]
async fn evidence_of_another_tee_is_refused() {
    let (outcome, told) = against_server(|raw| async move {
        let evidence = World::new().evidence(raw.own_report_data("client"));
        show(raw, &evidence_body(&evidence)).await
    })
    .await;
    assert_eq!(refusal(outcome), told);
}

#[tokio::test]
async fn certificate_of_somebody_else_is_refused() {
    let world = World::shared();
    let server = world.server();
    let stolen = identity().certificate_der().to_vec();
    let (near, far) = duplex(64 * 1024);
    let thief = RawTls {
        key: Key::StolenCertificate(stolen),
        ..RawTls::default()
    };
    let (outcome, raw) = tokio::join!(accept(far, None, &server), thief.connect(near));
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::Tls(rustls::Error::InvalidCertificate(
            rustls::CertificateError::BadSignature
        ))
    ));
    drop(raw);

    let client = world.client();
    let stolen = identity().certificate_der().to_vec();
    let (near, far) = duplex(64 * 1024);
    let thief = RawTls {
        key: Key::StolenCertificate(stolen),
        ..RawTls::default()
    };
    let (outcome, _) = tokio::join!(connect(near, &client), thief.accept(far));
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::Tls(rustls::Error::InvalidCertificate(
            rustls::CertificateError::BadSignature
        ))
    ));
}

#[tokio::test]
async fn missing_evidence_is_refused() {
    let (outcome, ()) = against_server(|mut raw| async move {
        raw.send(HELLO, HELLO_OPEN).await;
        raw.expect(HELLO).await;
        raw.close().await;
    })
    .await;
    let error = outcome.expect_err("no evidence");
    assert!(
        matches!(
            error,
            AtlsError::PeerClosed {
                phase: Phase::Evidence
            }
        ),
        "{error:?}"
    );
    assert!(error.is_attestation_failure());

    // A verdict in place of evidence does not count as one.
    let (outcome, ()) = against_server(|mut raw| async move {
        raw.send(HELLO, HELLO_OPEN).await;
        raw.send(VERDICT, ACCEPTED).await;
        raw.expect(HELLO).await;
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::UnexpectedFrame {
            expected: "EvidenceFrame",
            found_kind: VERDICT,
            ..
        }
    ));
}

#[tokio::test]
async fn empty_evidence_is_refused() {
    let (outcome, ()) = against_server(|mut raw| async move {
        raw.send(HELLO, HELLO_OPEN).await;
        raw.send(EVIDENCE, &[]).await;
        raw.expect(HELLO).await;
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::EvidenceMissing
    ));
}

#[tokio::test]
async fn client_without_a_certificate_is_refused() {
    let server = World::shared().server();
    let (near, far) = duplex(64 * 1024);
    let nobody = RawTls {
        key: Key::None,
        ..RawTls::default()
    };
    let (outcome, raw) = tokio::join!(accept(far, None, &server), nobody.connect(near));
    assert!(matches!(misbehaviour(outcome), Misbehaviour::NoCertificate));
    // In TLS 1.3 the client is done before the server looks; it learns of the refusal with its first read.
    assert!(raw.expect("TLS").receive().await.is_err());
}
