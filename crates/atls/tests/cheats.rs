//! One test for each way to cheat. The cheating peer is made by hand and speaks real TLS.

mod support;

use std::{future::Future, time::Duration};

use contrast_atls::{
    AtlsError, AtlsStream, ClientConfig, Incompatibility, Limits, Misbehaviour, Phase,
    ServerConfig, accept, connect,
};
use contrast_proto::evidence::Verdict;
use prost::Message;
use rustls::version::TLS12;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

type Outcome = Result<AtlsStream<DuplexStream>, AtlsError>;

/// Lets `cheat` talk to an honest server that requires evidence.
async fn against_server<F: Future>(cheat: impl FnOnce(Raw) -> F) -> (Outcome, F::Output) {
    let server = World::shared().server();
    let (near, far) = duplex(64 * 1024);
    let cheat = async { cheat(RawTls::default().connect(near).await.expect("TLS")).await };
    tokio::join!(accept(far, None, &server), cheat)
}

/// Lets `cheat` talk to an honest client that requires evidence and gives some.
async fn against_client<F: Future>(cheat: impl FnOnce(Raw) -> F) -> (Outcome, F::Output) {
    let client = World::shared().client();
    let (near, far) = duplex(64 * 1024);
    let cheat = async { cheat(RawTls::default().accept(far).await.expect("TLS")).await };
    tokio::join!(connect(near, &client), cheat)
}

fn misbehaviour(outcome: Outcome) -> Misbehaviour {
    match outcome {
        Err(AtlsError::PeerMisbehaved(misbehaviour)) => misbehaviour,
        other => panic!("expected misbehaviour, found {other:?}"),
    }
}

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

#[tokio::test]
async fn truncated_frame_is_refused() {
    let (outcome, ()) = against_server(|mut raw| async move {
        raw.send(HELLO, HELLO_OPEN).await;
        raw.expect(HELLO).await;
        raw.send_bytes(&[EVIDENCE, 0, 0, 1, 0, 0x0a, 0x0b]).await;
        raw.close().await;
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::TruncatedFrame {
            frame: "EvidenceFrame",
            missing: 254
        }
    ));
}

#[tokio::test]
async fn oversized_frame_is_refused_from_its_header() {
    let header = |kind: u8, length: u32| [&[kind], &length.to_be_bytes()[..]].concat();
    let too_much = Limits::EVIDENCE_FRAME_BYTES_MAX + 1;
    // Nothing but the header is sent and the connection stays open: only a check of the header can end the handshake.
    let (outcome, _raw) = against_server(|mut raw| async move {
        raw.send(HELLO, HELLO_OPEN).await;
        raw.expect(HELLO).await;
        raw.send_bytes(&header(EVIDENCE, too_much)).await;
        raw
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::FrameTooLarge { frame: "EvidenceFrame", found, .. } if found == too_much
    ));

    let (outcome, _raw) = against_server(|mut raw| async move {
        raw.send_bytes(&header(HELLO, u32::MAX)).await;
        raw
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::FrameTooLarge {
            frame: "Hello",
            limit: 64,
            found: u32::MAX
        }
    ));
}

#[tokio::test]
async fn garbage_in_a_frame_is_refused() {
    for (kind, frame) in [(HELLO, "Hello"), (EVIDENCE, "EvidenceFrame")] {
        let (outcome, ()) = against_server(|mut raw| async move {
            if kind == EVIDENCE {
                raw.send(HELLO, HELLO_OPEN).await;
            }
            raw.send(kind, &[0xff; 40]).await;
            raw.expect(HELLO).await;
        })
        .await;
        let found = misbehaviour(outcome);
        assert!(
            matches!(found, Misbehaviour::NotProtobuf { frame: f, .. } if f == frame),
            "{found}"
        );
    }
}

#[tokio::test]
async fn other_protocol_version_is_refused() {
    let (outcome, ()) = against_server(|mut raw| async move {
        raw.send(HELLO, &[0x08, 2]).await;
        raw.expect(HELLO).await;
    })
    .await;
    assert!(matches!(
        outcome,
        Err(AtlsError::PeerIncompatible(Incompatibility::Version {
            expected: 1,
            found: 2
        }))
    ));
}

#[tokio::test]
async fn refusing_verdict_reaches_the_refused_side_with_its_reason() {
    let (outcome, ()) = against_client(|mut raw| async move {
        raw.send(HELLO, HELLO_STRICT).await;
        raw.expect(HELLO).await;
        let evidence = World::shared().evidence(raw.own_report_data("server"));
        raw.send(EVIDENCE, &evidence_body(&evidence)).await;
        assert_eq!(raw.expect(VERDICT).await, ACCEPTED);
        raw.expect(EVIDENCE).await;
        let verdict = Verdict {
            accepted: false,
            reason: "HOSTDATA: expected 00, found 07".into(),
        };
        raw.send(VERDICT, &verdict.encode_to_vec()).await;
    })
    .await;
    match outcome {
        Err(AtlsError::RefusedByPeer { reason }) => {
            assert_eq!(reason, "HOSTDATA: expected 00, found 07");
        }
        other => panic!("expected the reason, found {other:?}"),
    }
}

#[tokio::test]
async fn application_bytes_before_the_verdict_are_refused() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (outcome, _raw) = against_server(|mut raw| async move {
        raw.send(HELLO, HELLO_OPEN).await;
        raw.send_bytes(PREFACE).await;
        raw
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::UnexpectedFrame {
            expected: "EvidenceFrame",
            found_kind: b'P',
            ..
        }
    ));

    let (outcome, _raw) = against_client(|mut raw| async move {
        raw.send(HELLO, HELLO_STRICT).await;
        let evidence = World::shared().evidence(raw.own_report_data("server"));
        raw.send(EVIDENCE, &evidence_body(&evidence)).await;
        raw.send_bytes(PREFACE).await;
        raw
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::UnexpectedFrame {
            expected: "Verdict",
            found_kind: b'P',
            ..
        }
    ));
}

#[tokio::test]
async fn peer_that_closes_midway_is_named_with_the_phase() {
    let (outcome, ()) = against_client(|raw| async move { raw.close().await }).await;
    assert!(
        matches!(
            outcome,
            Err(AtlsError::PeerClosed {
                phase: Phase::Hello
            })
        ),
        "{outcome:?}"
    );

    // The transport ends inside the TLS handshake.
    let server = World::shared().server();
    let (mut near, far) = duplex(64 * 1024);
    let vanish = async move { near.write_all(&[22, 3, 1]).await.expect("three bytes") };
    let (outcome, ()) = tokio::join!(accept(far, None, &server), vanish);
    assert!(
        matches!(outcome, Err(AtlsError::PeerClosed { phase: Phase::Tls })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn tls12_peer_is_refused() {
    let world = World::shared();
    let old = || RawTls {
        versions: vec![&TLS12],
        ..RawTls::default()
    };
    let (server, client) = (world.server(), world.client());

    let (near, far) = duplex(64 * 1024);
    let (outcome, raw) = tokio::join!(accept(far, None, &server), old().connect(near));
    assert!(raw.is_err());
    assert!(
        matches!(
            outcome,
            Err(AtlsError::PeerIncompatible(Incompatibility::Tls(_)))
        ),
        "{outcome:?}"
    );

    let (near, far) = duplex(64 * 1024);
    let (outcome, raw) = tokio::join!(connect(near, &client), old().accept(far));
    assert!(raw.is_err());
    assert!(
        matches!(
            outcome,
            Err(AtlsError::PeerIncompatible(Incompatibility::Tls(_)))
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn peer_of_another_application_protocol_is_told_apart() {
    let world = World::shared();
    let (server, client) = (world.server(), world.client());
    for alpn in [&b"h2"[..], b""] {
        let other = || RawTls {
            alpn,
            ..RawTls::default()
        };
        let (near, far) = duplex(64 * 1024);
        let (outcome, _raw) = tokio::join!(accept(far, None, &server), other().connect(near));
        assert!(
            matches!(
                outcome,
                Err(AtlsError::PeerIncompatible(
                    Incompatibility::ApplicationProtocol
                ))
            ),
            "{alpn:?}: {outcome:?}"
        );
        let (near, far) = duplex(64 * 1024);
        let (outcome, _raw) = tokio::join!(connect(near, &client), other().accept(far));
        assert!(
            matches!(
                outcome,
                Err(AtlsError::PeerIncompatible(
                    Incompatibility::ApplicationProtocol
                ))
            ),
            "{alpn:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn peer_that_does_not_speak_tls_is_refused() {
    let server = World::shared().server();
    let (mut near, far) = duplex(64 * 1024);
    let talk = async move {
        near.write_all(b"GET / HTTP/1.1\r\n\r\n")
            .await
            .expect("request");
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.expect("closed");
    };
    let (outcome, ()) = tokio::join!(accept(far, None, &server), talk);
    let found = misbehaviour(outcome);
    assert!(
        matches!(found, Misbehaviour::Tls(rustls::Error::InvalidMessage(_))),
        "{found:?}"
    );
}

/// Runs an honest server against `cheat` on paused time; returns how long it took and where it hung.
async fn hang<F: Future>(cheat: impl FnOnce(DuplexStream) -> F) -> (Duration, Phase) {
    let server = ServerConfig {
        limits: Limits {
            handshake: Duration::from_secs(25),
            ..Limits::server()
        },
        ..World::shared().server()
    };
    let (near, far) = duplex(64 * 1024);
    let cheat = cheat(near);
    let start = tokio::time::Instant::now();
    tokio::select! {
        outcome = accept(far, None, &server) => match outcome {
            Err(AtlsError::Deadline { limit, phase }) => {
                assert_eq!(limit, Duration::from_secs(25));
                (start.elapsed(), phase)
            }
            other => panic!("expected the deadline, found {other:?}"),
        },
        _ = cheat => panic!("the cheating peer outlived the server's patience"),
    }
}

#[tokio::test(start_paused = true)]
async fn silent_peer_meets_the_deadline() {
    let on_time = |took: Duration| (25_000..25_100).contains(&took.as_millis());

    let (took, phase) = hang(|io| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(io);
    })
    .await;
    assert!(on_time(took) && phase == Phase::Tls, "{took:?} {phase:?}");

    let (took, phase) = hang(|io| async move {
        let _raw = RawTls::default().connect(io).await.expect("TLS");
        tokio::time::sleep(Duration::from_secs(600)).await;
    })
    .await;
    assert!(on_time(took) && phase == Phase::Hello, "{took:?} {phase:?}");
}

#[tokio::test(start_paused = true)]
async fn peer_that_drips_bytes_meets_the_same_deadline() {
    let (took, phase) = hang(|io| async move {
        let mut raw = RawTls::default().connect(io).await.expect("TLS");
        raw.send(HELLO, HELLO_OPEN).await;
        raw.send_bytes(&[EVIDENCE, 0, 0, 1, 0]).await;
        for _ in 0..256 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            raw.send_bytes(&[0]).await;
        }
    })
    .await;
    assert!((25_000..25_100).contains(&took.as_millis()), "{took:?}");
    assert_eq!(phase, Phase::Evidence);
}
